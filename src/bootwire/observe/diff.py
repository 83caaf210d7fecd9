"""What differs between two boots: stages, options, files, sizes, times, verdict."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

SLOWER = 1.5
"""Times that differ by less than this factor are the same: two boots of one machine never take equally long."""

LEAST: float = 0.25
"""Seconds: shorter differences are no difference, whatever their factor."""

_FIELDS = (
    ("verdict", "state"), ("why", "because"), ("reached", "stage"), ("machine", "machine"), ("firmware", "client"),
    ("architecture", "arch"), ("vendor class", "vendor_class"), ("address", "address"), ("DHCP server", "given_by"),
    ("relay", "relay"), ("interface", "interface"), ("boots", "what"), ("offer", "recipe"),
    ("boot file", "boot_file"), ("boot server", "server"), ("loader", "loader"), ("other server", "rival"),
)  # fmt: skip

WHO = ("machine", "address")
"""Rows that say who booted, not how: two machines that went the same way differ in these."""


def differences(one: Json, other: Json) -> list[Json]:
    """Rows {what, one, other, note}, of two boots as `story.whole` tells them. Empty: they went the same way.

    Texts are compared as they are. Times count as different beyond SLOWER and LEAST, octets and files exactly.
    """
    rows: list[Json] = []

    def row(what: str, first: object, second: object, note: str = "") -> None:
        rows.append({"what": what, "one": _text(first), "other": _text(second), "note": note})

    for name, field in _FIELDS:
        first, second = one.get(field, ""), other.get(field, "")
        if field == "boot_file":
            first, second = _bare(first, one), _bare(second, other)
        if first != second and not (field == "because" and one["state"] == other["state"] == "booted"):
            row(name, first, second)
    if one["discovers"] != other["discovers"]:
        row("times asked", one["discovers"], other["discovers"])
    _stages(one, other, row)
    _files(one, other, row)
    if _differ(one["seconds"], other["seconds"]):
        row("in all", _seconds(one["seconds"]), _seconds(other["seconds"]), _factor(one["seconds"], other["seconds"]))
    return rows


def _stages(one: Json, other: Json, row: Any) -> None:
    """Stages that only one has; how long each took; how long nothing happened before it."""
    first, second = ({stage["name"]: stage for stage in boot["stages"]} for boot in (one, other))
    for name in dict.fromkeys([*first, *second]):
        if name not in first or name not in second:
            row(f"stage {name}", "reached" if name in first else "", "reached" if name in second else "")
            continue
        a, b = (stage["ended"] - stage["began"] for stage in (first[name], second[name]))
        if _differ(a, b):
            row(f"{name} took", _seconds(a), _seconds(b), _factor(a, b))
        a, b = _waited(first, name), _waited(second, name)
        if _differ(a, b):
            row(f"waited before {name}", _seconds(a), _seconds(b), _factor(a, b))


def _waited(stages: dict[str, Json], name: str) -> float:
    """Seconds between the end of what came before a stage and its beginning."""
    began = stages[name]["began"]
    ended = max((s["ended"] for n, s in stages.items() if n != name and s["began"] <= began), default=0.0)
    return float(max(0.0, began - ended))


def _files(one: Json, other: Json, row: Any) -> None:
    first, second = _transfers(one), _transfers(other)
    for name in dict.fromkeys([*first, *second]):
        a, b = first.get(name), second.get(name)
        if a is None or b is None:
            row(f"file {name}", "fetched" if a else "not asked for", "fetched" if b else "not asked for")
            continue
        for field, what in (("octets", "octets"), ("protocol", "over"), ("options", "options"), ("because", "failed")):
            if a[field] != b[field]:
                row(f"{name} {what}", a[field], b[field])
        if (a["resent"] > 0) != (b["resent"] > 0):
            row(f"{name} sent again", f"{a['resent']} octets", f"{b['resent']} octets")


def _transfers(boot: Json) -> dict[str, Json]:
    """By name without the machine in it: what each file's transfers come to."""
    found: dict[str, Json] = {}
    options: dict[str, str] = {}
    for fact in boot["facts"]:
        kind = fact["kind"]
        if kind == "transfer-start":
            options[fact["name"]] = fact["options"]
        if kind not in ("transfer-done", "transfer-failed"):
            continue
        name = _bare(fact["name"], boot)
        before = found.get(name, {"octets": 0, "resent": 0})
        found[name] = {
            "protocol": fact["protocol"], "octets": before["octets"] + fact["octets"],
            "resent": before["resent"] + fact.get("resent", 0), "because": fact.get("because", ""),
            "options": options.get(fact["name"], ""),
        }  # fmt: skip
    return found


def _bare(name: object, boot: Json) -> str:
    """A file's name without the MAC that stands in it."""
    text = str(name)
    for mac in (boot["machine"], boot["machine"].replace(":", "-")):
        text = text.replace(mac, "<mac>")
    return text


def _differ(a: float, b: float) -> bool:
    low, high = sorted((a, b))
    return high - low >= LEAST and high > low * SLOWER


def _factor(a: float, b: float) -> str:
    if not a or not b:
        return ""
    return f"{b / a:.1f} times as long" if b > a else f"{a / b:.1f} times faster"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s"


def _text(value: object) -> str:
    return "" if value in ("", None, -1) else str(value)
