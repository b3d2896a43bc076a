"""How many connections that last a process holds: WebSockets and event streams, in all and of whom.

Stands apart from both transports, because a client may take its share of either.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from api.errors import RateLimitedError, UnavailableError

_RETRY_AFTER_MS: Final = 10_000


class Places:
    """Counts who holds a place, by address."""

    def __init__(self, *, most: int, most_per_address: int) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._held: Counter[str] = Counter()

    @property
    def held(self) -> int:
        """How many are held."""
        return self._held.total()

    def require(self, address: str) -> None:
        """Return if there is a place.

        RateLimitedError: the address holds its share. UnavailableError: none is left for anybody.
        """
        if self._held[address] >= self._most_per_address:
            raise RateLimitedError(
                f"Your address holds {self._most_per_address} sockets and streams: no more.",
                retryAfterMs=_RETRY_AFTER_MS,
            )
        if self.held >= self._most:
            raise UnavailableError("No socket or stream can be opened now. Try again.")

    @contextmanager
    def held_by(self, address: str) -> Iterator[None]:
        """Hold a place for as long as the block lasts."""
        self._held[address] += 1
        try:
            yield
        finally:
            self._held[address] -= 1
            if not self._held[address]:
                del self._held[address]
