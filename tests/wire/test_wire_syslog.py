"""Syslog lines as boot loaders, kernels and installers send them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bootwire.wire.syslog import LIMIT, Line, parse


@pytest.mark.parametrize(("data", "line"), [
    # iPXE: net/udp/syslog.c, without and with the host name that DHCP gave it
    (b"<6>ipxe: net0: 10.0.0.9/24 gw 10.0.0.1", Line(0, 6, "", "ipxe", "net0: 10.0.0.9/24 gw 10.0.0.1")),
    (b"<6>pc7.lab ipxe: http://10.0.0.1/kernel... ok\n", Line(0, 6, "pc7.lab", "ipxe", "http://10.0.0.1/kernel... ok")),
    (b"<6>.lab ipxe: ok", Line(0, 6, ".lab", "ipxe", "ok")),
    (b"<6>ipxe: ", Line(0, 6, "", "ipxe", "")),
    # RFC 3164 section 5.4
    (b"<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
     Line(4, 2, "mymachine", "su", "'su root' failed for lonvick on /dev/pts/8")),
    (b"<13>Feb  5 17:32:18 10.0.0.99 Use the BFG!", Line(1, 5, "", "", "10.0.0.99 Use the BFG!")),
    (b"<46>Jan  1 00:00:09 syslogd[123]: started: v1.35", Line(5, 6, "", "syslogd", "started: v1.35")),
    # RFC 5424 section 6.5
    (b"<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \xef\xbb\xbf'su root' failed",
     Line(4, 2, "mymachine.example.com", "su", "'su root' failed")),
    (b'<165>1 2003-10-11T22:14:15.003Z host evntslog - ID47 [a@1 iut="3" e="A\\]\\"B"][b@2 c="d"] An event',
     Line(20, 5, "host", "evntslog", "An event")),
    (b"<14>1 - - - - - -", Line(1, 6, "", "", "")),
    # no form at all
    (b"hello there", Line(1, 5, "", "", "hello there")),
    (b"<192>too much", Line(1, 5, "", "", "<192>too much")),
    (b"<0006>x", Line(1, 5, "", "", "<0006>x")),
    (b"<6>1 only a number of things", Line(0, 6, "", "", "1 only a number of things")),
    (b"", Line(1, 5, "", "", "")),
    (b"<6>ipxe: caf\xc3\xa9 \xff\r\n\0", Line(0, 6, "", "ipxe", "caf\u00e9 \\xff")),
])  # fmt: skip
def test_a_line_is_read_as_its_sender_meant_it(data: bytes, line: Line) -> None:
    assert parse(data) == line


@given(st.binary(max_size=3_000))
@example(b"<6>1 a b c d e [" + b'"' * 2_000)
@example(b"<6>1 a b c d e " + b"[\\" * 1_000)
@example(b"<6>" + b"a" * 2_000)
@example(b"<6>Jan  1 00:00:09 " + b"a " * 1_000)
def test_any_datagram_is_a_line(data: bytes) -> None:
    line = parse(data)
    assert 0 <= line.facility <= 23
    assert 0 <= line.severity <= 7


def test_a_datagram_is_looked_at_up_to_a_limit() -> None:
    assert len(parse(b"x" * 10_000).text) == LIMIT
