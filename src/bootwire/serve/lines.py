"""The journal's JSON lines by the thousand: the same lines as `observe.jsonlines.line`, with a library doing the text.

A storm writes a hundred thousand lines a second beside the answers themselves, on the same processor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from operator import attrgetter

import msgspec

from bootwire.facts import KINDS, Fact, Record
from bootwire.observe import jsonlines

Stamped = tuple[float, int, Fact] | tuple[float, int, type[Fact], tuple[object, ...]]
"""A fact with its moment as in `Record`; or a fact's kind and the values that it would be made of."""


def made(stamped: Stamped) -> Record:
    """The fact itself, with its moment."""
    if len(stamped) == 3:
        return stamped if isinstance(stamped, Record) else Record(*stamped)
    wall, at, kind, values = stamped
    make: Callable[..., Fact] = kind
    return Record(wall, at, make(*values))


def lines(batch: Sequence[Stamped]) -> bytes:
    """One line for each, in order."""
    try:
        text = _ENCODE([
            _LINE[type(one[2])](1, one[0], one[2].kind, *_VALUES[type(one[2])](one[2]))
            if len(one) == 3
            else _LINE[one[2]](1, one[0], one[2].kind, *one[3])
            for one in batch
        ])  # fmt: skip
    except UnicodeEncodeError:  # half of a surrogate pair: only escapes can write it
        text = b"\xff"
    return text if text.isascii() else "".join([jsonlines.line(made(one)) + "\n" for one in batch]).encode()


def _line(kind: type[Fact]) -> Callable[..., msgspec.Struct]:
    own = [
        (field.name, object) if field.default is dataclasses.MISSING else (field.name, object, field.default)
        for field in dataclasses.fields(kind)
    ]
    return msgspec.defstruct(kind.__name__, [("v", int), ("time", float), ("kind", str), *own], gc=False)


_LINE = {kind: _line(kind) for kind in KINDS}
_VALUES = {kind: attrgetter(*(field.name for field in dataclasses.fields(kind))) for kind in KINDS}
_ENCODE = msgspec.json.Encoder().encode_lines
