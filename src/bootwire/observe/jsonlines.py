"""Facts as JSON lines (RFC 8259, one object a line, ASCII only), the same objects as `Record.as_dict`."""

from __future__ import annotations

import json
from dataclasses import fields

from bootwire.facts import KINDS, Fact, Record

_FIELDS: dict[type[Fact], tuple[str, ...]] = {kind: tuple(f.name for f in fields(kind)) for kind in KINDS}
_BY_NAME = {kind.kind: kind for kind in KINDS}
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def line(record: Record) -> str:
    """One object without a line end. Facts are flat, so no field needs the deep copy that `as_dict` makes."""
    fact = record.fact
    body: dict[str, object] = {"v": 1, "time": round(record.wall, 6), "kind": fact.kind}
    for name in _FIELDS[type(fact)]:
        body[name] = getattr(fact, name)
    return _encode(body)


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
