"""What a person looks at: the timeline of all boots, the store behind it, the management port with its pages and
metrics. Wired here for the composition root, which knows it as one thing that opens, listens to the journal and closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bootwire.facts import Listening, Warned
from bootwire.observe.story import Json
from bootwire.serve import ports, traces
from bootwire.serve.interfaces import Interface
from bootwire.serve.journal import Journal
from bootwire.serve.mode import StartError
from bootwire.serve.rings import Rings
from bootwire.serve.store import Store
from bootwire.serve.timeline import TICK_SECONDS, Timeline

if TYPE_CHECKING:
    from bootwire.web.site import Part, Site

WEB = "127.0.0.1:8067"
"""Where the management port is unless said otherwise: this machine alone. 8067: DHCP's port, where web ports are."""

Underway = list[tuple[str, str, str, int]]
"""(machine, protocol, name, octets) of transfers under way."""


class Desk:
    """Opens the store at construction, everything else in `open`.

    web  "ADDRESS:PORT", "PORT" or "off"; None for WEB, which is done without where the port is taken
    """

    def __init__(self, journal: Journal, folder: Path, web: str | None) -> None:
        self._journal = journal
        self._folder = folder
        self._chosen = web is not None
        self._where = where(WEB if web is None else web)
        self.store, self.timeline = self._open_store()
        self._site: Site | None = None
        self._traces: traces.Traces | None = None
        self._rings: Rings | None = None
        self._task: asyncio.Task[None] | None = None
        journal.subscribe(self.timeline.take)

    async def open(self, progress: Callable[[], Awaitable[Underway]], parts: Sequence[Part] = ()) -> str:
        """Open the management port, begin to judge; the page's URL, "" without one. Before the journal starts.

        progress  asked twice a second; parts: what else has routes on the management port
        """
        url = await self._open_site(parts) if self._where else ""
        self._open_traces()
        self._task = asyncio.create_task(self._judge(progress), name="verdicts")
        return url

    def listen(self, interfaces: Sequence[Interface], http_port: int, machine_at: Callable[[str], str]) -> None:
        """Keep each machine's last frames, for the page. Called again, it goes on with other interfaces. Without the
        privilege, or without a page, it does nothing."""
        if self._where is None:
            return
        if self._rings:
            self._rings.close()
            self._rings = None
        with contextlib.suppress(OSError):
            self._rings = Rings(interfaces, http_port, machine_at)

    async def close(self) -> None:
        """Close the port; the journal may still bring records until `finish`."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._site:
            await self._site.close()
        if self._rings:
            self._rings.close()

    def finish(self) -> None:
        """Store what is known, after the journal's last record."""
        if self._traces:
            self._traces.close()
        self.timeline.flush()
        self.store.close()

    # --- parts --------------------------------------------------------------------------------------------------

    def _open_store(self) -> tuple[Store, Timeline]:
        try:
            store = Store(self._folder)
            return store, Timeline(store, self._journal.record)
        except (OSError, sqlite3.Error) as error:
            what = f"the history in {self._folder} cannot be used ({error}); it is kept in memory and lost at the end"
            self._journal.record(Warned("", what, "give it a directory of its own with --state-dir"))
            store = Store(None)
            return store, Timeline(store, self._journal.record)

    async def _open_site(self, parts: Sequence[Part]) -> str:
        from bootwire.web.access import token
        from bootwire.web.live import Hub
        from bootwire.web.metrics import Metrics
        from bootwire.web.site import Site, Views

        assert self._where is not None
        address, port = self._where
        try:
            secret = token(self._folder)
        except OSError as error:
            raise StartError(
                f"cannot keep the page's token in {self._folder}: {error}\n  try  --web off, or --state-dir DIR"
            ) from None
        hub = Hub(self.timeline.briefs, self.timeline.changes)
        metrics = Metrics(
            self.timeline.briefs,
            lambda: {"journal": self._journal.unwritten, "store": self.store.lost, "page": hub.dropped},
        )
        site = Site([Views(self.timeline, hub, self._capture, metrics.text), *parts], secret, hub)
        try:
            await site.open(address, port)
        except OSError as error:
            self._complain(error, address, port)
            return ""
        self._site = site
        self._journal.subscribe(hub.take)
        self._journal.subscribe(metrics.take)
        self._journal.record(Listening("", "web", address, site.port))
        shown = f"[{address}]" if ":" in address else address
        return f"http://{shown}:{site.port}/"

    def _open_traces(self) -> None:
        if not traces.wanted():
            return
        try:
            self._traces = traces.Traces(self.timeline.boot)
        except ImportError as error:
            what = f"traces are asked for in the environment ({traces.VARIABLES[0]}), and {error.name} is not installed"
            self._journal.record(Warned("", what, "pip install 'bootwire[otel]'"))
        else:
            self._journal.subscribe(self._traces.take)

    def _capture(self, boot: Json) -> bytes | None:
        return (
            self._rings.pcap(boot["machine"], boot["started"], boot["started"] + boot["last"]) if self._rings else None
        )

    def _complain(self, error: OSError, address: str, port: int) -> None:
        if error.errno == errno.EADDRINUSE:
            what, fix = ports.taken("tcp", port, "--web")
        else:
            what, fix = f"cannot listen on {address}:{port}: {error.strerror or error}", "--web ADDRESS:PORT, --web off"
        if self._chosen:
            raise StartError(f"{what}\n  try  {fix}")
        self._journal.record(Warned("", f"{what}; there is no page", fix))

    async def _judge(self, progress: Callable[[], Awaitable[Underway]]) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.timeline.progress(await progress())
            self.timeline.tick()


def where(text: str) -> tuple[str, int] | None:
    """ "127.0.0.1:8067", "[::1]:80", "8067" as address and port, "off" as None. Raises StartError."""
    if text == "off":
        return None
    address, _, port = text.rpartition(":")
    address = address.removeprefix("[").removesuffix("]") or "127.0.0.1"
    try:
        ipaddress.ip_address(address)
    except ValueError:
        address = ""
    if not address or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise StartError(f"--web takes ADDRESS:PORT or off, not {text}\n  try  --web {WEB}", 2)
    return address, int(port)
