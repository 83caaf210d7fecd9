"""The operator's kernels and initrds, files or http(s) URLs: looked at before anything is served.

Only the head and the size are read here; the octets are served later, files by descriptor, URLs streamed through.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
from dataclasses import dataclass

from bootwire.assets.catalog import LocalFile, RemoteFile
from bootwire.assets.kernels import HEAD
from bootwire.serve.upstreams import Settings as UpstreamSettings
from bootwire.serve.upstreams import UpstreamFailed, Upstreams, host_of
from bootwire.wire.reader import WireError
from bootwire.wire.url import parse_url

PROBE_SECONDS = 20.0
"""How long a URL may take to show its head before we give up on it at start."""


class SourceError(Exception):
    """A kernel or initrd that cannot be used; the text says what to do about it."""


@dataclass(frozen=True, slots=True)
class Examined:
    """head: at most HEAD octets; size: octets, or -1 where the server of a URL would not say."""

    given: str
    source: LocalFile | RemoteFile
    head: bytes
    size: int


def is_url(given: str) -> bool:
    """Whether `given` names an http or https URL; everything else is a file of this machine."""
    return given.lower().startswith(("http://", "https://"))


def pinned(given: str) -> tuple[str, str]:
    """An image's place and SHA-256 ("" for any): a file or URL that may end in "#sha256=HEX". Raises SourceError."""
    location, mark, pin = given.rpartition("#")
    if not mark or (not is_url(given) and (os.path.exists(given) or not pin.startswith("sha256="))):
        return given, ""
    found = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", pin)
    if found is None:
        raise SourceError(f"{given}: after # there should be  sha256=  and 64 hexadecimal digits")
    return location, found[1].lower()


def split_list(given: tuple[str, ...]) -> list[str]:
    """Initrds in order. "a.gz,b.gz" is two, unless a file has exactly that name, or it is one URL."""
    names: list[str] = []
    for item in given:
        if "," not in item or os.path.exists(item):
            names.append(item)
            continue
        parts = [part for part in item.split(",") if part]
        if is_url(item) and not all(is_url(part) or os.path.exists(part.partition("#sha256=")[0]) for part in parts):
            names.append(item)
        else:
            names += parts
    return names


def examine(given: str, upstream: UpstreamSettings | None = None) -> Examined:
    """Read the head and the size of a file or URL. upstream: how other servers are asked.

    Raises SourceError: no such file, not a regular file, empty, not permitted, URL that does not answer 200.
    """
    return asyncio.run(_examine_url(given, upstream)) if is_url(given) else _examine_file(given)


def _examine_file(given: str) -> Examined:
    path = os.path.abspath(given)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise SourceError(f"no such file: {given}") from None
    except OSError as error:
        raise SourceError(f"cannot read {given}: {error.strerror}") from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise SourceError(f"{given} is not a regular file")
        if status.st_size == 0:
            raise SourceError(f"{given} is empty")
        return Examined(given, LocalFile(path), os.pread(fd, HEAD, 0), status.st_size)
    finally:
        os.close(fd)


async def _examine_url(given: str, upstream: UpstreamSettings | None) -> Examined:
    import aiohttp  # a third of a second that only URLs need

    try:
        parse_url(given)
    except WireError as error:
        raise SourceError(f"{given}: {error.what}") from None
    upstreams, head = Upstreams(upstream), b""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            answer = await upstreams.ask("GET", given, {"Range": f"bytes=0-{HEAD - 1}"})
            if answer.status not in (200, 206):
                answer.close()
                raise SourceError(f"{given} answers {answer.status} {answer.reason}")
            size = _total(answer.status, answer.headers.get("Content-Range"), answer.headers.get("Content-Length"))
            while len(head) < HEAD and (chunk := await answer.content.read(HEAD - len(head))):
                head += chunk
            answer.close()
    except TimeoutError:
        raise SourceError(f"{given} did not answer within {PROBE_SECONDS:.0f} s") from None
    except UpstreamFailed as error:
        raise SourceError(f"cannot fetch {given}: {host_of(given)} {error}") from None
    except (aiohttp.ClientError, OSError) as error:
        raise SourceError(f"cannot fetch {given}: {error}") from None
    finally:
        await upstreams.close()
    if not head:
        raise SourceError(f"{given} is empty")
    return Examined(given, RemoteFile(given), head, size)


def _total(status: int, content_range: str | None, content_length: str | None) -> int:
    said = (content_range or "").rpartition("/")[2] if status == 206 else (content_length or "")
    return int(said) if said.isascii() and said.isdigit() and len(said) < 19 else -1
