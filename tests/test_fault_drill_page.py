"""docs/reference/fault-drill.md is the table that is tested: its rows, made of the same data."""

from __future__ import annotations

from faults import FAULTS, SECURE_BOOT, Fault
from product import ROOT

PAGE = ROOT / "docs/reference/fault-drill.md"


def row(fault: Fault) -> str:
    verdict = (f"`{fault.verdict}`" if fault.verdict else "none") + (f": {fault.why}" if fault.why else "")
    return f"| {fault.name} | {fault.made} | {fault.kind} | {verdict} | `{fault.doctor}` |"


def test_the_page_has_the_rows_that_are_tested() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and not line.startswith("| fault")]
    assert rows == [row(fault) for fault in (*FAULTS, SECURE_BOOT)]


def test_faults_are_told_apart_by_their_names() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
