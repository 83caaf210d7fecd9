"""Conditions over what a machine reported of itself: `cpu.vendor`, `memory >= 16GiB`, a disk that is large enough."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence

from bootwire.policy.inventory import NAMES, Cpu, Disk, Hardware, Value, lookup

Fits = Callable[[Hardware], bool]

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12} | {
    f"{letter}iB": 1 << 10 * power for power, letter in enumerate("KMGT", 1)
}
_NUMBER = re.compile(r"(>=|<=|>|<|=|)\s*(\d+(?:\.\d+)?)\s*([KMGT]i?B|)")
_EXAMPLE = Hardware("", cpu=Cpu(features=("fpu",)), disks=(Disk(0x80, 1, 512, "ATA"),))


def fits(name: str, values: Sequence[str | int]) -> Fits:
    """Whether the value of this name (`inventory.NAMES`) is one of `values`. Raises ValueError that says what to write.

    Texts have * ? and [] as in file names, in any case. Numbers are "4", ">= 16GiB", "< 2TB". Where a name has several
    values (disk, cpu.features), one that fits is enough.
    """
    example = lookup(_EXAMPLE, name)
    assert example is not None, f"{name} is none of {', '.join(NAMES)}"
    single = example[0] if isinstance(example, tuple) else example
    tests = [_number(str(value)) if isinstance(single, int) else _text(str(value)) for value in values]

    def test(machine: Hardware) -> bool:
        found = lookup(machine, name)
        each: Sequence[Value] = found if isinstance(found, tuple) else () if found is None else (found,)
        return any(one(value) for one in tests for value in each)

    return test


def _text(value: str) -> Callable[[Value], bool]:
    pattern = re.compile(fnmatch.translate(value), re.IGNORECASE)
    return lambda found: pattern.match(str(found)) is not None


def _number(value: str) -> Callable[[Value], bool]:
    read = _NUMBER.fullmatch(value.strip())
    if read is None:
        raise ValueError(f'{value} is no number: write 4, ">= 16GiB" or "< 2TB"')
    sign, digits, unit = read.groups()
    wanted = float(digits) * _UNITS[unit]
    match sign:
        case ">=":
            return lambda found: isinstance(found, int) and found >= wanted
        case "<=":
            return lambda found: isinstance(found, int) and found <= wanted
        case ">":
            return lambda found: isinstance(found, int) and found > wanted
        case "<":
            return lambda found: isinstance(found, int) and found < wanted
        case _:
            return lambda found: isinstance(found, int) and found == wanted
