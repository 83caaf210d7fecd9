from __future__ import annotations

import dataclasses
import errno
import os
import random
import resource
import socket
import threading
import time
from pathlib import Path

import pytest

from bootwire.engine.tftp import Denied, Received, Wanted
from bootwire.facts import (
    Listening,
    NotFound,
    Refused,
    SizeProbed,
    TransferDone,
    TransferFailed,
    TransferStarted,
    Warned,
)
from bootwire.serve.content import Content, Peer
from bootwire.serve.files import PublishedDirectory
from bootwire.serve.loop import Loop
from bootwire.serve.tftp import Limits, TftpServer
from bootwire.wire import tftp as wire
from tftp_rig import LOOPBACK, client, fetch, serving, silent


def blob(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def rrq(name: bytes = b"f", mode: bytes = b"octet", **options: int) -> bytes:
    return wire.emit(wire.ReadRequest(name, mode, tuple((k.encode(), b"%d" % v) for k, v in options.items())))


def ack(block: int) -> bytes:
    return wire.emit(wire.Ack(block))


SHAPES = [
    Wanted(b"f", ask_size=False),
    Wanted(b"f"),
    Wanted(b"f", block_size=1468),
    Wanted(b"f", block_size=1468, window=4),
    Wanted(b"f", block_size=1468, window=64),
    Wanted(b"f", block_size=8192, window=16),
    Wanted(b"f", block_size=65464, window=2),
    Wanted(b"f", block_size=8, window=64),
]


SIZES = [0, 1, 511, 512, 513, 1468 * 8, 300_001]


@pytest.mark.parametrize("wanted", SHAPES)
@pytest.mark.parametrize("single_port", [False, True])
def test_every_size_arrives_as_it_is(wanted: Wanted, single_port: bool):
    with serving({b"%d" % size: blob(size) for size in SIZES}, single_port=single_port) as rig:
        for size in SIZES:
            fetched = fetch(rig.at, dataclasses.replace(wanted, filename=b"%d" % size))
            assert fetched.outcome == Received(size)
            assert fetched.body == blob(size)
            assert (fetched.source == rig.at) == single_port
        for done, size in zip(rig.wait_for(TransferDone, len(SIZES)), SIZES, strict=True):
            assert isinstance(done, TransferDone)
            assert (done.octets, done.confirmed) == (size, True)


def test_a_file_from_disk_arrives_as_it_is(tmp_path: Path):
    path = tmp_path / "f"
    path.write_bytes(blob(3_000_000))
    with serving({b"f": str(path)}) as rig:
        for wanted in SHAPES[1:6]:
            assert fetch(rig.at, wanted).body == blob(3_000_000)


def test_a_file_too_long_for_an_image_is_read_as_it_goes(tmp_path: Path):
    path = tmp_path / "f"
    path.write_bytes(blob(20_000_000))
    with serving({b"f": str(path)}) as rig:
        rig.server.images._each = 10_000_000
        for _ in range(2):
            assert fetch(rig.at, Wanted(b"f", block_size=1468, window=32)).body == blob(20_000_000)
        assert rig.server.images.octets == 0


def test_a_transfer_writes_its_three_facts():
    with serving({b"f": blob(5000)}) as rig:
        fetch(rig.at, Wanted(b"f", block_size=1468, window=4))
        rig.wait_for(TransferDone)
        listening, started, done = rig.facts
        assert listening == Listening("", "tftp", LOOPBACK, rig.at[1])
        assert isinstance(started, TransferStarted)
        assert (started.name, started.octets) == ("f", 5000)
        assert started.options == "tsize 5000, blksize 1468, windowsize 4"
        assert isinstance(done, TransferDone)
        assert done.peer == started.peer


def test_a_missing_file_is_error_1_at_once():
    with serving({}) as rig, client() as sock:
        before = time.monotonic()
        sock.sendto(rrq(b"/pxelinux.cfg/default"), rig.at)
        assert wire.parse(sock.recv(600)) == wire.Error(1, b"no such file")
        assert time.monotonic() - before < 0.2
        (fact,) = rig.wait_for(NotFound)
        assert fact == NotFound("", "tftp", "/pxelinux.cfg/default", LOOPBACK, "no such name")


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (wire.emit(wire.WriteRequest(b"f", b"octet")), 2),
        (rrq(mode=b"mail"), 4),
        (rrq(mode=b"nonsense"), 4),
        (b"\0\1f\0octet", 4),
        (b"\0\1f", 4),
        (rrq(b"n" * 600), 4),
    ],
)
def test_what_is_not_served_gets_its_error(request_: bytes, code: int):
    with serving({b"f": b"x"}) as rig, client() as sock:
        sock.sendto(request_, rig.at)
        answer = wire.parse(sock.recv(600))
        assert isinstance(answer, wire.Error)
        assert answer.code == code
        rig.wait_for(Refused)


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\3\0\1x", b"\0\4\0\1", b"\0\5\0\0x\0", b"\0\6", b"\xff" * 40])
def test_what_is_no_request_gets_no_answer(data: bytes):
    with serving({b"f": b"x"}) as rig, client() as sock:
        sock.sendto(data, rig.at)
        assert silent(sock, 0.1)


@pytest.mark.parametrize(
    "name", [b"boot\\f", b"/boot/f", b"//boot///f", b"\\boot\\f", b"/boot\\f", b"boot/f\xff", b"boot/f\xff\xff\x01\x7f"]
)
def test_names_as_firmware_spells_them_are_found(name: bytes):
    with serving({b"boot/f": b"here"}) as rig:
        assert fetch(rig.at, Wanted(name)).body == b"here"


def test_a_name_that_ends_in_such_octets_itself_is_found_first():
    with serving({"café".encode(): b"one", b"caf": b"other"}) as rig:
        assert fetch(rig.at, Wanted("café".encode())).body == b"one"


def test_a_size_probe_is_told_as_one():
    with serving({b"f": blob(7777)}) as rig, client() as sock:
        sock.sendto(rrq(tsize=0, blksize=1468, windowsize=4), rig.at)
        data, tid = sock.recvfrom(600)
        assert wire.parse(data) == wire.OptionAck(((b"tsize", b"7777"), (b"blksize", b"1468"), (b"windowsize", b"4")))
        sock.sendto(wire.emit(wire.Error(8, b"User aborted the transfer")), tid)
        (fact,) = rig.wait_for(SizeProbed)
        assert isinstance(fact, SizeProbed)
        assert (fact.name, fact.octets) == ("f", 7777)
        assert silent(sock, 0.1)


def test_a_probe_is_told_as_one_where_the_next_request_is_read_before_its_end():
    """In a crowd: the port listened on is looked at before the transfer's own socket, which the ERROR came to first."""
    with serving({b"f": blob(5000)}) as rig, client() as sock, client() as other:
        sock.sendto(rrq(tsize=0), rig.at)
        _, tid = sock.recvfrom(600)

        def crowd() -> None:
            other.sendto(rrq(), rig.at)
            sock.sendto(wire.emit(wire.Error(8, b"size only")), tid)
            sock.sendto(rrq(tsize=0, blksize=1468), rig.at)

        rig.call(crowd)
        assert wire.parse(sock.recv(600)) == wire.OptionAck(((b"tsize", b"5000"), (b"blksize", b"1468")))
        probed = rig.wait_for(SizeProbed)[0]
        assert isinstance(probed, SizeProbed)
        assert (probed.name, probed.octets) == ("f", 5000)
        assert not [fact for fact in rig.facts if isinstance(fact, TransferFailed)]


def test_a_client_that_hangs_up_in_the_middle_is_told_as_that():
    with serving({b"f": blob(5000)}) as rig, client() as sock:
        sock.sendto(rrq(), rig.at)
        _, tid = sock.recvfrom(600)
        sock.sendto(ack(1), tid)
        sock.recvfrom(600)
        sock.sendto(wire.emit(wire.Error(0, b"TFTP\x1b Aborted\n")), tid)
        (fact,) = rig.wait_for(TransferFailed)
        assert isinstance(fact, TransferFailed)
        assert fact.because == r"the client ended it: ERROR 0 TFTP\x1b Aborted\x0a"
        assert fact.octets == 512


def test_a_doubled_request_gets_the_first_packet_again_from_the_same_port():
    with serving({b"f": blob(5000)}) as rig, client() as sock:
        sock.sendto(rrq(), rig.at)
        first = sock.recvfrom(600)
        sock.sendto(rrq(), rig.at)
        assert sock.recvfrom(600) == first
        assert rig.server.active == 1


def test_a_doubled_request_in_the_middle_changes_nothing():
    with serving({b"f": blob(5000)}) as rig, client() as sock:
        sock.sendto(rrq(), rig.at)
        _, tid = sock.recvfrom(600)
        sock.sendto(ack(1), tid)
        sock.recvfrom(600)
        sock.sendto(rrq(), rig.at)
        sock.sendto(ack(2), tid)
        data, source = sock.recvfrom(600)
        assert (data[:4], source) == (b"\0\3\0\3", tid)


@pytest.mark.parametrize("single_port", [False, True])
def test_another_request_from_the_same_port_is_a_machine_that_was_reset(single_port: bool):
    with serving({b"f": blob(5000), b"g": blob(900, 2)}, single_port=single_port) as rig, client() as sock:
        sock.sendto(rrq(), rig.at)
        _, tid = sock.recvfrom(600)
        sock.sendto(ack(1), tid)
        sock.recvfrom(600)
        sock.sendto(rrq(b"g"), rig.at)
        assert sock.recv(600) == b"\0\3\0\1" + blob(900, 2)[:512]
        (fact,) = rig.wait_for(TransferFailed)
        assert isinstance(fact, TransferFailed)
        assert fact.because == "the client started over"


def test_an_old_ack_gets_nothing():
    with serving({b"f": blob(50_000)}) as rig, client() as sock:
        sock.sendto(rrq(), rig.at)
        _, tid = sock.recvfrom(600)
        sock.sendto(ack(1), tid)
        assert sock.recv(600)[:4] == b"\0\3\0\2"
        sock.sendto(ack(2), tid)
        assert sock.recv(600)[:4] == b"\0\3\0\3"
        sock.sendto(ack(1), tid)
        sock.sendto(ack(2), tid)
        sock.sendto(ack(3), tid)
        assert sock.recv(600)[:4] == b"\0\3\0\4"


@pytest.mark.parametrize("single_port", [False, True])
def test_a_foreign_tid_gets_error_5_and_the_transfer_goes_on(single_port: bool):
    with serving({b"f": blob(5000)}, single_port=single_port) as rig, client() as sock, client() as stranger:
        sock.sendto(rrq(), rig.at)
        _, tid = sock.recvfrom(600)
        stranger.sendto(ack(1), tid)
        data, source = stranger.recvfrom(600)
        assert (wire.parse(data), source) == (wire.Error(5, b"unknown transfer"), tid)
        stranger.sendto(wire.emit(wire.Error(0, b"die")), tid)
        assert silent(stranger, 0.1)
        sock.sendto(ack(1), tid)
        assert sock.recv(600)[:4] == b"\0\3\0\2"


def test_a_server_on_all_addresses_answers_from_the_one_asked():
    with serving({b"f": blob(5000)}, address="0.0.0.0") as rig, client() as sock:
        for address in ("127.0.0.1", "127.0.0.2", "127.9.9.9"):
            sock.sendto(rrq(), (address, rig.at[1]))
            _, tid = sock.recvfrom(600)
            assert tid[0] == address
            sock.sendto(rrq(b"none"), (address, rig.at[1]))
            assert sock.recvfrom(600)[1] == (address, rig.at[1])
        assert rig.server.active == 0 or rig.server.active <= 3


def test_a_client_whose_port_closed_before_it_acknowledged_is_forgotten_at_once():
    with serving({b"f": blob(5000)}) as rig:
        with client() as sock:
            sock.sendto(rrq(), rig.at)
            sock.recv(600)
        (fact,) = rig.wait_for(TransferFailed, seconds=3)
        assert isinstance(fact, TransferFailed)
        assert fact.because == "the client's port is closed"


def test_five_hundred_half_open_requests_lock_nobody_out():
    with serving({b"f": blob(5000)}) as rig:
        socks = []
        for _ in range(500):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind((LOOPBACK, 0))
            sock.sendto(rrq(blksize=1468, windowsize=64), rig.at)
            socks.append(sock)
        before = time.monotonic()
        assert fetch(rig.at, Wanted(b"f")).body == blob(5000)
        assert time.monotonic() - before < 0.5
        for sock in socks:
            sock.close()


def test_new_strangers_push_out_the_oldest_stranger_but_no_transfer_under_way():
    with serving({b"f": blob(50_000)}, limits=Limits(transfers=6, unproven=4)) as rig, client() as known:
        known.sendto(rrq(), rig.at)
        _, tid = known.recvfrom(600)
        known.sendto(ack(1), tid)
        known.recv(600)
        strangers = []
        for _ in range(20):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind((LOOPBACK, 0))
            sock.settimeout(5)
            sock.sendto(rrq(), rig.at)
            assert sock.recv(600)[:4] == b"\0\3\0\1"
            strangers.append(sock)
        assert (rig.server.active, rig.server.counts.evicted) == (5, 16)
        known.sendto(ack(2), tid)
        assert known.recv(600)[:4] == b"\0\3\0\3"
        for sock in strangers:
            sock.close()


def test_a_full_house_of_known_clients_drops_newcomers_in_silence():
    with serving({b"f": blob(50_000)}, limits=Limits(transfers=1)) as rig, client() as known, client() as late:
        known.sendto(rrq(), rig.at)
        _, tid = known.recvfrom(600)
        known.sendto(ack(1), tid)
        known.recv(600)
        late.sendto(rrq(), rig.at)
        assert silent(late)
        rig.wait_for(Warned)
        known.sendto(wire.emit(wire.Error(0, b"")), tid)
        rig.wait_for(TransferFailed)
        late.sendto(rrq(), rig.at)
        assert late.recv(600)[:4] == b"\0\3\0\1"


def test_no_address_can_have_all_places():
    with serving({b"f": blob(50_000)}, limits=Limits(address=2), address="0.0.0.0") as rig:
        socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(4)]
        for sock, address in zip(socks, ("127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.2"), strict=True):
            sock.bind((address, 0))
            sock.sendto(rrq(), rig.at)
        assert [silent(sock, 0.2) for sock in socks] == [False, False, True, False]
        for sock in socks:
            sock.close()


def test_a_shortage_of_descriptors_is_survived():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with serving({b"f": blob(5000)}) as rig:
        spare = os.dup(0)
        os.close(spare)
        with client() as sock:
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (spare + 1, hard))
                sock.sendto(rrq(), rig.at)
                rig.wait_for(Warned)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert rig.server.counts.shed == 1
            sock.sendto(rrq(), rig.at)
            assert sock.recv(600)[:4] == b"\0\3\0\1"


def test_ten_thousand_malformed_packets_leave_the_server_answering():
    rng = random.Random(1)
    good = [
        rrq(tsize=0, blksize=1468, windowsize=4, timeout=3),
        ack(1),
        b"\0\3\0\1" + bytes(64),
        b"\0\6blksize\x00512\0",
    ]
    with serving({b"f": blob(5000)}) as rig, client() as sock:
        for number in range(10_000):
            data = bytearray(rng.choice(good))
            for _ in range(rng.randrange(1, 6)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            sock.sendto(data[: rng.randrange(len(data) + 1)] if number % 3 else bytes(data), rig.at)
            if number % 50 == 49:
                time.sleep(0.001)
        before = time.monotonic()
        assert fetch(rig.at, Wanted(b"f")).body == blob(5000)
        assert time.monotonic() - before < 1
        assert len(rig.facts) < 2500
        rig.call(lambda: None)


def test_a_flood_of_misses_is_summed_up_in_the_journal():
    with serving({}) as rig, client() as sock:
        for number in range(2000):
            sock.sendto(rrq(b"n%d" % number), rig.at)
        until = time.monotonic() + 5
        while not any(isinstance(fact, Refused) and "more such lines" in fact.because for fact in list(rig.facts)):
            assert time.monotonic() < until
            time.sleep(0.01)
        assert len([fact for fact in rig.facts if isinstance(fact, NotFound)]) <= 1500


@pytest.mark.parametrize("window", [1, 8])
def test_a_file_replaced_meanwhile_arrives_as_it_was(tmp_path: Path, window: int):
    path, other = tmp_path / "f", tmp_path / "g"
    path.write_bytes(blob(2_000_000))
    other.write_bytes(blob(2_000_000, 2))
    with serving({b"f": str(path)}) as rig:
        swapper = threading.Thread(target=lambda: (time.sleep(0.01), other.replace(path)))
        swapper.start()
        fetched = fetch(rig.at, Wanted(b"f", window=window))
        swapper.join()
        assert fetched.body in (blob(2_000_000), blob(2_000_000, 2))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("cut", [True, False])
def test_a_file_cut_or_written_to_meanwhile_ends_with_an_error_or_as_it_was(tmp_path: Path, shared: bool, cut: bool):
    path, size = tmp_path / "f", 3_000_000
    path.write_bytes(blob(size))
    with serving({b"f": str(path)}) as rig, client() as sock:
        if shared:  # an image, made as far as another transfer came
            with client() as other:
                for name in (sock, other):
                    name.sendto(rrq(blksize=32768), rig.at)
                    _, tid = name.recvfrom(70_000)
                    name.sendto(ack(0), tid)
                    name.recv(70_000)
                    name.sendto(wire.emit(wire.Error(0, b"")), tid)
            rig.wait_for(TransferFailed, 2)
            assert rig.server.images.octets > size
        sock.sendto(rrq(blksize=32768, windowsize=1), rig.at)
        _, tid = sock.recvfrom(70_000)
        body, block = b"", 0
        while True:
            sock.sendto(ack(block), tid)
            data = sock.recv(70_000)
            if data[:2] != b"\0\3":
                break
            block += 1
            body += data[4:]
            if len(data) < 32768 + 4:
                break
            if block == 3:
                if cut:
                    os.truncate(path, 100)
                else:
                    with path.open("r+b") as file:
                        file.seek(size // 2)
                        file.write(b"another version")
        if data[:2] == b"\0\3":
            assert body == blob(size)
        else:
            assert wire.parse(data) == wire.Error(0, b"the file was changed meanwhile")


def test_netascii_is_translated():
    text = b"one\ntwo\r\nthree\rfour" * 100
    with serving({b"f": text}) as rig:
        translated = fetch(rig.at, Wanted(b"f", mode=b"netascii", window=4)).body
        assert translated == text.replace(b"\r", b"\r\0").replace(b"\n", b"\r\n")


def test_a_netascii_block_can_end_between_two_octets_of_one_sign():
    text = b"\n" * 1000
    with serving({b"f": text}) as rig:
        fetched = fetch(rig.at, Wanted(b"f", mode=b"netascii", block_size=9))
        assert fetched.body == b"\r\n" * 1000
        assert wire.find(fetched.options, b"tsize") == b"2000"


def test_who_began_alone_goes_on_from_the_image_that_others_had_made():
    with serving({b"f": blob(300_000)}) as rig, client() as sock:
        sock.sendto(rrq(blksize=1468), rig.at)
        _oack, tid = sock.recvfrom(2000)
        sock.sendto(ack(0), tid)
        body = sock.recv(2000)[4:]
        for _ in range(2):
            assert fetch(rig.at, Wanted(b"f", block_size=1468, window=8)).body == blob(300_000)
        rig.wait_for(TransferDone, 2)
        (image,) = rig.server.images._images.values()
        users = []
        for block in range(1, 300_000 // 1468 + 1):
            users.append(image.users)
            sock.sendto(ack(block), tid)
            body += sock.recv(2000)[4:]
        assert body == blob(300_000)
        assert users[0] == 0
        assert users[-1] == 1
        sock.sendto(ack(300_000 // 1468 + 1), tid)
        rig.wait_for(TransferDone, 3)
        assert image.users == 0


def test_an_image_is_made_when_a_second_transfer_asks():
    with serving({b"f": blob(1_000_000)}) as rig:
        for octets in (0, 1_002_728, 1_002_728):
            assert fetch(rig.at, Wanted(b"f", block_size=1468, window=8)).body == blob(1_000_000)
            assert rig.server.images.octets == octets


def test_images_are_shared_and_bounded():
    with serving({b"f": blob(1_000_000), b"g": blob(1_000_000, 2)}) as rig:
        rig.server.images._limit = 1_500_000
        for name, seed in ((b"f", 1), (b"f", 1), (b"g", 2), (b"g", 2), (b"f", 1)):
            assert fetch(rig.at, Wanted(name, block_size=1468, window=8)).body == blob(1_000_000, seed)
            assert rig.server.images.octets <= 1_500_000


def test_what_ends_before_its_answer_has_left_sends_nothing_more():
    """A block goes out when all ACKs of a look were read; here the transfer ends in between."""
    with serving({b"f": bytes(10_000)}) as rig, client() as sock:
        sock.sendto(b"\0\1f\0octet\0", rig.at)
        first, tid = sock.recvfrom(600)
        assert first[:4] == b"\0\3\0\1"
        answer_all = rig.server.answer_all

        def ended_meanwhile() -> None:
            rig.server.answers[0][0].give_up("ended meanwhile", rig.loop.now, tell=False)
            answer_all()

        rig.server.answer_all = ended_meanwhile
        sock.sendto(b"\0\4\0\1", tid)
        assert rig.wait_for(TransferFailed)[0].because == "ended meanwhile"
        assert silent(sock)
        assert rig.server.counts.send_errors == 0


def test_an_answer_the_kernel_did_not_take_goes_out_again_whole():
    """An OACK can be longer than the DATA datagrams that were agreed on."""
    with serving({b"f": bytes(100)}) as rig, client() as sock:
        answer_all = rig.server.answer_all

        def refused_once() -> None:
            ((transfer, oack),) = rig.server.answers
            rig.server.answers.clear()
            transfer.send_again(oack, rig.loop.now)
            rig.server.answer_all = answer_all

        rig.server.answer_all = refused_once
        sock.sendto(rrq(blksize=8, tsize=0), rig.at)
        assert wire.parse(sock.recv(600)) == wire.OptionAck(((b"blksize", b"8"), (b"tsize", b"100")))
        assert silent(sock)


def test_a_second_server_cannot_take_the_port():
    for single_port in (False, True):
        with serving({}, single_port=single_port) as rig:
            loop = Loop()
            with pytest.raises(OSError, match="Address already in use"):
                TftpServer(loop, [(LOOPBACK, rig.at[1], "")], lambda name, peer: Content("", 0), lambda fact: None)
            loop.close()


def test_stopping_tells_the_clients():
    with serving({b"f": blob(5000)}) as rig, client() as sock:
        sock.sendto(rrq(), rig.at)
        _, tid = sock.recvfrom(600)
        rig.call(rig.server.stop_accepting)
        sock.sendto(ack(1), tid)
        assert sock.recv(600)[:4] == b"\0\3\0\2"
        rig.call(rig.server.close)
        assert wire.parse(sock.recv(600)) == wire.Error(0, b"the server stops")


def test_a_resolver_that_runs_out_of_descriptors_is_asked_again_later():
    calls = []

    def resolve(name: bytes, peer: Peer) -> Content:
        calls.append(peer)
        if len(calls) == 1:
            raise OSError(errno.EMFILE, "Too many open files")
        return Content("f", 4, data=b"here")

    with serving({}) as rig, client() as sock:
        rig.server._resolve = resolve
        sock.sendto(rrq(), rig.at)
        assert silent(sock, 0.1)
        sock.sendto(rrq(), rig.at)
        assert sock.recv(600) == b"\0\3\0\1here"
        assert calls[0] == Peer(LOOPBACK, sock.getsockname()[1], LOOPBACK)


def test_a_published_file_that_no_descriptor_is_left_for_is_asked_again_later(tmp_path: Path):
    (tmp_path / "f").write_bytes(b"here")
    directory = PublishedDirectory(str(tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with serving({}) as rig, client() as sock:
        rig.server._resolve = lambda name, peer: directory.open(name)
        spare = os.dup(0)
        os.close(spare)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
            sock.sendto(rrq(), rig.at)
            rig.wait_for(Warned)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert silent(sock, 0.1)
        sock.sendto(rrq(), rig.at)
        assert sock.recv(600) == b"\0\3\0\1here"
    directory.close()


def test_descriptors_of_the_oldest_stranger_go_to_a_newcomer():
    short = [False]

    def resolve(name: bytes, peer: Peer) -> Content:
        if short[0]:
            short[0] = False
            raise OSError(errno.EMFILE, "Too many open files")
        return Content("f", 4, data=b"here")

    with serving({}) as rig, client() as stranger, client() as sock:
        rig.server._resolve = resolve
        stranger.sendto(rrq(), rig.at)
        assert stranger.recv(600)
        short[0] = True
        sock.sendto(rrq(), rig.at)
        assert sock.recv(600) == b"\0\3\0\1here"
        (gone,) = rig.wait_for(TransferFailed)
        assert gone.because == "never acknowledged, and others wait"


def test_a_client_that_hears_none_of_our_answers_is_told_of_at_its_third_request():
    with serving({b"f": b"here"}) as rig, client() as sock:
        for _ in range(3):
            sock.sendto(rrq(b"f"), rig.at)
            assert sock.recv(600) == b"\0\3\0\1here"
        (lost,) = rig.wait_for(TransferFailed)
        assert lost.because == "asked for 3 times, and no answer was acknowledged"


def test_a_resolver_that_may_not_read_is_error_2():
    def resolve(name: bytes, peer: Peer) -> Content:
        raise PermissionError(errno.EACCES, "Permission denied")

    with serving({}) as rig:
        rig.server._resolve = resolve
        assert fetch(rig.at, Wanted(b"f")).outcome == Denied(2, b"not served")
