"""The API's settings: what is missing or wrong is said at once, and no secret is ever shown."""

import pytest
from pydantic import ValidationError

from api.settings import ApiSettings

URL = "postgresql://reader:hunter2@127.0.0.1/shop"


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.chdir(str(tmp_path))
    for name in ("API_DATABASE_URL", "DATABASE_URL", "MODE", "API_PORT"):
        monkeypatch.delenv(f"VIEWKEEPER_{name}", raising=False)


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
