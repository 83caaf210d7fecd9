"""Which rule of a fleet is about a machine: conditions over its traits, the most specific rule first, every step told.

A condition is yes, no, or not known yet (a serial number at the DISCOVER). A rule applies when all its conditions are
yes; it may apply when none is no. How specific a rule is, in this order: a machine's before a group's; more conditions
before fewer; the narrower subnet or MAC prefix; the one that stands earlier in the file.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bootwire.policy.hardware_match import fits
from bootwire.policy.inventory import NAMES, lookup
from bootwire.policy.target import Traits

Verdict = bool | None
"""Yes, no, or None: not known yet."""

Test = Callable[[Traits], Verdict]

SMBIOS = ("serial", "manufacturer", "product")
"""What only a machine's loader tells, after the first offer."""

ARCHITECTURES = ("bios", "i386", "x86_64", "arm32", "arm64", "riscv32", "riscv64", "loong64")
FIRMWARE = ("bios", "uefi", "uefi-http")


@dataclass(frozen=True, slots=True)
class Condition:
    """One key of a rule. text: as the operator wrote it; width: bits of a subnet or MAC prefix, for specificity."""

    key: str
    text: str
    test: Test
    width: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """A machine or a group of the fleet.

    name      the operator's, or what it matches
    where     "fleet.toml:12"
    profile   "" where the rule only brings variables: a less specific rule says what is booted
    macs uuids   exact ones that the rule is bound to: what it is found by
    """

    name: str
    where: str
    conditions: tuple[Condition, ...]
    profile: str = ""
    variables: Mapping[str, object] = field(default_factory=dict)
    machine: bool = False
    order: int = 0
    macs: tuple[str, ...] = ()
    uuids: tuple[str, ...] = ()

    @property
    def rank(self) -> tuple[int, int, int, int]:
        """Sorts the most specific rule first; no two rules of a file are equal."""
        width = sum(condition.width for condition in self.conditions)
        return (not self.machine, -len(self.conditions), -width, self.order)

    @property
    def title(self) -> str:
        return f"{'machine' if self.machine else 'group'} {self.name} ({self.where})"


@dataclass(frozen=True, slots=True)
class Step:
    """What became of one rule. verdict: None where a condition is not known yet."""

    rule: Rule
    verdict: Verdict
    because: str


@dataclass(frozen=True, slots=True)
class Match:
    """applying: rules that apply, the most specific first. maybe: those that may, once more is known.

    Of rules that wait for a UUID and look at the same otherwise, the most specific with a profile stands for all.
    """

    applying: tuple[Rule, ...]
    maybe: tuple[Rule, ...]
    trail: tuple[Step, ...]


class Rules:
    """A fleet's rules, found by MAC and UUID where they are bound to one, tried in turn where not."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._by_mac: dict[str, list[Rule]] = {}
        self._by_uuid: dict[str, list[Rule]] = {}
        self._others: list[Rule] = []
        for rule in rules:
            if not rule.macs and not rule.uuids:
                self._others.append(rule)
            for mac in rule.macs:
                self._by_mac.setdefault(mac, []).append(rule)
            for uuid in rule.uuids if not rule.macs else ():
                self._by_uuid.setdefault(uuid, []).append(rule)
        self._waiting = _most_specific(rule for rules in self._by_uuid.values() for rule in rules)
        self.smbios = any(condition.key in SMBIOS for rule in rules for condition in rule.conditions)

    def match(self, traits: Traits, final: bool = False) -> Match:
        """What applies to a machine. final: what is not known now never will be; it counts as no."""
        found = [*self._by_mac.get(traits.machine, ()), *self._by_uuid.get(traits.uuid, ()), *self._others]
        if not traits.uuid and not final:  # any that is bound to one may be about this machine
            found += self._waiting
        steps = [_step(rule, traits, final) for rule in sorted(found, key=lambda rule: rule.rank)]
        return Match(
            tuple(step.rule for step in steps if step.verdict),
            tuple(step.rule for step in steps if step.verdict is None),
            tuple(steps),
        )


def _most_specific(rules: Iterable[Rule]) -> list[Rule]:
    """Of rules bound to a UUID, one for each set of other conditions: those with the same are about the same machines.

    A fleet may have ten thousand of them, which a machine that tells no UUID would have to be held against.
    """
    found: dict[frozenset[tuple[str, str]], Rule] = {}
    for rule in sorted(rules, key=lambda rule: (not rule.profile, rule.rank)):
        others = frozenset((one.key, one.text) for one in rule.conditions if one.key != "uuid")
        found.setdefault(others, rule)
    return list(found.values())


def _step(rule: Rule, traits: Traits, final: bool) -> Step:
    unknown: Condition | None = None
    for condition in rule.conditions:
        verdict = condition.test(traits)
        if verdict is False or (verdict is None and final):
            seen = _seen(condition.key, traits)
            return Step(
                rule, False, f"{condition.key} {'is ' + seen if seen else 'is not known'}, not {condition.text}"
            )
        if verdict is None and unknown is None:
            unknown = condition
    if unknown is not None:
        return Step(rule, None, f"{unknown.key} is not known yet")
    because = ", ".join(f"{condition.key} is {condition.text}" for condition in rule.conditions)
    return Step(rule, True, because or "it is about every machine")


def _seen(key: str, traits: Traits) -> str:
    """What a trait is, for a sentence."""
    match key:
        case "mac":
            return traits.machine
        case "arch":
            number = f" ({traits.architecture})" if traits.architecture >= 0 else ""
            return f"{traits.platform}{number}"
        case "subnet" | "network":
            return traits.link
        case _ if key in REPORTED:
            found = lookup(traits.hardware, key) if traits.hardware else ""
            return ", ".join(map(str, found)) if isinstance(found, tuple) else str(found)
        case _:
            return str(getattr(traits, key.replace("-", "_"), ""))


# --- making conditions --------------------------------------------------------------------------------------------


class BadPattern(ValueError):
    """A condition's value makes no sense; the text says what it should be."""


def condition(key: str, values: Sequence[str | int]) -> Condition:
    """The condition that a trait is one of `values`. Raises BadPattern.

    mac      whole ("52:54:00:12:34:56", any case, dashes, too) or its first octets ("52:54:00")
    arch     a loader directory's name (ARCHITECTURES), or a number of option 93
    subnet   "10.9.0.0/16"
    others   text, with * ? and [] as in file names; case counts only where it must (interface)
    """
    text = " or ".join(str(value) for value in values)
    if not values:
        raise BadPattern("an empty list fits no machine")
    match key:
        case "mac":
            prefixes = tuple(mac_prefix(str(value)) for value in values)
            width = min(len(prefix.split(":")) for prefix in prefixes) * 8
            return Condition(key, text, lambda traits: traits.machine.startswith(prefixes), width)
        case "uuid":
            uuids = frozenset(str(value).strip("{}").lower() for value in values)
            if bad := [one for one in uuids if not _UUID.fullmatch(one)]:
                raise BadPattern(f"{bad[0]} is no UUID: write 8-4-4-4-12 hexadecimal digits")
            return Condition(key, text, lambda traits: traits.uuid in uuids if traits.uuid else None)
        case "arch":
            return _arch(values, text)
        case "firmware":
            return _one_of(key, values, text, FIRMWARE)
        case "loader":
            return _one_of(key, values, text, ("ipxe", "firmware"))
        case "subnet":
            return subnet_condition(key, [str(value) for value in values], text)
        case "relay":
            relays = frozenset(_address(str(value)) for value in values)
            return Condition(key, text, lambda traits: traits.relay in relays)
        case "interface":
            return _globs(key, "interface", values, text, 0, unknown=False)
        case "vendor-class" | "user-class" | "circuit-id" | "remote-id":
            return _globs(key, key.replace("-", "_"), values, text, re.IGNORECASE, unknown=False)
        case "serial" | "manufacturer" | "product":
            return _globs(key, key, values, text, re.IGNORECASE, unknown=True)
        case _ if key in REPORTED:
            return _reported(key, values, text)
        case _:
            raise BadPattern(f"no condition is called {key}")


REPORTED = tuple(
    name for name in NAMES if name.startswith(("cpu.", "memory", "disk", "bios.", "link.")) or name == "nic"
)
"""What only a boot program on the machine tells (`hello`)."""

KEYS = (
    "mac", "uuid", "serial", "manufacturer", "product", "arch", "firmware", "loader", "vendor-class", "user-class",
    "subnet", "network", "interface", "relay", "circuit-id", "remote-id", *REPORTED,
)  # fmt: skip
"""What a rule may look at; `network` is the name of one of the file's networks."""


def subnet_condition(key: str, subnets: Sequence[str], text: str) -> Condition:
    """Whether the machine's own address, its relay's or ours on its link is in one of `subnets`. Raises BadPattern."""
    try:
        networks = tuple(ipaddress.IPv4Network(subnet) for subnet in subnets)
    except ValueError as error:
        raise BadPattern(f"{error}: write a subnet as 10.9.0.0/16") from None

    def test(traits: Traits) -> Verdict:
        if not traits.link:
            return None
        address = ipaddress.IPv4Address(traits.link)
        return any(address in network for network in networks)

    return Condition(key, text, test, min(network.prefixlen for network in networks))


def mac_prefix(text: str) -> str:
    """Lower case with colons: "52-54-00" is "52:54:00". Raises BadPattern."""
    plain = text.strip().lower().replace("-", ":").rstrip(":*")
    if not _MAC.fullmatch(plain):
        raise BadPattern(f"{text} is no MAC address: write 52:54:00:12:34:56, or its first octets")
    return plain


_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){0,5}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _reported(key: str, values: Sequence[str | int], text: str) -> Condition:
    try:
        test = fits(key, values)
    except ValueError as error:
        raise BadPattern(str(error)) from None
    return Condition(key, text, lambda traits: test(traits.hardware) if traits.hardware else None)


def _arch(values: Sequence[str | int], text: str) -> Condition:
    names = frozenset(str(value) for value in values if not str(value).isdigit())
    numbers = frozenset(int(value) for value in values if str(value).isdigit())
    if bad := names.difference(ARCHITECTURES):
        raise BadPattern(
            f"{min(bad)} is no architecture: there are {', '.join(ARCHITECTURES)}, or a number of option 93"
        )

    def test(traits: Traits) -> Verdict:
        if not traits.platform and traits.architecture < 0:
            return None
        return traits.platform in names or traits.architecture in numbers

    return Condition("arch", text, test)


def _one_of(key: str, values: Sequence[str | int], text: str, known: tuple[str, ...]) -> Condition:
    wanted = frozenset(str(value) for value in values)
    if bad := wanted.difference(known):
        raise BadPattern(f"{min(bad)} is no {key}: there are {', '.join(known)}")
    if key == "loader":
        return Condition(key, text, lambda traits: (traits.loader or "firmware") in wanted)
    return Condition(key, text, lambda traits: traits.firmware in wanted if traits.firmware else None)


def _globs(key: str, name: str, values: Sequence[str | int], text: str, flags: int, unknown: bool) -> Condition:
    """unknown: an empty trait is one that is not known yet, not one that the machine has not."""
    pattern = re.compile("|".join(fnmatch.translate(str(value)) for value in values), flags)

    def test(traits: Traits) -> Verdict:
        value: str = getattr(traits, name)
        if not value and unknown:
            return None
        return pattern.match(value) is not None

    return Condition(key, text, test)


def _address(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise BadPattern(f"{text} is no IPv4 address") from None
