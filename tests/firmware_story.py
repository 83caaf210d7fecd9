"""What a machine sent, one line each, in a form that captures of real firmware and personas share.

Left out is what differs from run to run: transaction numbers, addresses, the server's name, query strings.
"""

from __future__ import annotations

from collections.abc import Iterable

from bootwire.wire import dhcp4
from bootwire.wire.dhcp4 import Message

_ADDRESSES = {dhcp4.SERVER_ID: "SERVER", dhcp4.REQUESTED_ADDRESS: "OWN"}


def dhcp_line(message: Message, source: int, destination: int) -> str:
    """Type, ports, secs, flags, whether ciaddr is set, and all options in order, in hexadecimal."""
    options = []
    for code, value in message.options:
        text = _ADDRESSES.get(code) or value.hex()
        if code == dhcp4.REQUEST_LIST and len(value) == 27:
            text = text[:48] + "--" + text[50:]  # an octet that EDK2's HTTP Boot forgets to set
        options.append(f"{code}={text}")
    kind = dhcp4.TYPE_NAMES[message.type]
    place = "" if message.ciaddr == "0.0.0.0" else " ciaddr=OWN"
    head = f"{kind} {source}>{destination} secs={message.secs} flags={message.flags:04x}{place}"
    return f"{head} {' '.join(options)}"


def tftp_line(name: bytes, options: Iterable[tuple[bytes, bytes]]) -> str:
    """A read request: the name and the options in order."""
    said = " ".join(f"{key.decode('latin-1')}={value.decode('latin-1')}" for key, value in options)
    return f"RRQ {name.decode('latin-1')} {said}"


def http_line(method: str, target: str, headers: Iterable[tuple[str, str]]) -> str:
    """A request: the path, and the fields in order, the host left out."""
    said = " | ".join(f"{name}: {'SERVER' if name == 'Host' else value}" for name, value in headers)
    return f"{method} {target.partition('?')[0]} {said}"
