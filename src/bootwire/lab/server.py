"""Bootwire itself as a process in a host of the lab: started as a person would, read by its JSON facts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import bootwire
from bootwire.facts import Fact, Listening, Record
from bootwire.lab.network import Host, LabError
from bootwire.observe import jsonlines

_SERVICES = {"dhcp", "tftp", "http"}  # what must be open before the first machine may ask


class Server:
    """A running `bootwire`; `records` grows as facts come. `seen` is called for each, in the reader's thread."""

    def __init__(self, process: subprocess.Popen[bytes], errors: Path, seen: Callable[[Record], None]) -> None:
        self._process = process
        self._errors = errors
        self._seen = seen
        self._records: list[Record] = []
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def records(self) -> list[Record]:
        with self._more:
            return list(self._records)

    def facts(self, machine: str | None = None) -> list[Fact]:
        """All facts so far, or those about one machine (MAC)."""
        return [r.fact for r in self.records() if machine is None or r.fact.machine == machine]

    def wait_for(self, wanted: Callable[[list[Record]], bool], what: str, timeout: float) -> None:
        """Wait until `wanted` holds of the records. Raises LabError with what the server said last."""
        deadline = time.monotonic() + timeout
        with self._more:
            while not wanted(self._records):
                left = deadline - time.monotonic()
                if left <= 0 or not self._reader.is_alive():
                    raise LabError(f"{what}: not seen\n{self.said()}")
                self._more.wait(min(left, 1))

    def said(self) -> str:
        """The end of its standard error."""
        return self._errors.read_text(errors="replace")[-2000:].strip()

    def stop(self, timeout: float = 10) -> int:
        """Ask it to end as Ctrl-C does; its exit status."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise LabError(f"the server did not end within {timeout:g} s\n{self.said()}") from None
        self._reader.join(timeout)
        return status

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                record = jsonlines.parse(line)
                with self._more:
                    self._records.append(record)
                    self._more.notify_all()
                self._seen(record)
        with self._more:
            self._more.notify_all()


def start_server(
    host: Host, arguments: Sequence[str], directory: Path, seen: Callable[[Record], None] = lambda record: None
) -> Server:
    """Start `bootwire ARGUMENTS --json` in `host` and wait until it is ready. Raises LabError if it does not get there.

    arguments: from the command's name on ("boot", KERNEL, …); directory: where its standard error is kept.
    """
    source = str(Path(bootwire.__file__).parents[1])
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH", "")]))
    errors = directory / "bootwire.err"
    with errors.open("wb") as output:
        process = host.start(
            [sys.executable, "-m", "bootwire", *arguments, "--json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            env={**os.environ, "PYTHONPATH": path},
        )
    server = Server(process, errors, seen)
    server.wait_for(_is_ready, "Bootwire did not become ready", 30)
    return server


def _is_ready(records: list[Record]) -> bool:
    return {r.fact.service for r in records if isinstance(r.fact, Listening)} >= _SERVICES
