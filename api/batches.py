"""The reads of one operation, gathered: rows of one kind that are asked for together are one read.

Stands apart because it is what keeps the number of statements independent of the number of rows.
Lives as long as one operation in one snapshot, so nothing here can be out of date.
"""

from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any

from strawberry.dataloader import DataLoader

from api import selects
from api.declare import ViewType
from api.page import Cursor, Window
from api.read import Snapshot
from api.rows import Row
from api.selects import PARENT, Key, Listing

_Load = Callable[[list[Key]], Awaitable[list[Any]]]


class Batches:
    """Reads for the resolvers of one operation."""

    def __init__(self, snapshot: Snapshot, *, count_cap: int) -> None:
        self.snapshot = snapshot
        self.count_cap = count_cap
        self._loaders: dict[Hashable, DataLoader[Key, Any]] = {}

    async def row(self, view_type: ViewType, key: Key) -> Row | None:
        """The visible row with that key, or None."""

        async def load(keys: list[Key]) -> list[Row | None]:
            sql = selects.rows_by_key(self.snapshot.build, view_type, keys)
            rows = [Row(view_type, values) for values in await self.snapshot.rows(sql)]
            found = {row.key: row for row in rows}
            return [found.get(key) for key in keys]

        row: Row | None = await self._loader(("row", view_type), load).load(key)
        return row

    async def page(self, listing: Listing, window: Window, *, parent: Key) -> list[Row]:
        """Up to one row more than the window's size, nearest to its start first."""

        async def load(parents: list[Key]) -> list[list[Row]]:
            sql = selects.page(self.snapshot.build, listing, window, parents=parents)
            pages: list[list[Row]] = [[] for _ in parents]
            for values in await self.snapshot.rows(sql):
                pages[values[PARENT] - 1].append(Row(listing.target, values))
            return pages

        rows: list[Row] = await self._loader(("page", listing, window), load).load(parent)
        return rows

    async def count(self, listing: Listing, *, parent: Key) -> int:
        """How many rows there are, up to one more than the cap."""

        async def load(parents: list[Key]) -> list[int]:
            sql = selects.count(self.snapshot.build, listing, self.count_cap, parents=parents)
            return self._found(parents, await self.snapshot.rows(sql))

        found: int = await self._loader(("count", listing), load).load(parent)
        return found

    async def any_beyond(
        self, listing: Listing, cursor: Cursor, *, after: bool, parent: Key
    ) -> bool:
        """Whether there are rows at the cursor or on the side that the page leaves out."""

        async def load(parents: list[Key]) -> list[bool]:
            sql = selects.any_beyond(
                self.snapshot.build, listing, cursor, after=after, parents=parents
            )
            return self._found(parents, await self.snapshot.rows(sql))

        name = ("beyond", listing, cursor, after)
        found: bool = await self._loader(name, load).load(parent)
        return found

    def _found(self, parents: Sequence[Key], rows: Sequence[dict[str, Any]]) -> list[Any]:
        found = {row[PARENT]: row["found"] for row in rows}
        return [found[number] for number in range(1, len(parents) + 1)]

    def _loader(self, name: Hashable, load: _Load) -> DataLoader[Key, Any]:
        if name not in self._loaders:
            self._loaders[name] = DataLoader(load)
        return self._loaders[name]
