"""What the machines were given, fetched again by a plain host: over TFTP in several sizes, over HTTP with its headers
read. Every wait is bounded."""

from __future__ import annotations

import errno
import time
from collections.abc import Sequence
from dataclasses import replace

from bootwire.engine import S, http_client
from bootwire.preboot.fetch import Fetcher, FetchError
from bootwire.preboot.online import Online
from bootwire.preboot.personas import steps, transfers
from bootwire.preboot.power_on import Player
from bootwire.preboot.sockets import create_connection
from bootwire.preboot.stack import Stack, packed
from bootwire.serve.doctor.seen import Fetch, Web
from bootwire.wire import http, tftp
from bootwire.wire.reader import WireError
from bootwire.wire.text import printable
from bootwire.wire.url import Url, parse_url

SIZES = ((512, 1), (1468, 1), (1468, 4), (1468, 16), (8192, 1))
"""(block size, window size): the least there is, Ethernet's, windows of new firmware and iPXE, fragmented blocks."""

URLS = 12
"""Fetched at most."""

_WAITS = (1 * S,) * 4  # for each send of a plain host: a LAN answers in far less
_SERVERS = 3  # files of as many TFTP servers are fetched again
_CONNECT = 3.0  # seconds: TCP's SYN goes out at 0, 1 and 3 s
_IDLE = 4 * S  # nanoseconds without an octet
_MOST = 64 << 20  # octets of one file: enough for its throughput; the rest is believed if its last octets can be had
_SECONDS = 6.0  # of one file, likewise
_TAIL = 16  # octets asked for as a part


class _EnoughError(Exception):
    """Raised by a sink: that is all we want."""


def tftp_again(online: Online, files: Sequence[tuple[str, bytes]]) -> list[Fetch]:
    """files: (server, name). Each in every size; where the server does not answer at all, once."""
    player = Player(online.stack, lambda line: None)
    found: list[Fetch] = []
    for server, name in list(dict(files).items())[:_SERVERS]:
        why, trouble, seconds = _asked(online.stack, server, name)
        if why:
            shown = printable(name.decode("utf-8", "replace"), 200)
            found.append(Fetch(server, shown, 512, 1, 0, seconds, 0, why, trouble))
            continue
        for block, window in SIZES:
            found.append(_fetch(player, server, name, block, window))
            if found[-1].why and block == 512:  # not even the least comes: bigger ones say nothing new
                break
    return found


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
    why = "" if isinstance(got, steps.Fetched) else _why(got)
    shown = printable(name.decode("utf-8", "replace"), 200)
    return Fetch(server, shown, block, window, octets, seconds, got.repeats, why, trouble)


def _asked(stack: Stack, server: str, name: bytes) -> tuple[str, str, float]:
    """Does anybody answer a request, or say why not? (why, the same for people, seconds); ("", "", …) if so."""
    request = tftp.emit(tftp.ReadRequest(name, b"octet", ((b"tsize", b"0"),)))
    target = packed(server)
    began = time.monotonic()
    with stack.acting():
        port = stack.host.bind_udp()
    try:
        for wait in _WAITS[:3]:
            with stack.acting() as now:
                trouble = stack.host.send_udp(request, target, transfers.TFTP_PORT, port.port, now)
            if trouble:
                return "unreachable", trouble, time.monotonic() - began
            stack.wait(lambda: port.queue or port.errors, wait / S)
            with stack.acting() as now:
                answer = port.take()
                if answer is not None:
                    bye = tftp.emit(tftp.Error(0, b"only asking"))
                    stack.host.send_udp(bye, answer[1], answer[2], port.port, now)
                    return "", "", time.monotonic() - began
                because = port.errors[0].because if port.errors else ""
            if because:
                why = "no service" if because.startswith("port") else undelivered(because)
                return why, because, time.monotonic() - began
        return "silent", "timeout", time.monotonic() - began
    finally:
        with stack.acting():
            stack.host.close_udp(port)


def _why(got: steps.NotFetched) -> str:
    if got.why == "error" and got.code == tftp.ACCESS:
        return "forbidden"
    return {"unreachable": "unreachable", "timeout": "silent", "error": "error"}.get(got.why, "broken")


def undelivered(text: str) -> str:
    """ "prohibited" where a firewall says so (RFC 1812 section 5.2.7.1: codes 9, 10, 13), else "unreachable"."""
    return "prohibited" if "prohibited" in text or any(f"code {n})" in text for n in (9, 10, 13)) else "unreachable"


# --- HTTP -----------------------------------------------------------------------------------------------------------


def http_again(online: Online, urls: Sequence[tuple[str, str, bool]]) -> list[Web]:
    """urls: (what for, URL, whether a machine had it). A server that refuses or is silent is asked once."""
    found: list[Web] = []
    silent: dict[tuple[str, int], Web] = {}
    for role, url, had in list(dict.fromkeys(urls))[:URLS]:
        try:
            parsed = parse_url(url, ("http", "https"))
        except WireError as error:
            found.append(Web(printable(url, 300), role, had, why="broken", trouble=str(error)))
            continue
        key = (parsed.host, parsed.port)
        if key in silent:
            found.append(replace(silent[key], url=printable(url, 300), role=role, had=had))
            continue
        one = _web(online, Web(printable(url, 300), role, had, port=parsed.port), url, parsed)
        if one.why in ("refused", "silent", "prohibited", "unreachable", "name"):
            silent[key] = one
        found.append(one)
    return found


def _web(online: Online, found: Web, url: str, parsed: Url) -> Web:
    try:
        address = online.transport().resolve(parsed.host)[0]
    except OSError as error:
        return replace(found, why="name", trouble=printable(error.strerror or str(error), 200))
    found = replace(found, server=address)
    began = time.monotonic()
    try:
        create_connection(online.stack, (address, parsed.port), _CONNECT).close()
    except OSError as error:
        why = _refusal(error)
        text = "no answer" if why == "silent" else error.strerror or str(error)
        return replace(found, why=why, trouble=printable(text, 120), connect=time.monotonic() - began)
    found = replace(found, connect=time.monotonic() - began)
    with Fetcher(online.transport()) as fetcher:
        found = _body(fetcher, url, found)
        if not found.why and found.length > _TAIL:
            found = replace(found, ranges=_part(fetcher, url, found.length))
    return found


def _refusal(error: OSError) -> str:
    if error.errno == errno.ECONNREFUSED:
        # for TCP "port unreachable" is no host's answer but a firewall's (RFC 9293 section 3.5.2: a host resets)
        return "prohibited" if "unreachable" in (error.strerror or "") else "refused"
    if isinstance(error, TimeoutError) or error.errno == errno.ETIMEDOUT:
        return "silent"
    text = error.strerror or ""
    return "prohibited" if "port unreachable" in text else undelivered(text)


def _body(fetcher: Fetcher, url: str, found: Web) -> Web:
    octets, began, enough = 0, time.monotonic(), False
    heads: list[tuple[http.Response, float]] = []

    def take(data: bytes | memoryview) -> None:
        nonlocal octets, enough
        octets += len(data)
        if octets >= _MOST or time.monotonic() - began > _SECONDS:
            enough = True
            raise _EnoughError

    why = trouble = ""
    try:
        wanted = http_client.Wanted(url, idle=_IDLE)
        fetcher.ask(wanted, take, lambda response: heads.append((response, time.time())))
    except _EnoughError:
        pass
    except FetchError as error:
        why = {"timeout": "stalled", "truncated": "short", "closed": "short"}.get(error.why, "broken")
        trouble = printable(error.detail, 200)
    seconds = time.monotonic() - began
    response, then = heads[-1] if heads else (http.Response(0, {}), 0.0)
    headers, status = response.headers, response.status
    length = headers.get("content-length", "")
    at = http.parse_date(headers.get("date", ""))
    if not why and status != 200:
        why, trouble = "status", f"{status} {http.REASONS.get(status, '')}".rstrip()
    return replace(
        found, status=status, octets=octets, length=int(length) if length.isdigit() and len(length) < 16 else -1,
        whole=not why and not enough, seconds=seconds, media_type=printable(headers.get("content-type", ""), 60),
        date=None if at is None else at - then, why=why, trouble=trouble,
    )  # fmt: skip


def _part(fetcher: Fetcher, url: str, length: int) -> bool | None:
    """Whether the last octets can be had alone."""
    got = 0

    def take(data: bytes | memoryview) -> None:
        nonlocal got
        got += len(data)
        if got > _TAIL:
            raise _EnoughError

    try:
        answer = fetcher.ask(http_client.Wanted(url, part=(length - _TAIL, length), idle=_IDLE), take)
    except _EnoughError:
        return False
    except FetchError:
        return None
    return answer.status == 206 and got == _TAIL
