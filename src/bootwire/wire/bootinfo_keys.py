"""The file of keys for bootinfo seals: one `IDENTITY KEY` a line, the key in hexadecimal; `*` is everybody else's."""

from __future__ import annotations

from bootwire.wire import bootinfo_seal as seal
from bootwire.wire.text import printable

LARGEST = 4 << 20  # octets: 40,000 machines


def parse(data: bytes, path: str) -> dict[str, bytes]:
    """Identity to key, in the order of the file. Blank lines and lines that begin with # say nothing.

    path: for errors. Raises ValueError with the line's number and what is wrong with it.
    """
    if len(data) > LARGEST:
        raise ValueError(f"{path}: more than {LARGEST >> 20} MiB")
    keys: dict[str, bytes] = {}
    for number, line in enumerate(data.decode("utf-8", "backslashreplace").splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            name, key = _entry(words)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        if name in keys:
            raise ValueError(f"{path}, line {number}: a second key for {name}")
        keys[name] = key
    if not keys:
        raise ValueError(f"{path}: no keys in it; write lines like: 52:54:00:12:34:56 {'00' * seal.MIN_KEY}")
    return keys


def _entry(words: list[str]) -> tuple[str, bytes]:
    if len(words) != 2:
        raise ValueError("not an identity and a key")
    name, digits = words
    seal.claim(name)
    if not all(digit in "0123456789abcdefABCDEF" for digit in digits) or len(digits) % 2:
        raise ValueError(f"the key of {printable(name)} is not hexadecimal")
    key = bytes.fromhex(digits)
    if len(key) < seal.MIN_KEY:
        raise ValueError(f"the key of {printable(name)} has {len(key)} octets, at least {seal.MIN_KEY} are needed")
    return name, key
