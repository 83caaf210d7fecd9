from __future__ import annotations

from bootwire.engine import MS, S
from bootwire.facts import Fact, NotFound, Refused
from bootwire.serve.brake import Brake
from bootwire.serve.loop import Loop


def test_what_is_over_the_rate_is_counted_and_told_once():
    loop, facts = Loop(), list[Fact]()
    brake = Brake(loop, facts.append, "tftp", 3)
    miss = NotFound("", "tftp", "n", "p", "b")
    now = loop.now
    for _ in range(10):
        brake.tell(miss, now)
    assert facts == [miss] * 3
    loop.at(now + S + 20 * MS, lambda _now: loop.stop())
    loop.run()
    assert facts[3:] == [Refused("", "tftp", "", "7 more such lines within a second were left out")]
    brake.tell(miss, now + 2 * S)
    assert facts[4:] == [miss]
    loop.close()


def test_a_second_later_there_is_room_again():
    loop = Loop()
    brake = Brake(loop, lambda fact: None, "tftp", 2)
    assert [brake.free(at) for at in (0, 1, 2, S - 1, S, S + 1, S + 2)] == [True, True, False, False, True, True, False]
    loop.close()


def test_after_a_quiet_time_many_may_come_at_once_and_then_as_many_as_the_rate():
    loop = Loop()
    brake = Brake(loop, lambda fact: None, "dhcp", 2, burst=5)
    passed = [sum(brake.free(second * S) for _ in range(10)) for second in (0, 1, 2, 3, 5, 100)]
    assert passed == [5, 2, 2, 2, 4, 5]
    loop.close()
