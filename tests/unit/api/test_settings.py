"""The API's settings: what is missing or wrong is said at once, and no secret is ever shown."""

import os

import pytest
from pydantic import ValidationError

from api.settings import ApiSettings

URL = "postgresql://reader:hunter2@127.0.0.1/shop"


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.chdir(str(tmp_path))
    for name in [name for name in os.environ if name.startswith("VIEWKEEPER_")]:
        monkeypatch.delenv(name)


def test_production_needs_a_login_that_can_only_read() -> None:
    with pytest.raises(ValidationError, match="VIEWKEEPER_API_DATABASE_URL"):
        ApiSettings.model_validate({"database_url": URL})
    assert not ApiSettings.model_validate({"api_database_url": URL}).reads_as_owner


def test_the_owner_may_read_in_dev_and_demo() -> None:
    for mode in ("dev", "demo"):
        settings = ApiSettings.model_validate({"database_url": URL, "mode": mode})
        assert settings.reads_as_owner
        assert settings.dsn == URL


def test_ide_and_introspection_are_closed_in_production_unless_opened() -> None:
    closed = ApiSettings.model_validate({"api_database_url": URL})
    assert (closed.ide, closed.introspection) == (False, False)
    demo = ApiSettings.model_validate({"api_database_url": URL, "mode": "demo"})
    assert (demo.ide, demo.introspection) == (True, True)
    opened = {"api_database_url": URL, "api_ide": True, "api_introspection": True}
    assert ApiSettings.model_validate(opened).ide


def test_a_secret_is_in_no_message() -> None:
    wrong = {"api_database_url": "mysql://reader:hunter2@x/y", "api_port": 99999}
    with pytest.raises(ValidationError) as caught:
        ApiSettings.model_validate(wrong)
    assert len(caught.value.errors()) == 2
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(ApiSettings.model_validate({"api_database_url": URL}))


def test_behind_a_pooler_it_must_know_where_to_listen() -> None:
    pooled = {"api_database_url": URL, "api_pooler": "transaction"}
    with pytest.raises(ValidationError, match="VIEWKEEPER_NOTIFY_DATABASE_URL"):
        ApiSettings.model_validate(pooled)
    ApiSettings.model_validate({**pooled, "notify_database_url": URL})


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:%zzhunter2@h/d",
        "postgresql://u:hun/ter2@h/d",
        "postgresql://u:x@hunter2@h/d",
        "postgresql://u:p@h:hunter2/d",
    ],
)
def test_an_address_that_would_be_taken_apart_wrongly_is_refused_unseen(url: str) -> None:
    with pytest.raises(ValidationError, match="is not an address") as caught:
        ApiSettings.model_validate({"api_database_url": url, "notify_database_url": url})
    assert len(caught.value.errors()) == 2
    assert "hunter2" not in str(caught.value)


def test_several_hosts_are_an_address() -> None:
    several = "postgresql://u:p%40ss@db1:5432,db2:5432/d?target_session_attrs=primary"
    assert ApiSettings.model_validate({"api_database_url": several}).dsn == several


def test_every_problem_is_told_at_once() -> None:
    wrong = {
        "mode": "holiday",
        "api_port": "many",
        "api_page_default": 50,
        "api_page_most": 20,
        "api_jwt_secret": "short",
        "api_only_trusted_documents": True,
    }
    with pytest.raises(ValidationError) as caught:
        ApiSettings.model_validate(wrong)
    named = {str(problem["loc"][0]) for problem in caught.value.errors()}
    missing = {"api_database_url", "api_jwt_audience", "api_jwt_issuer"}
    assert named == (wrong.keys() - {"api_page_default"}) | missing


def test_a_missing_login_is_told_beside_other_problems() -> None:
    with pytest.raises(ValidationError) as caught:
        ApiSettings.model_validate({"api_port": "many"})
    assert {problem["loc"][0] for problem in caught.value.errors()} == {
        "api_port",
        "api_database_url",
    }


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"api_jwks_url": "http://keys"}, "give one of them"),
        ({"api_jwt_issuer": None}, "VIEWKEEPER_API_JWT_ISSUER is missing"),
        ({"api_jwt_audience": None}, "VIEWKEEPER_API_JWT_AUDIENCE is missing"),
        (
            {"api_database_url": None, "database_url": URL, "mode": "dev"},
            "the owner's login sees every row",
        ),
    ],
)
def test_tokens_need_all_that_they_are_judged_by(given: dict[str, object], words: str) -> None:
    whole = {
        "api_database_url": URL,
        "api_jwt_secret": "s" * 32,
        "api_jwt_audience": "views",
        "api_jwt_issuer": "login",
    }
    assert ApiSettings.model_validate(whole).token_rules is not None
    with pytest.raises(ValidationError, match=words):
        ApiSettings.model_validate(whole | given)


def test_spans_need_their_extra_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {"api_database_url": URL, "api_traces": True}
    assert ApiSettings.model_validate(wanted).api_traces
    monkeypatch.setattr("api.settings.find_spec", lambda _: None)
    with pytest.raises(ValidationError, match=r"pip install 'viewkeeper\[otel\]'"):
        ApiSettings.model_validate(wanted)
