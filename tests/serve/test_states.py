"""Boot states around a mode: kept over restarts, reported once, and shown in what machines get."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from bootwire.facts import Fact, HandedOver, Record, StateChanged, Warned
from bootwire.policy.states import State
from bootwire.policy.target import Decision, Image, Target, Traits
from bootwire.serve import states
from bootwire.serve.content import Later, Missing, Peer, Reply
from bootwire.serve.mode import Link
from bootwire.serve.seals import Seals
from bootwire.serve.states import States
from bootwire.serve.store import Store
from bootwire.wire.http import Request

MAC = "52:54:00:12:34:56"
INSTALL = Target("rule 3", "debian", kernel=Image("/k"), cmdline="x", variables={"install": True, "done": "phone-home"})
PROFILES = {
    "debian": INSTALL,
    "rescue": Target("", "rescue", kernel=Image("/k")),
    "quick": Target("", "quick", kernel=Image("/k"), variables={"install": True, "done": "hand-over"}),
}
PEER = Peer("192.0.2.57", 1, "192.0.2.1")
BOOT = Traits(MAC, address="192.0.2.57", stage="script", boot=1)
STRANGER = Traits(
    MAC, address="192.0.2.99", stage="script", unproved="192.0.2.99 asked, and by DHCP it is at 192.0.2.57"
)
GET = Request("GET", "/done/x", (), {})
LINK = Link("http://192.0.2.1", lambda image, name: name)


class Rules:
    """A decider that says the same to everybody."""

    smbios = False

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self.rendered: list[Target] = []

    def known(self, traits: Traits) -> Decision:
        return self.decision

    async def ask(self, traits: Traits) -> None:
        pass

    def render(self, target: Target, traits: Traits, link: Link) -> Target:
        self.rendered.append(target)
        return target


class Kept:
    def __init__(self, folder: Path, decision: Decision = INSTALL) -> None:
        self.now = 1_700_000_000.0
        self.facts: list[Fact] = []
        self.rules = Rules(decision)
        self.store = Store(folder)
        self.states = States(
            self.rules, self.store, Seals(bytes(32)), lambda profile, _: PROFILES.get(profile), self.facts.append,
            lambda: self.now, lambda address: {"192.0.2.57": MAC, "192.0.2.99": "02:00:00:00:00:99"}.get(address, ""),
        )  # fmt: skip

    def boot(self, who: Traits = BOOT) -> Target:
        """What a boot's script is made of."""
        decision = self.states.known(who)
        assert isinstance(decision, Target)
        return decision if decision.local else self.states.render(decision, who, LINK)

    def report(self, url: str, method: str = "GET") -> Reply | Missing:
        """What a report is answered with, when it is on the disk."""
        found = self.ask(url, method)
        if isinstance(found, Later):
            asyncio.run(_awaited(found.known))
            found = self.ask(url, method)
        assert not isinstance(found, Later)
        return found

    def ask(self, url: str, method: str = "GET") -> Reply | Missing | Later:
        return self.states.room(url.rpartition("/")[2], Request(method, "/done", (), {}), PEER)

    @contextlib.contextmanager
    def slow_disk(self) -> Iterator[threading.Event]:
        """Nothing gets written until the event is set, or the block ends."""
        free, busy = threading.Event(), threading.Event()

        def hold(_: object) -> None:
            busy.set()
            free.wait()

        self.store.do(hold)
        busy.wait()
        try:
            yield free
        finally:
            free.set()


async def _awaited(known: Callable[[], Awaitable[object]]) -> None:
    await known()


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def test_armed_installed_and_then_its_own_disk(kept: Kept) -> None:
    assert kept.boot().local
    kept.states.arm(MAC, "", tries=1)
    home = str(kept.boot().variables["phone_home"])
    assert home.startswith("http://192.0.2.1/done/")
    assert isinstance(kept.report(home), Reply)
    after = kept.boot()
    assert after.local
    assert "it phoned home from 192.0.2.57" in after.because
    assert [fact.phase for fact in kept.facts if isinstance(fact, StateChanged)] == ["armed", "installing", "installed"]


def test_a_report_with_the_same_token_is_refused_and_told(kept: Kept) -> None:
    kept.states.arm(MAC, "")
    home = str(kept.boot().variables["phone_home"])
    assert isinstance(kept.report(home, "POST"), Reply)
    again = kept.report(home)
    assert isinstance(again, Missing)
    assert again.forbidden
    assert "reported already" in again.because
    assert any(isinstance(fact, Warned) and "counts for nothing" in fact.what for fact in kept.facts)


def test_looking_at_the_url_reports_nothing(kept: Kept) -> None:
    kept.states.arm(MAC, "")
    home = str(kept.boot().variables["phone_home"])
    kept.report(home, "HEAD")
    assert kept.states.state(MAC).phase == "installing"


@pytest.mark.parametrize("token", ["", "AAAA", "../x"])
def test_a_forged_report_counts_for_nothing(kept: Kept, token: str) -> None:
    kept.states.arm(MAC, "")
    kept.boot()
    assert isinstance(kept.report(f"http://x/done/{token}"), Missing)
    assert kept.states.state(MAC).phase == "installing"


def test_states_outlive_the_server(tmp_path: Path) -> None:
    first = Kept(tmp_path)
    first.states.arm(MAC, "quick", tries=2)
    first.boot()
    home = first.states.home(MAC, "http://x")
    first.store.close()
    second = Kept(tmp_path)
    assert second.states.state(MAC) == first.states.state(MAC)
    assert isinstance(second.report(home), Reply)
    second.store.close()
    assert Kept(tmp_path).states.state(MAC).phase == "installed"


def test_what_rests_on_a_try_waits_until_it_is_on_the_disk(kept: Kept) -> None:
    kept.states.arm(MAC, "")
    assert kept.states.settling(MAC) is None
    with kept.slow_disk() as free:
        assert not kept.boot().local
        later = kept.states.settling(MAC)
        assert later is not None
        assert kept.states.settling("52:54:00:12:34:57") is None
        assert not kept.boot().local  # asks again meanwhile: the same boot, the same write
        free.set()
        asyncio.run(_awaited(later.known))
    assert kept.states.settling(MAC) is None
    assert kept.store.ask("SELECT phase, tries FROM machine_states") == [("installing", 2)]


def test_a_report_is_answered_when_it_is_on_the_disk_and_counts_once(kept: Kept) -> None:
    kept.states.arm(MAC, "")
    home = str(kept.boot().variables["phone_home"])
    with kept.slow_disk() as free:
        found = kept.ask(home)
        assert isinstance(found, Later)
        assert kept.states.state(MAC).phase == "installed"
        free.set()
        asyncio.run(_awaited(found.known))
    assert kept.store.ask("SELECT phase FROM machine_states") == [("installed",)]
    assert isinstance(kept.ask(home), Reply)
    assert isinstance(kept.ask(home), Missing)


def test_a_disk_that_does_not_answer_is_not_waited_for_long(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "WRITE_SECONDS", 0.01)
    kept.states.arm(MAC, "")
    with kept.slow_disk():
        kept.boot()
        later = kept.states.settling(MAC)
        assert later is not None
        asyncio.run(_awaited(later.known))
        assert kept.states.settling(MAC) is None


def test_a_machine_is_armed_with_a_profile_that_its_rules_do_not_name(tmp_path: Path) -> None:
    kept = Kept(tmp_path, Target("rule 1", local=True))
    kept.states.arm(MAC, "debian")
    assert kept.boot().profile == "debian"


def test_no_profile_no_arming(kept: Kept) -> None:
    with pytest.raises(ValueError, match="no profile is called 'debain'"):
        kept.states.arm(MAC, "debain")
    with pytest.raises(ValueError, match="profile rescue does not install"):
        kept.states.arm(MAC, "rescue")
    assert kept.states.all() == []


def test_a_hand_over_ends_what_asks_for_no_more(kept: Kept) -> None:
    kept.states.arm(MAC, "quick")
    kept.boot()
    kept.states.note(Record(0.0, 0, HandedOver(MAC, "192.0.2.57", 1, 1.0)))
    assert kept.states.state(MAC).phase == "installed"


def test_a_hand_over_ends_what_was_armed_without_a_profile(tmp_path: Path) -> None:
    kept = Kept(tmp_path, PROFILES["quick"])
    kept.states.arm(MAC, "")
    kept.boot()
    kept.states.note(Record(0.0, 0, HandedOver(MAC, "192.0.2.57", 1, 1.0)))
    assert kept.states.state(MAC).phase == "installed"


def test_who_is_armed_with_a_profile_that_has_gone_gets_no_other_that_installs(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.states.arm(MAC, "quick")
    monkeypatch.delitem(PROFILES, "quick")
    decision = kept.boot()
    assert decision.local
    assert decision.because == f"it is armed with profile quick, not with debian: bootwire arm {MAC} --profile debian"


def test_a_hand_over_is_no_end_for_what_phones_home(kept: Kept) -> None:
    kept.states.arm(MAC, "debian")
    kept.boot()
    kept.states.note(Record(0.0, 0, HandedOver(MAC, "192.0.2.57", 1, 1.0)))
    assert kept.states.state(MAC).phase == "installing"


def test_tries_run_out(kept: Kept) -> None:
    kept.states.arm(MAC, "", tries=1)
    assert not kept.boot().local
    kept.now += 3600
    assert kept.boot().local
    assert kept.states.state(MAC).phase == "failed"
    kept.now += 3600
    assert kept.boot().local


def test_who_names_the_machine_from_elsewhere_uses_up_none_of_its_tries(kept: Kept) -> None:
    kept.states.arm(MAC, "", tries=1)
    assert not kept.boot(STRANGER).local
    kept.now += 3600
    refused = kept.boot(STRANGER)
    assert refused.local
    assert refused.because.startswith("192.0.2.99 asked, and by DHCP it is at 192.0.2.57, and no try is left")
    assert kept.states.state(MAC).tries == 1
    assert not kept.boot().local
    assert kept.states.state(MAC).tries == 0


def test_a_machine_whose_dhcp_was_not_heard_is_known_by_its_mac_on_the_link(kept: Kept) -> None:
    unheard = Traits(MAC, address="192.0.2.57", stage="script", unproved="no DHCP message of it was heard here")
    kept.states.arm(MAC, "", tries=1)
    kept.boot(STRANGER)
    kept.now += 3600
    assert not kept.boot(unheard).local
    assert kept.states.state(MAC).because == "it installs, the last try"


def test_a_machine_that_nothing_shows_has_as_many_tries(kept: Kept) -> None:
    unheard = Traits(MAC, address="198.51.100.7", stage="script", unproved="no DHCP message of it was heard here")
    kept.states.arm(MAC, "", tries=2)
    installs = []
    for _ in range(3):
        installs.append(not kept.boot(unheard).local)
        kept.now += 3600
    assert installs == [True, True, False]


def test_who_was_armed_before_tries_were_counted_twice_has_them_all(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.tables("states", states._TABLES[:1])
    row = (MAC, "installing", "debian", 2, 1_700_003_600.0, 1_700_000_000.0, 1, "armed for 3 tries")
    store.put("INSERT INTO machine_states VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    store.close()
    assert Kept(tmp_path).states.state(MAC) == State(*row, unproved=2)
