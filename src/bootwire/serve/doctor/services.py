"""What DHCP hands out besides: name servers, time servers, and IPv6. Asked as a plain host; every wait is bounded."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from bootwire.engine import MS, S
from bootwire.engine.dhcp6_client import Wants
from bootwire.preboot.dhcp6 import Network6
from bootwire.preboot.fetch import Fetcher, FetchError, Options
from bootwire.preboot.online import Card, Online, Unresolved, look_up
from bootwire.preboot.sockets import Socket, create_connection
from bootwire.preboot.stack import Stack, text
from bootwire.preboot.transport import StackTransport
from bootwire.serve.doctor.seen import Clock, Resolved, Six, Web
from bootwire.wire import dhcp6, ip
from bootwire.wire.text import printable

_SERVERS, _NAMES = 4, 4  # name servers asked, names asked for
_DNS_WAITS = (500 * MS, 1 * S)  # nanoseconds: of two sends
_NTP_PORT, _TIME_PORT = 123, 37  # RFC 5905, RFC 868
_EPOCH = 2_208_988_800  # seconds from 1900 to 1970 (RFC 868)
_CLOCK = 1.0  # seconds for a time server
_TIME_OPTION = 4  # RFC 2132 section 3.6
_SIX, _STATELESS = 4.0, 2.0  # seconds for an address by DHCPv6, and for only the rest; routers are asked at 1 s
_ARCHITECTURE = (7).to_bytes(2, "big")  # IANA "Processor Architecture Types": EFI x86-64
_FILE = 32 << 20  # octets of an IPv6 boot file
_TRYING = 5.0  # seconds without an octet of it


# --- names --------------------------------------------------------------------------------------------------------


def names(online: Online, urls: Sequence[str]) -> list[Resolved]:
    """What each name server says of each name that boot URLs hold; of "localhost" where there are none."""
    hosts = dict.fromkeys(urlsplit(url).hostname or "" for url in urls)
    wanted = [host for host in hosts if host and not _literal(host)][:_NAMES] or ["localhost"]
    search = online.search if wanted != ["localhost"] else ()
    found: list[Resolved] = []
    for server in online.servers[:_SERVERS]:
        for name in wanted:
            found.append(_resolved(online.stack, server, name, search))
            if found[-1].why == "silent":
                break
    return found


def _resolved(stack: Stack, server: str, name: str, search: Sequence[str]) -> Resolved:
    began = time.monotonic()
    shown = printable(name, 120)
    try:
        answer = look_up(stack, name, (server,), search, waits=_DNS_WAITS)
    except Unresolved as error:
        said = printable((error.strerror or error.why).removeprefix(f"{name}: "), 120)
        why = {"no answer": "silent", "refused": said}.get(error.why, error.why)
        return Resolved(server, shown, (), time.monotonic() - began, why)
    return Resolved(server, shown, tuple(sorted(answer.addresses)), time.monotonic() - began)


def _literal(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


# --- clocks -------------------------------------------------------------------------------------------------------


def clocks(online: Online, web: Sequence[Web]) -> list[Clock]:
    """Ours against those of HTTP servers and of the time servers that DHCP names."""
    found: list[Clock] = []
    for one in web:
        if one.date is not None and all(known.server != one.server for known in found):
            found.append(Clock(one.server, "HTTP", one.date))
    network = online.network
    if network is None:
        return found
    found += [Clock(server, "NTP", _ntp(online.stack, server)) for server in network.ntp[:2]]
    old = network.lease.ack.message.option(_TIME_OPTION) or b""
    if len(old) >= 4:
        server = ip.v4_text(old[:4])
        found.append(Clock(server, "time", _time(online.stack, server)))
    return found


def _ntp(stack: Stack, server: str) -> float | None:
    """Seconds that a server is ahead of us (SNTP, RFC 5905 section 14): one question."""
    nonce = secrets.token_bytes(8)
    sent = time.time()
    answer = _datagram(stack, server, _NTP_PORT, b"\x23" + bytes(39) + nonce)  # version 4, client
    if answer is None or len(answer) < 48 or answer[24:32] != nonce or answer[0] & 7 != 4 or not answer[1]:
        return None
    back = time.time()
    received, transmitted = _moment(answer[32:40]), _moment(answer[40:48])
    return ((received - sent) + (transmitted - back)) / 2


def _moment(octets: bytes) -> float:
    """Unix seconds of an NTP timestamp (RFC 5905 section 6)."""
    return int.from_bytes(octets, "big") / (1 << 32) - _EPOCH


def _time(stack: Stack, server: str) -> float | None:
    """The same of a server of the time protocol (RFC 868), over UDP, else over TCP."""
    answer = _datagram(stack, server, _TIME_PORT, b"")
    if answer is None:
        try:
            with create_connection(stack, (server, _TIME_PORT), _CLOCK) as stream:
                stream.settimeout(_CLOCK)
                answer = stream.recv(4)
        except OSError:
            return None
    return int.from_bytes(answer[:4], "big") - _EPOCH - time.time() if len(answer) >= 4 else None


def _datagram(stack: Stack, server: str, port: int, data: bytes) -> bytes | None:
    sock = Socket(stack, socket.SOCK_DGRAM)
    try:
        sock.settimeout(_CLOCK)
        sock.connect((server, port))
        sock.send(data)
        return sock.recv(512)
    except OSError:
        return None
    finally:
        sock.close()


# --- IPv6 ---------------------------------------------------------------------------------------------------------


def six(card: Card) -> Six:
    """A card of its own that speaks IPv6 only: who advertises, who answers, what is offered to boot, does it come."""
    with Online(replace(card, pcap="", bare=True, address=""), threaded=True) as online:
        stack = online.stack
        stack.start_ipv6()
        options = ((dhcp6.ARCHITECTURE, _ARCHITECTURE), (dhcp6.NIC_INTERFACE, b"\1\3\x10"))  # UEFI's (RFC 5970)
        network = _dhcp6(stack, Wants(options=options), _SIX)
        with stack.acting():
            routers = tuple(map(text, stack.host.routers))
        if network is None and routers:
            network = _dhcp6(stack, Wants(address=False, options=options), _STATELESS)
        with stack.acting():
            own = tuple(text(one) for one, _ in stack.host.addresses if len(one) == 16 and one[:2] != b"\xfe\x80")
            names = tuple(map(text, stack.host.dns))
        if network is None:
            return Six(routers, own, name_servers=names)
        trouble = _fetched(stack, network.boot_url) if network.boot_url else ""
        known = tuple(dict.fromkeys((*names, *network.dns)))
        return Six(routers, own, network.address, True, printable(network.boot_url, 300), trouble, known)


def _dhcp6(stack: Stack, wants: Wants, seconds: float) -> Network6 | None:
    try:
        return stack.obtain6(seconds, wants)
    except OSError:
        return None


def _fetched(stack: Stack, url: str) -> str:
    """Why a boot file does not come, "" if it does."""
    with Fetcher(StackTransport(stack), Options(limit=_FILE, idle=_TRYING, tries=1)) as fetcher:
        try:
            fetcher.fetch(url, len)
        except FetchError as error:
            return printable(error.detail, 200)
    return ""
