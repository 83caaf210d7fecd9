"""What a machine is told by bootinfo, as people write it: "partition 2", "memory http://10.0.0.1/mfs", "wait".

The words are those of `bootwire order`, of options and of fleet files; `read(say(boot)) == boot` where texts are
printable. A command line stands last, behind " -- ".
"""

from __future__ import annotations

from typing import assert_never

from bootwire.wire.bootinfo import (
    Action,
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
    check,
)
from bootwire.wire.text import printable

FORMS = (
    "partition N", "disk N partition N", "system-id N", "memory PATH-OR-URL", "multiboot ADDRESS:FILE",
    "wait", "auto", "reboot", "restart",
)  # fmt: skip
"""Every form that `read` takes, for help and errors. Numbers may be hexadecimal: 0x80."""

_PLAIN: dict[str, Action] = {"wait": Wait(), "auto": Auto(), "reboot": Reboot(), "restart": Restart()}


def say(boot: Boot) -> str:
    """One printable line."""
    line = boot.command_line
    return _say_action(boot.action) + (f" -- {printable(line)}" if line else "")


def read(text: str) -> Boot:
    """The value of a text as people write it. Raises ValueError, which says what could be written instead."""
    words, dashes, line = text.partition(" -- ")
    return check(Boot(_read_action(words.split(), text), line.strip().encode() if dashes else b""))


def _say_action(action: Action) -> str:
    match action:
        case Partition(number):
            return f"partition {number}"
        case SystemId(number):
            return f"system-id {number}"
        case Multiboot(server, file):
            return f"multiboot {server}:{printable(file)}"
        case Wait():
            return "wait"
        case Reboot():
            return "reboot"
        case Auto():
            return "auto"
        case MemoryFs(path):
            return f"memory {printable(path)}"
        case Restart():
            return "restart"
        case DiskPartition(disk, partition):
            return f"disk {disk:#x} partition {partition}"
        case Unknown(kind):
            return f"unknown type {kind}"
        case never:
            assert_never(never)


def _read_action(words: list[str], text: str) -> Action:
    match words:
        case [word] if word in _PLAIN:
            return _PLAIN[word]
        case ["partition", number]:
            return Partition(_number(number))
        case ["disk", disk, "partition", number]:
            return DiskPartition(_number(disk), _number(number))
        case ["system-id", number]:
            return SystemId(_number(number))
        case ["memory", path]:
            return MemoryFs(path.encode())
        case ["multiboot", place] if ":" in place:
            server, _, file = place.partition(":")
            return Multiboot(server, file.encode())
        case _:
            raise ValueError(f"no bootinfo action: {printable(text, 80)!r}; one of: {', '.join(FORMS)}")


def _number(text: str) -> int:
    """Decimal or 0x hexadecimal, without int()'s signs, blanks and underscores."""
    digits = text[2:] if text[:2] in ("0x", "0X") else text
    if not 1 <= len(digits) <= 10 or not digits.isascii() or not digits.isalnum():
        raise ValueError(f"not a number: {printable(text, 40)!r}")
    try:
        return int(digits, 10 if digits is text else 16)
    except ValueError:
        raise ValueError(f"not a number: {printable(text, 40)!r}") from None
