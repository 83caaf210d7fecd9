"""DHCPv4 messages for tests: the vectors by name, builders, and hypothesis strategies."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from bootwire.wire import dhcp4
from bootwire.wire.dhcp4 import Message
from vector_files import names, octets

NAMES = names("dhcp4")


def vector(name: str) -> bytes:
    """The octets of tests/vectors/dhcp4/NAME.hex."""
    return octets("dhcp4", name)


addresses = st.binary(min_size=4, max_size=4).map(lambda raw: ".".join(map(str, raw)))
codes = st.integers(1, 254).filter(lambda code: code not in (dhcp4.OVERLOAD, dhcp4.MESSAGE_TYPE))
values = st.binary(max_size=40) | st.binary(min_size=250, max_size=800)
texts = st.binary(max_size=64).map(lambda raw: raw.rstrip(b"\0"))


@st.composite
def messages(draw: st.DrawFn) -> Message:
    """Any message that `parse` could have made."""
    options = draw(st.dictionaries(codes, values, max_size=8))
    if draw(st.booleans()):
        options[dhcp4.MESSAGE_TYPE] = draw(st.binary(min_size=1, max_size=1))
    return Message(
        op=draw(st.sampled_from([1, 2])),
        htype=draw(st.integers(0, 255)),
        hlen=draw(st.integers(0, 16)),
        hops=draw(st.integers(0, 255)),
        xid=draw(st.integers(0, 2**32 - 1)),
        secs=draw(st.integers(0, 65535)),
        flags=draw(st.integers(0, 65535)),
        ciaddr=draw(addresses),
        yiaddr=draw(addresses),
        siaddr=draw(addresses),
        giaddr=draw(addresses),
        chaddr=draw(st.binary(min_size=16, max_size=16)),
        sname=draw(texts),
        file=draw(texts),
        options=tuple(options.items()),
    )


def changed(name: str, **options: bytes | None) -> Message:
    """A vector with options replaced: o60=b"..." sets, o97=None takes away."""
    message = dhcp4.parse(vector(name))
    found = dict(message.options)
    for key, value in options.items():
        found.pop(int(key[1:]), None)
        if value is not None:
            found[int(key[1:])] = value
    return replace(message, options=tuple(found.items()))
