"""DNS messages: names and their compression, bounds, and that what we write is what we read."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.wire import dns
from bootwire.wire.dns import AAAA, CNAME, MX, SOA, TXT, A, Message, Question, Record
from bootwire.wire.reader import WireError

labels = st.binary(min_size=1, max_size=20)
names = st.lists(labels, max_size=6).map(tuple)
numbers = st.integers(0, 65535)
plain = st.builds(
    Record, names, st.sampled_from([A, AAAA, TXT, 41, 999]), numbers, st.integers(0, 2**32 - 1), st.binary(max_size=40)
)
aliases = st.builds(
    lambda name, target, ttl: Record(name, CNAME, 1, ttl, dns.emit_name(target)), names, names, st.integers(0, 9)
)
sections = st.lists(plain | aliases, max_size=3).map(tuple)
questions = st.lists(st.builds(Question, names, numbers, numbers), max_size=2).map(tuple)
messages = st.builds(Message, numbers, numbers, questions, sections, sections, sections)


@given(messages)
def test_what_is_written_is_read(message):
    assert dns.parse(dns.emit(message)) == message


@given(st.binary(max_size=600))
def test_any_octets_are_a_message_or_a_wire_error(data):
    with contextlib.suppress(WireError):
        dns.parse(b"\0\1\x80\0\0\1\0\2\0\1\0\1" + data)


HEAD = bytes.fromhex("0001 8180 0001 0002 0000 0000")
ASKED = b"\3www\7example\0\0\1\0\1"


def test_compressed_names_are_written_out():
    alias = b"\xc0\x0c\0\5\0\1\0\0\0\x3c\0\6\3web\xc0\x10"
    address = b"\x03WEB\xc0\x10\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\1"
    message = dns.parse(HEAD + ASKED + alias + address)
    assert message.questions == (Question((b"www", b"example"), A),)
    assert message.answers[0] == Record((b"www", b"example"), CNAME, 1, 60, b"\3web\7example\0")
    assert message.answers[1] == Record((b"WEB", b"example"), A, 1, 60, b"\xc0\0\2\1")
    assert dns.addresses(message.answers, (b"web", b"EXAMPLE"), A) == [b"\xc0\0\2\1"]


@pytest.mark.parametrize(
    ("kind", "data", "read"),
    [
        (MX, b"\0\x0a\4mail\xc0\x10", b"\0\x0a\4mail\7example\0"),
        (SOA, b"\2ns\xc0\x10\xc0\x0c" + bytes(20), b"\2ns\7example\0\3www\7example\0" + bytes(20)),
    ],
)
def test_names_inside_data_are_written_out(kind, data, read):
    record = b"\xc0\x0c" + kind.to_bytes(2, "big") + b"\0\1\0\0\0\0" + len(data).to_bytes(2, "big") + data
    message = dns.parse(bytes.fromhex("0001 8180 0001 0001 0000 0000") + ASKED + record)
    assert message.answers[0].data == read


@pytest.mark.parametrize(
    "name",
    [
        b"\xc0\x0c",  # to itself
        b"\xc0\x0e\xc0\x0c",  # to each other
        b"\1a\xc0\x0c",  # to its own start
        b"\xc0\xff",  # forward
        b"\xff\xff",
        b"\x40abc",  # label type 1
        b"\x80abc",
        b"\3ab",
        b"\xc0",
        (b"\x3f" + b"a" * 63) * 4 + b"\0",
        b"\1a" * 128 + b"\0",
    ],
)
def test_names_that_are_refused(name):
    with pytest.raises(WireError):
        dns.parse(bytes.fromhex("0001 0000 0001 0000 0000 0000") + name + bytes(4))


def test_a_name_that_runs_out_of_its_record_is_refused():
    record = b"\0\0\5\0\1\0\0\0\0\0\2\3www\7example\0"
    with pytest.raises(WireError):
        dns.parse(bytes.fromhex("0001 8180 0000 0001 0000 0000") + record)


def test_a_long_chain_of_pointers_in_every_record_stays_cheap():
    start = 12 + 11  # behind the header and the first record's fixed part
    links = [b"\1a\0"] + [b"\1a" + (0xC000 | start + (4 * n - 1 if n else 0)).to_bytes(2, "big") for n in range(99)]
    chain = b"".join(links)
    first = b"\0\0\x10\0\1\0\0\0\0" + len(chain).to_bytes(2, "big") + chain
    last = (0xC000 | start + 4 * 99 - 1).to_bytes(2, "big")
    records = first + (last + b"\0\1\0\1\0\0\0\0\0\0") * 2000
    began = time.perf_counter()
    message = dns.parse(b"\0\1\x80\0\0\0" + (2001).to_bytes(2, "big") + bytes(4) + records)
    assert time.perf_counter() - began < 2
    assert message.answers[-1].name == (b"a",) * 100


def test_too_many_records_are_refused_before_they_are_read():
    with pytest.raises(WireError) as caught:
        dns.parse(b"\0\1\x80\0\0\0\xff\xff\0\0\0\0")
    assert caught.value.at == 4


@pytest.mark.parametrize("text", ["a b", "\u00e4.example", "a..b", ".a", "a" * 64, "a.\n", ".".join(["abc"] * 64)])
def test_texts_that_are_no_names(text):
    with pytest.raises(WireError):
        dns.name_of(text)


def test_names_as_text():
    assert dns.text_of(dns.name_of("www.Example.")) == "www.Example"
    assert dns.text_of((b"a.b", b"\0")) == "a\\046b.\\000"
    assert dns.text_of(()) == "."


def test_frames_on_tcp():
    both = dns.frame(b"one") + dns.frame(b"three")
    assert dns.unframe(both) == (b"one", b"\0\5three")
    assert dns.unframe(both[:4]) is None
    assert dns.unframe(b"\0") is None


def test_a_search_list_is_compressed_within_itself():
    assert dns.parse_names(b"\3lab\7example\0\3sub\xc0\4") == ((b"lab", b"example"), (b"sub", b"example"))
    assert dns.parse_names(b"") == ()


@pytest.mark.parametrize("data", [b"\3lab", b"\xc0\0", b"\1a\0\xc0\x09", b"\1a\0" * 65])
def test_a_search_list_that_points_ahead_or_never_ends_is_refused(data):
    with pytest.raises(WireError):
        dns.parse_names(data)


@given(st.binary(max_size=600))
def test_any_octets_are_a_search_list_or_a_wire_error(data):
    with contextlib.suppress(WireError):
        assert len(dns.parse_names(data)) <= dns.MAX_SEARCHED
