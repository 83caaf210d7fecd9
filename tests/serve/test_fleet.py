"""Fleet mode without a network: what a file decides, what is made for machines, and what happens when it changes."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import json
import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from bootwire.boot_server import BootServer
from bootwire.boot_server import Settings as ServerSettings
from bootwire.cli import main
from bootwire.config import Problem
from bootwire.facts import DocumentServed, Fact, FleetLoaded, Warned
from bootwire.policy.inventory import Hardware
from bootwire.policy.target import Silence, Target, Traits
from bootwire.serve import fleet as module
from bootwire.serve.content import Missing, Peer, Reply
from bootwire.serve.fleet import Broken, FleetMode, Loaded, choose, load
from bootwire.serve.images import Settings, open_images
from bootwire.serve.mode import House, RenderError, StartError
from bootwire.wire.bootinfo import Boot, DiskPartition, Wait
from bootwire.wire.http import Request
from product import bzimage

EXAMPLE = Path(__file__).resolve().parents[2] / "docs/examples/fleet"
MAC = "52:54:00:12:34:56"
PEER = Peer("192.0.2.57", 49152, "192.0.2.1")
PC = Traits(MAC, platform="bios", firmware="bios", link="192.0.2.1", stage="script", serial="X", boot=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The example's files, with a kernel and an initrd."""
    for path in EXAMPLE.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    bzimage(tmp_path / "vmlinuz")
    (tmp_path / "initrd.gz").write_bytes(gzip.compress(b"070701" + b"0" * 104 + b"TRAILER!!!\0\0\0\0"))
    return tmp_path


@pytest.fixture
def mode(folder: Path) -> FleetMode:
    return FleetMode(str(folder / "fleet.toml"), open_images(Settings(folder / "state"), trusted=True))


def loaded(path: Path) -> Loaded:
    found = load(str(path))
    assert isinstance(found, Loaded), found
    return found


def rendered(mode: FleetMode, traits: Traits = PC) -> Target:
    decision = mode.decider.known(traits)
    assert isinstance(decision, Target)
    return mode.decider.render(decision, traits, mode.link(traits.machine, "http://192.0.2.1"))


def test_a_machine_gets_its_profile_and_the_reason(folder: Path) -> None:
    choice = choose(loaded(folder / "fleet.toml"), PC)
    assert isinstance(choice.decision, Target)
    assert choice.decision.profile == "rescue"
    assert choice.decision.because == f"machine web-1 ({folder}/fleet.toml:36): mac is {MAC}"
    assert choice.decision.suits == {"bios", "i386"}
    assert choice.decision.kernel is not None
    assert choice.decision.kernel.location == str(folder / "vmlinuz")


def test_a_profile_may_say_what_bootinfo_tells_alone_or_beside_what_is_booted(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(
        '[profiles.spare]\nbootinfo = "wait"\n[profiles.disk]\nlocal = true\nbootinfo = "disk 0x80 partition 2"\n'
        f'[[machine]]\nmac = "{MAC}"\nprofile = "disk"\n[[group]]\nprofile = "spare"\n'
    )
    fleet = loaded(tmp_path / "fleet.toml")
    told = [choose(fleet, dataclasses.replace(PC, machine=mac)).decision for mac in (MAC, "52:54:00:00:00:01")]
    assert [one.bootinfo for one in told if isinstance(one, Target)] == [
        Boot(DiskPartition(0x80, 2)), Boot(Wait())
    ]  # fmt: skip


def test_a_rule_over_what_hello_reports_has_it_run_first_and_decides_then(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(
        '[profiles.large]\nlocal = true\nprogram = "hello"\n[profiles.small]\nlocal = true\n'
        '[[group]]\nname = "large ones"\nmatch = { memory = ">= 16GiB" }\nprofile = "large"\n'
        '[[group]]\nprofile = "small"\n'
    )
    fleet = loaded(tmp_path / "fleet.toml")
    early = dataclasses.replace(PC, stage="discover")
    first = choose(fleet, early).decision
    assert isinstance(first, Target)
    assert (first.profile, first.program) == ("large", "hello")
    for octets, profile in ((16 << 30, "large"), (8 << 30, "small")):
        known = dataclasses.replace(PC, stage="script", hardware=Hardware(PC.machine, memory=octets))
        then = choose(fleet, known).decision
        assert isinstance(then, Target)
        assert then.profile == profile


def test_a_machine_that_no_rule_is_about_is_left_alone(folder: Path) -> None:
    decision = choose(loaded(folder / "fleet.toml"), dataclasses.replace(PC, machine="02:00:00:00:00:01")).decision
    assert isinstance(decision, Silence)
    assert "no rule of" in decision.because


def test_a_serial_that_is_not_known_yet_gets_an_offer_and_is_decided_later(folder: Path) -> None:
    fleet = loaded(folder / "fleet.toml")
    early = Traits("02:00:00:00:00:01", platform="x86_64", firmware="uefi", link="192.0.2.1", stage="discover")
    maybe = choose(fleet, early).decision
    assert isinstance(maybe, Target)
    assert "may be about it" in maybe.because
    assert not maybe.local
    late = choose(fleet, dataclasses.replace(early, stage="script", serial="7CZ1234")).decision
    assert isinstance(late, Target)
    assert late.local
    assert isinstance(choose(fleet, dataclasses.replace(early, stage="script", serial="other")).decision, Silence)


def test_texts_are_made_for_each_machine(mode: FleetMode) -> None:
    target = rendered(mode)
    assert re.fullmatch(r"console=ttyS0 hostname=web-1 ds=nocloud;s=http://192\.0\.2\.1/doc/[\w-]+/", target.cmdline)
    assert target.message == "Rescue for web-1.lab.example"


def test_variables_of_the_most_specific_rule_win(folder: Path) -> None:
    (folder / "fleet.toml").write_text(
        "[variables]\na='file'\nb='file'\nc='file'\nd='file'\ne='file'\n"
        "[networks.lab]\nsubnet='192.0.2.0/24'\nvariables={b='network',c='network',d='network',e='network'}\n"
        "[profiles.p]\nkernel='vmlinuz'\ncmdline='{{a}} {{b}} {{c}} {{d}} {{e}} {{network}}'\n"
        "variables={c='profile',d='profile',e='profile'}\n"
        "[[group]]\nprofile='p'\nvariables={d='group',e='group'}\n"
        f"[[machine]]\nmac='{MAC}'\nvariables={{e='machine'}}\n"
    )
    mode = FleetMode(str(folder / "fleet.toml"), open_images(Settings(folder / "state"), trusted=True))
    assert rendered(mode).cmdline == "file network profile group machine lab"


def test_a_template_that_names_nothing_known_is_a_reason_not_a_crash(folder: Path) -> None:
    (folder / "fleet.toml").write_text("[profiles.p]\nkernel='vmlinuz'\ncmdline='{{ nope }}'\n[[group]]\nprofile='p'\n")
    mode = FleetMode(str(folder / "fleet.toml"), open_images(Settings(folder / "state"), trusted=True))
    with pytest.raises(RenderError, match="profile p: 'nope' is undefined"):
        rendered(mode)


def test_secrets_are_refused_in_a_command_line(folder: Path) -> None:
    (folder / "fleet.toml").write_text(
        "[profiles.p]\nkernel='vmlinuz'\ncmdline='{{ secret(\"x\") }}'\nsecrets={x='root-password'}\n"
        "[[group]]\nprofile='p'\n"
    )
    mode = FleetMode(str(folder / "fleet.toml"), open_images(Settings(folder / "state"), trusted=True))
    with pytest.raises(RenderError, match="secrets are for documents"):
        rendered(mode)


def test_wrong_images_and_templates_are_told_together(folder: Path) -> None:
    (folder / "initrd.gz").unlink()
    (folder / "user-data").write_text("{% if %}")
    (folder / "vmlinuz").write_text("no kernel")
    found = load(str(folder / "fleet.toml"))
    assert isinstance(found, Broken)
    whats = [problem.what for problem in found.problems]
    assert any("kernel of profile rescue" in what and "text file" in what for what in whats), whats
    assert any("initrd 1 of profile rescue: no such file" in what for what in whats)
    assert any("user-data of profile rescue is no template" in what for what in whats)
    assert {problem.line for problem in found.problems} == {14}


def test_a_broken_file_does_not_start(folder: Path) -> None:
    (folder / "fleet.toml").write_text("[profiles.p]\n")
    with pytest.raises(StartError, match="one mistake in the fleet file") as error:
        FleetMode(str(folder / "fleet.toml"), open_images(Settings(folder / "state"), trusted=True))
    assert error.value.status == 2


# --- documents ----------------------------------------------------------------------------------------------------


class Running:
    """A mode in its house, with its facts."""

    def __init__(self, mode: FleetMode) -> None:
        self.mode = mode
        self.facts: list[Fact] = []
        self.server = BootServer(ServerSettings(), mode.decider.known)
        mode._documents.open(self.house(asyncio.new_event_loop()))
        self.seed = self.made(PC)

    def made(self, traits: Traits) -> str:
        """The token in a boot script."""
        return re.search(r"/doc/(\S+)/$", rendered(self.mode, traits).cmdline)[1]  # type: ignore[index]

    def house(self, loop: asyncio.AbstractEventLoop) -> House:
        loop.close()
        return House(loop, self.facts.append, self.server, lambda ours: f"http://{ours}")

    def get(self, name: str, method: str = "GET", seed: str = "") -> Reply | Missing:
        found = self.mode.rooms["doc"](f"{seed or self.seed}/{name}", Request(method, "/doc/x", (), {}), PEER)
        assert isinstance(found, Reply | Missing)
        return found


@pytest.fixture
def running(mode: FleetMode) -> Running:
    return Running(mode)


def test_a_document_is_made_for_its_machine(running: Running) -> None:
    found = running.get("meta-data")
    assert isinstance(found, Reply)
    assert found.body == f"instance-id: {MAC}\nlocal-hostname: web-1\n".encode()
    (fact,) = [fact for fact in running.facts if isinstance(fact, DocumentServed)]
    assert (fact.machine, fact.name, fact.secrets) == (MAC, "meta-data", "")


def test_a_secret_is_given_once_and_who_comes_again_is_told_when_and_to_whom(running: Running) -> None:
    first = running.get("user-data")
    assert isinstance(first, Reply)
    assert b"correct horse battery staple" in first.body
    again = running.get("user-data")
    assert isinstance(again, Missing)
    assert again.forbidden
    assert re.search(
        r"handed out already at \d\d:\d\d:\d\d to 192\.0\.2\.57: make the machine boot anew", again.because
    )
    (fact,) = [fact for fact in running.facts if isinstance(fact, DocumentServed)]
    assert fact.secrets == "root_password"
    assert "correct horse" not in repr(running.facts)


def test_asking_for_the_size_does_not_use_a_secret_up(running: Running) -> None:
    assert isinstance(running.get("user-data", "HEAD"), Reply)
    assert isinstance(running.get("user-data"), Reply)


def test_another_boot_gets_its_secrets_again(running: Running) -> None:
    running.get("user-data")
    seeds = {boot: running.made(dataclasses.replace(PC, boot=boot)) for boot in (1, 2)}
    assert seeds[1] == running.seed  # a script that is asked for again is of the same boot
    assert isinstance(running.get("user-data", seed=seeds[1]), Missing)
    assert isinstance(running.get("user-data", seed=seeds[2]), Reply)


def test_who_dhcp_did_not_show_gets_documents_without_secrets_and_the_reason(running: Running) -> None:
    seed = running.made(dataclasses.replace(PC, boot=0, unproved="no DHCP message of it was heard here"))
    assert isinstance(running.get("meta-data", seed=seed), Reply)
    refused = running.get("user-data", seed=seed)
    assert isinstance(refused, Missing)
    assert "it gets no secrets: when its boot script was asked for, no DHCP message" in refused.because
    (warned,) = [fact for fact in running.facts if isinstance(fact, Warned)]
    assert "make the machine boot anew by DHCP" in warned.fix
    assert isinstance(running.get("user-data"), Reply)  # the machine's own is not used up


@pytest.mark.parametrize("name", ["", "../fleet.toml", "root-password", "user-data/", "%2e%2e/x", "meta-data\0"])
def test_what_is_no_document_is_not_served(running: Running, name: str) -> None:
    assert isinstance(running.get(name), Missing)


def test_a_token_of_images_opens_no_document(running: Running, mode: FleetMode) -> None:
    decision = mode.decider.known(PC)
    assert isinstance(decision, Target)
    assert decision.kernel
    token = mode.link(MAC, "http://x")(decision.kernel, "kernel").split("/")[4]
    found = running.get("user-data", seed=token)
    assert isinstance(found, Missing)
    assert found.forbidden


def test_another_machine_is_refused(running: Running) -> None:
    running.mode._documents._machine_at = lambda address: "02:00:00:00:00:09"
    found = running.get("meta-data")
    assert isinstance(found, Missing)
    assert "made for" in found.because


# --- changes ------------------------------------------------------------------------------------------------------


def test_a_changed_file_is_taken_up_and_a_broken_one_is_not(
    mode: FleetMode, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    path = folder / "fleet.toml"
    good = path.read_text()
    facts: asyncio.Queue[Fact] = asyncio.Queue()

    async def until(kind: type[Fact], text: str) -> Fact:
        async with asyncio.timeout(20):
            while True:
                fact = await facts.get()
                if isinstance(fact, kind) and text in repr(fact):
                    return fact

    def write(text: str) -> None:
        fresh = folder / "fresh"  # as editors do
        fresh.write_text(text)
        os.replace(fresh, path)

    async def story() -> None:
        loop = asyncio.get_running_loop()
        server = BootServer(ServerSettings(), mode.decider.known)
        take = lambda fact: loop.call_soon_threadsafe(facts.put_nowait, fact)  # noqa: E731
        mode.open(House(loop, take, server, lambda ours: f"http://{ours}"))
        write(good.replace("hostname=", "host="))
        await until(FleetLoaded, "2 machines")
        assert "host=web-1" in rendered(mode).cmdline
        write(good.replace("[profiles.disk]", "[profiles.dsik]").replace("kernel =", "kernal ="))
        warned = await until(Warned, "kernal")
        assert isinstance(warned, Warned)
        assert "did you mean 'kernel'?" in warned.fix
        await until(Warned, "stays")
        assert "host=web-1" in rendered(mode).cmdline
        write(good)
        await until(FleetLoaded, "2 machines")
        assert "hostname=web-1" in rendered(mode).cmdline
        (folder / "meta-data").write_text("changed {{ mac }}\n")
        await until(FleetLoaded, "2 machines")
        await mode.reload()
        await until(FleetLoaded, "2 machines")
        for name in ("meta-data", "vmlinuz"):  # what is missing is waited for, without a change of the file
            os.rename(folder / name, folder / "away")
            await mode.reload()
            await until(Warned, "stays")
            os.rename(folder / "away", folder / name)
            await until(FleetLoaded, "2 machines")
        await mode.close()

    asyncio.run(story())


# --- the commands -------------------------------------------------------------------------------------------------


def test_check_tells_every_mistake(folder: Path) -> None:
    (folder / "bad.toml").write_text("[profiles.p]\nkernal = 'x'\n")
    result = CliRunner().invoke(main, ["check", str(folder / "bad.toml")])
    assert result.exit_code == 2
    assert "bad.toml:2: profiles.p has no key 'kernal'\n    did you mean 'kernel'?" in result.stderr
    result = CliRunner().invoke(main, ["check", "--json", str(folder / "bad.toml")])
    assert [problem["line"] for problem in json.loads(result.stdout)["problems"]] == [2]
    assert CliRunner().invoke(main, ["check", str(folder / "fleet.toml")]).exit_code == 0
    assert CliRunner().invoke(main, ["check", str(folder / "none.toml")]).exit_code == 2


def decided(folder: Path, *arguments: str) -> dict[str, object]:
    command = [
        "decide",
        "--config",
        str(folder / "fleet.toml"),
        "--state-dir",
        str(folder / "state"),
        "--json",
        *arguments,
    ]
    result = CliRunner().invoke(main, command)
    assert result.exit_code in (0, 1), result.output
    found: dict[str, object] = json.loads(result.stdout)
    return found | {"status": result.exit_code}


def test_decide_says_which_rule_the_offer_and_the_script(folder: Path) -> None:
    found = decided(folder, "--mac", MAC, "--arch", "bios")
    assert (found["status"], found["profile"]) == (0, "rescue")
    assert bytes.fromhex(str(found["offer"]))[:1] == b"\x02"
    assert "kernel --name kernel http://192.0.2.1/image/" in str(found["script"])
    assert "hostname=web-1" in str(found["script"])


def test_decide_goes_by_relay_and_switch_port(folder: Path) -> None:
    rack = ["--mac", "02:00:00:00:00:01", "--relay", "198.51.100.1", "--circuit-id", "eth3/7"]
    found = decided(folder, *rack, "--firmware", "uefi-http", "--serial", "X")
    assert "group rack 3" in str(found["because"])
    assert b"HTTPClient" in bytes.fromhex(str(found["offer"]))
    assert decided(folder, "--mac", "02:00:00:00:00:01", "--serial", "X")["status"] == 1


def test_decide_shows_a_person_every_step(folder: Path) -> None:
    command = ["decide", "--config", str(folder / "fleet.toml"), "--state-dir", str(folder / "state"), "--mac", MAC]
    text = CliRunner().invoke(main, [*command, "--arch", "bios"]).stdout
    assert "yes  machine web-1" in text
    assert "no   group arm boards" in text
    assert "54 server identifier: 192.0.2.1" in text
    assert "#!ipxe" in text


def test_a_problem_without_a_line_is_told_by_its_file() -> None:
    assert str(Problem("fleet.toml", 0, "cannot be read")) == "fleet.toml: cannot be read"
