"""Reports at the server: parts in any order and number become one, and nobody can fill the server with them."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from bootwire.engine import S
from bootwire.engine.reports import BURST, RATE, REPORTS, Complete, Refused, Reports, Send
from bootwire.wire import report
from bootwire.wire.report import Acknowledgement, Report, emit, parse

HERE = "10.0.0.7"


def parts(nonce: int, count: int) -> list[Report]:
    return [Report(nonce, report.BIOS, 0, (report.Note(b"%d" % i),), i, count) for i in range(count)]


@given(st.integers(1, report.PARTS), st.randoms())
def test_parts_in_any_order_and_twice_are_one_report(count: int, random):
    sent = parts(7, count) * 2
    random.shuffle(sent)
    server = Reports()
    effects = [effect for part in sent for effect in server.receive(emit(part), HERE, 0)]
    assert [one.parts for one in effects if isinstance(one, Complete)] == [tuple(parts(7, count))]
    assert len([one for one in effects if isinstance(one, Send)]) == len(sent)


def test_a_part_is_acknowledged_with_its_nonce_and_number():
    (send,) = Reports().receive(emit(parts(0xAABBCCDD, 3)[1]), HERE, 0)
    assert isinstance(send, Send)
    assert parse(send.data) == Acknowledgement(0xAABBCCDD, report.BIOS, 0, (), 1, 3)


def test_parts_of_two_machines_are_not_mixed():
    server = Reports()
    one, two = parts(7, 2)
    server.receive(emit(one), "10.0.0.1", 0)
    assert not any(isinstance(e, Complete) for e in server.receive(emit(two), "10.0.0.2", 0))


@given(st.binary(max_size=200))
def test_no_octets_raise_and_no_answer_is_larger_than_the_question(octets: bytes):
    for effect in Reports().receive(octets, HERE, 0):
        if isinstance(effect, Send):
            assert len(effect.data) <= len(octets)


def test_an_acknowledgement_is_not_answered():
    (effect,) = Reports().receive(emit(Acknowledgement(1)), HERE, 0)
    assert isinstance(effect, Refused)


def test_one_address_is_answered_so_often_and_others_go_on():
    server = Reports()
    effects = [effect for i in range(10 * BURST) for effect in server.receive(emit(parts(i, 2)[0]), HERE, 0)]
    assert len([one for one in effects if isinstance(one, Send)]) == BURST
    assert len([one for one in effects if isinstance(one, Refused)]) == 1
    assert any(isinstance(e, Complete) for e in server.receive(emit(parts(1, 1)[0]), "10.0.0.8", 0))
    later = [effect for i in range(RATE) for effect in server.receive(emit(parts(i, 2)[0]), HERE, S)]
    assert len([one for one in later if isinstance(one, Send)]) == RATE


def test_reports_that_never_end_take_bounded_memory():
    server = Reports()
    for i in range(4 * REPORTS):
        server.receive(emit(parts(i, 2)[0]), f"10.{i >> 8}.{i & 255}.1", 0)
    assert len(server._open) == REPORTS
    assert sys.getsizeof(server._open) < 1 << 20
