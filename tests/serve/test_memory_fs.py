"""Machines that bootinfo told a URL: the script that boots it."""

from __future__ import annotations

import pytest

from bootwire.assets.scripts import Caller
from bootwire.facts import BootinfoAnswered, Fact, OrderSent
from bootwire.serve.boot_scripts import Script
from bootwire.serve.content import Peer
from bootwire.serve.memory_fs import MemoryFsScripts, images
from bootwire.wire.http import Request

MAC = "52:54:00:12:34:56"
USUAL = Script(b"usual", "as every machine")


def script(*told: Fact, machine: str = MAC) -> Script:
    scripts = MemoryFsScripts(lambda *_: USUAL, lambda ours: f"http://{ours}:8080")
    for fact in told:
        scripts.note(fact)
    request = Request("GET", "/boot.ipxe", (), {})
    made = scripts(machine, request, Caller(platform="pcbios"), Peer("10.0.0.9", 1, "10.0.0.1"))
    assert isinstance(made, Script)
    return made


def answered(answer: str) -> Fact:
    return BootinfoAnswered(MAC, "10.0.0.9", answer, "because", False)


def test_the_kernel_and_initrd_of_that_url_are_booted_with_the_command_line():
    made = script(answered("memory http://h/mfs -- quiet splash"))
    lines = made.text.decode().splitlines()
    assert any(line.startswith("kernel") and "http://h/mfs/bzImage" in line for line in lines)
    assert any(line.startswith("initrd") and "http://h/mfs/rootfs.cpio.gz" in line for line in lines)
    assert any(line.startswith("boot kernel quiet splash") for line in lines)
    assert made.because == "bootinfo told it: memory http://h/mfs"


def test_an_order_counts_as_an_answer_does():
    assert b"http://h/mfs/bzImage" in script(OrderSent(MAC, "10.0.0.9", "memory http://h/mfs", 1)).text


@pytest.mark.parametrize(
    "told",
    [
        (),
        (answered("memory http://10.0.0.1:8080/mfs/52-54-00-12-34-56"),),
        (answered("memory 10.0.0.1:/tftpboot/frisbee"),),
        (answered("memory http://h/mfs"), answered("partition 2")),
    ],
)
def test_others_get_what_was_decided_for_them(told: tuple[Fact, ...]):
    assert script(*told) == USUAL


def test_another_machine_gets_what_was_decided_for_it():
    assert script(answered("memory http://h/mfs"), machine="52:54:00:00:00:01") == USUAL


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://h/linux-mfs", ("http://h/linux-mfs/bzImage", "http://h/linux-mfs/rootfs.cpio.gz")),
        ("http://h/mfs/", ("http://h/mfs/bzImage", "http://h/mfs/rootfs.cpio.gz")),
        ("http://h/images/vmlinuz", ("http://h/images/vmlinuz",)),
        ("http://h/live.efi", ("http://h/live.efi",)),
    ],
)
def test_a_url_is_a_kernel_or_a_directory(url: str, found: tuple[str, ...]):
    assert images(url) == found
