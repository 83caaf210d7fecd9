"""`bootwire decide`: a rehearsed decision, for a person or as JSON."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Mapping
from dataclasses import replace

from bootwire.observe import options as named
from bootwire.policy.decide import LOADERS
from bootwire.policy.rules import ARCHITECTURES, BadPattern, Step, mac_prefix
from bootwire.policy.target import Silence, Target, Traits
from bootwire.serve import loaders
from bootwire.serve.fleet import FleetMode
from bootwire.serve.images import Settings as ImageSettings
from bootwire.serve.images import open_images
from bootwire.serve.mode import StartError
from bootwire.serve.rehearsed import OURS, Rehearsed, readable, rehearse

_MARKS = {True: "yes", False: "no ", None: "?  "}


def run(
    echo: Callable[[str], object],
    config: str,
    mac: str,
    arch: str,
    firmware: str | None,
    address: str,
    relay: str,
    state_dir: str | None,
    as_json: bool,
    said: Mapping[str, str],
) -> int:
    """Print what the machine would get. Returns 0, or 1 where it would get nothing; raises StartError (2)."""
    try:
        machine = mac_prefix(mac)
    except BadPattern as error:
        raise StartError(str(error), 2) from None
    if len(machine) != 17:
        raise StartError(f"{mac} is no whole MAC address", 2)
    if arch not in ARCHITECTURES:
        raise StartError(f"no architecture is called {arch}\n  try  {', '.join(ARCHITECTURES)}", 2)
    if firmware and (arch == "bios") != (firmware == "bios"):
        raise StartError(f"--arch {arch} is no {firmware} machine\n  leave out one of the two", 2)
    for option, given in (("--address", address), ("--relay", relay)):
        if given and not _is_ipv4(given):
            raise StartError(f"{option} {given} is no IPv4 address", 2)
    state = loaders.state_directory(state_dir)
    mode = FleetMode(config, open_images(ImageSettings(state), trusted=True), look=False)
    traits = Traits(
        machine,
        platform=arch,
        firmware=firmware or ("bios" if arch == "bios" else "uefi"),
        link=relay or address or OURS,
        relay=relay,
    )
    traits = replace(traits, **{name: value.lower() if name == "uuid" else value for name, value in said.items()})  # type: ignore[arg-type]
    at_hand = frozenset(loaders.find(state))
    if loaders.missing(at_hand):  # they are fetched when the server starts
        at_hand |= frozenset(name for names in LOADERS.values() for name in names)
    try:
        found = rehearse(mode, traits, at_hand)
    except ValueError as error:
        raise StartError(str(error), 2) from None
    echo(json.dumps(_object(traits, found)) if as_json else _text(traits, found))
    return 1 if isinstance(found.choice.decision, Silence) else 0


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _text(traits: Traits, found: Rehearsed) -> str:
    decision = found.choice.decision
    lines = [f"Machine   {traits.machine}, {traits.firmware} {traits.platform}"]
    if isinstance(decision, Target):
        lines.append(f"Boots     {decision.what}, profile {decision.profile}")
        lines.append(f"Because   {decision.because}")
    else:
        lines.append(f"Boots     nothing from here: {decision.because}")
    lines += ["", "Rules, the most specific first"]
    lines += [
        f"  {_MARKS[step.verdict]}  {step.rule.title}: {step.because}{_only(step)}" for step in found.choice.match.trail
    ]
    if not found.choice.match.trail:
        lines.append("  none is about it")
    lines += ["", "Offer to its first DISCOVER" + ("" if found.offer else ": none")]
    lines.append(f"  because: {found.because}")
    lines += [f"  warning: {what}" for what in found.warnings]
    if found.offer is not None:
        lines += [f"  {line}" for line in named.described(found.offer)]
        lines += [
            "  octets:",
            *(f"    {found.offer_octets[at : at + 32].hex()}" for at in range(0, len(found.offer_octets), 32)),
        ]
    lines += ["", f"Script for its loader ({found.script_because})"]
    lines += [f"  {line}" for line in readable(found.script).splitlines()]
    return "\n".join(lines)


def _only(step: Step) -> str:
    return "" if step.rule.profile or not step.verdict else " (variables only)"


def _object(traits: Traits, found: Rehearsed) -> dict[str, object]:
    decision = found.choice.decision
    target = decision if isinstance(decision, Target) else None
    return {
        "v": 1,
        "machine": traits.machine,
        "boots": target.what if target else "",
        "profile": target.profile if target else "",
        "because": decision.because,
        "rules": [
            {"rule": step.rule.name, "where": step.rule.where, "applies": step.verdict, "because": step.because}
            for step in found.choice.match.trail
        ],
        "offer": found.offer_octets.hex(),
        "offer_because": found.because,
        "warnings": list(found.warnings),
        "script": found.script,
        "script_because": found.script_because,
    }
