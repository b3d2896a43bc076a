"""The API without consistency labels: what they cost is the difference. No mode of the product.

`python -m bench.unlabelled` is `viewkeeper api` whose statements read no positions and whose
answers say nothing about them.
"""

import sys
from collections.abc import Mapping
from typing import Any

from api import compile, execute, read  # noqa: A004 - the module's name
from api.position import Consistency
from cli.main import app


def _bare_standing(_: str) -> str:
    return "b.name, b.change_counter, statement_timestamp(), NULL"


def _nothing(_: Consistency) -> Mapping[str, Any]:
    return {}


def main() -> None:
    """Serve."""
    for module in (compile, read):
        module.standing_sql = _bare_standing  # type: ignore[attr-defined]
    execute.extensions = _nothing  # type: ignore[assignment]
    sys.argv = ["viewkeeper", "api"]
    app()


if __name__ == "__main__":
    main()
