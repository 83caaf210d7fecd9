"""What a machine is told, as people write it."""

from __future__ import annotations

import pytest

from bootwire.wire.bootinfo import (
    Auto,
    Boot,
    DiskPartition,
    MemoryFs,
    Multiboot,
    Partition,
    Reboot,
    Restart,
    SystemId,
    Unknown,
    Wait,
)
from bootwire.wire.bootinfo_text import read, say

TEXTS = {
    "partition 2": Boot(Partition(2)),
    "partition 0 -- root=/dev/sda1 -- ro": Boot(Partition(0), b"root=/dev/sda1 -- ro"),
    "disk 0x80 partition 3": Boot(DiskPartition(0x80, 3)),
    "system-id 165": Boot(SystemId(165)),
    "memory http://10.0.0.1/mfs -- quiet": Boot(MemoryFs(b"http://10.0.0.1/mfs"), b"quiet"),
    "memory 10.0.0.1:/tftpboot/frisbee": Boot(MemoryFs(b"10.0.0.1:/tftpboot/frisbee")),
    "multiboot 10.0.0.1:/k": Boot(Multiboot("10.0.0.1", b"/k")),
    "wait": Boot(Wait()),
    "auto": Boot(Auto()),
    "reboot": Boot(Reboot()),
    "restart": Boot(Restart()),
}


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_read(text: str):
    assert read(text) == TEXTS[text]


@pytest.mark.parametrize("text", TEXTS)
def test_a_value_is_said(text: str):
    assert say(TEXTS[text]) == text


@pytest.mark.parametrize(
    "text",
    ["", "dance", "partition", "partition two", "partition -1", "partition 1_0", "partition ١", "partition 99999999999",
     "partition 4294967296", "disk 128", "memory", "memory a b", "multiboot k", "multiboot 10.0.0.256:/k", "wait now",
     "memory " + "p" * 256, "wait -- " + "c" * 224, "partition 0x", "partition \N{DIGIT ONE}\0"],
)  # fmt: skip
def test_what_is_no_action_is_refused_with_what_could_be_written(text: str):
    with pytest.raises(ValueError, match=r"."):
        read(text)


def test_a_refusal_names_the_forms():
    with pytest.raises(ValueError, match="disk N partition N"):
        read("dance")


def test_a_hostile_path_is_one_printable_line():
    assert say(Boot(MemoryFs(b"\x1b[2J\n"), b"\r")) == r"memory \x1b[2J\x0a -- \x0d"


def test_an_unknown_type_has_a_name():
    assert say(Boot(Unknown(77, b"x"))) == "unknown type 77"
