"""Wrong settings and wrong use: everything in one message, exit code 2, no secret."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.dead_letters import hex_lines
from cli.main import app
from cli.settings import KafkaSettings
from ingest.settings import IngestSettings

SECRET = "hunter2-very-secret"
SERVERS = {
    "VIEWKEEPER_DATABASE_URL": "postgresql://u:p@127.0.0.1:1/d",
    "VIEWKEEPER_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "VIEWKEEPER_SCHEMA_REGISTRY_URL": "http://127.0.0.1:1",
}
"""Every server of a worker, none of which is there."""


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder and an environment without any setting of ours, nor a developer's `.env`."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("VIEWKEEPER_")]:
        monkeypatch.delenv(name)


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env=environment)


@pytest.mark.parametrize("command", ["ingest", "status", "produce", "schemas register"])
def test_every_missing_setting_is_named_at_once(command: str) -> None:
    done = run(*command.split())
    assert done.exit_code == 2
    wanted = {
        "ingest": {"DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS", "SCHEMA_REGISTRY_URL"},
        "status": {"DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS"},
        "produce": {"KAFKA_BOOTSTRAP_SERVERS", "SCHEMA_REGISTRY_URL"},
        "schemas register": {"SCHEMA_REGISTRY_URL"},
    }[command]
    for name in wanted:
        assert f"VIEWKEEPER_{name}: is not set" in done.stderr


@pytest.mark.parametrize("command", ["ingest", "status"])
@pytest.mark.parametrize(
    "url", [f"mysql://u:{SECRET}@h/d", f"postgresql://u:%zz{SECRET}@h/d", f"{SECRET}"]
)
def test_a_wrong_setting_is_told_without_its_value(command: str, url: str) -> None:
    done = run(
        command,
        VIEWKEEPER_DATABASE_URL=url,
        VIEWKEEPER_KAFKA_BOOTSTRAP_SERVERS="",
        VIEWKEEPER_SCHEMA_REGISTRY_URL="ftp://x",
    )
    assert done.exit_code == 2, done.output
    assert "VIEWKEEPER_DATABASE_URL: " in done.stderr
    assert "VIEWKEEPER_KAFKA_BOOTSTRAP_SERVERS: is empty" in done.stderr
    assert SECRET not in done.output


def test_settings_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"VIEWKEEPER_DATABASE_URL=mysql://u:{SECRET}@h/d\n")
    done = run("dead-letters", "list")
    assert done.exit_code == 2
    assert "must begin with postgresql://" in done.stderr
    assert SECRET not in done.output


@pytest.mark.parametrize("command", ["ingest", "status"])
def test_options_of_the_kafka_client_are_checked_with_everything_else(command: str) -> None:
    done = run(
        command,
        VIEWKEEPER_KAFKA_ENABLE_AUTO_COMMIT="true",
        VIEWKEEPER_KAFKA_NO_SUCH_THING="1",
        VIEWKEEPER_KAFKA_SESSION_TIMEOUT_MS="soon",
        VIEWKEEPER_KAFKA_SECURITY_PROTOCOL=SECRET,
    )
    assert done.exit_code == 2, done.output
    for told in (
        "VIEWKEEPER_DATABASE_URL: is not set",
        "VIEWKEEPER_KAFKA_BOOTSTRAP_SERVERS: is not set",
        "VIEWKEEPER_KAFKA_ENABLE_AUTO_COMMIT: is fixed to false",
        "VIEWKEEPER_KAFKA_NO_SUCH_THING: No such configuration property",
        "VIEWKEEPER_KAFKA_SESSION_TIMEOUT_MS: Invalid value",
        "VIEWKEEPER_KAFKA_SECURITY_PROTOCOL: Invalid value",
    ):
        assert told in done.stderr
    assert SECRET not in done.output


def test_options_that_only_go_together_are_refused_together() -> None:
    done = run("ingest", **SERVERS, VIEWKEEPER_KAFKA_SECURITY_PROTOCOL="sasl_ssl",
               VIEWKEEPER_KAFKA_SASL_MECHANISM="PLAIN")  # fmt: skip
    assert done.exit_code == 2, done.output
    assert "sasl.username and sasl.password must be set" in done.stderr


def test_options_of_the_kafka_client_may_come_from_a_file(tmp_path: Path) -> None:
    lines = [f"{name}={value}" for name, value in SERVERS.items()]
    file = tmp_path / ".env"
    file.write_text("\n".join([*lines, "VIEWKEEPER_KAFKA_CLIENT_RACK=b"]))
    assert IngestSettings.model_validate({}).consumer_options()["client.rack"] == "b"
    file.write_text("\n".join([*lines, "VIEWKEEPER_KAFKA_ENABLE_AUTO_COMMIT=true"]))
    done = run("ingest")
    assert done.exit_code == 2, done.output
    assert "VIEWKEEPER_KAFKA_ENABLE_AUTO_COMMIT: is fixed" in done.stderr


def test_what_the_environment_says_of_an_option_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("VIEWKEEPER_KAFKA_CLIENT_RACK=file\n")
    monkeypatch.setenv("VIEWKEEPER_KAFKA_CLIENT_RACK", "environment")
    settings = KafkaSettings.model_validate({"kafka_bootstrap_servers": "h:1"})
    assert settings.client_options()["client.rack"] == "environment"


def test_the_api_tells_every_problem_at_once() -> None:
    done = run("api", VIEWKEEPER_API_PORT="many", VIEWKEEPER_API_PAGE_DEFAULT="500")
    assert done.exit_code == 2, done.output
    assert "VIEWKEEPER_API_PORT: " in done.stderr
    assert "VIEWKEEPER_API_DATABASE_URL is missing" in done.stderr
    assert "VIEWKEEPER_API_PAGE_DEFAULT is above" in done.stderr


@pytest.mark.parametrize(
    ("position", "told"),
    [
        ("orders:here", "is not topic:partition:offset"),
        ("order:0:10", "no stream reads topic 'order'"),
    ],
)
def test_a_position_that_is_none_is_wrong_use(position: str, told: str) -> None:
    done = run("ingest", "--until", position, **SERVERS)
    assert done.exit_code == 2
    assert told in done.stderr


@pytest.mark.parametrize("arguments", [["no-such"], ["pause"], ["produce", "--orders", "0"]])
def test_wrong_usage_has_exit_code_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("rebuild --order x --customer y", "--order stands alone, or with --json"),
        ("rebuild --order x --throttle 100 --json", "not with --throttle"),
        ("rebuild --customer x --no-swap", "not with --no-swap"),
        ("rebuild --order x --except orders.amount", "not with --except"),
        ("rebuild --abandon --from-scratch", "not with --from-scratch"),
        ("rebuild --retry-dead-letters --no-swap", "goes with neither --no-swap"),
        ("rebuild --retry-dead-letters --other-log", "goes with neither --no-swap"),
        ("rebuild --throttle 0", "--throttle"),
        ("rebuild --except orders.colour", "there is no view or column orders.colour"),
        ("verify --except amount", "there is no view or column amount"),
        ("verify --processes 0", "--processes"),
        ("verify --order x", "--order"),
        ("swap --now", "--now goes with --rollback"),
        ("swap --drop-previous --rollback", "--drop-previous stands alone"),
        ("swap --drop-previous --now", "--drop-previous stands alone"),
        ("explain", "order"),
        ("explain order", "ID"),
        ("explain payment x", "payment"),
    ],
)
def test_what_can_not_be_meant_is_refused_before_anything_is_asked(
    arguments: str, said: str
) -> None:
    done = run(
        *arguments.split(),
        VIEWKEEPER_DATABASE_URL="postgresql://u:p@127.0.0.1:1/d",
        VIEWKEEPER_KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1",
        VIEWKEEPER_SCHEMA_REGISTRY_URL="http://127.0.0.1:1",
        TERM="dumb",
        COLUMNS="200",
    )
    assert done.exit_code == 2, done.output
    assert said in done.output


def test_every_command_of_the_product_has_help() -> None:
    for command in (
        *("demo", "ingest", "api", "produce", "status", "pause", "resume"),
        *("dead-letters list", "dead-letters show", "schemas register", "schemas check"),
        *("dev up", "dev down", "dev status", "dev env"),
        *("rebuild", "verify", "swap", "explain order"),
    ):
        done = run(*command.split(), "--help")
        assert done.exit_code == 0, command


def test_a_caret_points_at_the_failing_byte_of_a_dump() -> None:
    lines = list(hex_lines(bytes(range(40)), marked_byte=17))
    assert len(lines) == 4
    assert lines[2].strip() == "^^ byte 17"
    assert lines[1][lines[2].index("^^") :].startswith("11 ")


def test_a_long_dump_begins_near_the_failing_byte() -> None:
    lines = list(hex_lines(bytes(10_000), marked_byte=9_000))
    assert "bytes before" in lines[0]
    assert sum("^^ byte 9000" in line for line in lines) == 1
    assert "bytes after" in lines[-1]
    assert "byte 2 is missing" in list(hex_lines(b"\x00\x01", marked_byte=2))[-1]


def test_a_file_that_could_not_be_written_is_told_before_an_hour_of_work() -> None:
    done = run("verify", "--metrics", "missing/verify.prom")
    assert done.exit_code == 2
    assert "there is no folder missing" in done.stderr
