"""Where the worker's time goes: one run under cProfile, its heaviest functions on the terminal.

Run by hand (`python -m bench.profile_ingest --events 100000`). cProfile slows Python code and sees
the main thread alone: read the shares, not the rate. The other threads show up as waiting.
"""

import argparse
import dataclasses
import pstats
import sys
from pathlib import Path

from bench.__main__ import PARTITIONS, SEED, say
from bench.contestants import WORKER, Run
from bench.eventlog import produce
from bench.stage import Stage
from bench.throughput import measure


def main() -> None:
    """One profiled run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--lines", type=int, default=40)
    parser.add_argument("--sort", default="tottime", choices=("tottime", "cumulative"))
    options = parser.parse_args()
    with Stage(partitions=PARTITIONS) as stage:
        log = produce(
            stage.kafka.bootstrap_servers, stage.schema_ids, events=options.events, seed=SEED
        )
        profile = stage.logs / "worker.prof"
        contestant = dataclasses.replace(WORKER, command=lambda run: _profiled(run, profile))
        sample, _ = measure(stage, log, contestant)
        say(f"{sample.rate:,.0f} events/s under the profiler, {sample.cpu_s:.1f} CPU s")
        pstats.Stats(str(profile)).strip_dirs().sort_stats(options.sort).print_stats(options.lines)


def _profiled(run: Run, profile: Path) -> list[str]:
    return [sys.executable, "-m", "cProfile", "-o", str(profile), *WORKER.command(run)]


if __name__ == "__main__":
    main()
