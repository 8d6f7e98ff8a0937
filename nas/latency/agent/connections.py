"""Connections of the agent that nobody can hold without asking for something.

uvicorn has a time limit only for connections that are silent after an answer, and forgets that one at the next byte; at
`limit_concurrency` it refuses whoever comes next. So connections that never send a request would lock everybody out.
"""

import asyncio
import time
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_S = 10.0
"""Seconds within which a connection has to send the head of its next request."""

MOST = 64
"""Largest number of connections. One more takes the place of the one that has waited longest for a request."""


class BoundedConnection(H11Protocol):
    """One connection: ended when it sends no whole head of a request in time, or when others need its place."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._waits_since = time.monotonic()
        self._limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make place for it if need be, and begin to wait for its first request."""
        super().connection_made(transport)
        self._wait_for_request()
        if len(self.connections) > MOST:
            waiting = [each for each in self.connections if isinstance(each, BoundedConnection) and each._waits]
            min(waiting, key=lambda each: each._waits_since).transport.abort()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        self._wait_for_request()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        if self._limit is not None:
            self._limit.cancel()
        super().connection_lost(exc)

    @property
    def _waits(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _wait_for_request(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
        self._waits_since = time.monotonic()
        self._limit = self.loop.call_later(REQUEST_S, self._end_if_silent)

    def _end_if_silent(self) -> None:
        if self._waits:
            self.transport.abort()
