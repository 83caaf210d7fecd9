"""`bootwire demo`: real firmware boots through Bootwire on a private network, beside a DHCP server nobody touched."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from bootwire.facts import AddressSeen, Discovered, Fact, Record, ScriptServed, TransferDone
from bootwire.lab import installing
from bootwire.lab.dhcp_servers import DHCP_SERVERS, DhcpServer, Pool
from bootwire.lab.firmware import FIRMWARE, Firmware, Machine, power_on
from bootwire.lab.linux import Linux, small_linux
from bootwire.lab.network import Network, find_program
from bootwire.lab.server import Server, start_server
from bootwire.observe import prose
from bootwire.observe.boots import stage_of
from bootwire.serve import loaders
from bootwire.serve.packages import Say

KINDS = tuple(FIRMWARE)
DEFAULT = ("bios", "uefi")
PATIENCE = 180.0  # seconds a machine has from power-on to its kernel's command line; 25 to 45 are usual
POOL = Pool("10.77.0.0", 24, "255.255.255.0", "10.77.0.100", "10.77.0.199", "10.77.0.1")
_ROUTER, _BOOTWIRE = "10.77.0.1/24", "10.77.0.2/24"
_TOOLS = (("ip", "iproute2"), ("nsenter", "util-linux"), ("setpriv", "util-linux"))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one machine fared.

    cmdline   as its kernel printed it, "" if it did not
    stages    seconds of those that were seen
    """

    firmware: Firmware
    machine: str
    cmdline: str
    stages: dict[str, float]


def run(firmware: Sequence[str], dhcp_server: str, state: Path, progress: Say) -> int:
    """Run it, telling the story on standard error and the result on standard output. 0: every kernel came up; else 1.

    firmware: of KINDS, none for DEFAULT; state: where fetched files are kept; progress: told of what is fetched.
    Raises LabError when it cannot run: something is missing and cannot be installed or fetched. Needs root.
    """
    chosen = [FIRMWARE[name] for name in dict.fromkeys(firmware or DEFAULT)]
    server = DHCP_SERVERS[dhcp_server]
    with _ended_by_signals():
        _prepare(chosen, server)
        architectures = sorted({one.architecture for one in chosen})
        systems = {architecture: small_linux(architecture, state, progress) for architecture in architectures}
        for advice in loaders.ready(state, progress=progress)[1]:  # now: the private network has no way out
            _say(str(advice))
        began = time.monotonic()
        outcomes: list[Outcome] = []
        for architecture, linux in systems.items():
            outcomes += _boot_all([one for one in chosen if one.architecture == architecture], linux, server, state)
    booted = [outcome for outcome in outcomes if outcome.cmdline]
    sys.stdout.write(_table(outcomes) + "\n")
    took = f"{time.monotonic() - began:.0f} s"
    beside = f"beside {server.title}, which was told nothing of netbooting"
    sys.stdout.write(f"\n{len(booted)} of {len(outcomes)} booted in {took}, {beside}. Everything is cleaned up.\n")
    return 0 if len(booted) == len(outcomes) else 1


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


# --- what must be there first -----------------------------------------------------------------------------------


def _prepare(chosen: Sequence[Firmware], server: DhcpServer) -> None:
    missing = [package for program, package in _TOOLS if find_program(program) is None]
    missing += [package for one in chosen for package in one.missing]
    missing += [server.package] if server.missing else []
    if missing:
        packages = list(dict.fromkeys(missing))
        _say(f"Installing with apt: {' '.join(packages)}")
        began = time.monotonic()
        installing.install(packages)
        _say(f"Installed in {time.monotonic() - began:.0f} s")


# --- booting ----------------------------------------------------------------------------------------------------


def _boot_all(chosen: Sequence[Firmware], linux: Linux, server: DhcpServer, state: Path) -> list[Outcome]:
    """Boot machines of one architecture on a network of their own, as many at a time as there are processors."""
    directory = Path(tempfile.mkdtemp(prefix="bootwire-demo-"))
    at_once = max(1, os.cpu_count() or 1)
    try:
        outcomes: list[Outcome] = []
        for first in range(0, len(chosen), at_once):
            outcomes += _boot_together(chosen[first : first + at_once], linux, server, state, directory)
        return outcomes
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _boot_together(
    chosen: Sequence[Firmware], linux: Linux, server: DhcpServer, state: Path, directory: Path
) -> list[Outcome]:
    token = f"bootwire.demo={secrets.token_hex(4)}"
    initrd = directory / "initrd.gz"
    initrd.write_bytes(linux.initrd())
    with Network() as network:
        lan = network.segment()
        server.start(network.host("dhcp", {lan: _ROUTER}), [POOL], directory)
        arguments = ["boot", str(linux.kernel), str(initrd), "--cmdline", f"console={chosen[0].console} {token}"]
        ours = network.host("bootwire", {lan: _BOOTWIRE})
        _say(f"\nDHCP      {server.title} on a private network, without any PXE setting")
        _say(f"Kernel    {linux.version}")
        bootwire = start_server(
            ours, [*arguments, "-i", "eth0", "--state-dir", str(state), "--no-fetch"], directory, _tell
        )
        machines = []
        for firmware in chosen:
            mac = f"52:54:00:77:00:{KINDS.index(firmware.name) + 1:02x}"
            _say(f"Machine   {mac}  {firmware.title}")
            machines.append(power_on(firmware, lan, mac, directory / firmware.name))
        _say("\n" + prose.HEADER)
        outcomes = _watch(machines, bootwire, token)
        bootwire.stop()
    return outcomes


def _tell(record: Record) -> None:
    if prose.is_milestone(record.fact) and record.fact.machine:
        colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        _say(prose.line(record, time.localtime().tm_gmtoff, colour=colour))


def _watch(machines: Sequence[Machine], bootwire: Server, token: str) -> list[Outcome]:
    """Wait until every kernel has printed its command line, with our token in it, or will not."""
    printed = rf"Kernel command line: (.*\b{re.escape(token)}\b.*)\r?\n"
    deadline = time.monotonic() + PATIENCE
    outcomes: dict[str, Outcome] = {}
    while len(outcomes) < len(machines):
        late = time.monotonic() > deadline
        for machine in machines:
            if machine.mac in outcomes:
                continue
            failed = late or machine.failed
            if found := machine.said(printed):
                cmdline, up = found[1].strip(), next(at for at, line in machine.lines() if token in line)
                outcomes[machine.mac] = Outcome(machine.firmware, machine.mac, cmdline, _stages(machine, bootwire, up))
                _say(f"{time.strftime('%H:%M:%S', time.localtime(up))}  {machine.mac:<34}  {'up':<9}  {cmdline}")
            elif failed:
                outcomes[machine.mac] = Outcome(machine.firmware, machine.mac, "", _stages(machine, bootwire, None))
                _say(_why(machine, bootwire))
        time.sleep(0.1)
    return [outcomes[machine.mac] for machine in machines]


def _why(machine: Machine, bootwire: Server) -> str:
    facts = [prose.line(record) for record in bootwire.records() if record.fact.machine == machine.mac][-6:]
    screen, story = "\n    ".join(machine.tail().splitlines()), "\n    ".join(facts or ["(none: it never asked)"])
    return (
        f"\n{machine.mac} did not boot.\n  The last it said on its serial port:\n    {screen}"
        f"\n  The last that Bootwire saw of it:\n    {story}\n  Bootwire itself:\n    {bootwire.said()}\n"
    )


def _stages(machine: Machine, bootwire: Server, up: float | None) -> dict[str, float]:
    """Seconds from one milestone to the next, from power-on to the kernel's command line on the serial port (`up`)."""
    reached: dict[str, float] = {}
    for record in bootwire.records():
        if record.fact.machine == machine.mac and (name := _milestone(record.fact)):
            if name in ("firmware", "dhcp"):  # the first counts: loaders ask again
                reached.setdefault(name, record.wall)
            else:
                reached[name] = record.wall
    if up:
        reached["start"] = up
    stages: dict[str, float] = {}
    before = machine.started
    for name in _COLUMNS:
        if name in reached:
            stages[name], before = max(0.0, reached[name] - before), max(before, reached[name])
    if up:
        stages["total"] = up - machine.started
    return stages


def _milestone(fact: Fact) -> str:
    """The stage that ends with this fact, "" for none."""
    match fact:
        case Discovered():
            return "firmware"
        case AddressSeen():
            return "dhcp"
        case ScriptServed():
            return "script"
        case TransferDone():
            stage = stage_of(fact.name)
            return stage if stage != "script" else ""
        case _:
            return ""


# firmware: until it asks DHCP; dhcp: until it has an address; script: until the boot script is asked for;
# start: from the last initrd to the kernel's command line
_COLUMNS = ("firmware", "dhcp", "loader", "script", "kernel", "initrd", "start", "total")


def _table(outcomes: Sequence[Outcome]) -> str:
    width = max(len(outcome.firmware.title) for outcome in outcomes)
    lines = ["", f"{'MACHINE':<17}  {'':<{width}}" + "".join(f"{name:>9}" for name in _COLUMNS) + "   (seconds)"]
    for outcome in outcomes:
        cells = "".join(f"{outcome.stages[n]:9.1f}" if n in outcome.stages else f"{'-':>9}" for n in _COLUMNS)
        lines.append(f"{outcome.machine}  {outcome.firmware.title:<{width}}{cells}")
        lines.append(f"{'':<17}  " + (f"kernel command line: {outcome.cmdline}" if outcome.cmdline else "DID NOT BOOT"))
    return "\n".join(lines)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end us as Ctrl-C does: through every clean-up on the way out."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
