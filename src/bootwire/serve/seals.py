"""Sealed tokens: what this server put into a URL, readable and forgeable by nobody else, for one purpose and a time.

Authenticated encryption (AES-256-GCM, NIST SP 800-38D) with a key from the state directory, so that a URL outlives a
restart, and servers that share the key honour each other's.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

KEY_OCTETS = 32  # AES-256
KEY_FILE = "url-key"
MAX_TOKEN = 12 * 1024  # characters looked at: a URL of 8 KiB and what goes with it
_NONCE = 12  # octets, NIST SP 800-38D section 8.2.2: random, from the kernel


@dataclass(frozen=True, slots=True)
class Sealed:
    """What a token holds. machine: the MAC it is for, "" for any; expires: Unix seconds."""

    machine: str
    expires: int
    what: tuple[str, ...]


class Seals:
    """Makes tokens and opens them. Any thread. key: KEY_OCTETS random octets."""

    def __init__(self, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # some 30 ms that few commands need

        self._cipher = AESGCM(key)

    def seal(self, scope: str, machine: str, what: Sequence[str], now: float, lifetime: float) -> str:
        """A token for `scope` that holds `what` until `lifetime` seconds after `now` (Unix seconds).

        Letters, digits, "-" and "_" only (RFC 4648 section 5): nothing that an old firmware's URL parser trips over.
        """
        said = [scope, machine, int(now + lifetime), *what]
        plain = json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        nonce = os.urandom(_NONCE)
        sealed = nonce + self._cipher.encrypt(nonce, plain, None)
        return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()

    def open(self, scope: str, token: str, now: float) -> Sealed | str:
        """What a token of `scope` holds, or why it is none. Total over hostile tokens."""
        from cryptography.exceptions import InvalidTag

        if len(token) > MAX_TOKEN:
            return "the token in the URL is too long"
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
            plain = self._cipher.decrypt(raw[:_NONCE], raw[_NONCE:], None)
        except (InvalidTag, binascii.Error, ValueError):
            return "the token in the URL is not one of this server's"
        purpose, machine, expires, *what = json.loads(plain.decode("utf-8", "surrogatepass"))
        if purpose != scope:
            return f"the URL is good for something else ({purpose}), not for this"
        if now >= expires:
            return f"the URL has expired {int(now - expires)} s ago"
        return Sealed(machine, expires, tuple(what))


def load_key(state: Path) -> bytes:
    """The key of this state directory, made when there is none; only its owner can read it. Raises OSError."""
    path = state / KEY_FILE
    with contextlib.suppress(FileNotFoundError):
        if len(key := path.read_bytes()) == KEY_OCTETS:
            return key
    state.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(prefix=f".{KEY_FILE}.", dir=state)  # readable by its owner alone
    fresh = Path(name)
    try:
        os.write(fd, os.urandom(KEY_OCTETS))
        os.fsync(fd)
    finally:
        os.close(fd)
    try:
        if path.exists() and path.stat().st_size != KEY_OCTETS:
            path.unlink()  # a torn write of long ago: its URLs have expired
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)  # of two servers that start at once, the first one's key counts
    finally:
        fresh.unlink()
    return path.read_bytes()
