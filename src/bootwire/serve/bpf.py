"""Kernel filters for packet sockets: classic BPF programs (kernel documentation, networking/filter).

Loads are relative to the network header (SKF_NET_OFF), so that one program serves every kind of link and both kinds of
packet socket, and tagged frames, too: the kernel takes a VLAN tag out of the frame before the filter runs.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence

from bootwire.wire import ethernet, ip

# linux/bpf_common.h
_LOAD_WORD, _LOAD_BYTE, _LOAD_HALF, _LOAD_HALF_AT_X = 0x20, 0x30, 0x28, 0x48
_LOAD_X_HEADER_SIZE = 0xB1  # X = 4 * (octet & 15)
_LOAD_BYTE_AT_X = 0x50
_EQUAL, _ANY_BIT, _RETURN = 0x15, 0x45, 0x06

# linux/filter.h: negative offsets, here as the unsigned numbers that an instruction holds
_ETHERTYPE = 0xFFFFF000  # SKF_AD_OFF + SKF_AD_PROTOCOL
_NET = 0xFFF00000  # SKF_NET_OFF

_WHOLE = 262_144  # octets of a frame to keep: all of it (libpcap's MAXIMUM_SNAPLEN)
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h; Python does not name it

_Line = tuple[str, int, int, str, str]
"""Label of the line or "", code, operand, label to go to if true, if false ("" is the next line)."""


def udp_to(port: int) -> bytes:
    """IPv4 UDP datagrams to `port`, first fragments included."""
    return _assemble(
        ("", _LOAD_HALF, _ETHERTYPE, "", ""),
        ("", _EQUAL, ethernet.IPV4, "", "drop"),
        ("", _LOAD_BYTE, _NET + 9, "", ""),
        ("", _EQUAL, ip.UDP, "", "drop"),
        ("", _LOAD_HALF, _NET + 6, "", ""),
        ("", _ANY_BIT, 0x1FFF, "drop", ""),
        ("", _LOAD_X_HEADER_SIZE, _NET, "", ""),
        ("", _LOAD_HALF_AT_X, _NET + 2, "", ""),
        ("", _EQUAL, port, "", "drop"),
        ("", _RETURN, _WHOLE, "", ""),
        ("drop", _RETURN, 0, "", ""),
    )


def udp_or_tcp_port(port: int) -> bytes:
    """All of UDP, and TCP from or to `port`, over IPv4 and IPv6 (without extension headers)."""
    return _assemble(
        ("", _LOAD_HALF, _ETHERTYPE, "", ""),
        ("", _EQUAL, ethernet.IPV6, "six", ""),
        ("", _EQUAL, ethernet.IPV4, "", "drop"),
        ("", _LOAD_BYTE, _NET + 9, "", ""),
        ("", _EQUAL, ip.UDP, "keep", ""),
        ("", _EQUAL, ip.TCP, "", "drop"),
        ("", _LOAD_HALF, _NET + 6, "", ""),
        ("", _ANY_BIT, 0x1FFF, "drop", ""),
        ("", _LOAD_X_HEADER_SIZE, _NET, "", ""),
        ("", _LOAD_HALF_AT_X, _NET, "", ""),
        ("", _EQUAL, port, "keep", ""),
        ("", _LOAD_HALF_AT_X, _NET + 2, "", ""),
        ("", _EQUAL, port, "keep", "drop"),
        ("six", _LOAD_BYTE, _NET + 6, "", ""),
        ("", _EQUAL, ip.UDP, "keep", ""),
        ("", _EQUAL, ip.TCP, "", "drop"),
        ("", _LOAD_HALF, _NET + 40, "", ""),
        ("", _EQUAL, port, "keep", ""),
        ("", _LOAD_HALF, _NET + 42, "", ""),
        ("", _EQUAL, port, "keep", "drop"),
        ("keep", _RETURN, _WHOLE, "", ""),
        ("drop", _RETURN, 0, "", ""),
    )


def conversation(port: int) -> bytes:
    """Who said what over IPv4, without the bulk: ARP; ICMP; all of DHCP, PXE and TFTP's well-known ports; of other UDP
    what begins a TFTP transfer or ends it badly (option acknowledgements, errors, blocks 0 and 1); TCP of `port` that
    opens or closes a connection, and what comes to it with data for its owner."""
    return _assemble(
        ("", _LOAD_HALF, _ETHERTYPE, "", ""),
        ("", _EQUAL, ethernet.ARP, "keep", ""),
        ("", _EQUAL, ethernet.IPV4, "", "drop"),
        ("", _LOAD_HALF, _NET + 6, "", ""),
        ("", _ANY_BIT, 0x1FFF, "drop", ""),
        ("", _LOAD_X_HEADER_SIZE, _NET, "", ""),
        ("", _LOAD_BYTE, _NET + 9, "", ""),
        ("", _EQUAL, ip.ICMP, "keep", ""),
        ("", _EQUAL, ip.TCP, "tcp", ""),
        ("", _EQUAL, ip.UDP, "", "drop"),
        *(("", code, operand, true, "") for at in (0, 2) for code, operand, true in (
            (_LOAD_HALF_AT_X, _NET + at, ""), (_EQUAL, 67, "keep"), (_EQUAL, 68, "keep"), (_EQUAL, 69, "keep"),
            (_EQUAL, 4011, "keep"),
        )),
        ("", _LOAD_HALF_AT_X, _NET + 8, "", ""),  # TFTP's opcode (RFC 1350 section 5, RFC 2347)
        ("", _EQUAL, 5, "keep", ""),
        ("", _EQUAL, 6, "keep", ""),
        ("", _EQUAL, 3, "block", ""),
        ("", _EQUAL, 4, "block", "drop"),
        ("block", _LOAD_HALF_AT_X, _NET + 10, "", ""),
        ("", _EQUAL, 0, "keep", ""),
        ("", _EQUAL, 1, "keep", "drop"),
        ("tcp", _LOAD_HALF_AT_X, _NET, "", ""),
        ("", _EQUAL, port, "ours", ""),
        ("", _LOAD_HALF_AT_X, _NET + 2, "", ""),
        ("", _EQUAL, port, "", "drop"),
        ("", _LOAD_BYTE_AT_X, _NET + 13, "", ""),
        ("", _ANY_BIT, 0x0F, "keep", "drop"),  # FIN, SYN, RST, PSH (RFC 9293 section 3.1)
        ("ours", _LOAD_BYTE_AT_X, _NET + 13, "", ""),
        ("", _ANY_BIT, 0x07, "keep", "drop"),
        ("keep", _RETURN, _WHOLE, "", ""),
        ("drop", _RETURN, 0, "", ""),
    )  # fmt: skip


def not_from(sources: Sequence[str]) -> bytes:
    """IPv4 packets of everybody but these addresses (dotted, at most 200), for ordinary UDP sockets, too."""
    compare = [("", _EQUAL, int.from_bytes(ip.v4_octets(source), "big"), "drop", "") for source in sources[:200]]
    return _assemble(
        ("", _LOAD_WORD, _NET + 12, "", ""),
        *compare,
        ("", _RETURN, _WHOLE, "", ""),
        ("drop", _RETURN, 0, "", ""),
    )


def attach(to: socket.socket, program: bytes) -> None:
    """Have the kernel run `program` (struct sock_filter after struct sock_filter) on what `to` would receive."""
    kept = ctypes.create_string_buffer(program, len(program))
    to.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program) // 8, ctypes.addressof(kept)))


def _assemble(*lines: _Line) -> bytes:
    """Jumps are counts of lines skipped, forward only."""
    places = {label: number for number, (label, *_) in enumerate(lines) if label}
    return b"".join(
        struct.pack(
            "=HBBI",
            code,
            places[true] - number - 1 if true else 0,
            places[false] - number - 1 if false else 0,
            operand,
        )
        for number, (_, code, operand, true, false) in enumerate(lines)
    )
