"""DHCPv4 octets: vectors, round trips, and what hostile input may do (nothing)."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.wire import dhcp4
from bootwire.wire.dhcp4 import Message, Pxe, WireError, emit, emit_pxe, parse, parse_pxe
from dhcp_samples import NAMES, addresses, messages, vector


def raw(options: bytes, *, sname: bytes = b"", file: bytes = b"") -> bytes:
    header = bytes.fromhex("01010600 12345678 0000 0000") + bytes(16) + bytes.fromhex("525400123456") + bytes(10)
    return header + sname.ljust(64, b"\0") + file.ljust(128, b"\0") + bytes.fromhex("63825363") + options


def error(data: bytes) -> WireError:
    with pytest.raises(WireError) as caught:
        parse(data)
    return caught.value


# --- vectors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_vector_survives_parse_and_emit(name):
    message = parse(vector(name))
    assert parse(emit(message)) == message


@pytest.mark.parametrize("name", [name for name in NAMES if name != "overload-discover"])
def test_a_vector_comes_back_octet_for_octet_but_for_padding(name):
    assert emit(parse(vector(name))).rstrip(b"\0") == vector(name).rstrip(b"\0")


def test_edk2_discover_reads_as_edk2_wrote_it():
    message = parse(vector("edk2-x64-discover"))
    assert (message.op, message.xid, message.flags, message.mac) == (1, 0x12345678, 0x8000, "52:54:00:12:34:56")
    assert message.type == dhcp4.DISCOVER
    assert [code for code, _ in message.options] == [53, 57, 55, 97, 94, 93, 60]
    assert dhcp4.architectures(message.option(93)) == (7,)
    assert dhcp4.machine_uuid(message.option(97)) == "00112233-4455-6677-8899-aabbccddeeff"
    assert message.max_octets == 1472 - 28


def test_ipxe_features_are_read():
    features = dhcp4.ipxe_features(parse(vector("ipxe-bios-discover")).option(175))
    assert {dhcp4.IPXE_HTTP, dhcp4.IPXE_BZIMAGE} <= features
    assert dhcp4.IPXE_EFI not in features


def test_a_guid_as_hardware_address_is_no_mac():
    assert parse(vector("edk2-guid-as-chaddr-discover")).mac == ""


def test_relay_agent_information_reads():
    relay = dhcp4.sub_options(parse(vector("edk2-x64-relayed-discover")).option(82), padded=False)
    assert dict(relay) == {1: b"eth0", 2: bytes.fromhex("525400998877"), 5: bytes.fromhex("c6336400")}


def test_pxe_boot_item_of_ipxe_reads():
    assert parse_pxe(parse(vector("ipxe-boot-item-request")).option(43)).item == (0x8001, 0)


# --- framing ----------------------------------------------------------------------------------------------------


def test_split_options_are_joined():
    message = parse(raw(b"\x0c\x02ab\x35\x01\x01\x0c\x02cd\xff"))
    assert message.options == ((12, b"abcd"), (53, b"\1"))


def test_long_values_are_split():
    message = replace(parse(raw(b"\x35\x01\x01\xff")), options=((53, b"\1"), (67, b"x" * 600)))
    assert b"\x43\xff" + b"x" * 255 + b"\x43\xff" + b"x" * 255 + b"\x43\x5a" + b"x" * 90 in emit(message)


def test_overload_is_read_in_the_order_options_file_sname():
    message = parse(vector("overload-discover"))
    assert message.options == ((53, b"\1"), (60, b"PXEClient:Arch:00007:UNDI:003000"), (93, b"\0\7"))
    assert (message.sname, message.file) == (b"", b"")


def test_overload_inside_overload_is_not_followed():
    message = parse(raw(b"\x34\x01\x01\xff", file=b"\x34\x01\x03\x0c\x01a\xff", sname=b"\x0c\x01b\xff"))
    assert message.options == ((12, b"a"),)
    assert message.sname == b"\x0c\x01b\xff"


@pytest.mark.parametrize("value", [b"\x34\x01\x00", b"\x34\x01\x04", b"\x34\x02\x01\x01"])
def test_odd_overload_values_are_options_like_any_other(value):
    assert parse(raw(value + b"\xff", file=b"name")).file == b"name"


def test_overload_is_never_sent():
    with pytest.raises(ValueError, match="option 52"):
        emit(replace(parse(raw(b"\xff")), options=((52, b"\1"),)))


def test_octets_behind_end_do_not_count():
    assert parse(raw(b"\x35\x01\x01\xff\x0c\x01a")).options == ((53, b"\1"),)


def test_pads_between_options_do_not_count():
    assert parse(raw(b"\0\0\x35\x01\x01\0\xff")).options == ((53, b"\1"),)


def test_a_missing_end_is_forgiven():
    assert parse(raw(b"\x35\x01\x01")).type == dhcp4.DISCOVER


def test_messages_are_padded_to_the_bootp_minimum():
    data = emit(parse(raw(b"\x35\x01\x01\xff")))
    assert len(data) == 300
    assert data[243:244] == b"\xff"


@pytest.mark.parametrize(
    ("data", "what", "at"),
    [
        (b"", "truncated header", 0),
        (raw(b"")[:239], "truncated header", 239),
        (b"\3" + raw(b"\xff")[1:], "op 3", 0),
        (raw(b"\xff")[:2] + b"\x11" + raw(b"\xff")[3:], "hlen 17", 2),
        (raw(b"\xff")[:236] + b"\0\0\0\0\xff", "no DHCP magic cookie", 236),
        (raw(b"\x0c"), "truncated option 12", 240),
        (raw(b"\x35\x01\x01\x0c\x05abcd"), "truncated option 12", 243),
        (raw(b"\x34\x01\x01\xff", file=b"\x0c\xffab"), "truncated option 12", 108),
        (raw(b"\x35\x02\x01\x01\xff"), "option 53 of length 2", 240),
        (raw(b"\x35\x01\x01\x35\x01\x03\xff"), "option 53 of length 2", 240),
        (raw(b"\x0c\x00" * 513), "more than 512 options", 240 + 1024),
        (raw((b"\x0c\xff" + b"x" * 255) * 17), "option 12 of more than 4096 octets", 240 + 16 * 257),
        (raw(bytes(16_384)), "message of more than 16384 octets", 16_384),
    ],
)  # fmt: skip
def test_broken_octets_are_named(data, what, at):
    caught = error(data)
    assert (caught.what, caught.at) == (what, at)


@given(messages())
def test_round_trip(message):
    assert parse(emit(message)) == message


@given(messages())
def test_what_we_emit_ends_and_is_long_enough(message):
    data = emit(message)
    assert len(data) >= 300
    assert data.rstrip(b"\0").endswith(b"\xff")


# --- totality ---------------------------------------------------------------------------------------------------


def reads_or_refuses(data: bytes) -> None:
    try:
        message = parse(data)
    except WireError:
        return
    for code, value in message.options:
        dhcp4.architectures(value)
        dhcp4.user_classes(value)
        dhcp4.ipxe_features(value)
        dhcp4.machine_uuid(value)
        for reader in (dhcp4.sub_options, parse_pxe):
            try:
                reader(value)
            except WireError:
                continue
        assert 0 < code < 255
    assert parse(emit(message)) == message


@pytest.mark.parametrize("name", NAMES)
def test_every_prefix_of_a_vector_reads_or_refuses(name):
    data = vector(name)
    for size in range(len(data)):
        reads_or_refuses(data[:size])


def test_flipped_spliced_and_stretched_messages_read_or_refuse():
    rng = random.Random(1)
    samples = [vector(name) for name in NAMES]
    for _ in range(4_000):
        data = bytearray(rng.choice(samples))
        match rng.randrange(4):
            case 0:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            case 1:
                data[rng.randrange(236, len(data)) :] = rng.choice(samples)[rng.randrange(236, 300) :]
            case 2:
                data[rng.randrange(240, len(data))] = rng.choice((0, 1, 0x34, 0x2B, 0x52, 0xFE, 0xFF))
            case _:
                data[240:240] = rng.randbytes(rng.randrange(1, 40))
        reads_or_refuses(bytes(data))


@given(st.binary(max_size=600))
def test_random_options_read_or_refuse(options):
    reads_or_refuses(raw(options))


@given(st.binary(min_size=0, max_size=300))
def test_random_octets_read_or_refuse(data):
    reads_or_refuses(data)


def test_option_43_nested_in_option_43_is_not_descended():
    value = b"\xff"
    for _ in range(100):
        value = (b"\x2b" + bytes((len(value),)) + value)[:253]
    reads_or_refuses(raw(b"\x2b" + bytes((len(value),)) + value + b"\xff"))


# --- order of replies -------------------------------------------------------------------------------------------


def test_arrange_puts_the_type_first_and_the_relay_last():
    mixed = [(82, b"r"), (67, b"f"), (12, b"h"), (43, b"v"), (60, b"c"), (54, b"s"), (53, b"t"), (97, b"u"), (66, b"n")]
    assert [code for code, _ in dhcp4.arrange(mixed)] == [53, 54, 12, 60, 97, 43, 66, 67, 82]


def test_arrange_leaves_empty_options_out():
    assert dhcp4.arrange([(97, b""), (53, b"\2")]) == ((53, b"\2"),)


# --- option contents --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "classes"),
    [
        (b"iPXE", (b"iPXE",)),
        (b"\x04iPXE", (b"iPXE",)),
        (b"\x07FreeBSD", (b"FreeBSD",)),
        (b"\x01a\x02bc", (b"a", b"bc")),
        (b"\x01a\x09bc", (b"\x01a\x09bc",)),
        (b"\x00", (b"\x00",)),
        (b"", ()),
    ],
)
def test_user_classes_of_rfc_3004_and_raw(value, classes):
    assert dhcp4.user_classes(value) == classes


@pytest.mark.parametrize(
    ("value", "numbers"), [(b"\0\7", (7,)), (b"\0\7\0\x10", (7, 16)), (b"\0\7\0", (7,)), (b"\7", ()), (b"", ())]
)
def test_architecture_lists(value, numbers):
    assert dhcp4.architectures(value) == numbers


@pytest.mark.parametrize(
    "value", [None, b"", b"\0" * 17, b"\0" + b"\xff" * 16, b"\1" + b"a" * 16, b"\0" + b"a" * 15, b"a" * 16]
)
def test_odd_machine_ids_hold_no_uuid(value):
    assert dhcp4.machine_uuid(value) == ""


@pytest.mark.parametrize(
    ("option_57", "octets"), [(b"\x05\xc0", 1444), (b"\x02\x40", 548), (b"\0\0", 548), (b"\5", 548), (None, 548)]
)
def test_the_largest_reply_a_client_takes(option_57, octets):
    options = () if option_57 is None else ((57, option_57),)
    assert replace(parse(raw(b"\xff")), options=options).max_octets == octets


def test_the_boot_file_ends_at_its_nul_and_option_67_wins():
    message: Message = replace(parse(raw(b"\xff", file=b"header.0\0junk")), options=())
    assert message.boot_file == b"header.0"
    assert replace(message, options=((67, b"option.0\0"),)).boot_file == b"option.0"


texts = st.binary(max_size=20)
kinds = st.integers(0, 65535)
pxes = st.builds(
    Pxe,
    control=st.none() | st.integers(0, 255),
    multicast=st.just("") | addresses,
    servers=st.lists(st.tuples(kinds, st.lists(addresses, max_size=3).map(tuple)), max_size=4).map(tuple),
    menu=st.lists(st.tuples(kinds, texts), max_size=4).map(tuple),
    prompt=st.none() | st.tuples(st.integers(0, 255), texts),
    item=st.none() | st.tuples(kinds, kinds),
    others=st.lists(st.tuples(st.integers(64, 70), texts), max_size=2).map(tuple),
)


@given(pxes)
def test_pxe_options_round_trip(pxe):
    assert parse_pxe(emit_pxe(pxe)) == pxe


def test_pxe_menu_octets():
    pxe = Pxe(3, servers=((0x8000, ("192.0.2.10",)),), menu=((0x8000, b"Go"), (0, b"Disk")), prompt=(0, b"F8"))
    expected = "06 01 03  08 07 8000 01 c000020a  09 0c 8000 02 476f 0000 04 4469736b  0a 03 00 4638  ff"
    assert emit_pxe(pxe) == bytes.fromhex(expected)


@pytest.mark.parametrize(
    "value", [b"\x08\x02\x80\x00\xff", b"\x08\x03\x80\0\1\xff", b"\x09\x04\x80\x00\x05a\xff", b"\x06"]
)
def test_broken_pxe_lists_are_refused(value):
    with pytest.raises(WireError):
        parse_pxe(value)
