"""A running server's own door: a Unix socket in its state directory, for commands of the same machine.

One connection is one question: a JSON object on one line, `{"do": NAME, …}`, and another one back, `{"error": TEXT}`
where it went wrong. Only the user who runs the server, and root, get through: the socket has mode 0600, and who
connects is looked at, too (SO_PEERCRED, unix(7)).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

NAME: Final = "control.sock"
LIMIT: Final = 64 * 1024  # octets of a line
CONNECTIONS: Final = 32
PATIENCE: Final = 10.0  # seconds for a question to come

_PEERCRED = struct.Struct("=iII")  # struct ucred: pid, uid, gid

Answer = dict[str, Any]
Handler = Callable[[Mapping[str, Any]], Awaitable[Answer]]


class Control:
    """Answers from `open` to `close`.

    handlers  by the name in "do"; a ValueError of theirs is an error for who asked
    """

    def __init__(self, state: Path, handlers: Mapping[str, Handler]) -> None:
        self._path = state / NAME
        self._handlers = handlers
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Raises OSError: EADDRINUSE where another server has this state directory."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            os.fchmod(made.fileno(), 0o600)  # before it has a name, so that it never had another mode under it
            try:
                made.bind(str(self._path))
            except OSError as error:
                if error.errno != errno.EADDRINUSE or _is_served(self._path):
                    raise
                self._path.unlink()  # of a server that was killed
                made.bind(str(self._path))
            self._server = await asyncio.start_unix_server(self._connected, sock=made, limit=LIMIT)
        except BaseException:
            made.close()
            raise

    async def close(self) -> None:
        if self._server is None:
            return
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        with contextlib.suppress(OSError):
            self._path.unlink()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if _may(writer.get_extra_info("socket")) and len(self._connections) <= CONNECTIONS:
                async with asyncio.timeout(PATIENCE):
                    line = await reader.readline()
                writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
                await writer.drain()
        except (TimeoutError, ValueError, OSError):
            pass  # a line without an end, or nobody there any more
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, line: bytes) -> Answer:
        try:
            question = json.loads(line)
        except (ValueError, RecursionError):
            return {"error": "not a line of JSON"}
        handler = self._handlers.get(str(question.get("do"))) if isinstance(question, dict) else None
        if handler is None:
            return {"error": "this server knows nothing of that"}
        try:
            return await handler(question)
        except ValueError as error:
            return {"error": str(error)}


class NotReached(Exception):
    """No server could be asked. what: one sentence; fix: what to do next."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix


def ask(state: Path, question: Mapping[str, Any], patience: float) -> Answer:
    """Ask the server with this state directory, for at most `patience` seconds. Raises NotReached."""
    try:
        return _exchange(state / NAME, question, patience)
    except (FileNotFoundError, ConnectionRefusedError):
        raise NotReached(
            f"no server with the state directory {state} takes orders",
            "start it with --bootinfo, or name its directory with --state-dir",
        ) from None
    except PermissionError:
        raise NotReached(f"{state / NAME} belongs to another user's server", "be that user, or root") from None
    except (OSError, ValueError) as error:
        raise NotReached(f"the server does not answer: {error}", "look at what the server says") from None


def _exchange(path: Path, question: Mapping[str, Any], patience: float) -> Answer:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.settimeout(patience)
        made.connect(str(path))
        made.sendall(json.dumps(question).encode() + b"\n")
        got = b""
        while not got.endswith(b"\n"):
            piece = made.recv(LIMIT)
            if not piece:
                raise ConnectionResetError(errno.ECONNRESET, "the server hung up")
            got += piece
    answer: Answer = json.loads(got)
    return answer


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        try:
            made.connect(str(path))
        except OSError:
            return False
    return True


def _may(peer: socket.socket) -> bool:
    _, uid, _ = _PEERCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size))
    return uid in (0, os.geteuid())
