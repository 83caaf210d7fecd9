"""`bootwire explain`: a capture, or an interface, explained for a person or as JSON."""

from __future__ import annotations

import json
import select
import socket
import sys
import textwrap
import time
from collections.abc import Callable, Iterator

from bootwire.boot_server import BootServer, Datagram, Send, Settings
from bootwire.facts import Offered, Silent
from bootwire.observe import explain, options
from bootwire.observe.explain import signatures, story, story6
from bootwire.observe.explain.gather import SECOND, Capture, Gatherer, Machine, Said
from bootwire.policy.client import Kind
from bootwire.policy.decide import LOADERS, Offerings
from bootwire.serve.capture import framed, moment
from bootwire.serve.capture_socket import ETH_P_ALL, packet_socket
from bootwire.serve.interfaces import InterfaceError, choose
from bootwire.serve.mode import StartError
from bootwire.wire import dhcp4, pcap
from bootwire.wire.reader import WireError
from bootwire.wire.text import printable

OURS = "192.0.2.1"  # RFC 5737: stands for the address of a Bootwire that was not there
STATUS = {"error": 4, "warning": 3, "info": 0}
"""Exit status by the worst finding; 1 and 2 stay what they are everywhere."""

_CHUNK = 1 << 16
_ALL = b"\x06\x00\x00\x00\x00\x00\x04\x00"  # struct sock_filter: BPF_RET of 256 KiB (linux/filter.h)
_BUFFER = 8 << 20  # octets of the kernel's queue
_WIDTH = 80
_DAY = 86_400  # seconds


def run(
    echo: Callable[[str], object], path: str, interface: str, seconds: float, machine: str, as_json: bool, verbose: bool
) -> int:
    """Explain a file ("-": stdin) or what an interface hears. Returns the exit status; raises StartError."""
    if path and interface:
        raise StartError(f"either a file is read or {interface} is listened to\n  leave out one of the two", 2)
    if not (path or interface):
        raise StartError("name a capture file, or an interface with -i", 2)
    capture = _listened(interface, seconds) if interface else _read(path)
    wanted = machine.lower().replace("-", ":")
    chosen = [one for one in capture.machines.values() if one.boots and one.mac.startswith(wanted)]
    found = [one for one in signatures.findings(capture) if not one.machine or one.machine.startswith(wanted)]
    if as_json:
        echo(json.dumps(_document(capture, chosen, found)))
    else:
        for line in _page(capture, chosen, found, verbose):
            echo(line)
    return max((STATUS[one.severity] for one in found), default=0)


def _read(path: str) -> Capture:
    try:
        file = sys.stdin.buffer if path == "-" else open(path, "rb")  # noqa: SIM115
        with file:
            return explain.gathered(pcap.read(iter(lambda: file.read(_CHUNK), b"")))
    except OSError as error:
        raise StartError(f"cannot read {path}: {error.strerror}") from None
    except WireError as error:
        raise StartError(f"{path} is no capture: {error.what}\n  try  tcpdump -i any -s 0 -w boot.pcap") from None


def _listened(name: str, seconds: float) -> Capture:
    try:
        link = choose((name,))[0]
        heard = packet_socket(link, socket.SOCK_RAW, ETH_P_ALL, _ALL, _BUFFER)
    except InterfaceError as error:
        raise StartError(str(error), 2) from None
    except PermissionError:
        raise StartError(f"listening on {name} needs root\n  try  sudo bootwire explain -i {name}") from None
    gatherer = Gatherer()
    buffer = memoryview(bytearray(pcap.RECORD_LIMIT))
    until = time.monotonic() + seconds
    sys.stderr.write(f"listening on {name}; Ctrl-C ends and explains\n")
    try:
        while (left := until - time.monotonic()) > 0:
            if select.select([heard], [], [], min(left, 1.0))[0]:
                size, ancillary, _, address = heard.recvmsg_into([buffer], 256)
                frame = framed(buffer[:size], ancillary, address)
                if frame is not None:
                    gatherer.take(pcap.Packet(moment(ancillary), bytes(frame), len(frame)))
    except KeyboardInterrupt:
        pass
    except OSError as error:
        gatherer.capture.damage = f"{name}: {error.strerror}"
    finally:
        heard.close()
    gatherer.capture.ended = max(gatherer.capture.ended, time.time_ns())
    return gatherer.end()


# --- what Bootwire would have answered --------------------------------------------------------------------------


def would_answer(asked: Said) -> tuple[str, bytes]:
    """(what Bootwire does with this DISCOVER and why, the octets of its offer or b""). All its loaders at hand."""
    loaders = frozenset(name for group in LOADERS.values() for name in group)
    server = BootServer(Settings(offerings=Offerings(loaders)))
    source = (asked.message.giaddr, 67) if asked.message.giaddr != signatures.NOWHERE else (signatures.NOWHERE, 68)
    effects = server.receive(Datagram(asked.data, source, "dhcp", "eth0", OURS), SECOND)
    octets = next((one.data for one in effects if isinstance(one, Send)), b"")
    for effect in effects:
        if isinstance(effect, Offered):
            return f"offered {effect.boot_file} ({effect.recipe}): {effect.because}", octets
        if isinstance(effect, Silent):
            return f"stayed silent: {effect.because}", octets
    return "stayed silent", octets


def _first(machine: Machine) -> Said | None:
    """The DISCOVER that tells most of the firmware: the first that netboots and is not iPXE, else the first."""
    asked = signatures.discovers(machine)
    plain = (Kind.HOST, Kind.BOOTP, Kind.IPXE)
    return next((one for one in asked if one.client.kind not in plain), asked[0] if asked else None)


# --- for a person -----------------------------------------------------------------------------------------------


def _page(capture: Capture, machines: list[Machine], found: list[signatures.Finding], verbose: bool) -> Iterator[str]:
    seconds = (capture.ended - capture.began) / SECOND
    others = len(capture.machines) - sum(one.boots for one in capture.machines.values())
    long = f"{seconds:.1f} s" if seconds < 2 * _DAY else f"{seconds / _DAY:.0f} days"
    yield f"{capture.packets} packets in {long}: {_count(len(machines), 'machine')} netbooting" + (
        f", {_count(others, 'other')}" if others else ""
    )
    if capture.strangers:
        yield f"{capture.strangers} messages of more machines were left out"
    for machine in machines:
        yield ""
        yield from _machine(machine, capture.began, verbose)
    yield ""
    yield from findings_page(found, verbose)


def findings_page(found: list[signatures.Finding], verbose: bool) -> Iterator[str]:
    """What is wrong and what to change, in lines of at most 80 columns."""
    if not found:
        yield "Nothing is wrong that shows here."
        return
    yield "FINDINGS"
    for one in found:
        yield ""
        head = f"{one.severity.upper():<8}{one.machine or 'network'}  {one.cause}"
        yield head
        yield from wrapped(one.because, "        ")
        if one.severity != "info":
            yield from wrapped("Change: " + one.fix, "        ")
        if verbose:
            yield from wrapped("Known from: " + one.source, "        ")


def _machine(machine: Machine, began: int, verbose: bool) -> Iterator[str]:
    client = signatures.firmware(machine)
    addresses = ", ".join(machine.addresses)
    known = client.summary if client else story6.firmware(machine) or "takes files"
    yield f"{machine.mac}  {known}" + (f"  {addresses}" if addresses else "")
    for sentence in story.story(machine):
        stamp = f"{(sentence.at - began) / SECOND:9.3f}  "
        yield from wrapped(sentence.text, " " * len(stamp), stamp)
        if verbose:
            for line in sentence.details:
                yield from wrapped(line, " " * 17, " " * 13)
    if (asked := _first(machine)) is not None:
        text, octets = would_answer(asked)
        yield from wrapped(f"Bootwire would have {text}", " " * 11, "        -> ")
        if verbose and octets:
            for line in options.described(dhcp4.parse(octets)):
                yield from wrapped(line, " " * 17, " " * 13)


def wrapped(text: str, indent: str, first: str = "") -> list[str]:
    """Lines of at most 80 columns; what a peer said is made printable."""
    lines = textwrap.wrap(
        printable(text, 2_000), _WIDTH, initial_indent=first or indent, subsequent_indent=indent,
        break_long_words=True, break_on_hyphens=False,
    )  # fmt: skip
    return [line.rstrip() for line in lines]  # what stands before a long word keeps its space


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


# --- for a program ----------------------------------------------------------------------------------------------


def _document(capture: Capture, machines: list[Machine], found: list[signatures.Finding]) -> dict[str, object]:
    return {
        "packets": capture.packets,
        "octets": capture.octets,
        "seconds": (capture.ended - capture.began) / SECOND,
        "machines": [_machine_document(one, capture.began) for one in machines],
        "findings": [
            {
                "cause": one.cause, "severity": one.severity, "machine": one.machine, "because": one.because,
                "fix": one.fix, "source": one.source,
            }
            for one in found
        ],
    }  # fmt: skip


def _machine_document(machine: Machine, began: int) -> dict[str, object]:
    client = signatures.firmware(machine)
    asked = _first(machine)
    return {
        "machine": machine.mac,
        "firmware": client.summary if client else story6.firmware(machine),
        "uuid": client.uuid if client else "",
        "addresses": list(machine.addresses),
        "story": [
            {"at": (one.at - began) / SECOND, "text": one.text, "details": list(one.details)}
            for one in story.story(machine)
        ],
        "bootwire": would_answer(asked)[0] if asked else "",
        "transfers": [
            {
                "server": one.server, "name": one.name, "options": one.asked, "agreed": one.agreed,
                "octets": one.octets, "complete": one.complete, "repeats": one.repeats, "error": one.text,
            }
            for one in machine.transfers
        ],
        "requests": [
            {
                "server": one.server, "method": one.method, "path": one.path, "status": one.status,
                "octets": one.octets, "complete": one.complete,
            }
            for one in machine.exchanges
        ],
    }  # fmt: skip
