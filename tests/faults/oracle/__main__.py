"""`python -m tests.faults.oracle`: judge a build by the log.

Exit 0 where they are equal, 1 where they differ, 2 where it cannot be told.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.faults.oracle.compare import check_invariants, differences, hold
from tests.faults.oracle.crosscheck import DisagreementError
from tests.faults.oracle.fold import expect
from tests.faults.oracle.log import LogReadError, Registry, read_log

_SHOWN = 20


def main() -> int:
    options = _options()
    started = time.monotonic()
    held = hold(options.dsn, options.build)
    until = held.next_offsets if options.at_build else None
    records, pinned = read_log(options.bootstrap, ("orders", "payments"), until=until)
    read_s = time.monotonic() - started
    expected = expect(
        records, Registry(options.registry), next_offsets=pinned, recorded=held.recorded
    )
    found = [*differences(held, expected), *check_invariants(options.dsn, options.build)]
    for difference in found[:_SHOWN]:
        print(difference)
    total_s = time.monotonic() - started
    print(
        f"{len(records)} records read in {read_s:.1f} s, judged after {total_s:.1f} s; "
        f"{len(expected.views.orders)} orders, {len(expected.views.payments)} payments, "
        f"{len(expected.dead_letters)} dead letters, {expected.crosschecked} bodies read twice; "
        f"{len(found)} differences"
    )
    return 1 if found else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.oracle", description=__doc__)
    parser.add_argument("--bootstrap", required=True, help="Kafka bootstrap servers")
    parser.add_argument("--registry", required=True, help="base address of the schema registry")
    parser.add_argument("--dsn", required=True, help="PostgreSQL connection string")
    parser.add_argument("--build", required=True, help="schema of the build, build_1 for one")
    parser.add_argument(
        "--at-build",
        action="store_true",
        help="judge at the build's own position, not at the end of the log",
    )
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (LogReadError, DisagreementError) as error:
        print(f"cannot tell: {error}")
        sys.exit(2)
