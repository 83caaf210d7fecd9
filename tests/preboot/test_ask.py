"""`bootwire ask`, `order` and their options: what is printed, and what is refused (over a cable: interop)."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from bootwire.cli import main
from bootwire.engine.bootinfo_client import Failed, Told
from bootwire.preboot.ask import described
from bootwire.wire.bootinfo_text import read


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("partition 2 -- quiet", {"type": "partition", "partition": 2, "cmdline": "quiet"}),
        ("disk 0x80 partition 1", {"type": "disk-partition", "disk": 128, "partition": 1, "cmdline": ""}),
        ("system-id 165", {"type": "system-id", "system_id": 165}),
        ("memory http://h/m", {"type": "memory", "path": "http://h/m"}),
        ("multiboot 10.0.0.1:/k", {"type": "multiboot", "server": "10.0.0.1", "file": "/k"}),
        ("wait", {"type": "wait"}),
        ("restart", {"type": "restart"}),
    ],
)
def test_an_outcome_is_one_object(text: str, fields: dict[str, object]) -> None:
    told = described(Told(read(text), "order"))
    assert {"text": text, "by": "order", "because": "", **fields}.items() <= told.items()


def test_a_failure_is_one_object_with_its_reason() -> None:
    assert described(Failed("nobody answers", None)) == {
        "text": None, "type": None, "cmdline": "", "by": None, "because": "nobody answers"
    }  # fmt: skip
    assert described(Failed("nobody answers", read("partition 0")))["by"] == "fallback"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ask"], "which server shall be asked?"),
        (["ask", "192.0.2.1", "--fallback", "dance"], "no bootinfo action: 'dance'; one of: partition N"),
        (["ask", "192.0.2.1", "--identity", "m"], "--identity needs --keys FILE"),
        (["ask", "::1"], "::1 has no IPv4 address"),
        (["order"], "name a machine and an action"),
        (["order", "all", "dance"], "no bootinfo action: 'dance'"),
        (["boot", "x", "--bootinfo-answer", "dance"], "no bootinfo action: 'dance'"),
        (["boot", "x", "--bootinfo-demand-keys"], "--bootinfo-demand-keys needs keys"),
        (["boot", "x", "--bootinfo-keys", "/nonexistent"], "cannot read /nonexistent"),
    ],
)
def test_wrong_usage_is_one_clear_message_and_status_2(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, says in result.output) == (2, True), result.output


def test_a_file_of_keys_without_an_identity_asks_for_one(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"* {'00' * 16}\n")
    result = CliRunner().invoke(main, ["ask", "192.0.2.1", "--keys", str(keys)])
    assert (result.exit_code, "say which is ours with --identity" in result.output) == (2, True)
