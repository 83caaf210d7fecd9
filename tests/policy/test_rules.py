"""Rules of a fleet: what applies, what may, in which order, and that every step says why."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.policy.rules import KEYS, BadPattern, Condition, Rule, Rules, condition, mac_prefix, subnet_condition
from bootwire.policy.target import Traits

MAC = "52:54:00:12:34:56"
PC = Traits(
    MAC, uuid="00112233-4455-6677-8899-aabbccddeeff", platform="x86_64", architecture=7, firmware="uefi",
    vendor_class="PXEClient:Arch:00007", link="10.9.0.1", interface="eth1", relay="10.9.0.1", circuit_id="eth3/7",
    remote_id="rack-3", stage="discover",
)  # fmt: skip


def rule(name: str, profile: str = "p", machine: bool = False, order: int = 0, **wanted: object) -> Rule:
    made = []
    for key, value in wanted.items():
        values = value if isinstance(value, list) else [value]
        made.append(condition(key.replace("_", "-"), values))
    macs = tuple(
        str(v)
        for v in ([wanted["mac"]] if isinstance(wanted.get("mac"), str) and len(str(wanted["mac"])) == 17 else [])
    )
    return Rule(name, f"fleet.toml:{order}", tuple(made), profile, {}, machine, order, macs)


def names(rules: tuple[Rule, ...]) -> list[str]:
    return [one.name for one in rules]


@pytest.mark.parametrize(
    ("key", "value", "verdict"),
    [
        ("mac", "52:54:00:12:34:56", True),
        ("mac", "52-54-00", True),
        ("mac", "52:54:00:*", True),
        ("mac", "52:54:01", False),
        ("uuid", "{00112233-4455-6677-8899-AABBCCDDEEFF}", True),
        ("uuid", "00112233-4455-6677-8899-aabbccddee00", False),
        ("serial", "7C*", None),
        ("arch", "x86_64", True),
        ("arch", 7, True),
        ("arch", ["arm64", 9], False),
        ("firmware", ["bios", "uefi"], True),
        ("firmware", "uefi-http", False),
        ("loader", "firmware", True),
        ("loader", "ipxe", False),
        ("vendor-class", "pxeclient:*", True),
        ("user-class", "gPXE", False),
        ("subnet", "10.9.0.0/16", True),
        ("subnet", ["192.0.2.0/24", "10.8.0.0/16"], False),
        ("relay", "10.9.0.1", True),
        ("interface", "eth*", True),
        ("interface", "ETH1", False),
        ("circuit-id", "eth3/*", True),
        ("remote-id", "RACK-?", True),
    ],
)
def test_what_a_condition_says_of_a_machine(key: str, value: object, verdict: bool | None) -> None:
    values = value if isinstance(value, list) else [value]
    assert condition(key, values).test(PC) is verdict


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("mac", "52:54:0g", "no MAC address"),
        ("mac", "52:54:00:12:34:56:78", "no MAC address"),
        ("uuid", "1234", "no UUID"),
        ("arch", "amd64", "no architecture: there are bios"),
        ("firmware", "efi", "no firmware: there are bios, uefi, uefi-http"),
        ("loader", "grub", "no loader"),
        ("subnet", "10.9.0.1/16", "has host bits set: write a subnet as"),
        ("relay", "ten", "no IPv4 address"),
        ("colour", "red", "no condition is called colour"),
    ],
)
def test_a_pattern_that_makes_no_sense_says_what_would(key: str, value: str, why: str) -> None:
    with pytest.raises(BadPattern) as wrong:
        condition(key, [value])
    assert why in str(wrong.value)


def test_the_most_specific_rule_comes_first() -> None:
    fleet = Rules(
        [
            rule("everybody", order=0),
            rule("pcs", order=1, arch="x86_64"),
            rule("pcs of rack 3", order=2, arch="x86_64", remote_id="rack-3"),
            rule("wide", order=3, subnet="10.0.0.0/8"),
            rule("narrow", order=4, subnet="10.9.0.0/24"),
            rule("the machine", machine=True, order=5, mac=MAC),
            rule("first of two", order=6, firmware="uefi", interface="eth1"),
            rule("second of two", order=7, firmware="uefi", interface="eth*"),
        ]
    )
    assert names(fleet.match(PC).applying) == [
        "the machine", "pcs of rack 3", "first of two", "second of two", "narrow", "wide", "pcs", "everybody",
    ]  # fmt: skip


def test_what_is_not_known_yet_may_apply_and_in_the_end_does_not() -> None:
    fleet = Rules([rule("dell", serial="7C*", order=0), rule("rest", order=1)])
    match = fleet.match(PC)
    assert (names(match.applying), names(match.maybe)) == (["rest"], ["dell"])
    assert [step.because for step in match.trail] == ["serial is not known yet", "it is about every machine"]
    final = fleet.match(PC, final=True)
    assert (names(final.applying), names(final.maybe)) == (["rest"], [])
    assert final.trail[0].because == "serial is not known, not 7C*"
    assert names(fleet.match(dataclasses.replace(PC, serial="7CZ1")).applying) == ["dell", "rest"]
    assert fleet.smbios


def test_every_step_names_what_it_saw() -> None:
    trail = Rules([rule("arm", arch="arm64", order=0), rule("pc", arch=["x86_64", "i386"], order=1)]).match(PC).trail
    assert [(step.verdict, step.because) for step in trail] == [
        (False, "arch is x86_64 (7), not arm64"),
        (True, "arch is x86_64 or i386"),
    ]


def test_ten_thousand_machines_cost_a_decision_no_more_than_one() -> None:
    looked = 0

    def test(traits: Traits) -> bool:
        nonlocal looked
        looked += 1
        return True

    rules = []
    for number in range(10_000):
        mac = f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"
        rules.append(Rule(f"m{number}", "f:1", (Condition("mac", mac, test),), "p", {}, True, number, (mac,)))
    match = Rules(rules).match(Traits("02:00:00:00:10:07"))
    assert (names(match.applying), looked) == (["m4103"], 1)


def test_mac_addresses_in_every_spelling() -> None:
    assert [mac_prefix(text) for text in ("52-54-00", " 52:54:00:* ", "AA:BB:CC:DD:EE:FF", "52:54:00:")] == [
        "52:54:00", "52:54:00", "aa:bb:cc:dd:ee:ff", "52:54:00",
    ]  # fmt: skip


CONDITIONS = st.sampled_from(
    [
        condition("arch", ["x86_64"]), condition("arch", ["arm64"]), condition("firmware", ["uefi"]),
        condition("serial", ["7*"]), condition("subnet", ["10.9.0.0/16"]), condition("mac", ["52:54:00"]),
        subnet_condition("network", ["10.0.0.0/8"], "lab"), condition("circuit-id", ["eth*"]),
    ]
)  # fmt: skip
TRAITS = st.builds(
    Traits, st.sampled_from([MAC, "02:00:00:00:00:01"]), serial=st.sampled_from(["", "7x", "8"]),
    platform=st.sampled_from(["", "x86_64", "arm64"]), firmware=st.sampled_from(["", "uefi", "bios"]),
    link=st.sampled_from(["", "10.9.1.1", "192.0.2.1"]), circuit_id=st.sampled_from(["", "eth1", "x"]),
)  # fmt: skip


@given(st.lists(st.lists(CONDITIONS, max_size=4), max_size=6), TRAITS)
def test_specificity_is_a_total_order(conditions: list[list[Condition]], traits: Traits) -> None:
    rules = [Rule(f"r{i}", "f:1", tuple(c), "p", {}, False, i) for i, c in enumerate(conditions)]
    ranks = [one.rank for one in rules]
    assert len(set(ranks)) == len(ranks)
    assert names(Rules(rules).match(traits).applying) == names(Rules(rules[::-1]).match(traits).applying)


@given(st.lists(CONDITIONS, max_size=4), CONDITIONS, TRAITS)
def test_one_more_condition_never_makes_a_rule_fit_more(some: list[Condition], more: Condition, traits: Traits) -> None:
    loose, tight = (Rule("r", "f:1", tuple(c), "p") for c in (some, [*some, more]))
    if Rules([tight]).match(traits).applying:
        assert Rules([loose]).match(traits).applying


def test_every_key_makes_a_condition_or_is_the_name_of_a_network() -> None:
    sample = {
        "mac": "52:54:00", "uuid": "00112233-4455-6677-8899-aabbccddeeff", "arch": "arm64", "firmware": "uefi",
        "loader": "ipxe", "subnet": "10.0.0.0/8", "relay": "10.0.0.1",
    }  # fmt: skip
    for key in KEYS:
        if key != "network":
            assert condition(key, [sample.get(key, "1")]).key == key


def test_a_rule_bound_to_a_uuid_may_be_about_a_machine_that_has_told_none():
    uuid = PC.uuid
    bound = dataclasses.replace(rule("a", uuid=[uuid, uuid[:-1] + "0"]), uuids=(uuid, uuid[:-1] + "0"))
    rules = Rules([bound])
    silent = dataclasses.replace(PC, uuid="")
    assert names(rules.match(PC).applying) == ["a"]
    match = rules.match(silent)
    assert (names(match.applying), names(match.maybe)) == ([], ["a"])
    assert names(rules.match(silent, final=True).maybe) == []
    assert names(rules.match(dataclasses.replace(PC, uuid=uuid[:-1] + "1")).maybe) == []


def test_of_rules_that_wait_for_a_uuid_alike_the_most_specific_with_a_profile_stands_for_all():
    def bound(name: str, number: int, profile: str = "p", **wanted: object) -> Rule:
        uuid = f"00000000-0000-0000-0000-{number:012x}"
        made = rule(name, profile, True, number, uuid=uuid, **wanted)
        return dataclasses.replace(made, uuids=(uuid,))

    many = [bound("bare", 0, ""), bound("arm", 1, arch="arm64"), bound("first", 2)]
    rules = Rules([*many, bound("relayed", 3, relay="10.9.0.1"), *(bound("more", 4 + n) for n in range(10_000))])
    match = rules.match(dataclasses.replace(PC, uuid=""))
    assert names(match.maybe) == ["relayed", "first"]
    assert [step.rule.name for step in match.trail] == ["arm", "relayed", "first"]
    assert names(rules.match(dataclasses.replace(PC, uuid=many[0].uuids[0])).applying) == ["bare"]
