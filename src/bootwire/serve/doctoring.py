"""`bootwire doctor`: a machine of each firmware in turn on this network; who answers, how it ends, and what is wrong.

Every machine boots as that firmware would, up to the kernel, over a card of our own; what passed is then read as
`explain` reads a capture. What they were given over TFTP is fetched again by a plain host, with several sizes.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bootwire.observe import explain
from bootwire.observe.explain import signatures
from bootwire.observe.explain.gather import Capture
from bootwire.observe.explain.signatures import NOWHERE, Finding
from bootwire.preboot.dhcp import Network
from bootwire.preboot.online import Card, Online
from bootwire.preboot.personas import steps
from bootwire.preboot.power_on import FIRMWARE, Player
from bootwire.serve.explaining import STATUS, findings_page
from bootwire.serve.mode import StartError
from bootwire.wire import dhcp4, pcap
from bootwire.wire.text import printable

USUAL = ("bios", "uefi", "uefi-http", "ipxe")
"""What is tried unless somebody chooses: one of each way into a boot."""

SIZES = ((512, 1), (1468, 1), (1468, 4), (1468, 16), (8192, 1))
"""(block size, window size): the least there is, Ethernet's, windows of new firmware and iPXE, fragmented blocks."""

_WAITS = (1_000_000_000,) * 4  # nanoseconds for each send of a plain host: a LAN answers in far less
_CHUNK = 1 << 16
_SERVERS = 3  # files of as many servers are fetched again


@dataclass(frozen=True, slots=True)
class Trial:
    """How one firmware fared. ends: a sentence; well: it started something; screen: its last lines."""

    firmware: str
    mac: str
    ends: str
    well: bool
    seconds: float
    screen: tuple[str, ...]
    capture: Capture


@dataclass(frozen=True, slots=True)
class Fetch:
    """One TFTP transfer of a plain host. trouble: "" where it came whole."""

    server: str
    name: str
    block: int
    window: int
    octets: int
    seconds: float
    repeats: int
    trouble: str


@dataclass(slots=True)
class Report:
    """All that was seen."""

    trials: list[Trial] = field(default_factory=list)
    fetches: list[Fetch] = field(default_factory=list)
    host: Network | None = None
    host_trouble: str = ""

    @property
    def findings(self) -> list[tuple[Finding, tuple[str, ...]]]:
        """Each with the firmware it was seen with, the worst first."""
        seen: dict[tuple[str, str], tuple[Finding, list[str]]] = {}
        for trial in self.trials:
            for one in signatures.findings(trial.capture):
                seen.setdefault((one.cause, one.because), (one, []))[1].append(trial.firmware)
        told = {firmware for one, names in seen.values() if one.severity != "info" for firmware in names}
        found = [(one, tuple(dict.fromkeys(names))) for one, names in seen.values()]
        found += [
            (_unexplained(trial), (trial.firmware,))
            for trial in self.trials
            if not (trial.well or trial.firmware in told)
        ]
        found += [(one, ("plain host",)) for one in _of_fetches(self.fetches)]
        if self.host_trouble:
            found.append((_of_host(self.host_trouble), ("plain host",)))
        return sorted(found, key=lambda pair: -STATUS[pair[0].severity])


def run(echo: Callable[[str], object], card: Card, firmwares: Sequence[str], as_json: bool, verbose: bool) -> int:
    """Examine the network of this card. Returns the exit status; raises StartError, OSError (the card)."""
    chosen = tuple(dict.fromkeys(firmwares)) or USUAL
    if wrong := [name for name in chosen if name not in FIRMWARE]:
        raise StartError(f"no firmware called {wrong[0]}: there are {', '.join(FIRMWARE)}", 2)
    report = Report()
    for firmware in chosen:
        if not as_json:
            echo(f"{firmware}: power on")
        report.trials.append(_trial(card, firmware))
        if not as_json:
            echo(f"{firmware}: {report.trials[-1].ends}")
    _as_host(card, report)
    if as_json:
        echo(json.dumps(_document(report)))
    else:
        for line in _page(report, verbose):
            echo(line)
    return max((STATUS[one.severity] for one, _ in report.findings), default=0)


# --- on the wire ------------------------------------------------------------------------------------------------


def _trial(card: Card, firmware: str) -> Trial:
    """From power-on to its end, with all that passed."""
    screen: list[str] = []
    with tempfile.TemporaryDirectory() as directory:
        record = Path(card.pcap or Path(directory, "boot.pcap"))
        began = time.monotonic()
        with Online(replace(card, bare=True, address="", pcap=str(record)), threaded=True) as online:
            mac = online.stack.nic.mac.hex(":")
            outcome, _ = online.power_on(firmware, screen.append)
        seconds = time.monotonic() - began
        with record.open("rb") as file:
            capture = explain.gathered(pcap.read(iter(lambda: file.read(_CHUNK), b"")))
    capture.ended = max(capture.ended, capture.began + int(seconds * 1e9))
    ends, well = _ends(outcome)
    return Trial(firmware, mac, ends, well, seconds, tuple(screen[-8:]), capture)


def _ends(outcome: steps.Outcome) -> tuple[str, bool]:
    match outcome:
        case steps.Booted(kernel, initrds, cmdline):
            with_ = f", {len(initrds)} initrd{'' if len(initrds) == 1 else 's'}" if initrds else ""
            line = f": {printable(cmdline, 120)}" if cmdline else ""
            return f"boots {printable(kernel.url or kernel.name, 200)} ({kernel.octets:,} octets){with_}{line}", True
        case steps.Started(program):
            return f"starts {printable(program.name, 200)} ({program.octets:,} octets)", True
        case _:
            return f"stops: {printable(str(outcome), 300)}", False


def _as_host(card: Card, report: Report) -> None:
    """What a machine without any network boot gets; then the files that the others got over TFTP, again."""
    files: dict[str, bytes] = {}
    for trial in report.trials:
        for transfer in (one for machine in trial.capture.machines.values() for one in machine.transfers):
            if len(files) < _SERVERS:
                files.setdefault(transfer.server, transfer.name.encode("utf-8", "surrogateescape"))
    try:
        with Online(replace(card, pcap=""), threaded=True) as online:
            report.host = online.network
            player = Player(online.stack, lambda line: None)
            for server, name in files.items():
                report.fetches += [_fetch(player, server, name, block, window) for block, window in SIZES]
    except OSError as error:
        report.host_trouble = error.strerror or str(error)


def _fetch(player: Player, server: str, name: bytes, block: int, window: int) -> Fetch:
    options = [(b"tsize", b"0")]
    if block != 512:
        options.append((b"blksize", b"%d" % block))
    if window != 1:
        options.append((b"windowsize", b"%d" % window))
    began = time.monotonic()
    got = player.fetch_tftp(steps.TftpGet(server, name, tuple(options), _WAITS))
    seconds = time.monotonic() - began
    octets = got.octets if isinstance(got, steps.Fetched) else 0
    trouble = "" if isinstance(got, steps.Fetched) else printable(f"{got.why} {got.text}".strip(), 120)
    return Fetch(
        server, printable(name.decode("utf-8", "replace"), 200), block, window, octets, seconds, got.repeats, trouble
    )


# --- what is wrong, besides what the packets show ------------------------------------------------------------------


def _unexplained(trial: Trial) -> Finding:
    screen = "; ".join(line for line in trial.screen[-3:] if line.strip())
    return Finding(
        "did-not-boot", "error", trial.mac, printable(f"It {trial.ends}. Its screen: {screen}", 600),
        "Record it (--pcap FILE --as NAME) and read it with bootwire explain -v FILE.", "the firmware's persona",
    )  # fmt: skip


def _of_host(trouble: str) -> Finding:
    return Finding(
        "no-address-for-hosts", "error", "", f"A plain host got no address: {trouble}.",
        "Start the network's DHCP server; look whether its pool is used up, or whether it refuses strangers.",
        "RFC 2131 section 4.4.1",
    )  # fmt: skip


def _of_fetches(fetches: list[Fetch]) -> Iterator[Finding]:
    for server in dict.fromkeys(one.server for one in fetches):
        mine = [one for one in fetches if one.server == server]
        small, *others = mine
        if small.trouble:
            if all(one.trouble for one in others):
                yield Finding(
                    "tftp-blocked", "error", "", f"{small.name} cannot be had from {server} over TFTP: "
                    f"{small.trouble}.",
                    "Look whether the TFTP service runs and has this file; let UDP port 69 and the high ports that it "
                    "answers from through every firewall between.", "RFC 1350 section 4",
                )  # fmt: skip
            continue
        for kind, bad in (
            ("window", [one for one in others if one.trouble and one.window > 1]),
            ("block", [one for one in others if one.trouble and one.window == 1]),
        ):
            if bad and kind == "block":
                yield Finding(
                    "tftp-large-blocks", "error" if bad[0].block <= 1468 else "warning", "",
                    f"Blocks of 512 octets come from {server}, blocks of {bad[0].block} do not: "
                    f"{bad[0].trouble}. A link or tunnel between has a smaller MTU, or fragments are dropped.",
                    "Look at the MTU of every link and tunnel between; where it must stay, let the server offer no "
                    "more than what fits (dnsmasq: tftp-no-blocksize).", "RFC 2348; PXE-E32",
                )  # fmt: skip
            elif bad and len(bad) == sum(one.window > 1 for one in others):
                yield Finding(
                    "tftp-windows", "warning", "",
                    f"Single blocks come from {server}, windows of {bad[0].window} do not: {bad[0].trouble}.",
                    "Something between drops bursts (a small buffer, a rate limit), or its windows are "
                    "broken.",
                    "RFC 7440",
                )  # fmt: skip


# --- for a person, for a program --------------------------------------------------------------------------------


def _responders(report: Report) -> dict[str, list[str]]:
    """Who offered what, with what they offered, in the order they were heard."""
    found: dict[str, list[str]] = {}
    for trial in report.trials:
        for machine in trial.capture.machines.values():
            for one in machine.of(dhcp4.OFFER, client=False):
                what = [] if one.message.yiaddr == NOWHERE else ["addresses"]
                what += [f"boots {trial.firmware}"] if one in signatures.booting(machine) else []
                found.setdefault(one.server, []).extend(what)
    return {server: list(dict.fromkeys(what)) for server, what in found.items()}


def _page(report: Report, verbose: bool) -> Iterator[str]:
    yield ""
    yield "WHO ANSWERS"
    for server, what in _responders(report).items():
        yield f"  {server:<15} {', '.join(what)}"
    if not _responders(report):
        yield "  nobody"
    if (host := report.host) is not None:
        yield f"  a plain host gets {host.address}/{host.prefix}"
    if report.fetches:
        yield ""
        yield "TFTP, AGAIN       block  window      octets  seconds"
        for one in report.fetches:
            went = f"{one.octets:>11,} {one.seconds:>8.2f}" if not one.trouble else f"  {one.trouble}"
            repeats = f"  {one.repeats} sent again" if one.repeats and not one.trouble else ""
            yield f"  {one.server:<15} {one.block:>5} {one.window:>7} {went}{repeats}"
    yield ""
    found = [replace(one, machine=", ".join(names)) for one, names in report.findings]
    yield from findings_page(found, verbose)


def _document(report: Report) -> dict[str, object]:
    return {
        "trials": [
            {
                "firmware": one.firmware, "mac": one.mac, "ends": one.ends, "well": one.well,
                "seconds": round(one.seconds, 3), "screen": list(one.screen),
            }
            for one in report.trials
        ],
        "responders": _responders(report),
        "tftp": [
            {
                "server": one.server, "name": one.name, "block": one.block, "window": one.window,
                "octets": one.octets, "seconds": round(one.seconds, 3), "repeats": one.repeats, "trouble": one.trouble,
            }
            for one in report.fetches
        ],
        "findings": [
            {
                "cause": one.cause, "severity": one.severity, "firmware": list(names), "because": one.because,
                "fix": one.fix, "source": one.source,
            }
            for one, names in report.findings
        ],
    }  # fmt: skip
