"""What a machine is told by bootinfo, for everything that can be decided for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from bootwire.assets.scripts import boot_url
from bootwire.boot_server import BootServer, Settings
from bootwire.engine.bootinfo import Answer, Asker, NoAnswer
from bootwire.policy.target import Decision, Image, Silence, Target, Traits
from bootwire.serve.bootinfo_decisions import BootinfoDecisions
from bootwire.serve.content import Missing, Peer, Reply
from bootwire.serve.mode import Link, RenderError
from bootwire.wire.bootinfo import Boot, Partition, Wait
from bootwire.wire.bootinfo_text import read
from bootwire.wire.http import Request

MAC = "52:54:00:12:34:56"
ASKER = Asker("192.0.2.57", MAC)
OURS = "192.0.2.1"
MFS = "memory http://192.0.2.1:8080/mfs/52-54-00-12-34-56"
KERNEL = Target("a rule", kernel=Image("/srv/vmlinuz"), initrds=(Image("/srv/a"), Image("/srv/b")), cmdline="quiet")


@dataclass
class Decider:
    """Says `decision`; None is found out by asking, and is `later` then."""

    decision: Decision | None
    later: Decision | None = None
    smbios: bool = False
    seen: Traits | None = None

    def known(self, traits: Traits) -> Decision | None:
        self.seen = traits
        return self.decision

    async def ask(self, traits: Traits) -> None:
        self.decision = self.later

    def render(self, target: Target, traits: Traits, link: Link) -> Target:
        if target.cmdline == "{{":
            raise RenderError("a template is broken: fleet.toml, line 3")
        return replace(target, cmdline=target.cmdline.replace("MAC", traits.machine))


def decisions(decision: Decision | None, fixed: Boot | None = None) -> BootinfoDecisions:
    def link(machine: str, base: str) -> Link:
        return lambda _image, name: boot_url(base, machine, name)

    return BootinfoDecisions(BootServer(Settings()), Decider(decision), link, lambda ours: f"http://{ours}:8080", fixed)


@pytest.mark.parametrize(
    ("target", "text", "because"),
    [
        (KERNEL, f"{MFS} -- quiet", "a rule"),
        (
            replace(KERNEL, cmdline="for=MAC"),
            f"{MFS} -- for={MAC}",
            "a rule",
        ),
        (replace(KERNEL, cmdline=""), MFS, "a rule"),
        (Target("a rule", local=True), "partition 0", "its own disk: a rule"),
        (Target("a rule", local=True, bootinfo=Boot(Partition(3))), "partition 3", "a rule"),
        (replace(KERNEL, bootinfo=Boot(Wait())), "wait", "a rule"),
        (
            Target("a rule", script="#!ipxe"),
            "multiboot 192.0.2.1:52-54-00-12-34-56/bios/undionly.kpxe",
            "iPXE, for a script: a rule",
        ),
        (
            replace(KERNEL, because=""),
            f"{MFS} -- quiet",
            "every machine gets the same",
        ),
    ],
)
def test_an_answer_follows_from_what_was_decided(target: Target, text: str, because: str) -> None:
    assert decisions(target).known(ASKER, OURS) == Answer(read(text), because)


def test_a_command_line_without_room_is_left_out_and_that_is_said() -> None:
    answer = decisions(replace(KERNEL, cmdline="c" * 224)).known(ASKER, OURS)
    assert isinstance(answer, Answer)
    assert answer.boot == read(MFS)
    assert "without its command line" in answer.because


def test_a_broken_template_is_a_reasoned_failure() -> None:
    answer = decisions(replace(KERNEL, cmdline="{{")).known(ASKER, OURS)
    assert answer == Answer(None, "a template is broken: fleet.toml, line 3")


def test_nothing_to_boot_is_said_to_the_machine() -> None:
    assert decisions(Target("a rule")).known(ASKER, OURS) == Answer(None, "nothing to boot: a rule")


def test_another_servers_machine_is_left_to_it() -> None:
    assert decisions(Silence("not in the fleet")).known(ASKER, OURS) == NoAnswer("not in the fleet")


def test_what_nobody_knows_yet_is_none() -> None:
    assert decisions(None).known(ASKER, OURS) is None


def test_what_the_operator_fixed_counts_whatever_was_decided() -> None:
    answer = decisions(Silence("not in the fleet"), Boot(Wait())).known(ASKER, OURS)
    assert answer == Answer(Boot(Wait()), "every machine is told this (--bootinfo-answer)")


def test_a_machine_that_nobody_knows_gets_a_url_by_its_address() -> None:
    answer = decisions(replace(KERNEL, cmdline="")).known(Asker("192.0.2.57"), OURS)
    assert isinstance(answer, Answer)
    assert answer.boot == read("memory http://192.0.2.1:8080/mfs")


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("52-54-00-12-34-56", "/boot/52-54-00-12-34-56/kernel"),
        ("52-54-00-12-34-56/", "/boot/52-54-00-12-34-56/kernel"),
        ("52-54-00-12-34-56/bzImage", "/boot/52-54-00-12-34-56/kernel"),
        ("52-54-00-12-34-56/rootfs.cpio.gz", "/boot/52-54-00-12-34-56/initrd/0"),
        ("", "/boot/kernel"),
        ("bzImage", "/boot/kernel"),
    ],
)
def test_a_memory_file_system_leads_to_the_images(path: str, where: str) -> None:
    reply = decisions(KERNEL).memory_fs(path, Request("GET", f"/mfs/{path}", (), {}), Peer("192.0.2.57", 7, OURS))
    assert isinstance(reply, Reply)
    assert (reply.status, dict(reply.headers)) == (302, {"Location": f"http://192.0.2.1:8080{where}"})


@pytest.mark.parametrize(
    ("decision", "path"),
    [(KERNEL, "52-54-00-12-34-56/etc/passwd"), (KERNEL, ".."), (replace(KERNEL, initrds=()), "rootfs.cpio.gz"),
     (Target("", local=True), "bzImage"), (Silence("no"), "bzImage"), (None, "bzImage")],
)  # fmt: skip
def test_a_memory_file_system_has_nothing_else(decision: Decision | None, path: str) -> None:
    found = decisions(decision).memory_fs(path, Request("GET", f"/mfs/{path}", (), {}), Peer("192.0.2.57", 7, OURS))
    assert isinstance(found, Missing)
