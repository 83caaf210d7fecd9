"""Boot states: nothing installs that was not armed, each try counts, and the end is the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.policy import states
from bootwire.policy.states import SAME_BOOT, State, allowed, arm, began, began_unproved, disarm, done, looked_at
from bootwire.policy.target import Image, Silence, Target

MAC = "52:54:00:12:34:56"
INSTALL = Target("rule 3", "debian", kernel=Image("/k"), variables={"install": True})
NOW = 1_700_000_000.0


def armed(tries: int = 3, within: float = 3600.0) -> State:
    return arm(State(MAC), "debian", NOW, tries, within)


def test_once_armed_it_installs_and_then_goes_on_with_its_disk() -> None:
    state = began(armed(), NOW + 10)
    assert (state.phase, state.tries) == ("installing", 2)
    finished = done(state, state.serial, NOW + 600, "it phoned home from 192.0.2.7")
    assert isinstance(finished, State)
    assert (finished.phase, finished.tries) == ("installed", 0)
    given = allowed(INSTALL, finished)
    assert isinstance(given, Target)
    assert given.local
    assert given.because == "profile debian installs, and it is installed: it phoned home from 192.0.2.7"


def test_what_was_never_armed_gets_its_disk_and_is_told_how_to_arm() -> None:
    given = allowed(INSTALL, State(MAC))
    assert isinstance(given, Target)
    assert given.local
    assert given.because == f"profile debian installs, and it may not: it was never armed; bootwire arm {MAC}"


@pytest.mark.parametrize("target", [Silence("no"), Target("x", "rescue", kernel=Image("/k")), Target("x", local=True)])
def test_what_installs_nothing_needs_no_arming(target: Target | Silence) -> None:
    assert allowed(target, State(MAC)) is target


def test_an_armed_machine_gets_what_was_decided_and_the_reason() -> None:
    given = allowed(INSTALL, armed(1))
    assert isinstance(given, Target)
    assert (given.kernel, given.because) == (INSTALL.kernel, "rule 3; armed for one try")


def test_each_boot_is_a_try_and_after_the_last_it_has_failed() -> None:
    state = began(armed(2), NOW)
    assert state.because == "it installs, one try left"
    assert began(state, NOW + SAME_BOOT - 1) == state
    state = began(state, NOW + SAME_BOOT)
    assert (state.phase, state.tries, state.because) == ("installing", 0, "it installs, the last try")
    state = began(state, NOW + 3 * SAME_BOOT)
    assert state.phase == "failed"
    assert "no try is left" in state.because
    given = allowed(INSTALL, state)
    assert isinstance(given, Target)
    assert given.local


def test_who_is_not_known_to_be_the_machine_uses_up_none_of_its_tries() -> None:
    state = armed(2)
    for boot in range(2):
        found = began_unproved(state, NOW + boot * SAME_BOOT, "192.0.2.9 asked")
        assert isinstance(found, State)
        state = found
    assert (state.phase, state.tries, state.unproved) == ("installing", 2, 0)
    assert (
        state.because == "it installs, not known to be it (192.0.2.9 asked): no tries left for such, 2 tries for itself"
    )
    refused = began_unproved(state, NOW + 2 * SAME_BOOT, "192.0.2.9 asked")
    assert refused == "192.0.2.9 asked, and no try is left for who is not known to be it: arm it again"
    for boot in range(2, 4):
        state = began(state, NOW + boot * SAME_BOOT)
        assert (state.phase, state.tries) == ("installing", 3 - boot)
    assert began(state, NOW + 4 * SAME_BOOT).phase == "failed"


def test_a_try_of_the_machine_is_none_left_for_others() -> None:
    state = began(armed(1), NOW)
    assert (state.tries, state.unproved) == (0, 0)
    assert began_unproved(state, NOW + SAME_BOOT - 1, "who asked is not known") == state
    assert isinstance(began_unproved(state, NOW + SAME_BOOT, "who asked is not known"), str)
    late = began_unproved(armed(), NOW + 3600, "who asked is not known")
    assert isinstance(late, State)
    assert late.phase == "failed"


def test_a_clock_that_was_set_back_makes_no_boot_the_same() -> None:
    state = began(armed(2), NOW)
    assert began(state, NOW - 1).tries == 0


def test_arming_expires_before_and_during_the_installation() -> None:
    assert "before it had booted" in looked_at(armed(), NOW + 3600).because
    assert looked_at(armed(), NOW + 9999).since == NOW + 3600
    late = began(began(armed(), NOW), NOW + 3600)
    assert (late.phase, "before it had finished" in late.because) == ("failed", True)


def test_a_report_counts_once_and_for_the_present_installation_only() -> None:
    state = began(armed(), NOW)
    assert done(state, state.serial - 1, NOW, "x") == "it reports an installation that is not the present one"
    assert "not installing" in str(done(armed(), 1, NOW, "x"))
    finished = done(state, state.serial, NOW, "it phoned home")
    assert isinstance(finished, State)
    assert done(finished, state.serial, NOW, "x") == "it was reported already: it phoned home"
    again = began(arm(finished, "debian", NOW), NOW)
    assert isinstance(done(again, state.serial, NOW, "x"), str)


def test_disarming_takes_nothing_back_that_is_done() -> None:
    assert disarm(armed(), NOW).phase == "idle"
    finished = done(began(armed(), NOW), 1, NOW, "x")
    assert isinstance(finished, State)
    assert disarm(finished, NOW) == finished


@pytest.mark.parametrize(("tries", "within"), [(0, 60.0), (101, 60.0), (-1, 60.0), (3, 0.0), (3, -1.0), (3, 1e9)])
def test_numbers_that_make_no_sense_are_refused(tries: int, within: float) -> None:
    with pytest.raises(ValueError, match="between"):
        arm(State(MAC), "", NOW, tries, within)


EVENTS = st.lists(
    st.tuples(st.sampled_from(["arm", "disarm", "boot", "named", "done", "look"]), st.floats(0, 5000)), max_size=40
)


@given(EVENTS)
def test_whatever_happens_no_more_boots_install_than_were_allowed(events: list[tuple[str, float]]) -> None:
    state, now, budget, wiped, named = State(MAC), NOW, 0, 0, 0
    for what, after in events:
        now += after
        if what == "arm":
            state, budget = arm(state, "debian", now, 2, 4000.0), 2
            wiped = named = 0
        elif what == "disarm":
            state = disarm(state, now)
        elif what == "boot":
            before = state
            state = began(state, now)
            given = allowed(INSTALL, state)
            if isinstance(given, Target) and not given.local and (state is not before and state != before):
                wiped += 1
        elif what == "named":
            found = began_unproved(state, now, "who asked is not known")
            named += isinstance(found, State) and found.may_install and found != state
            state = found if isinstance(found, State) else looked_at(state, now)
        elif what == "done":
            found = done(looked_at(state, now), state.serial, now, "it phoned home")
            state = found if isinstance(found, State) else state
        else:
            state = looked_at(state, now)
        assert wiped <= budget
        assert named <= budget
        assert 0 <= state.unproved <= state.tries
        assert state.phase in ("idle", "armed", "installing", "installed", "failed")
        assert state.may_install or state.tries == 0
    assert states.TRIES == 3
