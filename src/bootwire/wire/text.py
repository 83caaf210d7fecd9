"""A peer's octets as text that is safe on one line of a terminal, a log or a page."""

from __future__ import annotations

LIMIT = 256
"""Characters of a peer's text that a fact keeps: enough for any file name seen, too few to flood a log with."""


def printable(raw: bytes | str, limit: int = LIMIT) -> str:
    r"""One line without control characters, at most `limit` characters (a cut one ends in "…").

    Octets are read as UTF-8; what is not, and what is not printable (controls, line ends of every kind, bidirectional
    marks, surrogates), becomes \xNN, \uNNNN or \UNNNNNNNN. A backslash stays as it is, so that a second call changes
    nothing.
    """
    # No input longer than this can matter: a printed character takes at most four octets.
    text = raw[: 4 * limit + 4].decode("utf-8", "backslashreplace") if isinstance(raw, bytes) else raw[: limit + 1]
    if not text.isprintable():
        text = "".join(c if c.isprintable() else _escape(c) for c in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
