"""Facts as JSON lines."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire import facts
from bootwire.facts import KINDS, Fact, Record
from bootwire.observe import jsonlines


@pytest.mark.parametrize("kind", KINDS)
def test_a_line_is_the_object_that_the_record_is(kind: type[Fact]) -> None:
    samples = {"int": 7, "float": 1.5}
    fact = kind(**{f.name: samples.get(str(f.type), f"<{f.name}>") for f in dataclasses.fields(kind)})  # type: ignore[arg-type]
    record = Record(1_700_049_731.123456789, 5, fact)
    assert list(json.loads(jsonlines.line(record)).items()) == list(record.as_dict().items())


@given(st.text())
def test_any_text_is_one_line_of_ascii(text: str) -> None:
    line = jsonlines.line(Record(0.0, 0, facts.ConsoleSaid("", "10.0.0.9", text)))
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["text"] == text
