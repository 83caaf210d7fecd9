"""Telnet's octets, however they are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.wire import telnet
from bootwire.wire.telnet import Command, Option, Parameters, Parser, Text

STREAM = (
    b"\xff\xfb\x01\xff\xfd\x18login: a\xff\xffb\r\0c\r\n\xff\xfa\x18\x01\xff\xf0"
    b"\xff\xf6x\xff\xfa\x1f\0\xff\xff\0\x18\xff\xf0"
)
TOKENS = [
    Option(telnet.WILL, telnet.ECHO), Option(telnet.DO, telnet.TERMINAL_TYPE), Text(b"login: a\xffb\rc\r\n"),
    Parameters(24, b"\x01"), Command(telnet.ARE_YOU_THERE), Text(b"x"), Parameters(31, b"\0\xff\0\x18"),
]  # fmt: skip


def joined(tokens):
    """Tokens with the text between two others in one piece."""
    out = []
    for token in tokens:
        if isinstance(token, Text) and out and isinstance(out[-1], Text):
            out[-1] = Text(out[-1].data + token.data)
        else:
            out.append(token)
    return out


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_stream_means_the_same_however_it_is_cut(size):
    parser, tokens = Parser(), []
    for at in range(0, len(STREAM), size):
        tokens += parser.receive(STREAM[at : at + size])
    assert joined(tokens) == TOKENS


@given(st.binary(max_size=200), st.integers(1, 20))
def test_any_octets_are_taken(data, size):
    whole, parser, tokens = Parser().receive(data), Parser(), []
    for at in range(0, len(data), size):
        tokens += parser.receive(data[at : at + size])
    assert joined(tokens) == joined(whole)


@given(st.integers(0, 255), st.binary(max_size=100))
def test_parameters_come_back(option, data):
    assert Parser().receive(telnet.emit(Parameters(option, data))) == [Parameters(option, data)]


@given(st.binary(max_size=100).filter(lambda data: b"\n" not in data and b"\0" not in data))
def test_text_comes_back(data):
    assert b"".join(token.data for token in Parser().receive(telnet.emit(Text(data)))) == data


def test_an_endless_subnegotiation_is_left_out_and_not_kept():
    parser = Parser()
    assert parser.receive(b"\xff\xfa\x18") == []
    for _ in range(100):
        assert parser.receive(b"x" * 10_000) == []
    assert len(parser._parameters) <= telnet.MAX_PARAMETERS + 1
    assert parser.receive(b"\xff\xf0ok") == [Text(b"ok")]
