"""DNS client: what it asks, what it believes, and what it says when there is nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.engine import S
from bootwire.engine.dns import Ask, Found, Lookup, NotFound
from bootwire.wire import dns
from bootwire.wire.dns import AAAA, CNAME, A, Message, Record

ONE, TWO = "192.0.2.53", "2001:db8::53"
ZONE = {
    "host.example": [("A", "192.0.2.7"), ("AAAA", "2001:db8::7")],
    "four.example": [("A", "192.0.2.4"), ("A", "192.0.2.5")],
    "www.example": [("CNAME", "Web.Example")],
    "web.example": [("CNAME", "host.example")],
    "away.example": [("CNAME", "other.test")],
    "other.test": [("A", "198.51.100.1")],
    "loop.example": [("CNAME", "pool.example")],
    "pool.example": [("CNAME", "loop.example")],
    "nothing.example": [("TXT", "x")],
}


def lookup(name: str, servers=(ONE,), **more) -> Lookup:
    numbers = iter(range(1000, 60000))
    return Lookup(name, servers, lambda: next(numbers), **more)


def answer(ask: Ask, zone=ZONE, *, whole: bool = True, flags: int = 0) -> bytes:
    """What a server says; whole: it follows aliases within what it knows."""
    asked = dns.parse(ask.data)
    question = asked.questions[0]
    name, records = dns.text_of(question.name).lower(), []
    code = 0 if name in zone else dns.NO_NAME
    for _ in range(4):
        alias = next((value for kind, value in zone.get(name, ()) if kind == "CNAME"), None)
        if alias is None or (not whole and records):
            break
        records.append(Record(dns.name_of(name), CNAME, 1, 60, dns.emit_name(dns.name_of(alias))))
        name = alias.lower()
    for kind, value in zone.get(name, ()) if whole or not records else ():
        if (kind, question.kind) in (("A", A), ("AAAA", AAAA)):
            records.append(Record(dns.name_of(name), question.kind, 1, 300, packed(value)))
    return dns.emit(Message(asked.id, dns.RESPONSE | flags | code, asked.questions, tuple(records)))


def packed(text: str) -> bytes:
    import ipaddress

    return ipaddress.ip_address(text).packed


def run(engine: Lookup, respond=answer, silent: tuple[str, ...] = ()) -> tuple[Found | NotFound | None, list[Ask]]:
    """Until the end; servers in `silent` never answer."""
    now, asked = 0, []
    asks = engine.start(now)
    while engine.outcome is None:
        while asks:
            ask = asks.pop(0)
            asked.append(ask)
            if ask.server not in silent:
                asks += engine.receive(respond(ask), ask.server, now, tcp=ask.tcp)
        if engine.outcome is None:
            assert engine.deadline is not None
            now = engine.deadline
            asks = engine.tick(now)
    return engine.outcome, asked


def names(asked: list[Ask]) -> list[str]:
    return [dns.text_of(dns.parse(ask.data).questions[0].name) for ask in asked]


# --- found ------------------------------------------------------------------------------------------------------


def test_both_kinds_are_asked_at_once():
    found, asked = run(lookup("host.example"))
    assert found == Found(("192.0.2.7", "2001:db8::7"), "host.example", 300)
    assert len(asked) == 2


def test_every_address_counts():
    assert run(lookup("four.example", kinds=(A,)))[0] == Found(("192.0.2.4", "192.0.2.5"), "four.example", 300)


def test_aliases_in_one_answer_whatever_their_case():
    assert run(lookup("WWW.example", kinds=(A,)))[0] == Found(("192.0.2.7",), "host.example", 60)


def test_an_alias_whose_address_is_not_in_the_answer_is_asked_for():
    found, asked = run(lookup("www.example", kinds=(A,)), lambda ask: answer(ask, whole=False))
    assert isinstance(found, Found)
    assert found.addresses == ("192.0.2.7",)
    assert [name.lower() for name in names(asked)] == ["www.example", "web.example", "host.example"]


def test_a_literal_is_its_own_address_and_asks_nobody():
    for text, address in (("192.0.2.9", "192.0.2.9"), ("[2001:DB8::1]", "2001:db8::1")):
        assert run(lookup(text)) == (Found((address,), address, 0), [])


def test_a_truncated_answer_is_asked_for_again_over_tcp():
    found, asked = run(
        lookup("host.example", kinds=(A,)), lambda ask: answer(ask, flags=0 if ask.tcp else dns.TRUNCATED)
    )
    assert isinstance(found, Found)
    assert [ask.tcp for ask in asked] == [False, True]


def test_a_new_number_for_each_question():
    _, asked = run(lookup("www.example"), lambda ask: answer(ask, whole=False))
    numbers = [dns.parse(ask.data).id for ask in asked]
    assert len(set(numbers)) == len(numbers)


# --- the search list --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tried"),
    [
        ("host", ["host.lab.test", "host.example"]),
        ("host.example", ["host.example"]),
        ("a.b", ["a.b", "a.b.lab.test", "a.b.example"]),
        ("host.", ["host"]),
        ("x", ["x.lab.test", "x.example", "x"]),
    ],
)
def test_which_names_are_tried(name, tried):
    _, asked = run(lookup(name, kinds=(A,), search=("lab.test", "example")))
    assert names(asked) == tried


# --- servers that fail ------------------------------------------------------------------------------------------


def test_a_silent_server_gives_way_to_the_next():
    found, asked = run(lookup("host.example", (ONE, TWO), kinds=(A,)), silent=(ONE,))
    assert isinstance(found, Found)
    assert [ask.server for ask in asked] == [ONE, TWO]


def test_nobody_answers():
    found, asked = run(lookup("host.example", (ONE, TWO), kinds=(A,)), silent=(ONE, TWO))
    assert isinstance(found, NotFound)
    assert (found.why, len(asked)) == ("no answer", 8)


def test_a_server_that_cannot_gives_way_to_the_next():
    refuse = lambda ask: answer(ask, flags=dns.REFUSED if ask.server == ONE else 0)  # noqa: E731
    found, _ = run(lookup("host.example", (ONE, TWO), kinds=(A,)), refuse)
    assert isinstance(found, Found)
    assert run(lookup("host.example", (ONE,), kinds=(A,)), refuse)[0].why == "refused"


def test_a_port_that_is_closed_is_as_good_as_an_answer():
    engine = lookup("host.example", (ONE, TWO), kinds=(A,))
    engine.start(0)
    (ask,) = engine.unreachable(ONE, 0)
    assert ask.server == TWO


@pytest.mark.parametrize(
    ("name", "why"),
    [("missing.example", "no such name"), ("nothing.example", "no address"), ("loop.example", "alias loop"),
     ("a..b", "name"), ("a b", "name"), ("x" * 300, "name")],
)  # fmt: skip
def test_why_there_is_nothing(name, why):
    found, _ = run(lookup(name))
    assert isinstance(found, NotFound)
    assert found.why == why


def test_no_server_is_known():
    assert run(lookup("host.example", ()))[0].why == "no answer"


# --- what is believed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: replace(m, id=m.id ^ 1),
        lambda m: replace(m, flags=0),
        lambda m: replace(m, questions=()),
        lambda m: replace(m, questions=(replace(m.questions[0], name=(b"evil",)),)),
        lambda m: replace(m, questions=(replace(m.questions[0], kind=AAAA),)),
    ],
    ids=["id", "no response", "no question", "another name", "another kind"],
)
def test_an_answer_to_another_question_is_ignored(spoil):
    engine = lookup("host.example", kinds=(A,))
    (ask,) = engine.start(0)
    forged = dns.emit(spoil(dns.parse(answer(ask))))
    assert engine.receive(forged, ONE, 0) == []
    assert engine.outcome is None


def test_an_answer_from_another_server_or_by_another_way_is_ignored():
    engine = lookup("host.example", kinds=(A,))
    (ask,) = engine.start(0)
    engine.receive(answer(ask), TWO, 0)
    engine.receive(answer(ask), ONE, 0, tcp=True)
    assert engine.outcome is None


def test_addresses_of_other_names_in_the_answer_are_not_taken():
    engine = lookup("host.example", kinds=(A,))
    (ask,) = engine.start(0)
    asked = dns.parse(ask.data)
    extra = Record(dns.name_of("evil.example"), A, 1, 60, bytes(4))
    engine.receive(dns.emit(Message(asked.id, dns.RESPONSE, asked.questions, (extra,))), ONE, 0)
    assert isinstance(engine.outcome, NotFound)


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_nothing_a_server_says_raises(said):
    engine = lookup("host.example")
    asks = engine.start(0)
    for data in said:
        engine.receive(asks[0].data[:2] + data, ONE, S)
