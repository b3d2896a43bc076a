"""What is printed is data of others: nothing in it is markup, and none of it is lost."""

import pytest

from cli import terminal
from cli.terminal import answer, answer_json, answer_table, complain, progress, say, table

HOSTILE = "[/b] [bold]fat[/bold] :smile: [link=x]"


def test_data_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    answer(HOSTILE)
    answer_json({"key": HOSTILE})
    rows = table("column", HOSTILE, title=HOSTILE)
    rows.add_row(HOSTILE, HOSTILE)
    answer_table(rows)
    say(HOSTILE)
    complain(HOSTILE)
    with progress(HOSTILE, "events") as tell:
        tell(1, None)
    told = capsys.readouterr()
    assert told.out.count(HOSTILE) == 2 + 1 + 1 + 2
    assert told.err.count(HOSTILE) == 2


def test_on_a_terminal_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal.OUT, "_force_terminal", True)
    monkeypatch.setattr(terminal.OUT, "_width", 200)
    rows = table("column")
    rows.add_row(HOSTILE)
    answer_table(rows)
    assert HOSTILE in capsys.readouterr().out
