"""The composition root: settings in, the core built from them, the edge opened around it, both loops run.

Two threads: this one runs the control loop (asyncio: DHCP, port 4011, syslog, streams from other servers, signals),
a second one runs the transfer loop (epoll: TFTP and HTTP). Facts of both go to the journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import shlex
import signal
import socket
import sqlite3
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from bootwire.assets.scripts import autoexec
from bootwire.boot_server import BootServer
from bootwire.boot_server import Settings as ServerSettings
from bootwire.desk import Desk, Underway
from bootwire.engine import MS
from bootwire.engine.dhcp4 import MULTICAST
from bootwire.facts import Fact, Listening, Record, ScriptServed, Stopped, TransferDone, Warned
from bootwire.observe import prose
from bootwire.policy import inventory
from bootwire.policy.decide import Offerings
from bootwire.policy.inventory import Hardware
from bootwire.policy.target import Menu, Traits
from bootwire.serve import descriptors, loaders, systemd
from bootwire.serve.answers import SCRIPT, Answers
from bootwire.serve.boot_scripts import Scripts
from bootwire.serve.bootinfo_decisions import ROOM as MEMORY_FS
from bootwire.serve.bootinfo_decisions import BootinfoDecisions
from bootwire.serve.bootinfo_service import BootinfoService, BootinfoSettings
from bootwire.serve.capture import Capture
from bootwire.serve.content import Later, Upstream
from bootwire.serve.dhcp import DhcpEdge, PortInUse
from bootwire.serve.echo import Echo
from bootwire.serve.files import PublishedDirectory
from bootwire.serve.http import HttpServer
from bootwire.serve.http import Limits as HttpLimits
from bootwire.serve.images import Settings as ImageSettings
from bootwire.serve.images import open_images
from bootwire.serve.interfaces import Interface, InterfaceError, choose
from bootwire.serve.journal import Journal
from bootwire.serve.loop import Loop
from bootwire.serve.machines import Machines
from bootwire.serve.memory_fs import MemoryFsScripts
from bootwire.serve.mode import Decider, House, Mode, Room, StartError, settled
from bootwire.serve.neighbours import Neighbours
from bootwire.serve.ports import taken
from bootwire.serve.programs import ProgramSettings, programs
from bootwire.serve.pxelinux import ROOM as PXELINUX_ROOM
from bootwire.serve.pxelinux import Pxelinux
from bootwire.serve.reports import ReportReceiver
from bootwire.serve.states import States
from bootwire.serve.static import Static, StaticMode
from bootwire.serve.store import Store
from bootwire.serve.syslog import SyslogReceiver
from bootwire.serve.tftp import Limits as TftpLimits
from bootwire.serve.tftp import TftpServer
from bootwire.serve.upstream import Streamer
from bootwire.serve.upstreams import check
from bootwire.serve.waiting import Waiting
from bootwire.wire import http

__all__ = ["Settings", "StartError", "Static", "boot", "command"]

TFTP_PORT = 69  # RFC 1350 section 4
HTTP_PORT, HTTP_PORT_ELSE = 80, 8080
RASPBERRY_FILES = ("bootcode.bin", "start4.elf", "config.txt")  # what Raspberry Pi 3, 4 and 5 ask for
ADDRESS_CHECK_SECONDS = 2.0  # how soon a changed address of an interface is followed
DRAIN_SECONDS = 3.0  # how long transfers under way may go on after the first signal


@dataclass(frozen=True, slots=True)
class Settings:
    """What the servers have in common. http_port None: 80, or 8080 where that is taken; web None: `desk.WEB`."""

    interfaces: tuple[str, ...] = ()
    http_port: int | None = None
    mode: Literal["proxy", "off"] = "proxy"
    files: str | None = None
    state_dir: str | None = None
    loaders: str | None = None
    fetch: bool = True
    tftp_single_port: bool = False
    pcap: str | None = None
    json: bool = False
    verbose: int = 0
    bootinfo: BootinfoSettings | None = None
    program: ProgramSettings = field(default_factory=ProgramSettings)
    web: str | None = None
    loader: Literal["auto", "ipxe", "pxelinux"] = "auto"
    menu: Menu | None = None


def boot(settings: Settings, static: Static, images: ImageSettings) -> int:
    """Run static mode until a signal ends it. Returns 0; raises StartError when it cannot start."""
    if not (images.keep or images.offline or static.pinned):
        if wrong := check(images.upstream):
            raise StartError(wrong, 2)
        return serve(settings, StaticMode(static, images.upstream))
    return serve(settings, StaticMode(static, images=open_images(images, trusted=True), offline=images.offline))


def serve(settings: Settings, mode: Mode) -> int:
    """Run the server in `mode` until a signal ends it. Returns 0; raises StartError when it cannot start."""
    return _Server(settings, mode).run()


def command() -> str:
    """The command a person would type to start us again, absolute, for sudo."""
    started_as = os.environ.get("BOOTWIRE_COMMAND") or os.path.abspath(sys.argv[0])
    return f"{sys.executable} -m bootwire" if started_as.endswith("__main__.py") else started_as


class _Server:
    """One run of the server, from the first check to the last line."""

    def __init__(self, settings: Settings, mode: Mode) -> None:
        self._settings = settings
        self._mode = mode
        self._journal = _open_journal(settings)
        self._transfers = Loop()
        self._http_limits, self._tftp_limits = _limits(descriptors.prepare())
        self._published = _publish(settings.files)
        self._loaders, self._advice = _loaders(settings)
        self._programs = programs(settings.program, self._loaders)
        self._http_port = settings.http_port or HTTP_PORT
        self._http: HttpServer | None = None
        self._tftp: TftpServer | None = None
        self._dhcp: DhcpEdge | None = None
        self._syslog: SyslogReceiver | None = None
        self._bootinfo: BootinfoService | None = None
        self._echo: Echo | None = None
        self._reports = ReportReceiver(self._record, lambda at: self._boot_server.machine_at(at), self._learn)
        self._page = ""
        self._decider: Decider = mode.decider

    def run(self) -> int:
        chosen = _choose(self._settings.interfaces)
        return asyncio.run(self._control(chosen))

    async def _control(self, chosen: tuple[Interface, ...]) -> int:
        control = asyncio.get_running_loop()
        signals = asyncio.Queue[str]()
        for number in (signal.SIGINT, signal.SIGTERM):
            control.add_signal_handler(number, signals.put_nowait, number.name)
        reloads: set[asyncio.Task[None]] = set()

        def reload() -> None:
            reloads.add(task := control.create_task(self._mode.reload()))
            task.add_done_callback(reloads.discard)

        control.add_signal_handler(signal.SIGHUP, reload)
        self._streamer = Streamer(control, self._record, self._hand_back, self._mode.upstreams)
        self._waiting = Waiting(control, self._record, self._hand_back)
        self._open_http(chosen)  # first, since every URL has its port in it
        mode = self._mode
        offerings = Offerings(
            frozenset(self._loaders),
            raspberry=_has_raspberry_files(self._settings.files),
            programs=self._programs.names,
            program=self._programs.name,
            # What SMBIOS tells comes from iPXE alone.
            loader="ipxe" if self._settings.loader == "auto" and mode.decider.smbios else self._settings.loader,
            sizes=loaders.sizes(self._loaders),
            menu=self._settings.menu,
        )
        settings = ServerSettings(self._http_port, self._settings.mode, offerings)
        self._desk = Desk(self._journal, loaders.state_directory(self._settings.state_dir), self._settings.web)
        self._machines = Machines(self._desk.store, self._reports.known)
        states = self._with_states(self._desk.store)
        decider = self._decider
        settling = states.settling if states else settled
        self._boot_server = BootServer(settings, decider.known, self._hardware)
        scripts = Scripts(self._boot_server, decider, self._base, mode.link, settling)
        self._scripts = MemoryFsScripts(scripts, self._base)
        modules = loaders.modules(self._loaders)
        pxelinux = Pxelinux(
            self._boot_server, decider, self._base, mode.link, mode.give, modules, self._record, settling
        )
        rooms = {
            PXELINUX_ROOM: pxelinux.room,
            **mode.rooms,
            **(states.rooms if states else {}),
            **self._with_bootinfo(),
        }
        self._answers = Answers(
            {**mode.catalog, **loaders.catalog(self._loaders), **modules, **self._programs.catalog},
            first_script=lambda machine, ours: autoexec(self._base(ours), machine, ours),
            boot_script=self._scripts,
            rooms=rooms,
            config=pxelinux.over_tftp,
            machine_at=self._boot_server.machine_at,
            published=self._published,
            record=self._record,
        )
        self._journal.subscribe(self._note)
        self._journal.subscribe(pxelinux.note)
        if states:
            self._journal.subscribe(states.note)
        thread = threading.Thread(target=self._transfers.run, name="transfers", daemon=True)
        capture: Capture | None = None
        try:
            self._open_rest(control, chosen)
            if self._bootinfo:
                await self._bootinfo.open_door()
            home = states.home if states else None
            mode.open(House(control, self._record, self._boot_server, self._base, decider.known, home))
            if self._settings.pcap:
                capture = self._capture(self._settings.pcap, chosen)
            from bootwire.web.manage import Manage  # a third of a second, once everything answers

            manage = Manage(states, mode.installing, lambda: loaders.listed(self._loaders), self._machines.listed)
            self._desk.listen(chosen, self._http_port, self._boot_server.machine_at)
            self._page = await self._desk.open(self._progress, [manage])
            self._say_ready(chosen)
            self._journal.start()
            gc.collect()
            gc.freeze()  # what is there now stays: looking through it again would hold everybody up for milliseconds
            thread.start()
            why = await self._until_signal(control, chosen, signals)
            await self._drain(signals)
            self._record(Stopped("", why))
            return 0
        finally:
            if self._dhcp:
                self._dhcp.close()
            if self._syslog:
                self._syslog.close()
            if self._bootinfo:
                await self._bootinfo.close()
            self._reports.close()
            if self._echo:
                self._echo.close()
            await self._streamer.close()
            await self._waiting.close()
            await mode.close()
            await self._desk.close()
            self._transfers.stop()
            if thread.is_alive():
                await asyncio.to_thread(thread.join, 2)
            if capture:
                capture.close()
            await asyncio.to_thread(self._journal.close)
            await asyncio.to_thread(self._desk.finish)

    # --- opening ------------------------------------------------------------------------------------------------

    def _multicast(self) -> str:
        """The group to hear boot server discovery at, "" where no menu is looked for like that."""
        ours = self._settings.menu is not None and self._settings.menu.discovery == "multicast"
        return MULTICAST if ours or self._mode.multicast else ""

    def _with_states(self, store: Store) -> States | None:
        """What may be installed is looked at before anything is decided, where the mode tells machines apart."""
        if self._mode.seals is None:
            return None
        try:
            states = States(
                self._mode.decider, store, self._mode.seals, self._mode.named, self._record,
                mac_at=Neighbours(missed=0).mac_at,
            )  # fmt: skip
        except sqlite3.Error as error:
            raise StartError(f"the boot states cannot be read: {error}\n  try  --state-dir DIR") from None
        self._decider = states
        return states

    def _open_http(self, chosen: Sequence[Interface]) -> None:
        ports = [self._http_port]
        if self._settings.http_port is None and self._http_port == HTTP_PORT:
            ports.append(HTTP_PORT_ELSE)
        for port in ports:
            listen = [(interface.address, port) for interface in chosen]
            try:
                self._http = HttpServer(
                    self._transfers, listen, lambda request, peer: self._answers.http(request, peer), self._record,
                    self._take, self._http_limits, record_made=self._record_made,
                )  # fmt: skip
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    what, fix = taken("tcp", port, "--http-port")
                    if port != ports[-1]:
                        self._record(Warned("", f"{what}; HTTP goes on on port {ports[-1]}"))
                        continue
                    raise StartError(f"{what}\n  try  {fix}") from None
                raise _cannot_open(error) from None
            self._http_port = port
            for address, _ in listen:
                self._record(Listening("", "http", address, port))
            return

    def _open_rest(self, control: asyncio.AbstractEventLoop, chosen: Sequence[Interface]) -> None:
        try:
            self._tftp = TftpServer(
                self._transfers,
                [(interface.address, TFTP_PORT, "") for interface in chosen],
                lambda name, peer: self._answers.tftp(name, peer),
                self._record,
                limits=self._tftp_limits,
                single_port=self._settings.tftp_single_port,
            )
            self._dhcp = DhcpEdge(self._boot_server, chosen, self._record, self._decider.ask, self._multicast())
            self._dhcp.open(control)
            if self._bootinfo:
                self._bootinfo.open(control, chosen)
        except PortInUse as error:
            raise StartError(f"{error.what}\n  try  {error.fix}") from None
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                what, fix = taken("udp", TFTP_PORT)
                raise StartError(f"{what}; firmware knows no other port for TFTP\n  try  {fix}") from None
            raise _cannot_open(error) from None
        addresses = [interface.address for interface in chosen]
        self._syslog = SyslogReceiver(control, addresses, self._record, self._boot_server.machine_at)
        self._reports.open(control, addresses)
        if self._programs.own:
            self._echo = Echo(control, addresses, self._record, self._boot_server.machine_at)

    def _with_bootinfo(self) -> dict[str, Room]:
        """Make what answers bootinfo, if it was asked for; the rooms that it serves files from."""
        settings = self._settings.bootinfo
        if settings is None:
            return {}
        decisions = BootinfoDecisions(self._boot_server, self._decider, self._mode.link, self._base, settings.answer)
        state = loaders.state_directory(self._settings.state_dir)
        self._bootinfo = BootinfoService(settings, decisions, self._boot_server.machine_at, self._record, state)
        return {MEMORY_FS: decisions.memory_fs}

    def _capture(self, path: str, chosen: Sequence[Interface]) -> Capture:
        try:
            return Capture(path, chosen, self._http_port, self._record)
        except OSError as error:
            raise StartError(f"cannot record to {path}: {error.strerror}") from None

    # --- running ------------------------------------------------------------------------------------------------

    async def _until_signal(
        self, control: asyncio.AbstractEventLoop, chosen: tuple[Interface, ...], signals: asyncio.Queue[str]
    ) -> str:
        """Wait for a signal; meanwhile move to where the interfaces' addresses go. Returns why it ended."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ADDRESS_CHECK_SECONDS):
                    return await signals.get()
            try:
                now = choose(self._settings.interfaces)
            except (InterfaceError, OSError):
                continue  # gone for now; our sockets stay, and serve again when it is back unchanged
            if _where(now) != _where(chosen):
                try:
                    await self._move(control, now)
                except (StartError, OSError) as error:
                    self._record(Warned("", f"cannot follow the interfaces' new addresses yet: {error}"))
                else:
                    chosen = now

    async def _move(self, control: asyncio.AbstractEventLoop, chosen: tuple[Interface, ...]) -> None:
        """Open everything anew on `chosen`; transfers under way go on on their own sockets."""
        self._record(Warned("", f"addresses changed: serving on {_where_text(chosen)} from now on"))
        if self._dhcp:
            self._dhcp.close()
        if self._syslog:
            self._syslog.close()
        if self._echo:
            self._echo.close()
        done = asyncio.Event()

        def swap() -> None:
            if self._tftp is not None:
                self._tftp.stop_accepting()
            if self._http is not None:
                self._http.stop(lambda: None)
            control.call_soon_threadsafe(done.set)

        self._transfers.call_soon(swap)
        await done.wait()
        self._open_http(chosen)
        self._open_rest(control, chosen)
        self._desk.listen(chosen, self._http_port, self._boot_server.machine_at)

    async def _drain(self, signals: asyncio.Queue[str]) -> None:
        """Take nothing new; let transfers under way end, for DRAIN_SECONDS or until a second signal."""
        finished = asyncio.Event()
        control = asyncio.get_running_loop()

        def begin() -> None:
            if self._tftp is not None:
                self._tftp.stop_accepting()
            if self._http is not None:
                self._http.stop(lambda: None)
            look(0)

        def look(_now: int) -> None:
            busy = (self._tftp.active if self._tftp else 0) + (len(self._http) if self._http is not None else 0)
            if busy == 0:
                control.call_soon_threadsafe(finished.set)
            else:
                self._transfers.at(self._transfers.now + 50 * MS, look)

        if self._dhcp:
            self._dhcp.close()
        self._transfers.call_soon(begin)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                waiting = {asyncio.ensure_future(finished.wait()), asyncio.ensure_future(signals.get())}
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        closed = asyncio.Event()

        def close() -> None:
            if self._tftp is not None:
                self._tftp.close()
            control.call_soon_threadsafe(closed.set)

        self._transfers.call_soon(close)
        await closed.wait()

    async def _progress(self) -> Underway:
        """How far the transfers under way are."""
        control = asyncio.get_running_loop()
        found: asyncio.Future[Underway] = control.create_future()

        def tell(transfers: Underway) -> None:
            if not found.done():
                found.set_result(transfers)

        def look() -> None:
            transfers = (self._http.progress() if self._http else []) + (self._tftp.progress() if self._tftp else [])
            control.call_soon_threadsafe(tell, transfers)

        self._transfers.call_soon(look)
        return await found + self._streamer.progress()

    def _take(self, sock: socket.socket, request: http.Request, found: Upstream | Later, leftover: bytes) -> None:
        """A connection that the transfer loop cannot answer alone (called there)."""
        if isinstance(found, Upstream):
            self._streamer.take(sock, request, found, leftover)
        else:
            self._waiting.take(sock, request, found, leftover)

    def _hand_back(self, sock: socket.socket, leftover: bytes, request: http.Request | None = None) -> None:
        """A connection returns to the transfer loop: its answer was streamed, or can now be given to `request`."""

        def adopt() -> None:
            if self._http is not None:
                self._http.adopt(sock, leftover, request)
            else:
                sock.close()

        self._transfers.call_soon(adopt)

    def _record(self, fact: Fact) -> None:
        """Take a fact now, from whichever thread. What must be known when the machine asks next is counted here: the
        journal's own thread comes to it a moment later."""
        if isinstance(fact, TransferDone):
            self._answers.count(fact.machine, fact.octets)
        self._journal.record(fact)

    def _record_made(self, kind: type[Fact], *values: Any) -> None:
        """As `_record(kind(*values))`; see `Journal.record_made`."""
        if kind is TransferDone:
            self._answers.count(values[0], values[4])
        self._journal.record_made(kind, *values)

    def _note(self, record: Record) -> None:
        """What the DHCP side must know of the transfers (called in the journal's thread)."""
        fact = record.fact
        self._scripts.note(fact)
        if self._bootinfo:
            self._bootinfo.note(record)
        if isinstance(fact, TransferDone) and fact.machine:
            if fact.name in self._loaders or fact.name in self._programs.catalog:
                self._boot_server.note_loader_served(fact.machine, fact.name, record.at)
            elif fact.protocol == "tftp":
                self._boot_server.note_followed(fact.machine, record.at)
        elif isinstance(fact, ScriptServed) and fact.machine:
            self._boot_server.note_loader_started(fact.machine, record.at)
            if fact.name != SCRIPT:
                self._boot_server.note_boots(fact.machine, record.at)

    def _hardware(self, machine: str) -> Hardware | None:
        record = self._reports.machine(machine)
        return record.hardware if record else None

    def _learn(self, record: inventory.Machine) -> None:
        """A program on a bare machine told what that is."""
        self._machines.keep(record)
        told = record.hardware
        self._boot_server.note_traits(
            Traits(
                told.machine,
                uuid=told.uuid,
                serial=told.serial,
                manufacturer=told.manufacturer,
                product=told.product,
            )
        )

    def _base(self, ours: str) -> str:
        return f"http://{ours}" + (f":{self._http_port}" if self._http_port != 80 else "")

    # --- for the person -----------------------------------------------------------------------------------------

    def _say_ready(self, chosen: Sequence[Interface]) -> None:
        lines = [f"Network   {_where_text(chosen)}", *self._mode.lines]
        lines.append(f"Loaders   {loaders.summary(self._loaders)}")
        if self._programs.name:
            lines.append(f"Program   {self._settings.program.program}, before any loader")
        if self._settings.files:
            lines.append(f"Files     {self._settings.files}, at the TFTP root and http://…/files/")
        if self._page:
            lines.append(f"Page      {self._page}")
        lines.append("Ready. Turn on a machine and choose network boot (often F12). Ctrl-C stops.")
        for what in self._mode.warnings:
            self._record(Warned("", what))
        for advice in self._advice:
            self._record(Warned("", advice.what, advice.fix))
        sys.stderr.write("\n".join(lines) + "\n")
        sys.stderr.flush()
        if not self._settings.json and not systemd.is_output(1):  # entries need no heading
            with contextlib.suppress(OSError):
                os.write(1, f"{prose.HEADER}\n".encode())


def _open_journal(settings: Settings) -> Journal:
    """Lines on stdout; entries with fields instead where stdout is the systemd journal."""
    verbose = settings.verbose > 0
    if not settings.json and systemd.is_output(1):
        with contextlib.suppress(OSError):
            entries = systemd.SystemdJournal(verbose=verbose)
            journal = Journal()
            journal.subscribe(entries.take)
            return journal
    return Journal(1, json=settings.json, verbose=verbose)


def _limits(limit: int) -> tuple[HttpLimits, TftpLimits]:
    """What each service may hold so that neither takes the other's descriptors: a socket and a file for each peer."""
    http, tftp = HttpLimits(), TftpLimits()
    return (
        replace(http, connections=min(http.connections, limit // 6)),
        replace(tftp, transfers=min(tftp.transfers, limit // 6)),
    )


def _publish(path: str | None) -> PublishedDirectory | None:
    if path is None:
        return None
    try:
        return PublishedDirectory(path)
    except OSError as error:
        raise StartError(f"cannot publish {path}: {error.strerror}", 2) from None


def _choose(names: Sequence[str]) -> tuple[Interface, ...]:
    try:
        return choose(names)
    except InterfaceError as error:
        raise StartError(f"{error.what}\n  try  {error.fix}", 2 if names else 1) from None


def _has_raspberry_files(path: str | None) -> bool:
    """Whether the published directory holds what a Raspberry Pi's boot ROM asks for first."""
    return path is not None and any(os.path.exists(os.path.join(path, name)) for name in RASPBERRY_FILES)


def _where(chosen: Sequence[Interface]) -> list[tuple[str, str, int]]:
    return [(i.name, a.address, i.index) for i in chosen for a in i.addresses]


def _where_text(chosen: Sequence[Interface]) -> str:
    return ", ".join(f"{i.name} {i.address}/{i.addresses[0].prefix}" for i in chosen)


def _cannot_open(error: OSError) -> StartError:
    if error.errno in (errno.EACCES, errno.EPERM):
        return StartError(
            "network booting needs ports 67, 69 and 4011, which this user may not open\n"
            f"  run  sudo {command()} {shlex.join(sys.argv[1:])}"
        )
    return StartError(f"cannot open the network: {error.strerror}")


def _loaders(settings: Settings) -> tuple[dict[str, loaders.Loader], list[loaders.Advice]]:
    """The boot loaders to serve, and what a person should know about those that are missing."""
    state = loaders.state_directory(settings.state_dir)
    theirs = None if settings.state_dir else loaders.invoking_user()
    found, advice = loaders.ready(
        state, settings.loaders, fetch_missing=settings.fetch, progress=Progress(), theirs=theirs,
        pxelinux=settings.loader == "pxelinux",
    )  # fmt: skip
    if not found and settings.fetch:
        without = "or go on without them, for machines that have iPXE in their network card:  --no-fetch"
        raise StartError("\n  ".join(("no boot loader files", *map(str, advice), without)))
    return found, advice


class Progress:
    """Says on stderr, once for each file, what is being fetched and how large it is."""

    def __init__(self) -> None:
        self._said = ""

    def __call__(self, what: str, octets: int, whole: int) -> None:
        if what != self._said:
            self._said = what
            size = f", {whole / 1e6:.1f} MB" if whole >= 0 else ""
            sys.stderr.write(f"fetching {what}{size}\n")
            sys.stderr.flush()
