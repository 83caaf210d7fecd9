"""A boot as views show it: in one line, as bars over time (the waterfall), as a ladder of who said what to whom.

Everything is plain dictionaries, lists, strings and numbers, ready for JSON. Text of a peer is in it as the facts have
it: whoever shows it escapes it.
"""

from __future__ import annotations

from typing import Any

from bootwire import facts
from bootwire.facts import Record
from bootwire.observe import prose
from bootwire.observe.boots import STAGES, Boot, is_host
from bootwire.observe.names import stage_of

BARS = 80
"""Bars of one waterfall: of more transfers the longest are shown."""

DOING = {
    "": "seen", "discover": "asks for a boot", "address": "has an address", "pxe": "asks port 4011",
    "program": "runs its program",
    "loader": "has its loader", "script": "has its script", "kernel": "has its kernel", "initrd": "has its initrd",
    "hand-over": "kernel started", "alive": "the system is up",
}  # fmt: skip
"""What a machine that reached a stage, and nothing after it, is doing."""

Json = dict[str, Any]


def brief(boot: Boot) -> Json:
    """One boot in one line, about 500 octets of JSON.

    now: the file on its way, or what the last stage means; running: of that file {name, protocol, octets, size, began}
    """
    running = boot.running() if boot.state == "running" else None
    verdict = boot.verdict
    return {
        "boot": boot.number, "machine": boot.machine, "started": round(boot.wall, 3), "client": boot.client,
        "address": boot.address, "what": boot.what, "state": boot.state, "stage": boot.stage,
        "step": STAGES.index(boot.stage) + 1 if boot.stage else 0, "steps": len(STAGES),
        "seconds": round(boot.seconds, 3), "last": round(boot.last, 3), "octets": boot.octets,
        "resent": boot.resent, "discovers": boot.discovers,
        "now": f"{running.name}" if running else DOING[boot.stage],
        "running": None if running is None else {
            "name": running.name, "protocol": running.protocol, "octets": running.octets, "size": running.size,
            "began": round(running.began, 3),
        },
        "cause": verdict.cause if verdict else "", "because": _because(boot),
        "fix": verdict.fix if verdict else "",
    }  # fmt: skip


def _because(boot: Boot) -> str:
    """The verdict's reason; of a boot that ended well also when its operating system was first heard of."""
    if boot.verdict is None:
        return ""
    if boot.state == "booted" and (stage := boot.stages.get("alive")):
        return f"{boot.verdict.because}; the operating system was heard of at {stage.ended:.1f} s"
    return boot.verdict.because


def whole(boot: Boot) -> Json:
    """All of one boot: its line, what it said of itself, stages, bars, ladder and facts."""
    return {
        **brief(boot),
        "arch": boot.arch, "uuid": boot.uuid, "vendor_class": boot.vendor_class, "interface": boot.interface,
        "relay": boot.relay, "given_by": boot.given_by, "recipe": boot.recipe, "boot_file": boot.boot_file,
        "server": boot.server, "loader": boot.loader, "rival": boot.rival, "offers": boot.offers,
        "failures": boot.failures, "left_out": boot.left_out,
        "screen": boot.verdict.screen if boot.verdict else "",
        "stages": [
            {"name": s.name, "began": round(s.began, 4), "ended": round(s.ended, 4), "octets": s.octets,
             "transfers": s.transfers}
            for s in (boot.stages[name] for name in STAGES if name in boot.stages)
        ],
        "bars": bars(boot), "ladder": ladder(boot),
        "facts": [record.as_dict() for record in boot.records],
    }  # fmt: skip


def bars(boot: Boot) -> list[Json]:
    """The waterfall: what took which time, in order. kind: the stage it belongs to, "file" for others; ended: None
    while it runs; began == ended is a moment; failed: why it failed, "" otherwise."""
    found: list[Json] = []

    def add(label: str, kind: str, began: float, ended: float | None, note: str, failed: str = "") -> None:
        found.append({
            "label": label, "kind": kind, "began": round(began, 4),
            "ended": None if ended is None else round(ended, 4), "note": note, "failed": failed,
        })  # fmt: skip

    stages = boot.stages
    if stage := stages.get("discover"):
        asked = f"asked {boot.discovers} times" if boot.discovers > 1 else "asked once"
        add("DHCP", "discover", stage.began, stage.ended, f"{asked}; offered {boot.boot_file or 'nothing yet'}")
    if stage := stages.get("address"):
        add("address", "address", stage.began, stage.ended, f"{boot.address} from {boot.given_by or 'somebody'}")
    if stage := stages.get("pxe"):
        add("port 4011", "pxe", stage.began, stage.ended, f"boot file {boot.boot_file}")
    shown = boot.transfers
    if len(shown) > BARS:
        longest = sorted(shown, key=lambda t: (t.ended or boot.last) - t.began, reverse=True)[:BARS]
        shown = [transfer for transfer in shown if transfer in longest]
    for transfer in shown:
        seconds = (boot.last if transfer.ended is None else transfer.ended) - transfer.began
        speed = f", {prose.octets_text(int(transfer.octets / seconds))}/s" if seconds > 0 and transfer.octets else ""
        again = f", {prose.octets_text(transfer.resent)} sent again" if transfer.resent else ""
        of = f" of {prose.octets_text(transfer.size)}" if transfer.ended is None and transfer.size > 0 else ""
        note = f"{transfer.protocol}, {prose.octets_text(transfer.octets)}{of} in {prose.seconds_text(seconds)}{speed}"
        kind = stage_of(transfer.name) or "file"
        add(transfer.name, kind, transfer.began, transfer.ended, note + again, transfer.because)
    for record in boot.records:
        if isinstance(record.fact, facts.ScriptServed):
            at = (record.at - boot.started) / 1e9
            add(record.fact.name, "script", at, at, record.fact.because or "made for this machine")
    if stage := stages.get("hand-over"):
        until = stages["alive"].ended if "alive" in stages else stage.ended
        note = "the operating system was heard of" if "alive" in stages else "nothing was heard of it since"
        add("kernel starts", "hand-over", stage.began, until, note)
    found.sort(key=lambda bar: (bar["began"], bar["ended"] or 1e18))
    return found


WHO = ("machine", "bootwire", "dhcp", "other")
"""Columns of the ladder: the machine, this server, the network's DHCP server, another boot server."""


def ladder(boot: Boot) -> list[Json]:
    """Who said what to whom, in order: {at, from, to, step, text, bad}; from == to is something that is said of one."""
    return [rung for record in boot.records if (rung := _rung(record, boot)) is not None]


def _rung(record: Record, boot: Boot) -> Json | None:
    fact = record.fact
    source, target, bad = "machine", "bootwire", False
    match fact:
        case facts.Discovered() | facts.PxeRequested() | facts.TransferStarted() | facts.SizeProbed():
            pass
        case facts.HandedOver() | facts.BootinfoAsked():
            pass
        case facts.Offered() | facts.PxeAnswered() | facts.TransferDone() | facts.ScriptServed():
            source, target = target, source
        case facts.BootinfoAnswered() | facts.OrderSent():
            source, target = target, source
        case facts.TransferFailed() | facts.NotFound():
            source, target, bad = target, source, True
        case facts.DhcpHeard():
            source, target, bad = "dhcp", "machine", fact.what != "offer"
        case facts.AddressSeen():
            source, target = "dhcp", "machine"
        case facts.RivalSeen():
            source, target, bad = "other", "machine", True
        case facts.Silent() if is_host(fact):  # the operating system asks the DHCP server, which is a good sign
            target = "dhcp"
        case facts.Silent() | facts.Refused():
            source, bad = target, True
        case facts.ConsoleSaid():
            target = source
        case facts.Verdict():
            source, bad = target, fact.state in ("stuck", "silent")
        case _:
            source = target
    step, _, text = prose.parts(fact)
    at = round((record.at - boot.started) / 1e9, 4)
    return {"at": at, "from": source, "to": target, "step": step, "text": text, "bad": bad}
