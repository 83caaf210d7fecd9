"""Rules over what machines reported of themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bootwire.policy.inventory import Cpu, Disk, Hardware
from bootwire.policy.rules import REPORTED, BadPattern, Rule, Rules, condition
from bootwire.policy.target import Traits

GIB = 2**30
MAC = "52:54:00:77:00:01"
REPORT = Hardware(
    MAC,
    cpu=Cpu("GenuineIntel", 6, 60, 1, "Intel Core Processor (Haswell)", 4, 64, ("lm", "vmx")),
    memory=16 * GIB,
    disks=(Disk(0x80, 64 * GIB, 512, "ATA PCI"), Disk(0x81, 2000 * 10**9, 512, "NVME")),
)
KNOWN = Traits(MAC, hardware=REPORT)


@pytest.mark.parametrize(
    ("key", "value", "verdict"),
    [
        ("cpu.vendor", "GenuineIntel", True),
        ("cpu.vendor", "genuine*", True),
        ("cpu.vendor", "AuthenticAMD", False),
        ("cpu.features", "vmx", True),
        ("cpu.features", "svm", False),
        ("cpu.threads", 4, True),
        ("memory", ">= 16GiB", True),
        ("memory", "> 16GiB", False),
        ("memory", "< 17GB", False),
        ("memory", "<=16 GiB", True),
        ("disk", ">= 1TB", True),
        ("disk", "= 64GiB", True),
        ("disk", "< 1GB", False),
        ("disk.name", "nvme*", True),
        ("disks", "2", True),
    ],
)
def test_a_condition_holds_for_what_was_reported(key: str, value: str | int, verdict: bool):
    assert condition(key, [value]).test(KNOWN) is verdict


def test_one_of_several_values_is_enough():
    assert condition("cpu.vendor", ["AuthenticAMD", "GenuineIntel"]).test(KNOWN) is True


@pytest.mark.parametrize("key", REPORTED)
def test_nothing_is_known_before_a_report(key: str):
    assert condition(key, ["1"]).test(Traits(MAC)) is None


@pytest.mark.parametrize("value", ["much", ">= 16 parsecs", "", "=> 4"])
def test_a_size_that_is_none_says_what_to_write(value: str):
    with pytest.raises(BadPattern, match="write 4"):
        condition("memory", [value])


def test_a_machine_without_disks_fits_no_condition_on_one():
    assert condition("disk", [">= 0"]).test(replace(KNOWN, hardware=Hardware(MAC))) is False


def test_why_a_rule_does_not_apply_says_what_was_reported():
    rule = Rule("large", "fleet.toml:3", (condition("memory", [">= 32GiB"]),), "web")
    (step,) = Rules([rule]).match(KNOWN).trail
    assert step.because == f"memory is {16 * GIB}, not >= 32GiB"
