"""What an error of the database means to who asked: whose fault it is, whether to come again."""

import psycopg
import pytest
from psycopg import errors

from api.errors import ApiError, BuildGoneError
from api.read import meaning_of

MEANINGS: dict[type[psycopg.Error], str] = {
    errors.StatementTooComplex: "QUERY_TOO_COMPLEX",
    errors.ProgramLimitExceeded: "QUERY_TOO_COMPLEX",
    errors.TooManyColumns: "QUERY_TOO_COMPLEX",
    errors.TooManyArguments: "QUERY_TOO_COMPLEX",
    errors.QueryCanceled: "TIMEOUT",
    errors.AdminShutdown: "UNAVAILABLE",
    errors.CannotConnectNow: "UNAVAILABLE",
    errors.TooManyConnections: "UNAVAILABLE",
    errors.OutOfMemory: "UNAVAILABLE",
    errors.DiskFull: "UNAVAILABLE",
    errors.InsufficientPrivilege: "UNAVAILABLE",
    psycopg.OperationalError: "UNAVAILABLE",
}


@pytest.mark.parametrize("kind", MEANINGS)
def test_each_kind_of_error_has_a_declared_code(kind: type[psycopg.Error]) -> None:
    meaning = meaning_of(kind("what the server said"))
    assert isinstance(meaning, ApiError)
    assert (meaning.extensions or {})["code"] == MEANINGS[kind]
    assert "what the server said" not in meaning.message


@pytest.mark.parametrize(
    "kind", [errors.UndefinedTable, errors.InvalidSchemaName, errors.SerializationFailure]
)
def test_what_a_swap_leaves_behind_is_run_again(kind: type[psycopg.Error]) -> None:
    assert isinstance(meaning_of(kind("gone")), BuildGoneError)


@pytest.mark.parametrize(
    "kind", [errors.SyntaxError, errors.DivisionByZero, errors.DatatypeMismatch]
)
def test_what_nobody_expected_stays_what_it_is(kind: type[psycopg.Error]) -> None:
    error = kind("ours to mend")
    assert meaning_of(error) is error
