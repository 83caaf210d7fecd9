"""The command line: documented flag by flag, quick to start, and clear about what it was given wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from bootwire.cli import main

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/reference/commands.md").read_text()


def leaves(group: click.Group, name: str = "bootwire") -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    for word, command in group.commands.items():
        below = f"{name} {word}"
        found += leaves(command, below) if isinstance(command, click.Group) else [(below, command)]
    return found


@pytest.mark.parametrize(("name", "command"), leaves(main), ids=[name for name, _ in leaves(main)])
def test_every_option_of_every_command_is_in_the_reference(name: str, command: click.Command) -> None:
    assert " ".join(name.split()[:2]) in PAGE
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert max(parameter.opts, key=len) in PAGE, f"{name} {parameter.opts}"
            if parameter.envvar:
                assert f"`{parameter.envvar}`" in PAGE


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv[1:] = ['--help']\n"
        "from bootwire.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('asyncio', 'aiohttp', 'ssl', 'bootwire.app') if m in sys.modules], file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert run.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["boot"], "Missing argument 'KERNEL'"),
        (["boot", "no-such-kernel"], "no such file: no-such-kernel"),
        (["boot", "/dev/null"], "/dev/null is not a regular file"),
        (["boot", "README.md"], "README.md: a text file, not a kernel"),
        (["boot", "http://"], "http://: not an absolute http or https URL"),
        (["boot", "http://[::/x"], "not an absolute http or https URL"),
        (["boot", "http://a:99999/x"], "URL with port 99999"),
        (["boot", "http://a/two words"], "URL with a character that must be percent-encoded"),
        (["api", "ftp://host/pxe"], "is no http or https URL to put /v1/boot/<mac> behind"),
        (["api", "http://host/pxe?a=b"], "is no http or https URL to put /v1/boot/<mac> behind"),
        (["api", "http://[::1/pxe"], "is no http or https URL to put /v1/boot/<mac> behind"),
        (["api", "http://host:99999/pxe"], "is no http or https URL to put /v1/boot/<mac> behind"),
        (["boot", "--http-port", "0", "x"], "0 is not in the range"),
    ],
)
def test_wrong_usage_is_one_clear_message_and_status_2(
    arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, says in result.output) == (2, True), result.output


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src")}
