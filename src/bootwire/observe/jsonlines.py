"""Facts as JSON lines (RFC 8259, one object a line, ASCII only), the same objects as `Record.as_dict`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from json.encoder import encode_basestring_ascii as quoted
from operator import attrgetter

from bootwire.facts import KINDS, Fact, Record

_FIELDS: dict[type[Fact], tuple[str, ...]] = {kind: tuple(f.name for f in fields(kind)) for kind in KINDS}
_BY_NAME = {kind.kind: kind for kind in KINDS}

# A storm writes tens of thousands of lines a second, and json.dumps alone would be a third of the work of serving them.
_LINES = {
    kind: '{"v":1,"time":%.6f,"kind":' + quoted(kind.kind) + "".join(f',"{name}":%s' for name in names) + "}"
    for kind, names in _FIELDS.items()
}
_VALUES = {kind: attrgetter(*names) for kind, names in _FIELDS.items()}
_TEXT: dict[type, Callable[..., str]] = {
    str: quoted,
    int: int.__repr__,
    float: float.__repr__,
    bool: lambda value: "true" if value else "false",
}


def line(record: Record) -> str:
    """One object without a line end."""
    kind = type(record.fact)
    return _LINES[kind] % (record.wall, *[_TEXT[type(value)](value) for value in _VALUES[kind](record.fact)])


def parse(text: str | bytes) -> Record:
    """The record a line was made of, its moment to the microsecond. Raises ValueError for any other line."""
    body = json.loads(text)
    try:
        kind = _BY_NAME[body["kind"]]
        wall = float(body["time"])
        fact = kind(**{name: body[name] for name in _FIELDS[kind]})
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a fact: {error}") from None
    return Record(wall, round(wall * 1e6) * 1_000, fact)
