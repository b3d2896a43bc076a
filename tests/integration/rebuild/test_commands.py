"""What the commands print, for people and for programs, and how they end."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from tests.fixtures.databases import Database
from tests.integration.rebuild.parts import Log, builds, execute

HOSTILE = "[/b] [bold]cash"
"""What a console could take for markup."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without a file of settings."""
    monkeypatch.chdir(tmp_path)


def call(log: Log, database: Database, command: str, *, code: int = 0) -> Result:
    done = CliRunner().invoke(app, command.split(), env=dict(log.environment(database)))
    assert done.exit_code == code, done.output
    return done


def test_people_are_told_what_was_found_what_was_done_and_what_to_do_next(
    log: Log, shop: Database
) -> None:
    execute(
        shop,
        f"UPDATE build_1.payments SET method = '{HOSTILE}' WHERE (order_id, payment_id) ="
        " (SELECT order_id, payment_id FROM build_1.payments ORDER BY 1, 2 LIMIT 1)",
    )
    found = call(log, shop, "verify", code=1)
    assert "build_1 and the log are NOT equal" in found.stdout
    assert ": different in the live views" in found.stdout
    assert HOSTILE in found.stdout
    assert "`viewkeeper rebuild --accept-differences`" in found.stdout
    assert "disk: about" in found.stderr

    call(log, shop, "rebuild --no-swap --accept-differences", code=1)
    swapped = call(log, shop, "swap")
    assert "build_2 is live at orders:0:" in swapped.stdout
    assert "; 0 events came after the proof; ingest waited" in swapped.stdout
    assert "build_1 is kept: `viewkeeper swap --rollback`" in swapped.stdout
    assert "build_2 and the log are equal" in call(log, shop, "verify").stdout
    some = json.loads(call(log, shop, "explain order order-11-0000001 --json").stdout)
    told = call(log, shop, f"rebuild --order {some['order_id']}").stdout
    assert told.startswith("order-11-0000001: nothing was wrong, at orders:0:")

    back = call(log, shop, "swap --rollback --now")
    assert "build_1 is live at" in back.stdout
    assert call(log, shop, "rebuild --abandon").stdout == "there was nothing to drop\n"
    assert call(log, shop, "swap --drop-previous").stdout == "dropped: build_2\n"
    refused = call(log, shop, "swap --rollback", code=1)
    assert "no previous build is kept" in refused.stderr


def test_programs_are_told_the_same(log: Log, shop: Database) -> None:
    made = json.loads(call(log, shop, "rebuild --no-swap --json").stdout)
    assert (made["ok"], made["equal"], made["swapped"]) == (True, True, None)
    assert builds(shop)[made["build"]] == "ready"
    swapped = json.loads(call(log, shop, "swap --json").stdout)["swapped"]
    assert (swapped["before"], swapped["now"]) == ("build_1", made["build"])
    assert swapped["events_since_proof"] == 0
    dropped = json.loads(call(log, shop, "swap --drop-previous --json").stdout)
    assert dropped == {"dropped": ["build_1"]}
    assert json.loads(call(log, shop, "rebuild --abandon --json").stdout) == {"dropped": []}
    mended = json.loads(call(log, shop, "rebuild --order no-such-order --json").stdout)
    assert mended["changes"] == []
