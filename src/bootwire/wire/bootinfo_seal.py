"""A seal on bootinfo datagrams, where both ends are ours: who sent this, and is it new?

Plain bootinfo has no authentication: whoever can forge an address can order a machine about. A seal uses octets that
the protocol leaves alone, so that a peer which knows nothing of it sees a plain datagram:

    8    "bootwire1 " and the sender's identity, NUL-terminated, in requests and acknowledgements
    496  int64   stamp: microseconds since the Unix epoch by the sender's clock, greater in each datagram
    504  16      tag: the first half of HMAC-SHA256 (RFC 2104 section 5) with the key that both ends have, over
                 LABEL, the identity, a NUL, octets 0 to 503, and the 8 octets of the stamp that this one answers

The stamp answered is a request's in its reply and an order's in its acknowledgement; it is zero elsewhere. So a tag
holds for one machine, one direction and one question. What a stamp may be is the engines' business.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from bootwire.wire.bootinfo import SIZE

LABEL: Final = b"bootwire bootinfo 1"
PREFIX: Final = b"bootwire1 "
MAX_IDENTITY: Final = 128  # octets: as long as a host key may be (HOSTKEY_LENGTH)
MIN_KEY: Final = 16  # octets: RFC 2104 section 3 advises against keys shorter than the tag
CLOCK: Final = 2  # status of a reply that answers nothing but says: your stamp is not new, mine is this

_STAMP, _TAG = 496, 504  # where they begin; a command line ends at 495


def identity(data: bytes) -> str | None:
    """Who says to have sent a request or an acknowledgement, from its data; None where there is no seal.

    Total: an identity is 1 to MAX_IDENTITY printable ASCII characters, anything else is no seal.
    """
    if not data.startswith(PREFIX):
        return None
    name = data[len(PREFIX) : len(PREFIX) + MAX_IDENTITY + 1].partition(b"\0")[0]
    if not 0 < len(name) <= MAX_IDENTITY or not name.isascii():
        return None
    text = name.decode("ascii")
    return text if text.isprintable() else None


def claim(name: str) -> bytes:
    """The data of a request that is to be sealed. Raises ValueError for an identity that `identity` would not read."""
    data = PREFIX + name.encode()
    if identity(data) != name:
        raise ValueError(f"an identity is 1 to {MAX_IDENTITY} printable ASCII characters")
    return data


def sealed(datagram: bytes, key: bytes, name: str, stamp: int, answers: int = 0) -> bytes:
    """The datagram with its seal. stamp, answers: 0..2**63-1."""
    body = datagram[:_STAMP] + stamp.to_bytes(8, "little")
    return body + _tag(body, key, name, answers)


def opened(datagram: bytes, key: bytes, name: str, answers: int = 0) -> int | None:
    """The stamp of a datagram whose seal holds for this key, identity and question; else None. Total."""
    if len(datagram) < SIZE:
        return None
    body, tag = datagram[:_TAG], datagram[_TAG:SIZE]
    if not hmac.compare_digest(tag, _tag(body, key, name, answers)):
        return None
    stamp = int.from_bytes(body[_STAMP:], "little")
    return stamp if stamp < 1 << 63 else None


def _tag(body: bytes, key: bytes, name: str, answers: int) -> bytes:
    octets = LABEL + name.encode() + b"\0" + body + answers.to_bytes(8, "little")
    return hmac.new(key, octets, hashlib.sha256).digest()[: SIZE - _TAG]
