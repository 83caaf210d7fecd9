"""bootinfo engines: machines of every kind against the server, in virtual time; floods, forgers and loss."""

from __future__ import annotations

import pytest

from bootinfo_lan import SERVER, Network, Ours
from bootinfo_peers import BootinfoClient, Deterboot, Emuboot, Peer
from bootwire.engine import S
from bootwire.engine import bootinfo as engine
from bootwire.engine.bootinfo import (
    Answer,
    Answered,
    Asked,
    Asker,
    Decide,
    FellSilent,
    NoAnswer,
    Ordered,
    OrderOver,
    Refused,
    Send,
    Server,
    Unanswered,
)
from bootwire.engine.bootinfo_client import Client, Ignored, Settings, WaitsNow
from bootwire.wire import bootinfo as wire
from bootwire.wire import bootinfo_seal as seal
from bootwire.wire.bootinfo import Boot, MemoryFs, Partition, Reboot, Wait
from bootwire.wire.bootinfo_text import read

MAC = "52:54:00:12:34:56"
AT = "10.9.0.7"
KEY = b"0123456789abcdef"
REQUEST = wire.emit(wire.Request())


def always(text: str) -> Answer:
    return Answer(read(text), "the test says so")


def network(text: str, **more: object) -> Network:
    return Network(Server(), lambda asker: always(text), **more)


def one(effects: list, kind: type) -> list:
    return [effect for effect in effects if isinstance(effect, kind)]


# --- every answer, every client ----------------------------------------------------------------------------------

CMDLINE = " -- root=/dev/sda2 ro"


@pytest.mark.parametrize(
    ("peer", "text", "did"),
    [
        (BootinfoClient, "partition 2" + CMDLINE, "partition:2 root=/dev/sda2 ro"),
        (BootinfoClient, "partition 0", "partition:0"),
        (BootinfoClient, "memory 10.9.0.1:/tftpboot/frisbee", "mfs:10.9.0.1:/tftpboot/frisbee"),
        (BootinfoClient, "reboot", "reboot"),
        (Emuboot, "partition 2" + CMDLINE, "part 2 [root=/dev/sda2 ro]"),
        (Emuboot, "disk 0x80 partition 3", "disk 0x80 part 3"),
        (Emuboot, "system-id 165", "sysid 165"),
        (Emuboot, "multiboot 10.9.0.1:/kernel", "multiboot 10.9.0.1 /kernel"),
        (Emuboot, "memory /tftpboot/freebsd -- -s", "load /tftpboot/freebsd [-s]"),
        (Emuboot, "reboot", "reboot"),
        (Deterboot, "partition 1", "chain.c32 hd0 1"),
        (
            Deterboot,
            "memory http://10.9.0.1/linux-mfs",
            "linux.c32 http://10.9.0.1/linux-mfs/bzImage initrd=http://10.9.0.1/linux-mfs/rootfs.cpio.gz "
            f"{Deterboot.CONSOLES} biosdevname=0 net.ifnames=0 ",
        ),
    ],
)
def test_a_testbed_client_obeys_what_it_is_told(peer: type[Peer], text: str, did: str):
    lan = network(text)
    asking = lan.add(AT, peer(SERVER))
    assert lan.run(60 * S, lambda: asking.did)
    assert (asking.did, asking.asked) == (did, 1)


@pytest.mark.parametrize("text", ["partition 1", "disk 0x80 partition 3", "system-id 131", "memory http://h/m -- quiet",
                                  "multiboot 10.9.0.1:/k", "reboot", "restart"])  # fmt: skip
def test_our_client_obeys_what_it_is_told(text: str):
    lan = network(text)
    ours = lan.add(AT, Ours(Client(Settings(SERVER))))
    assert lan.run(60 * S, lambda: ours.did)
    assert ours.did == f"{text}, by reply"


@pytest.mark.parametrize("peer", [BootinfoClient, Emuboot])
@pytest.mark.parametrize("seed", range(5))
def test_half_the_datagrams_lost_is_no_end(peer: type[Peer], seed: int):
    lan = network("partition 1", loss=0.5, seed=seed)
    machines = [lan.add(f"10.9.1.{number}", peer(SERVER)) for number in range(1, 11)]
    lan.run(600 * S, lambda: all(machine.did for machine in machines))
    # emuboot gives up after five questions: each is lost, or its reply, with 3/4; that is theirs
    assert sum("part" in machine.did for machine in machines) >= (10 if peer is BootinfoClient else 5)


def test_the_reply_goes_to_port_9696_whatever_port_asked():
    lan = network("partition 1")
    lan.add(AT, Deterboot(SERVER))
    lan.run(1 * S)
    (_, _, asked_from, _), (_, _, source, to) = lan.wire
    assert asked_from[1] not in (0, 9696)
    assert (source, to) == ((SERVER, 6969), (AT, 9696))


def test_a_client_of_version_0_is_answered_in_version_0():
    server = Server()
    [_, decide] = server.receive(wire.emit(wire.Request(version=0)), AT, 0)
    [send, _] = server.answer(decide.asker, always("partition 1"), 0)
    assert wire.parse(send.data) == wire.Reply(Boot(Partition(1)), version=0)


def test_a_client_of_version_0_is_never_told_to_wait():
    server = Server()
    [_, decide] = server.receive(wire.emit(wire.Request(version=0)), AT, 0)
    [send, answered] = server.answer(decide.asker, always("wait"), 0)
    assert wire.parse(send.data) == wire.Reply(Boot(wire.Unknown()), 0, wire.FAIL)
    assert "version 0" in answered.answer.because


def test_info_is_answered_like_a_request():
    assert one(Server().receive(wire.emit(wire.Info()), AT, 0), Decide)


def test_a_host_key_is_part_of_who_asks():
    [_, decide] = Server().receive(wire.emit(wire.KeyedRequest(b"abc")), AT, 0, MAC)
    assert decide.asker == Asker(AT, MAC, b"abc")


def test_nothing_of_a_request_comes_back_in_the_reply():
    server = Server()
    [_, decide] = server.receive(wire.emit(wire.KeyedRequest(b"secret key")), AT, 0)
    [send, _] = server.answer(decide.asker, always("wait"), 0)
    assert b"secret" not in send.data


def test_a_machine_with_nothing_to_do_is_told_so_and_boots_by_default():
    lan = Network(Server(), lambda asker: Answer(None, "not in the fleet"))
    peer = lan.add(AT, Emuboot(SERVER))
    assert lan.run(10 * S, lambda: peer.did)
    assert peer.did == "default boot: EINVAL"


def test_a_decision_for_nobody_leaves_the_machine_to_another_server():
    lan = Network(Server(), lambda asker: NoAnswer("another server's"))
    peer = lan.add(AT, Emuboot(SERVER))
    assert lan.run(100 * S, lambda: peer.did)
    assert (peer.did, peer.asked) == ("default boot: no answer", 5)
    assert one(lan.news, Unanswered)[0].because == "another server's"


def test_a_decision_is_asked_for_once_while_it_is_being_made():
    server = Server()
    assert len(one(server.receive(REQUEST, AT, 0), Decide)) == 1
    assert not one(server.receive(REQUEST, AT, 2 * S), Decide)
    assert len(one(server.answer(Asker(AT), always("wait"), 3 * S), Send)) == 1
    assert not server.answer(Asker(AT), always("wait"), 3 * S)


def test_a_decision_that_never_comes_does_not_silence_a_machine_for_good():
    server = Server()
    server.receive(REQUEST, AT, 0)
    assert one(server.receive(REQUEST, AT, 31 * S), Decide)


# --- when nobody answers -----------------------------------------------------------------------------------------


def test_our_client_asks_five_times_and_falls_back_after_62_seconds():
    lan = network("partition 1", loss=1.0)
    ours = lan.add(AT, Ours(Client(Settings(SERVER, fallback=Boot(Partition(0))))))
    assert lan.run(100 * S, lambda: ours.did)
    assert (ours.did, ours.asked, lan.now) == (f"failed: {SERVER} has not answered in 62 s; partition 0", 5, 62 * S)


def test_our_client_asks_for_ever_if_it_is_told_to():
    lan = network("partition 1", loss=1.0)
    ours = lan.add(AT, Ours(Client(Settings(SERVER, patience=None))))
    lan.run(3600 * S)
    moments = [at // S for at, _, source, _ in lan.wire if source[0] == AT]
    assert moments[:8] == [0, 2, 6, 14, 30, 62, 94, 126]
    assert not ours.did


def test_our_client_falls_back_at_once_where_the_server_has_nothing_for_it():
    lan = Network(Server(), lambda asker: Answer(None, "not in the fleet"))
    ours = lan.add(AT, Ours(Client(Settings(SERVER, fallback=Boot(Partition(0))))))
    assert lan.run(10 * S, lambda: ours.did)
    assert ours.did == "failed: the server has nothing for this machine; partition 0"


@pytest.mark.parametrize(
    ("source", "data", "because"),
    [
        (("10.9.0.66", 6969), wire.emit(wire.Reply(Boot(Partition(1)))), "10.9.0.66"),
        ((SERVER, 1024), wire.emit(wire.Reply(Boot(Partition(1)))), "port 1024"),
        ((SERVER, 6970), wire.emit(wire.Reply(Boot(Partition(1)))), "port 6970"),
        ((SERVER, 6969), wire.emit(wire.Reply(Boot(Partition(1))))[:200], "200 octets"),
        ((SERVER, 6969), REQUEST, "neither"),
        ((SERVER, 6970), wire.emit(wire.Order(Boot(Reboot()))), "do not wait"),
    ],
)
def test_our_client_believes_nobody_else(source: tuple[str, int], data: bytes, because: str):
    client = Client(Settings(SERVER))
    client.start(0)
    [ignored] = client.receive(data, source, 1 * S)
    assert isinstance(ignored, Ignored)
    assert because in ignored.because
    assert client.outcome is None


# --- orders ------------------------------------------------------------------------------------------------------


def waiting(peer: Peer, **more: object) -> Network:
    """A network where the machine was told to wait, and the policy now says partition 4."""
    lan = network("wait", **more)
    lan.add(AT, peer, MAC)
    assert lan.run(lan.now + 300 * S, lambda: [each.address for each in lan.server.waiting(lan.now)] == [AT])
    lan.run(lan.now + 1 * S)
    lan.decide = lambda asker: always("partition 4")
    return lan


def give(lan: Network, text: str, target: str = MAC) -> None:
    effects = lan.server.order(target, read(text), lan.now)
    assert isinstance(effects, list), effects
    lan.do(effects)


@pytest.mark.parametrize("seed", range(8))
def test_an_order_reaches_a_waiting_emuboot_through_loss(seed: int):
    lan = waiting(peer := Emuboot(SERVER), seed=seed)
    lan.loss = 0.3
    give(lan, "auto")
    lan.run(lan.now + 100 * S, lambda: peer.did)
    assert one(lan.news, OrderOver)[0].taken
    assert peer.did in ("part 4 []", "default boot: no answer")


def test_auto_makes_a_waiting_machine_ask_again_and_go():
    lan = waiting(peer := Emuboot(SERVER))
    give(lan, "auto")
    assert lan.run(lan.now + 5 * S, lambda: peer.did)
    assert peer.did == "part 4 []"
    [over] = one(lan.news, OrderOver)
    assert (over.machine, over.taken, over.how) == (MAC, True, "it asks again")
    assert not lan.server.waiting(lan.now)


def test_what_was_decided_before_an_order_does_not_count_after_it():
    lan = waiting(Emuboot(SERVER))
    give(lan, "auto")
    lan.server.receive(wire.emit(wire.Ack()), AT, lan.now, MAC)  # as ours do; others just ask
    assert one(lan.server.receive(REQUEST, AT, lan.now, MAC), Decide) == [Decide(Asker(AT, MAC), anew=True)]
    lan.server.answer(Asker(AT, MAC), always("wait"), lan.now)
    assert one(lan.server.receive(REQUEST, AT, lan.now, MAC), Decide) == [Decide(Asker(AT, MAC))]


def test_orders_come_from_port_6970():
    lan = waiting(Emuboot(SERVER))
    give(lan, "reboot")
    assert lan.wire[-1][1:] == (wire.emit(wire.Order(Boot(Reboot()))), (SERVER, 6970), (AT, 9696))


def test_an_order_without_a_sign_is_sent_four_times_in_twenty_seconds():
    lan = waiting(Emuboot(SERVER))
    lan.machines.clear()
    began = lan.now
    give(lan, "reboot")
    lan.run(lan.now + 100 * S)
    assert [(at - began) // S for at, _, source, _ in lan.wire if source[1] == 6970] == [0, 2, 6, 14]
    [over] = one(lan.news, OrderOver)
    assert (over.taken, over.how) == (False, "sent 4 times in 20 s; plain clients that boot at once give none")
    assert [each.attempt for each in one(lan.news, Ordered)] == [1, 2, 3, 4]


def test_a_reboot_that_was_obeyed_is_seen_by_the_machines_discover():
    lan = waiting(peer := Emuboot(SERVER))
    give(lan, "reboot")
    lan.run(lan.now + 1 * S)
    assert peer.did == "reboot"
    lan.do(lan.server.seen_starting(MAC))
    lan.run(lan.now + 100 * S)
    assert [each.how for each in one(lan.news, OrderOver)] == ["it starts over"]
    assert len(one(lan.news, Ordered)) == 1


def test_a_machine_that_rebooted_and_asks_is_not_rebooted_again():
    lan = waiting(peer := Emuboot(SERVER))
    give(lan, "reboot")
    lan.run(lan.now + 1 * S, lambda: peer.did)
    again = lan.add(AT, Emuboot(SERVER))
    lan.run(lan.now + 100 * S, lambda: again.did)
    assert again.did == "part 4 []"


def test_deterboot_which_hears_no_orders_is_told_by_the_reply_to_its_next_question():
    lan = waiting(peer := Deterboot(SERVER))
    lan.decide = lambda asker: always("wait")
    lan.run(lan.now + 20 * S)
    give(lan, "partition 3")
    lan.run(lan.now + 10 * S, lambda: peer.did)
    assert peer.did == "chain.c32 hd0 3"
    assert one(lan.news, OrderOver)[0].how == "it asked, and the reply was the order"


def test_the_unix_client_takes_an_order_while_it_waits():
    lan = waiting(peer := BootinfoClient(SERVER))
    give(lan, "memory 10.9.0.1:/frisbee")
    assert lan.run(lan.now + 5 * S, lambda: peer.did)
    assert peer.did == "mfs:10.9.0.1:/frisbee"


@pytest.mark.parametrize("seed", range(8))
def test_our_client_says_that_it_took_an_order(seed: int):
    lan = waiting(peer := Ours(Client(Settings(SERVER))), seed=seed)
    lan.loss = 0.3
    give(lan, "reboot")
    lan.run(lan.now + 100 * S, lambda: peer.did)
    assert peer.did.startswith("reboot, by ")


def test_an_acknowledgement_ends_an_order():
    lan = waiting(Ours(Client(Settings(SERVER))))
    give(lan, "reboot")
    lan.run(lan.now + 100 * S)
    assert [(over.taken, over.how) for over in one(lan.news, OrderOver)] == [(True, "it says so")]
    assert len(one(lan.news, Ordered)) == 1


def test_a_machine_that_does_not_wait_gets_no_order_and_the_reason_is_told():
    lan = network("partition 1")
    peer = lan.add(AT, Emuboot(SERVER), MAC)
    lan.run(10 * S, lambda: peer.did)
    lan.now += 30 * S
    told = lan.server.order(MAC, Boot(Reboot()), lan.now)
    assert told == f"{MAC} does not wait: 30 s ago it was told something else (the test says so)"


def test_a_machine_nobody_knows_gets_no_order():
    told = Server().order("52:54:00:00:00:01", Boot(Reboot()), 0)
    assert told == "52:54:00:00:00:01 does not wait, and no address of it is known"


def test_an_address_gets_an_order_although_nothing_is_known_of_it():
    [send, _] = Server().order(AT, Boot(Reboot()), 0)
    assert (send.address, send.from_port) == (AT, 6970)


def test_a_newer_order_takes_the_place_of_an_older_one():
    lan = waiting(Emuboot(SERVER))
    lan.machines.clear()
    give(lan, "reboot")
    give(lan, "auto")
    lan.run(lan.now + 100 * S)
    assert [over.boot for over in one(lan.news, OrderOver)] == [read("auto")]


# --- what is told ------------------------------------------------------------------------------------------------


def test_a_machine_that_goes_on_waiting_is_news_every_ten_minutes():
    lan = network("wait")
    lan.add(AT, Ours(Client(Settings(SERVER))), MAC)
    lan.run(3600 * S)
    fresh = [each for each in one(lan.news, Answered) if not each.again]
    assert len(one(lan.news, Answered)) == 60
    assert len(fresh) == 6


def test_an_equal_answer_within_ten_seconds_is_no_news():
    server = Server()
    seen = []
    for now in (0, 3 * S, 40 * S):
        [asked, decide] = server.receive(REQUEST, AT, now)
        [_, answered] = server.answer(decide.asker, always("partition 1"), now)
        seen.append((asked.again, answered.again))
    assert seen == [(False, False), (True, True), (False, False)]


def test_a_machine_that_stops_asking_while_it_waits_has_fallen_silent():
    lan = network("wait")
    lan.add(AT, Ours(Client(Settings(SERVER))), MAC)
    lan.run(200 * S)
    lan.machines.clear()
    lan.run(1000 * S)
    assert one(lan.news, FellSilent) == [FellSilent(AT, MAC, 180)]
    assert lan.server.waiting(lan.now)[0].silent


def test_emuboot_which_asks_once_and_waits_is_not_taken_for_silent():
    lan = waiting(Emuboot(SERVER))
    lan.run(10_000 * S)
    assert not one(lan.news, FellSilent)
    assert not lan.server.waiting(lan.now)[0].silent


# --- floods ------------------------------------------------------------------------------------------------------


def served(server: Server, address: str, now: int, machine: str = "") -> bool:
    return bool(one(server.receive(REQUEST, address, now, machine), Decide | Asked))


def test_a_flood_from_one_address_gets_its_rate_and_no_more():
    server = Server()
    answered = sum(served(server, AT, at * S // 10_000) for at in range(100_000))
    assert answered <= engine.BURST + 10 * engine.RATE + 1


def test_a_flood_from_one_address_does_not_starve_others():
    server = Server()
    for at in range(50_000):
        server.receive(REQUEST, "10.9.9.9", at * S // 10_000)
        if at % 100 == 0:
            assert served(server, f"10.9.1.{at // 100 % 250 + 1}", at * S // 10_000)


def test_forged_addresses_do_not_starve_machines_that_are_known():
    server = Server()
    for at in range(30_000):
        server.receive(REQUEST, f"10.{at >> 16 & 255}.{at >> 8 & 255}.{at & 255}", at * S // 10_000)
        if at % 5000 == 0:
            assert served(server, "192.168.1.5", at * S // 10_000, MAC)


def test_a_flood_is_told_once_a_minute_and_counted():
    server = Server()
    told = [each.because for at in range(70_000) for each in one(server.receive(REQUEST, AT, at * S // 1000), Refused)]
    assert len(told) == 2
    assert told[0] == "more than 4 a second: the others are dropped"
    assert "dropped)" in told[1]


def test_what_is_remembered_is_bounded():
    server = Server()
    for at in range(30_000):
        now = at * S // 400
        for effect in one(server.receive(REQUEST, f"10.{at >> 16}.{at >> 8 & 255}.{at & 255}", now), Decide):
            server.answer(effect.asker, always("wait"), now)
    assert len(server.waiting(0)) <= engine.WAITING


def test_a_machine_with_an_order_under_way_is_not_forgotten_for_strangers():
    lan = waiting(Emuboot(SERVER))
    give(lan, "auto")
    for at in range(10_000):
        lan.server.receive(REQUEST, f"10.{at >> 16}.{at >> 8 & 255}.{at & 255}", lan.now + at * S // 600)
    assert AT in [each.address for each in lan.server.waiting(lan.now)]


@pytest.mark.parametrize("address", ["0.0.0.0", "0.1.2.3", "224.0.0.1", "239.1.1.1", "255.255.255.255", "10.9.0.255",
                                     SERVER, "x", "::1"])  # fmt: skip
def test_no_answer_goes_where_none_may_go(address: str):
    server = Server(unwelcome=frozenset({SERVER, "10.9.0.255"}))
    [refused] = server.receive(REQUEST, address, 0)
    assert isinstance(refused, Refused)


@pytest.mark.parametrize("name", ["reply-wait", "order-reboot"])
def test_a_server_does_not_answer_servers(name: str):
    message = wire.Reply(Boot(Wait())) if name == "reply-wait" else wire.Order(Boot(Reboot()))
    [refused] = Server().receive(wire.emit(message), AT, 0)
    assert "only servers" in refused.because


def test_nobody_answers_an_acknowledgement():
    assert Server().receive(wire.emit(wire.Ack()), AT, 0) == []


# --- seals -------------------------------------------------------------------------------------------------------

EPOCH = 1_700_000_000_000_000  # microseconds


def keyed(text: str = "partition 1", *, demand: bool = False, **more: object) -> Network:
    return Network(Server({MAC: KEY}, demand=demand, epoch_us=EPOCH), lambda asker: always(text), **more)


def our_keyed(key: bytes = KEY, epoch: int = EPOCH, **more: object) -> Ours:
    return Ours(Client(Settings(SERVER, identity=MAC, key=key, epoch_us=epoch, **more)))


def test_a_machine_with_a_key_is_answered_with_a_seal_and_known_by_its_identity():
    lan = keyed()
    ours = lan.add(AT, our_keyed())
    assert lan.run(10 * S, lambda: ours.did)
    assert ours.did == "partition 1, by reply"
    assert one(lan.news, Answered)[0].asker == Asker(AT, MAC, sealed=True)


@pytest.mark.parametrize("off", [-(10**15), -200_000_000, -1, 200_000_000, 10**15])
def test_a_machine_whose_clock_is_off_takes_the_servers(off: int):
    lan = keyed()
    lan.now = 5 * S
    ours = lan.add(AT, our_keyed(epoch=EPOCH + off))
    assert lan.run(20 * S, lambda: ours.did)
    assert ours.did == "partition 1, by reply"


def test_a_recorded_question_is_answered_with_the_time_and_nothing_else():
    lan = keyed()
    lan.add(AT, our_keyed())
    lan.run(10 * S)
    recorded = lan.wire[0][1]
    effects = lan.server.receive(recorded, "10.9.0.66", lan.now)
    assert not one(effects, Decide)
    [send] = one(effects, Send)
    assert wire.parse(send.data).status == seal.CLOCK
    assert "not new" in one(effects, Refused)[0].because


def test_a_question_recorded_before_the_server_started_is_not_new():
    lan = keyed()
    lan.add(AT, our_keyed())
    lan.run(10 * S)
    restarted = Server({MAC: KEY}, epoch_us=EPOCH)
    assert not one(restarted.receive(lan.wire[0][1], AT, lan.now), Decide)


def test_a_seal_of_another_key_is_refused():
    lan = keyed()
    ours = lan.add(AT, our_keyed(b"another key, yes"))
    lan.run(100 * S, lambda: ours.did)
    assert "has not answered" in ours.did
    assert "does not hold" in one(lan.news, Refused)[0].because


def test_any_flipped_bit_breaks_a_seal():
    lan = keyed()
    lan.add(AT, our_keyed())
    asked, replied = lan.wire[0][1], None
    lan.run(1 * S)
    replied = lan.wire[1][1]
    stamp = int.from_bytes(asked[496:504], "little")
    for octets, answers in ((asked, 0), (replied, stamp)):
        assert seal.opened(octets, KEY, MAC, answers) is not None
        for bit in range(len(octets) * 8):
            flipped = bytearray(octets)
            flipped[bit // 8] ^= 1 << bit % 8
            assert seal.opened(bytes(flipped), KEY, MAC, answers) is None


def test_our_keyed_client_believes_no_reply_of_a_server_without_keys():
    lan = network("partition 1")
    ours = lan.add(AT, our_keyed())
    lan.run(100 * S, lambda: ours.did)
    assert "has not answered" in ours.did
    assert any(isinstance(each, Ignored) and "seal" in each.because for each in ours.news)


def test_our_keyed_client_believes_no_reply_to_another_question():
    lan = keyed()
    lan.add(AT, our_keyed())
    lan.run(1 * S)
    recorded = lan.wire[1][1]
    client = Client(Settings(SERVER, identity=MAC, key=KEY, epoch_us=EPOCH + 5_000_000))
    client.start(0)
    [ignored] = client.receive(recorded, (SERVER, 6969), 1 * S)
    assert "seal" in ignored.because


def test_plain_machines_are_served_beside_those_with_keys():
    lan = keyed()
    peer = lan.add(AT, Emuboot(SERVER))
    assert lan.run(10 * S, lambda: peer.did)
    assert peer.did == "part 1 []"


def test_a_server_that_demands_keys_tells_plain_machines_nothing():
    lan = keyed(demand=True)
    peer = lan.add(AT, Emuboot(SERVER))
    assert lan.run(10 * S, lambda: peer.did)
    assert peer.did == "default boot: EINVAL"
    assert "no seal" in one(lan.news, Answered)[0].answer.because


def keyed_waiting() -> tuple[Network, Ours]:
    lan = keyed("wait")
    lan.add(AT, ours := our_keyed())
    lan.run(5 * S, lambda: one(ours.news, WaitsNow))
    return lan, ours


def test_an_order_to_a_machine_with_a_key_is_sealed_and_acknowledged_with_a_seal():
    lan, ours = keyed_waiting()
    give(lan, "reboot")
    lan.run(lan.now + 30 * S)
    assert ours.did == "reboot, by order"
    assert [over.how for over in one(lan.news, OrderOver)] == ["it says so"]


def test_a_forged_order_moves_no_machine_with_a_key():
    lan, ours = keyed_waiting()
    lan.send(wire.emit(wire.Order(Boot(Reboot()))), (SERVER, 6970), (AT, 9696))
    lan.run(lan.now + 30 * S)
    assert not ours.did


def test_a_recorded_order_moves_no_machine_with_a_key():
    lan, ours = keyed_waiting()
    give(lan, "wait")
    recorded = lan.wire[-1][1]
    lan.run(lan.now + 30 * S)
    lan.send(recorded, (SERVER, 6970), (AT, 9696))
    lan.run(lan.now + 1 * S)
    assert any(isinstance(each, Ignored) and "not new" in each.because for each in ours.news)


def test_a_forged_acknowledgement_does_not_end_an_order():
    lan, _ = keyed_waiting()
    lan.machines.clear()
    give(lan, "reboot")
    effects = lan.server.receive(wire.emit(wire.Ack()), AT, lan.now)
    assert "without a seal" in one(effects, Refused)[0].because
    lan.run(lan.now + 30 * S)
    assert len(one(lan.news, Ordered)) == 4


def test_a_forged_plain_question_does_not_take_a_sealed_machine_out_of_those_that_wait():
    lan, ours = keyed_waiting()
    lan.decide = lambda asker: always("partition 9")
    lan.do(lan.server.receive(REQUEST, AT, lan.now))
    assert [each.machine for each in lan.server.waiting(lan.now)] == [MAC]
    give(lan, "memory http://10.9.0.1/mfs")
    lan.run(lan.now + 30 * S)
    assert ours.did == "memory http://10.9.0.1/mfs, by order"


def test_our_client_without_patience_for_waiting_takes_wait_for_an_answer():
    lan = network("wait")
    ours = lan.add(AT, Ours(Client(Settings(SERVER, wait=False))))
    assert lan.run(10 * S, lambda: ours.did)
    assert ours.did == "wait, by reply"


def test_our_client_asks_again_after_auto():
    lan = network("auto")
    ours = lan.add(AT, Ours(Client(Settings(SERVER))))
    lan.run(3 * S)
    lan.decide = lambda asker: Answer(Boot(MemoryFs(b"http://h/m")), "now")
    assert lan.run(20 * S, lambda: ours.did)
    assert (ours.did, lan.now // S) == ("memory http://h/m, by reply", 5)
