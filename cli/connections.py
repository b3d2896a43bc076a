"""When an API process lets go of idle HTTP connections.

Stands apart because it goes inside uvicorn: told to end, that one closes every idle connection at
once, and a request that is on its way there fails. Here it ends as it would have ended anyway.
"""

import select

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle


class KeptProtocol(HttpToolsProtocol):
    """Keeps idle connections until their time is up; what comes before that is answered."""

    def shutdown(self) -> None:
        """uvicorn's word for: the process ends."""
        cycle: RequestResponseCycle | None = vars(self)["cycle"]  # None before the first request
        if cycle is None:
            # So no time is running for it yet.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        elif not cycle.response_complete:
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """uvicorn's word for: the time is up."""
        if not self._has_unread():
            super().timeout_keep_alive_handler()

    def _has_unread(self) -> bool:
        """Whether a request has come that a busy process did not look at yet."""
        if self.transport.is_closing():
            return False
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))
