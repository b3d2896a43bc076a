"""How a command fails: which errors are expected, what is said, and the exit code.

Stands apart so that no command catches anything by itself. 0 done; 1 the thing asked for failed or
found a difference; 2 wrong usage or settings. An error that is not listed here is a bug and shows
its traceback. Imported once something has failed: it knows the errors of every library.
"""

from typing import Any

import psycopg
from confluent_kafka import KafkaException
from pydantic import ValidationError
from pydantic_settings.exceptions import SettingsError

from cli.misuse import CommandError, UsageError
from dev.feed import NotDeliveredError
from ingest.errors import RefusedError, TransientError
from ingest.operate import UnknownThingError
from schemas.contracts import ContractError
from schemas.encode import EncodeError
from schemas.registry import BadRegistryAddressError, RegistryError
from views.positions import BadPositionError

FAILED, MISUSED = 1, 2


_SENTENCES = (
    CommandError,
    ContractError,
    EncodeError,
    NotDeliveredError,
    RefusedError,
    RegistryError,
    TransientError,
    UnknownThingError,
)
_WRONG_USE = (BadPositionError, BadRegistryAddressError, UsageError)


def told(error: Exception) -> tuple[str, int] | None:
    """What is said of an error, and the exit code. None: it is a bug."""
    match error:
        case ValidationError():
            problems = "\n".join(settings_problems(error))
            return f"The settings are not usable:\n{problems}", MISUSED
        case SettingsError():
            return f"The settings are not usable: {error}", MISUSED
        case psycopg.Error():
            return _of_database(error), FAILED
        case KafkaException():
            return f"Kafka refused: {error.args[0].str()}", FAILED
    if isinstance(error, _WRONG_USE):
        return str(error), MISUSED
    if isinstance(error, _SENTENCES):
        return str(error), FAILED
    return None


def settings_problems(error: ValidationError) -> list[str]:
    """One line per setting, by its name in the environment; never the value that was given."""
    return sorted(f"  {_told(problem)}" for problem in error.errors())


def _told(problem: Any) -> str:
    """A problem of several settings names them itself."""
    reason = _reason(problem)
    return reason if reason.startswith("VIEWKEEPER_") else _name(problem["loc"]) + reason


def _name(place: tuple[int | str, ...]) -> str:
    return f"VIEWKEEPER_{str(place[0]).upper()}: " if place else ""


def _reason(problem: Any) -> str:
    """pydantic's message for a pattern is a pattern, which helps nobody; none names the value."""
    match problem["type"]:
        case "missing":
            return "is not set"
        case "string_pattern_mismatch" if "http" in problem["ctx"]["pattern"]:
            return "must begin with http:// or https://"
        case "string_too_short":
            return "is empty"
        case _:
            return str(problem["msg"]).removeprefix("Value error, ")


def _of_database(error: psycopg.Error) -> str:
    """The server's own words. A missing schema means that nobody has migrated yet."""
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.InvalidSchemaName):
        return (
            f"The database has no tables of viewkeeper yet: run `alembic upgrade head`. ({error})"
        )
    if isinstance(error, psycopg.OperationalError):
        return f"The database cannot be used: {error}".rstrip()
    return f"The database refused: {error}".rstrip()
