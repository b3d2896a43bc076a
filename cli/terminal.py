"""What commands print: answers on standard output, everything else on standard error.

Stands apart so that a command's answer can be piped while its progress is watched. On a terminal
progress is a bar with rate and ETA; elsewhere it is a plain line every few seconds.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

OUT: Final = Console(highlight=False, markup=False, emoji=False)
"""What is printed is data of others: nothing in it is markup."""
ERR: Final = Console(stderr=True, highlight=False, markup=False, emoji=False)
PLAIN_EVERY_S: Final = 5.0
PIPE_WIDTH: Final = 1_000

Tell = Callable[[int, int | None], None]
"""Called with what is done and, where it is known, how much there is in all."""


def say(line: str) -> None:
    """A line for the person who watches."""
    ERR.print(line, soft_wrap=True)


def complain(line: str) -> None:
    """What went wrong, in red where there are colours."""
    ERR.print(line, style="red", soft_wrap=True)


def answer(line: str) -> None:
    """A line of the answer."""
    OUT.print(line, soft_wrap=True)


def answer_json(value: object) -> None:
    """The answer for a program."""
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z).decode()
    OUT.print(text, soft_wrap=True)


def answer_table(table: Table) -> None:
    """The answer for a person. A pipe has no width, so nothing is folded there."""
    if OUT.is_terminal:
        OUT.print(table)
    else:
        Console(highlight=False, markup=False, emoji=False, width=PIPE_WIDTH).print(table)


def table(*columns: str, right: tuple[str, ...] = (), title: str | None = None) -> Table:
    """An empty table; columns named in `right` are figures."""
    made = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for column in columns:
        figures = column in right
        made.add_column(column, justify="right" if figures else "left", overflow="fold")
    return made


@contextmanager
def progress(title: str, unit: str) -> Iterator[Tell]:
    """Show how far something is. Call the result as often as you like."""
    if ERR.is_terminal:
        with _bar(title, unit) as tell:
            yield tell
    else:
        yield _plain(title, unit)


@contextmanager
def _bar(title: str, unit: str) -> Iterator[Tell]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(),
    )
    began_at = time.monotonic()
    with Progress(*columns, console=ERR, transient=True) as shown:
        task = shown.add_task(title, total=None, rate="")

        def tell(done: int, total: int | None) -> None:
            shown.update(task, completed=done, total=total, rate=_rate(done, began_at, unit))

        yield tell


def _plain(title: str, unit: str) -> Tell:
    began_at = time.monotonic()
    told_at = began_at

    def tell(done: int, total: int | None) -> None:
        nonlocal told_at
        now = time.monotonic()
        if now - told_at >= PLAIN_EVERY_S:
            told_at = now
            rate = _rate(done, began_at, unit)
            say(f"{title}: {_count(done, total)}, {rate}{_eta(done, total, now - began_at)}")

    return tell


def _count(done: int, total: int | None) -> str:
    return f"{done:,}" if total is None else f"{done:,} of {total:,}"


def _rate(done: int, began_at: float, unit: str) -> str:
    return f"{done / max(time.monotonic() - began_at, 0.001):,.0f} {unit}/s"


def _eta(done: int, total: int | None, elapsed_s: float) -> str:
    if not total or not done:
        return ""
    return f", about {(total - done) * elapsed_s / done:,.0f} s left"
