from __future__ import annotations

from bootwire.engine import MS, S
from bootwire.engine.ip import Frame
from bootwire.preboot.impair import Faults, Impairment


def through(faults: Faults, count: int = 10_000, seed: int = 1) -> list[tuple[int, int]]:
    """(when, which) of frames sent a millisecond apart."""
    way = Impairment(faults, seed)
    out = []
    for i in range(count):
        way.put(Frame(i.to_bytes(4, "big") * 25), i * MS)
    while way.deadline is not None:
        now = way.deadline
        out += [(now, int.from_bytes(f.octets[:4], "big")) for f in way.take(now)]
    return out


def test_a_link_without_faults_changes_nothing():
    assert through(Faults(), 100) == [(i * MS, i) for i in range(100)]


def test_rates_are_what_they_say():
    out = through(Faults(loss=0.1, duplicate=0.05, reorder=0.2, delay=50 * MS))
    assert 9000 * 0.95 < len({i for _, i in out}) < 9000 * 1.05
    assert 400 < len(out) - len({i for _, i in out}) < 500
    late = sum(at - i * MS > 50 * MS for at, i in out)
    assert 0.17 < late / len(out) < 0.23


def test_bandwidth_spaces_frames_and_a_full_queue_loses():
    way = Impairment(Faults(bandwidth=100_000, queue=1000))
    for _ in range(20):
        way.put(Frame(bytes(100)), 0)
    assert way.lost == 9  # what is being sent does not count against the queue
    assert len(way.take(S)) == 11
    assert way.passed == 11


def test_the_same_seed_has_the_same_faults():
    faults = Faults(0.3, 0.3, 0.3, MS)
    assert through(faults, 500, 3) == through(faults, 500, 3) != through(faults, 500, 4)
