"""bootinfo datagrams: the vectors in both directions, and what hostile octets come to."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.wire import bootinfo
from bootwire.wire.bootinfo import (
    MAX_COMMAND_LINE,
    MAX_KEY,
    MAX_PATH,
    SIZE,
    Ack,
    Action,
    Auto,
    Boot,
    DiskPartition,
    Info,
    KeyedRequest,
    MemoryFs,
    Message,
    Multiboot,
    Order,
    Other,
    Partition,
    Reboot,
    Reply,
    Request,
    Restart,
    SystemId,
    Unknown,
    Wait,
    emit,
    parse,
)
from bootwire.wire.reader import WireError
from vector_files import names, octets

MEANT: dict[str, Message] = {
    "request": Request(),
    "request-version-0": Request(version=0),
    "info": Info(),
    "keyed-request": KeyedRequest(b"0123456789abcdef0123456789abcdef"),
    "reply-memory-fs": Reply(Boot(MemoryFs(b"10.0.0.1:/tftpboot/frisbee"), b"-s")),
    "reply-memory-fs-url": Reply(Boot(MemoryFs(b"http://192.168.252.1/linux-mfs"))),
    "reply-disk-partition": Reply(Boot(DiskPartition(0x80, 2))),
    "reply-multiboot": Reply(Boot(Multiboot("10.0.0.1", b"/k"))),
    "reply-partition": Reply(Boot(Partition(2), b"root=/dev/sda2 ro")),
    "reply-system-id": Reply(Boot(SystemId(165))),
    "reply-wait": Reply(Boot(Wait())),
    "reply-reboot": Reply(Boot(Reboot())),
    "reply-fail": Reply(Boot(Unknown()), status=bootinfo.FAIL),
    "order-auto": Order(Boot(Auto())),
    "order-reboot": Order(Boot(Reboot())),
    "order-restart": Order(Boot(Restart())),
    "ack": Ack(),
}


def test_every_vector_has_its_meaning_here():
    assert sorted(MEANT) == names("bootinfo")


@pytest.mark.parametrize("name", sorted(MEANT))
def test_a_vector_is_read_as_it_was_meant(name: str):
    assert parse(octets("bootinfo", name)) == MEANT[name]


@pytest.mark.parametrize("name", sorted(MEANT))
def test_a_vector_is_written_octet_by_octet(name: str):
    assert emit(MEANT[name]) == octets("bootinfo", name)


# --- any value, any octets ---------------------------------------------------------------------------------------

i16 = st.integers(-(2**15), 2**15 - 1)
i32 = st.integers(-(2**31), 2**31 - 1)


def texts(most: int) -> st.SearchStrategy[bytes]:
    return st.binary(max_size=most).map(lambda raw: raw.replace(b"\0", b"."))


def data(most: int) -> st.SearchStrategy[bytes]:
    return st.binary(max_size=most).map(lambda raw: raw.rstrip(b"\0"))


actions: st.SearchStrategy[Action] = st.one_of(
    st.builds(Partition, i32),
    st.builds(SystemId, i32),
    st.builds(Multiboot, st.binary(min_size=4, max_size=4).map(lambda raw: ".".join(map(str, raw))), texts(MAX_PATH)),
    st.sampled_from([Wait(), Reboot(), Auto(), Restart()]),
    st.builds(MemoryFs, texts(MAX_PATH)),
    st.builds(DiskPartition, i32, i32),
    st.builds(Unknown, i16.filter(lambda kind: not 1 <= kind <= 9), data(260)),
)
boots = st.builds(Boot, actions, texts(MAX_COMMAND_LINE), i16)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Request, data(512), i16, i32),
    st.builds(Info, data(512), i16, i32),
    st.builds(KeyedRequest, texts(MAX_KEY), i16, i32),
    st.builds(Reply, boots, i16, i32),
    st.builds(Order, boots, i16, i32),
    st.builds(Ack, data(512), i16, i32),
    st.builds(Other, i16.filter(lambda opcode: not 1 <= opcode <= 6), data(512), i16, i32),
)


@given(messages)
def test_what_is_emitted_parses_to_the_same(message: Message):
    assert parse(emit(message)) == message


@given(messages)
def test_every_message_has_520_octets(message: Message):
    assert len(emit(message)) == SIZE


@given(messages, st.integers(0, 8 * SIZE - 1))
def test_a_flipped_bit_gives_a_value_or_a_wire_error(message: Message, bit: int):
    datagram = bytearray(emit(message))
    datagram[bit // 8] ^= 1 << bit % 8
    with contextlib.suppress(WireError):
        parse(bytes(datagram))


@given(st.binary(min_size=SIZE, max_size=SIZE) | st.binary(max_size=2 * SIZE))
def test_any_octets_give_a_value_or_a_wire_error(datagram: bytes):
    with contextlib.suppress(WireError):
        parse(datagram)


# --- lengths -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 7, 8, 12, 519])
def test_a_short_datagram_is_refused_so_that_no_answer_is_larger_than_its_question(size: int):
    with pytest.raises(WireError, match=f"{size} octets"):
        parse(octets("bootinfo", "request")[:size])


def test_octets_behind_the_520th_are_dropped():
    assert parse(octets("bootinfo", "request") + b"more") == Request()


def unterminated(name: str, at: int) -> bytes:
    datagram = octets("bootinfo", name)
    return datagram[:at] + b"a" * (SIZE - at)


@pytest.mark.parametrize(
    ("name", "at", "what"),
    [
        ("keyed-request", 8, "host key"),
        ("reply-memory-fs", 12, "memory file system path"),
        ("reply-multiboot", 16, "multiboot file"),
        ("order-auto", 272, "command line"),
    ],
)
def test_a_text_without_its_nul_is_refused(name: str, at: int, what: str):
    with pytest.raises(WireError, match=what):
        parse(unterminated(name, at))


@pytest.mark.parametrize(
    "message",
    [
        KeyedRequest(b"k" * (MAX_KEY + 1)),
        KeyedRequest(b"a\0b"),
        Reply(Boot(MemoryFs(b"p" * (MAX_PATH + 1)))),
        Reply(Boot(Multiboot("10.0.0.1", b"f" * (MAX_PATH + 1)))),
        Reply(Boot(Multiboot("10.0.0.256", b"f"))),
        Reply(Boot(Wait(), b"c" * (MAX_COMMAND_LINE + 1))),
        Reply(Boot(Partition(2**31))),
        Reply(Boot(DiskPartition(0x80, -(2**31) - 1))),
        Reply(Boot(Unknown(10, b"v" * 261))),
        Reply(Boot(Unknown(2**15))),
        Request(b"d" * 513),
        Request(version=2**15),
    ],
)
def test_what_has_no_room_is_not_written(message: Message):
    with pytest.raises(ValueError, match=r"."):
        emit(message)


# --- what other people's servers leave in their answers ------------------------------------------------------------


def test_what_a_server_left_behind_a_nul_is_dropped():
    datagram = bytearray(octets("bootinfo", "reply-wait"))
    datagram[20:40] = b"the key of a request"
    datagram[273:300] = b"an older client's leftovers"
    assert parse(bytes(datagram)) == Reply(Boot(Wait()))


def test_a_type_that_nobody_knows_is_kept():
    datagram = bytearray(octets("bootinfo", "reply-wait"))
    datagram[10:14] = b"\x63\0hi"
    assert parse(bytes(datagram)) == Reply(Boot(Unknown(99, b"hi")))
    assert emit(Reply(Boot(Unknown(99, b"hi")))) == bytes(datagram)
