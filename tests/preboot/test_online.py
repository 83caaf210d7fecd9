from __future__ import annotations

import socket
import threading
import time

import pytest

from bootwire.preboot.nic import cable
from bootwire.preboot.online import Card, Online, look_up
from bootwire.preboot.sockets import Socket
from bootwire.preboot.stack import Stack
from bootwire.wire import dns
from bootwire.wire.dns import Message, Record

OURS, SERVER = "10.0.0.1", "10.0.0.2"
MANY = tuple(bytes((10, 1, i // 250, i % 250)) for i in range(200))


def answer(data: bytes, over_udp: bool) -> bytes:
    asked = dns.parse(data)
    (question,) = asked.questions
    name = b".".join(question.name).lower()
    found = {b"host.example": (bytes((192, 0, 2, 7)),), b"many.example": MANY}.get(name, ())
    if question.kind != dns.A:
        found = ()
    truncated = over_udp and len(found) > 20
    answers = () if truncated else tuple(Record(question.name, dns.A, dns.IN, 60, a) for a in found)
    known = name in (b"host.example", b"many.example")
    flags = dns.RESPONSE | truncated * dns.TRUNCATED | (dns.NO_ERROR if known else dns.NO_NAME)
    return dns.emit(Message(asked.id, flags, asked.questions, answers))


def serve(stack: Stack) -> None:
    udp, tcp = Socket(stack, socket.SOCK_DGRAM), Socket(stack)
    udp.bind(("", 53))
    tcp.bind(("", 53))
    tcp.listen()

    def over_udp() -> None:
        try:
            while True:
                data, source = udp.recvfrom(65_535)
                udp.sendto(answer(data, True), source)
        except OSError:
            pass

    def over_tcp() -> None:
        try:
            while True:
                connection, _ = tcp.accept()
                with connection:
                    got = b""
                    while (whole := dns.unframe(got)) is None:
                        got += connection.recv(65_535)
                    connection.sendall(dns.frame(answer(whole[0], False)))
        except OSError:
            pass

    for run in (over_udp, over_tcp):
        threading.Thread(target=run, daemon=True).start()


@pytest.fixture(params=[True, False], ids=["thread", "no thread"])
def stack(request):
    left, right = cable(b"\2\0\0\0\0\1", b"\2\0\0\0\0\2")
    with Stack(left, threaded=request.param) as ours, Stack(right) as theirs:
        ours.add_address(f"{OURS}/24")
        theirs.add_address(f"{SERVER}/24")
        serve(theirs)
        yield ours


def test_a_name_is_found_over_our_own_sockets(stack):
    assert look_up(stack, "HOST.example", [SERVER]).addresses == ("192.0.2.7",)
    assert stack.host.udp_ports == []  # nothing is left open


def test_a_long_answer_is_fetched_over_tcp(stack):
    assert len(look_up(stack, "many.example", [SERVER]).addresses) == len(MANY)


def test_a_name_that_is_not_there_says_so(stack):
    with pytest.raises(OSError, match=r"none\.example"):
        look_up(stack, "none.example", [SERVER])


def test_a_server_that_is_not_there_is_passed_over_at_once(stack):
    began = time.monotonic()
    assert look_up(stack, "host.example", [OURS, SERVER]).addresses == ("192.0.2.7",)
    assert time.monotonic() - began < 3


def test_what_is_no_address_is_said_before_anything_is_opened():
    with pytest.raises(ValueError, match="not an address"):
        Online(Card("lo", address="10.0.0.300/24")).__enter__()
    with pytest.raises(ValueError, match="not a MAC"):
        Online(Card("lo", mac="02:00")).__enter__()
