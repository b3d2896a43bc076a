"""The Kafka client's options: what is passed through from the environment, what is fixed, what is
ours unless told otherwise, and what is wrong with them.

Stands apart from the settings because the client itself is asked, before anything is connected: a
misspelt option is wrong use, told with all the other problems, and not a failure of the broker.
"""

from collections.abc import Mapping
from typing import Annotated

from confluent_kafka import Consumer, KafkaException
from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource

PREFIX = "VIEWKEEPER_KAFKA_"
_OWN_NAMES = {"VIEWKEEPER_KAFKA_BOOTSTRAP_SERVERS"}
FIXED_OPTIONS = {
    "enable.auto.commit": "false",
    "enable.auto.offset.store": "false",
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
    "partition.assignment.strategy": "cooperative-sticky",
}
"""What the exactly-once commit rests on (docs/architecture.md)."""
OWN_OPTIONS = {"max.partition.fetch.bytes": "131072", "queued.max.messages.kbytes": "16384"}
"""Little of each partition at a time, so that a batch from a backlog holds an order's events and
its payments, and not one topic after the other; and a bound on what is fetched ahead. Can be
overridden, for brokers that are far away."""
PROMPT_OPTIONS = {"metadata.recovery.rebootstrap.trigger.ms": "10000"}
"""Brokers that name no live one for a moment, as a frozen one does when it wakes, leave librdkafka
with nobody to ask until it begins anew with the bootstrap servers: after 5 minutes, unless told."""


def passed_through(environment: Mapping[str, str | None]) -> dict[str, str]:
    """The client options that `VIEWKEEPER_KAFKA_<OPTION>` variables set, by their Kafka names."""
    given = {name.upper(): value or "" for name, value in environment.items()}
    return {
        name.removeprefix(PREFIX).lower().replace("_", "."): value
        for name, value in given.items()
        if name.startswith(PREFIX) and name not in _OWN_NAMES
    }


def _given() -> dict[str, str]:
    """From the environment and `.env`, as every other setting is read."""
    file = DotEnvSettingsSource(BaseSettings, env_file=".env").env_vars
    return passed_through({**file, **EnvSettingsSource(BaseSettings).env_vars})


def _usable(options: dict[str, str]) -> dict[str, str]:
    problems = [
        f"{_variable(name)}: is fixed to {value}, the exactly-once commit rests on it"
        for name, value in FIXED_OPTIONS.items()
        if name in options
    ]
    problems += _refused({n: v for n, v in options.items() if n not in FIXED_OPTIONS})
    if problems:
        raise ValueError("\n  ".join(problems))
    return options


def _refused(options: Mapping[str, str]) -> list[str]:
    """What the client says of these options, one after the other, until it takes the rest."""
    left = dict(options)
    problems: list[str] = []
    while left:
        try:
            Consumer({"group.id": "none", "log_level": "0", **left, **FIXED_OPTIONS}).close()
        except KafkaException as error:
            words = error.args[0].str().strip()
            named = sorted((name for name in left if name in words), key=len)
            if not named:
                return [*problems, f"{PREFIX}<OPTION>: {words}"]
            told = words.replace(f'"{left.pop(named[-1])}" ', "")  # values are not repeated
            problems.append(f"{_variable(named[-1])}: {told}")
        else:
            break
    return problems


def _variable(option: str) -> str:
    return PREFIX + option.upper().replace(".", "_")


KafkaOptions = Annotated[
    dict[str, str],
    AfterValidator(_usable),
    Field(default_factory=_given, validate_default=True),
]
"""A field of settings: every option that was given, or a problem for each that can't be used."""
