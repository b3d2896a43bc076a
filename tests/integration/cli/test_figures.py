"""Figures of `viewkeeper api` as processes: whichever of them is asked tells of all."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

from tests.fixtures.waiting import eventually

merged: Callable[[list[str]], Iterable[Metric]] = MultiProcessCollector.merge
TIMEOUT_S = 120.0
COUNTED = "viewkeeper_api_requests_total"
ROUTE = "/schema.graphql"


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[str]:
    """An API without a database on any free port, and where it says it is."""
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "api", "--port", "0", *arguments],
            env={
                "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
                "VIEWKEEPER_API_DATABASE_URL": "postgresql://u:p@127.0.0.1:1/away",
                "VIEWKEEPER_API_DRAIN_S": "0",
                "TMPDIR": str(folder),
            },
            cwd=folder,
            stderr=log,
            # Its workers end with it, whatever becomes of it.
            start_new_session=True,
        )
    try:
        eventually(lambda: said_in(folder / "log"), TIMEOUT_S, "it tells its port")
        yield said_in(folder / "log")
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def said_in(log: Path) -> str:
    found = re.search(r"GraphQL at (http://127\.0\.0\.1:[1-9]\d*)/graphql", log.read_text())
    return found[1] if found else ""


def answers(base: str, path: str) -> httpx.Response | None:
    """The answer on a connection of its own, which any of the processes may take."""
    try:
        return httpx.get(f"{base}{path}", timeout=TIMEOUT_S)
    except httpx.TransportError:
        return None


def counted_in(text: str) -> float:
    (line,) = [
        line for line in text.splitlines() if line.startswith(COUNTED) and f'"{ROUTE}"' in line
    ]
    return float(line.split()[-1])


def counts(folder: Path) -> dict[int, float]:
    """How many requests each process counted, by its number."""
    return {
        int(file.stem.rpartition("_")[2]): sum(
            sample.value
            for metric in merged([str(file)])
            for sample in metric.samples
            if sample.name == COUNTED and sample.labels["route"] == ROUTE
        )
        for file in folder.glob("viewkeeper-figures-*/counter_*.db")
    }


def gauges(folder: Path) -> set[int]:
    """The processes whose gauges are summed."""
    files = folder.glob("viewkeeper-figures-*/gauge_livesum_*.db")
    return {int(file.stem.rpartition("_")[2]) for file in files}


def test_any_of_the_workers_tells_the_figures_of_all(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as base:
        eventually(lambda: len(gauges(tmp_path)) == 2, TIMEOUT_S, "both are there")
        asked = 0

        def both_were_asked() -> bool:
            nonlocal asked
            answer = answers(base, ROUTE)
            asked += answer is not None and answer.status_code == 200
            return sum(count > 0 for count in counts(tmp_path).values()) == 2

        eventually(both_were_asked, TIMEOUT_S, "both were asked")
        # Neither counted all of them, and whichever is asked says so many.
        eventually(lambda: sum(counts(tmp_path).values()) == asked, TIMEOUT_S, "all are counted")
        told = [httpx.get(f"{base}/metrics", timeout=TIMEOUT_S).text for _ in range(10)]
        assert {counted_in(text) for text in told} == {asked}

        before = gauges(tmp_path)
        assert len(before) == 2
        for number in before:
            os.kill(number, signal.SIGKILL)

        def replaced() -> bool:
            answer = answers(base, "/metrics")
            now = gauges(tmp_path)
            return answer is not None and len(now) == 2 and not now & before

        eventually(replaced, TIMEOUT_S, "others took their place, and gauges of the dead are gone")
        assert counted_in(httpx.get(f"{base}/metrics", timeout=TIMEOUT_S).text) == asked
    assert not list(tmp_path.glob("viewkeeper-figures-*")), "nothing is left behind"
