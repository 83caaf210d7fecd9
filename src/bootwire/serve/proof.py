"""Is an image what it should be: its digest, and a detached signature by keys that the operator named."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bootwire.policy.target import Image
from bootwire.preboot.handoff.refusal import HandoffError
from bootwire.preboot.handoff.trust import check_signature
from bootwire.serve.upstreams import UpstreamFailed, Upstreams, host_of

MAX_SIGNATURE = 256 * 1024  # octets; an OpenPGP one has less than 1 KiB, a CMS one carries certificates


class NotProven(Exception):
    """It is not what it should be, or nobody can say; the text says why."""


async def prove(image: Image, digest: str, path: Path, upstreams: Upstreams, *, trusted: bool) -> str:
    """Who signed the file at `path`, whose SHA-256 is `digest`; "" where nobody has to. Raises NotProven."""
    if image.sha256 and digest != image.sha256:
        raise NotProven(f"its SHA-256 is {digest}, not {image.sha256} as it should be")
    if not image.signature:
        return ""
    try:
        signature = await _octets(image.signature, upstreams, trusted=trusted)
        return await asyncio.to_thread(check_signature, path, signature, [Path(image.keys)])
    except HandoffError as error:
        raise NotProven(error.because) from None
    except UpstreamFailed as error:
        raise NotProven(f"its signature cannot be had: {host_of(image.signature)} {error}") from None
    except OSError as error:
        raise NotProven(f"its signature cannot be had: {error.strerror}") from None


async def _octets(location: str, upstreams: Upstreams, *, trusted: bool) -> bytes:
    """A signature, from a file of this machine or a URL. Raises UpstreamFailed, OSError."""
    if location.startswith("/"):
        return await asyncio.to_thread(_read, location)
    response = await upstreams.ask("GET", location, trusted=trusted)
    try:
        if response.status != 200:
            raise UpstreamFailed(f"answers {response.status}")
        octets = bytearray()
        async for piece in response.content.iter_any():
            octets += piece
            if len(octets) > MAX_SIGNATURE:
                raise UpstreamFailed("sends far more than a signature")
        return bytes(octets)
    finally:
        response.close()


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(MAX_SIGNATURE)
