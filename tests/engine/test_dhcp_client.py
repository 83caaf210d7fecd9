"""DHCP client engine: the exchange, what it believes, and what a lease goes through (RFC 2131 section 4.4)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.engine import S
from bootwire.engine import dhcp_client as dhcp
from bootwire.engine.dhcp_client import Ask, Choice, Client, Failed, Heard, Inquiry, Leased, Lost, Rules, Send
from bootwire.wire import dhcp4
from bootwire.wire.dhcp4 import Message
from dhcp_samples import messages

MAC = bytes.fromhex("525400123456")
SERVER, OTHER = "192.0.2.1", "192.0.2.9"


def options(ask: Ask) -> dhcp4.Options:
    return (
        (53, bytes((ask.kind,))),
        *(((54, dhcp4.packed(ask.server)),) if ask.server else ()),
        *(((50, dhcp4.packed(ask.address)),) if ask.address else ()),
    )


def first(heard, elapsed) -> Choice | None:
    found = [one for one in heard if one.message.type == dhcp4.OFFER]
    return Choice(found[0]) if found else None


def client(**rules) -> Client:
    numbers = iter(range(100, 1000))
    return Client(Rules(options=options, choose=first, **rules), MAC, lambda: next(numbers))


def reply(to: Message, kind: int, *, address="192.0.2.50", server=SERVER, port=67, seconds=3600, **fields) -> Heard:
    carried = (
        (53, bytes((kind,))),
        (54, dhcp4.packed(server)),
        (51, seconds.to_bytes(4, "big")),
        (1, b"\xff\xff\xff\0"),
    )
    return Heard(replace(to, op=2, yiaddr=address, options=carried, **fields), server, port)


def only(effects):
    (effect,) = effects
    return effect


def leased(engine: Client, now: int = 0, seconds: int = 3600) -> Leased:
    """Through the whole exchange."""
    discover = only(engine.start(now)).message
    request = only(engine.receive(reply(discover, dhcp4.OFFER), now)).message
    lease = only(engine.receive(reply(request, dhcp4.ACK, seconds=seconds), now))
    assert isinstance(lease, Leased)
    return lease


# --- the exchange -----------------------------------------------------------------------------------------------


def test_the_exchange():
    engine = client()
    discover = only(engine.start(0))
    assert (discover.message.type, discover.to, discover.to_port, discover.port) == (1, "255.255.255.255", 67, 68)
    request = only(engine.receive(reply(discover.message, dhcp4.OFFER), 1))
    assert request.message.type == dhcp4.REQUEST_LEASE
    assert dhcp4.address(request.message.option(54)) == SERVER
    assert dhcp4.address(request.message.option(50)) == "192.0.2.50"
    assert request.message.xid == discover.message.xid
    lease = only(engine.receive(reply(request.message, dhcp4.ACK), 2))
    assert (lease.address, lease.mask, lease.server, lease.seconds) == ("192.0.2.50", "255.255.255.0", SERVER, 3600)


def test_discovers_are_repeated_as_the_rules_say_then_given_up():
    engine = client(discover=(4 * S, 8 * S, 16 * S))
    sent, now = [0], 0
    engine.start(now)
    while engine.deadline is not None:
        now = engine.deadline
        effect = only(engine.tick(now))
        if isinstance(effect, Send):
            sent.append(now // S)
    assert (sent, now) == ([0, 4, 12], 28 * S)
    assert effect == Failed("discover", ())


def test_a_client_that_is_not_eager_takes_an_offer_only_when_its_wait_is_over():
    engine = client(eager=False)
    discover = only(engine.start(0)).message
    assert engine.receive(reply(discover, dhcp4.OFFER), S) == []
    assert only(engine.tick(4 * S)).message.type == dhcp4.REQUEST_LEASE


def test_a_request_without_an_answer_fails_in_the_end():
    engine = client(request=(1 * S, 2 * S))
    discover = only(engine.start(0)).message
    engine.receive(reply(discover, dhcp4.OFFER), 0)
    assert isinstance(only(engine.tick(1 * S)), Send)
    failed = only(engine.tick(3 * S))
    assert (failed.stage, len(failed.heard)) == ("request", 1)


def test_no_more_than_sixteen_offers_are_kept():
    engine = client(eager=False)
    discover = only(engine.start(0)).message
    for number in range(40):
        engine.receive(reply(discover, dhcp4.BOOTP, address=f"192.0.2.{number}"), 0)
    while engine.deadline is not None:
        effects = engine.tick(engine.deadline)
    assert len(only(effects).heard) == 16


# --- what is believed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spoil",
    [
        {"xid": 7},
        {"chaddr": bytes(16)},
        {"op": 1},
        {"server": OTHER},
        {"port": 1067},
    ],
)
def test_an_ack_of_somebody_else_is_ignored(spoil):
    engine = client()
    discover = only(engine.start(0)).message
    request = only(engine.receive(reply(discover, dhcp4.OFFER), 0)).message
    fields = {key: value for key, value in spoil.items() if key in ("xid", "chaddr", "op")}
    heard = reply(request, dhcp4.ACK, **{key: value for key, value in spoil.items() if key in ("server", "port")})
    assert engine.receive(replace(heard, message=replace(heard.message, **fields)), 0) == []
    assert isinstance(only(engine.receive(reply(request, dhcp4.ACK), 0)), Leased)


def test_an_ack_for_another_address_is_declined():
    engine = client()
    discover = only(engine.start(0)).message
    request = only(engine.receive(reply(discover, dhcp4.OFFER), 0)).message
    declined = only(engine.receive(reply(request, dhcp4.ACK, address="192.0.2.51"), 0))
    assert (declined.message.type, dhcp4.address(declined.message.option(50))) == (dhcp4.DECLINE, "192.0.2.51")


@pytest.mark.parametrize(("on_nak", "effects"), [("fail", [Failed]), ("ignore", []), ("restart", [])])
def test_a_nak(on_nak, effects):
    engine = client(on_nak=on_nak)
    discover = only(engine.start(0)).message
    request = only(engine.receive(reply(discover, dhcp4.OFFER), 0)).message
    assert [type(effect) for effect in engine.receive(reply(request, dhcp4.NAK, address="0.0.0.0"), 0)] == effects


def test_after_a_nak_a_client_that_starts_again_does_so_with_a_new_number():
    engine = client(on_nak="restart", nak_pause=S)
    discover = only(engine.start(0)).message
    request = only(engine.receive(reply(discover, dhcp4.OFFER), 0)).message
    engine.receive(reply(request, dhcp4.NAK, address="0.0.0.0"), 0)
    again = only(engine.tick(engine.deadline)).message
    assert (engine.deadline > S, again.type, again.xid) == (True, dhcp4.DISCOVER, discover.xid + 1)


@given(st.lists(messages(), max_size=20))
def test_nothing_that_parses_raises_or_is_believed_by_chance(heard):
    engine = client()
    engine.start(0)
    for message in heard:
        effects = engine.receive(Heard(message, OTHER, 67), 0)
        assert message.xid == 100 or effects == []


# --- the lease --------------------------------------------------------------------------------------------------


def test_renewal_goes_to_the_server_at_half_time_and_to_everybody_at_seven_eighths():
    engine = client(renews=True)
    leased(engine, seconds=8000)
    sent = []
    while len(sent) < 20 and engine.deadline is not None:
        now = engine.deadline
        effects = engine.tick(now)
        if not isinstance(effects[0], Send):
            break
        sent.append((now // S, effects[0].to))
    assert sent[:3] == [(4000, SERVER), (5500, SERVER), (6250, SERVER)]
    assert next(at for at, to in sent if to == "255.255.255.255") == 7000
    assert (now // S, type(effects[0]), effects[1].message.type) == (8000, Lost, dhcp4.DISCOVER)


def test_a_renewal_carries_the_address_in_the_header_and_no_server():
    engine = client(renews=True)
    leased(engine)
    request = only(engine.tick(engine.deadline)).message
    assert (request.ciaddr, request.option(54), request.option(50)) == ("192.0.2.50", None, None)


def test_a_renewed_lease_starts_anew():
    engine = client(renews=True)
    leased(engine, seconds=1000)
    now = engine.deadline
    request = only(engine.tick(now)).message
    lease = only(engine.receive(reply(request, dhcp4.ACK, seconds=1000), now))
    assert (lease.renewed, engine.deadline) == (True, now + 500 * S)


def test_a_refused_renewal_loses_the_address():
    engine = client(renews=True)
    leased(engine)
    now = engine.deadline
    request = only(engine.tick(now)).message
    lost, discover = engine.receive(reply(request, dhcp4.NAK, address="0.0.0.0"), now)
    assert (type(lost), discover.message.type) == (Lost, dhcp4.DISCOVER)


@pytest.mark.parametrize(("t1", "t2"), [(0, 0), (900, 800), (2000, 3000)])
def test_timers_that_make_no_sense_are_replaced(t1, t2):
    engine = client(renews=True)
    discover = only(engine.start(0)).message
    request = only(engine.receive(reply(discover, dhcp4.OFFER), 0)).message
    ack = reply(request, dhcp4.ACK, seconds=1000)
    timed = (*ack.message.options, (58, t1.to_bytes(4, "big")), (59, t2.to_bytes(4, "big")))
    engine.receive(replace(ack, message=replace(ack.message, options=timed)), 0)
    assert engine.deadline == 500 * S


def test_an_endless_lease_and_firmware_never_renew():
    for engine, seconds in ((client(renews=True), 0xFFFFFFFF), (client(renews=False), 1000)):
        leased(engine, seconds=seconds)
        assert engine.deadline is None


def test_declining_tells_the_server_and_starts_again_after_ten_seconds():
    engine = client()
    leased(engine)
    declined, lost = engine.decline(S)
    assert (declined.message.type, type(lost), engine.deadline) == (dhcp4.DECLINE, Lost, 11 * S)
    assert only(engine.tick(11 * S)).message.type == dhcp4.DISCOVER


def test_release_ends_it():
    engine = client(renews=True)
    leased(engine)
    release = only(engine.release())
    assert (release.message.type, release.message.ciaddr, release.to) == (dhcp4.RELEASE, "192.0.2.50", SERVER)
    assert engine.deadline is None
    assert engine.release() == []


# --- the question to a boot server ------------------------------------------------------------------------------


def inquiry(patient: bool = False) -> Inquiry:
    message = dhcp.request(MAC, 7, ((53, b"\x03"),), ciaddr="192.0.2.50")
    return Inquiry(
        lambda count: replace(message, secs=count), SERVER, waits=(1 * S, 2 * S),
        accepts=lambda heard: bool(heard.message.file), patient=patient,
    )  # fmt: skip


def answer(file: bytes = b"x", xid: int = 7) -> Heard:
    return Heard(replace(dhcp.request(MAC, xid, ((53, b"\x05"),)), op=2, file=file), SERVER, 4011)


def test_a_boot_server_that_says_nothing():
    asked = inquiry()
    effects = [only(asked.start(0)), only(asked.tick(1 * S)), only(asked.tick(3 * S))]
    assert [type(effect) for effect in effects] == [Send, Send, dhcp.Unanswered]
    assert [effect.message.secs for effect in effects[:2]] == [0, 1]
    assert asked.deadline is None


def test_an_answer_that_will_not_do_is_as_none():
    asked = inquiry()
    asked.start(0)
    assert asked.receive(answer(file=b""), 0) == []
    assert asked.receive(answer(xid=8), 0) == []
    assert only(asked.receive(answer(), 0)) == dhcp.Answered(answer())


def test_a_patient_client_believes_only_at_the_end_of_its_wait():
    asked = inquiry(patient=True)
    asked.start(0)
    assert asked.receive(answer(), 0) == []
    assert only(asked.tick(1 * S)) == dhcp.Answered(answer())


def test_firmware_that_is_refused_again_and_again_gives_up():
    engine = client(restarts=2, nak_pause=S)
    effects, now = engine.start(0), 0
    for _ in range(10):
        if not effects:
            now = engine.deadline
            effects = engine.tick(now)
        sent = effects[0]
        if isinstance(sent, Failed):
            break
        kind = dhcp4.OFFER if sent.message.type == dhcp4.DISCOVER else dhcp4.NAK
        effects = engine.receive(reply(sent.message, kind), now)
    assert only(effects).stage == "nak"
    assert engine.deadline is None
