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


@pytest.mark.parametrize("kind", KINDS)
def test_a_line_reads_back_as_the_fact_it_told(kind: type[Fact]) -> None:
    samples = {"int": 7, "float": 1.5}
    fact = kind(**{f.name: samples.get(str(f.type), f"<{f.name}>") for f in dataclasses.fields(kind)})  # type: ignore[arg-type]
    record = Record(1_700_049_731.25, 5, fact)
    assert jsonlines.parse(jsonlines.line(record)) == Record(1_700_049_731.25, 1_700_049_731_250_000_000, fact)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"time":1,"kind":"nothing"}', '{"time":1,"kind":"discover"}'])
def test_other_lines_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"Expecting value|not a fact"):
        jsonlines.parse(text)


@given(st.text())
def test_any_text_is_one_line_of_ascii(text: str) -> None:
    line = jsonlines.line(Record(0.0, 0, facts.ConsoleSaid("", "10.0.0.9", text)))
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["text"] == text
