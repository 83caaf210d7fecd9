"""Connections whose answer is not known yet: they wait in the control loop and go back to be answered.

A decision may need somebody's HTTP service, an image may have to be fetched first. The transfer loop never waits for
such things; it hands the connection over, and gets it back with the request when there is an answer.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from bootwire.facts import Warned
from bootwire.serve.content import Later, Record
from bootwire.wire import http

WAITING = 1_024  # connections at a time; further ones are closed, and their machines try again

GiveBack = Callable[[socket.socket, bytes, http.Request], None]
"""Takes a connection back to be answered, from the control loop."""


class Waiting:
    """Holds connections while their answers are found out. `take` may be called from any thread."""

    def __init__(self, control: asyncio.AbstractEventLoop, record: Record, give_back: GiveBack) -> None:
        self._control = control
        self._record = record
        self._give_back = give_back
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def take(self, sock: socket.socket, request: http.Request, later: Later, leftover: bytes) -> None:
        """Give `sock` back for `request` when what it waits for is known. The socket is ours until then."""
        self._control.call_soon_threadsafe(self._start, sock, request, later, leftover)

    async def close(self) -> None:
        """Close all connections that wait."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, sock: socket.socket, request: http.Request, later: Later, leftover: bytes) -> None:
        if self._closed or len(self._tasks) >= WAITING:
            if not self._closed:
                self._record(Warned(later.machine, f"{WAITING} connections wait for decisions already: one was closed"))
            sock.close()
            return
        task = self._control.create_task(_until(later))
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._ended(ended, sock, request, leftover))

    def _ended(self, task: asyncio.Task[None], sock: socket.socket, request: http.Request, leftover: bytes) -> None:
        self._tasks.discard(task)

        if task.cancelled():
            sock.close()
        elif (error := task.exception()) is not None:
            sock.close()
            self._control.call_exception_handler({"message": "waiting for a decision", "exception": error})
        else:
            self._give_back(sock, leftover, request)


async def _until(later: Later) -> None:
    await later.known()
