"""`bootwire boot` as a process in a network namespace, as a person would start it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, ClassVar

from namespaces import Namespace

ROOT = Path(__file__).resolve().parents[1]
SHOWN_AS = "/opt/bootwire/bootwire"  # what it takes its own command to be
PATIENCE = 30.0  # seconds


class Lines:
    """What a process writes, read in a thread as it comes, so that it never waits for us."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._lines: list[str] = []
        self._more = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def first(self, wanted: Callable[[str], bool]) -> str | None:
        """The first line there is or will be, None if the stream ends or PATIENCE does."""
        seen, until = 0, time.monotonic() + PATIENCE
        with self._more:
            while True:
                for line in self._lines[seen:]:
                    if wanted(line):
                        return line
                seen = len(self._lines)
                left = until - time.monotonic()
                if self._ended or left <= 0:
                    return None
                self._more.wait(left)

    def all(self) -> list[str]:
        """Every line so far."""
        with self._more:
            return list(self._lines)

    def rest(self) -> list[str]:
        """Every line, once the stream has ended."""
        self._thread.join(PATIENCE)
        return self.all()

    def _read(self) -> None:
        with self._stream:
            for line in self._stream:
                with self._more:
                    self._lines.append(line.decode().rstrip("\n"))
                    self._more.notify_all()
        with self._more:
            self._ended = True
            self._more.notify_all()


class Server:
    """`bootwire boot ARGUMENTS` in a namespace. Give it --json to ask for facts.

    verb    another command than boot
    read    False leaves its stdout unread, for who wants to see what it does then
    within  a command that runs it, its own arguments in front
    """

    running: ClassVar[set[Server]] = set()

    def __init__(
        self, namespace: Namespace, *arguments: str, read: bool = True, within: tuple[str, ...] = (), verb: str = "boot"
    ) -> None:
        self.process = namespace.start(
            *within, sys.executable, "-m", "bootwire", verb, *arguments,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/",
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "BOOTWIRE_COMMAND": SHOWN_AS},
        )  # fmt: skip
        assert self.process.stdout
        assert self.process.stderr
        self.out = Lines(self.process.stdout) if read else None
        self.err = Lines(self.process.stderr)
        Server.running.add(self)

    @staticmethod
    def kill(servers: set[Server]) -> None:
        """End what a failed test left running."""
        for server in servers:
            server.process.kill()
            server.wait()

    @property
    def facts(self) -> list[dict[str, Any]]:
        """Every fact so far."""
        assert self.out
        return [json.loads(line) for line in self.out.all()]

    def until(self, kind: str, **fields: object) -> dict[str, Any]:
        """The first fact of this kind with these fields."""

        def wanted(line: str) -> bool:
            fact = json.loads(line)
            return fact["kind"] == kind and all(fact[name] == value for name, value in fields.items())

        assert self.out
        line = self.out.first(wanted)
        assert line, f"no {kind} {fields} in {self.facts}; stderr: {self.err.all()}"
        fact: dict[str, Any] = json.loads(line)
        return fact

    def ready(self) -> None:
        """Until it serves."""
        assert self.err.first(lambda line: line.startswith("Ready.")), self.err.all()

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send it a signal; its status and stderr."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        """Its status and stderr, when it has ended."""
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            Server.running.discard(self)
        if self.out:
            self.out.rest()
        elif self.process.stdout:
            self.process.stdout.close()
        return status, "\n".join(self.err.rest())


def bzimage(path: Path) -> str:
    """Write a bzImage as far as its header goes (Documentation/arch/x86/boot.rst)."""
    image = bytearray(4096)
    image[0x1F1] = 1  # setup sectors
    image[0x1FE:0x200] = b"\x55\xaa"
    image[0x202:0x206] = b"HdrS"
    image[0x206:0x208] = (0x020F).to_bytes(2, "little")
    path.write_bytes(image)
    return str(path)
