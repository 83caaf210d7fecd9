"""Faults of the drill that need a real firmware: one whose Secure Boot has Microsoft's keys, and an unsigned loader."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from bootwire.facts import Record, Verdict
from bootwire.lab.firmware import FIRMWARE, power_on
from faults import SECURE_BOOT
from lab_bench import MAC, PATIENCE, Bench

pytestmark = pytest.mark.e2e

CODE, VARIABLES = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"
STRICT = replace(
    FIRMWARE["uefi"],
    name="uefi-secure-boot",
    title="UEFI x64 PXE, EDK2 with Secure Boot",
    options=(
        "-machine", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on",
        "-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={CODE}",
        "-drive", "if=pflash,unit=1,format=raw,file={vars}",
    ),
    variables=VARIABLES,
    needs=(*FIRMWARE["uefi"].needs, (CODE, "ovmf"), (VARIABLES, "ovmf")),
)  # fmt: skip


def test_secure_boot_refuses_an_unsigned_loader(bench: Bench) -> None:
    """iPXE as Debian has it, which nobody signed: firmware fetches it whole and says nothing on the wire."""

    def judged(records: list[Record]) -> bool:
        return any(isinstance(record.fact, Verdict) and record.fact.machine == MAC for record in records)

    with bench:
        bench.start_dhcp()
        server = bench.serve("uefi")
        power_on(STRICT, bench.lan, MAC, bench.directory / STRICT.name)
        server.wait_for(judged, "a verdict", PATIENCE)
        verdict = next(fact for fact in server.facts(MAC) if isinstance(fact, Verdict))
        doctor = bench.network.host("doctor", {bench.lan: "10.77.0.9/24"})
        words = [sys.executable, "-m", "bootwire", "doctor", "--nic", "eth0", "--json", "--as", "uefi"]
        report = json.loads(doctor.start(words, stdout=subprocess.PIPE).communicate(timeout=PATIENCE)[0])
    assert verdict.cause == SECURE_BOOT.verdict
    assert "Secure Boot" in verdict.because
    assert SECURE_BOOT.doctor in {one["cause"] for one in report["findings"]}
