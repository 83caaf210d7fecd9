"""What machines are: each one's record kept as it was last reported; and the commands that list and arm them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bootwire.policy.inventory import Machine, size_text
from bootwire.serve.managing import ago, call, table

if TYPE_CHECKING:
    from bootwire.serve.store import Store

_TABLES = ("CREATE TABLE machines (machine TEXT PRIMARY KEY, seen REAL NOT NULL, record TEXT NOT NULL) STRICT",)
KEPT = 16_384  # records read at the start, the last seen first


class Machines:
    """known: takes each record that is found. Raises sqlite3.Error where the store cannot be used."""

    def __init__(self, store: Store, known: Callable[[Machine], None]) -> None:
        import msgspec

        self._store = store
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(Machine).decode
        store.tables("machines", _TABLES)
        rows = store.ask("SELECT record FROM machines ORDER BY seen DESC LIMIT ?", (KEPT,))
        for (record,) in reversed(rows):
            with contextlib.suppress(msgspec.MsgspecError):  # of a version that knew other fields
                known(self._decode(record))

    def keep(self, record: Machine) -> None:
        """Write a record. Any thread; does not wait."""
        values = (record.hardware.machine, record.last_seen, self._encode(record).decode())
        self._store.put("INSERT OR REPLACE INTO machines VALUES (?, ?, ?)", values)

    def listed(self) -> list[dict[str, Any]]:
        """All records as JSON objects, by MAC; each with its `machine`."""
        import msgspec

        rows = self._store.ask("SELECT machine, record FROM machines ORDER BY machine")
        return [{"machine": machine, **msgspec.json.decode(record)} for machine, record in rows]


Echo = Callable[[str], object]


def run(echo: Echo, state: Path, where: str, as_json: bool) -> int:
    """`bootwire machines`: one line a machine, or JSON. Raises StartError."""
    found: dict[str, dict[str, Any]] = {}
    for kind, path in (("boot", "/api/machines"), ("state", "/api/states"), ("record", "/api/inventory")):
        for one in call(state, where, path):
            found.setdefault(one["machine"], {"machine": one["machine"]})[kind] = one
    known = [found[machine] for machine in sorted(found)]
    if as_json:
        echo(json.dumps({"v": 1, "machines": known}))
        return 0
    rows = [
        [one["machine"], *_boot(one.get("boot")), _state(one.get("state")), _record(one.get("record"))] for one in known
    ]
    for line in table(rows, ("MACHINE", "LAST BOOT", "WHEN", "MAY INSTALL", "IS")) if rows else ("no machine yet",):
        echo(line)
    return 0


def run_boots(echo: Echo, state: Path, where: str, count: int, as_json: bool) -> int:
    """`bootwire boots`. Raises StartError."""
    found = call(state, where, f"/api/boots?limit={count}")
    if as_json:
        echo(json.dumps({"v": 1, "boots": found}))
        return 0
    rows = [[str(boot["boot"]), boot["machine"], *_boot(boot), boot["client"]] for boot in found]
    for line in table(rows, ("BOOT", "MACHINE", "VERDICT", "WHEN", "FIRMWARE")) if rows else ("no boot yet",):
        echo(line)
    return 0


def run_order(
    echo: Echo, state: Path, where: str, machine: str, order: str, body: Mapping[str, object], as_json: bool
) -> int:
    """`bootwire arm` and `disarm`. Raises StartError."""
    path = f"/api/states/{machine.lower().replace(':', '-')}/{order}"
    said = call(state, where, path, body)
    echo(json.dumps({"v": 1, **said}) if as_json else f"{said['machine']}: {_state(said)}: {said['because']}")
    return 0


def _boot(boot: dict[str, Any] | None) -> tuple[str, str]:
    """What became of it (running, booted, stuck …), and when it began."""
    if boot is None:
        return "-", "-"
    return str(boot["state"]), ago(float(boot["started"]))


def _state(state: dict[str, Any] | None) -> str:
    if state is None:
        return "-"
    profile = f" {state['profile']}" if state["profile"] else ""
    left = f", {state['tries']} left" if state["tries"] else ""
    if state.get("unproved", state["tries"]) != state["tries"]:
        left += f" ({state['unproved']} by HTTP alone)"
    return f"{state['phase']}{profile}{left}"


def _record(record: dict[str, Any] | None) -> str:
    if record is None:
        return "-"
    hardware = record["hardware"]
    disks = ", ".join(size_text(disk["size"]) for disk in hardware["disks"])
    parts = (
        f"{hardware['manufacturer']} {hardware['product']}".strip(),
        hardware["cpu"]["brand"] or hardware["cpu"]["vendor"],
        size_text(hardware["memory"]) if hardware["memory"] else "",
        f"disks {disks}" if disks else "",
    )
    return "; ".join(part for part in parts if part)
