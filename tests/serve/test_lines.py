"""Many facts as JSON lines at once: the same lines as one by one."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.facts import KINDS, ConsoleSaid, Fact, Record, TransferDone
from bootwire.serve import lines

WALL = 1_700_049_731.123457


def sample(kind: type[Fact]) -> dict[str, object]:
    samples: dict[str, object] = {"int": 7, "float": 1.5, "bool": False}
    return {f.name: samples.get(str(f.type), f"<{f.name}>") for f in dataclasses.fields(kind)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_line_is_the_object_that_the_record_is(kind: type[Fact]) -> None:
    fact = kind(**sample(kind))  # type: ignore[arg-type]
    first, second, end = lines.lines([(WALL, 5, fact), (WALL, 5, kind, tuple(sample(kind).values()))]).split(b"\n")
    assert list(json.loads(first).items()) == list(Record(WALL, 5, fact).as_dict().items())
    assert (second, end) == (first, b"")


def test_values_left_out_are_the_facts_defaults() -> None:
    values = ("", "http", "kernel", "10.0.0.9", 1024, 0.25)
    first, second, _ = lines.lines([(WALL, 5, TransferDone(*values)), (WALL, 5, TransferDone, values)]).split(b"\n")
    assert first == second
    assert lines.made((WALL, 5, TransferDone, values)) == Record(WALL, 5, TransferDone(*values))


@given(st.lists(st.text(st.characters(codec=None)), max_size=5))
def test_any_text_is_a_line_of_ascii(texts: list[str]) -> None:
    facts = [ConsoleSaid("", "10.0.0.9", text) for text in texts]
    written = lines.lines([(WALL, 5, fact) for fact in facts])
    assert written.isascii()
    assert [json.loads(line)["text"] for line in written.split(b"\n")[:-1]] == texts
