"""`make mutants`: all seeded bugs, or those that are named; exit 1 when one escapes."""

import argparse
import sys

from tests.faults.mutants.mutant import NotPlantedError
from tests.faults.mutants.run import run, table
from tests.faults.mutants.table import MUTANTS


def main() -> int:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="mutants to run; all, where none is named")
    parser.add_argument("--at-once", type=int, default=2, help="how many tests run at once")
    options = parser.parse_args()
    known = {mutant.name: mutant for mutant in MUTANTS}
    unknown = [name for name in options.names if name not in known]
    if unknown:
        parser.error(f"no mutant {', '.join(unknown)}; there are {', '.join(known)}")
    chosen = [known[name] for name in options.names] or list(MUTANTS)
    try:
        verdicts = run(chosen, at_once=options.at_once, tell=_progress)
    except NotPlantedError as error:
        _progress(str(error))
        return 1
    caught = sum(verdict.caught for verdict in verdicts)
    sys.stdout.write(f"{table(verdicts)}\n\n{caught} of {len(verdicts)} caught\n")
    return 0 if caught == len(verdicts) else 1


def _progress(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
