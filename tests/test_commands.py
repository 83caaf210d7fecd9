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
MAC = "52:54:00:12:34:56"
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
        (["boot", "x", "--loaders", "no-such-folder"], "'no-such-folder' does not exist"),
        (["boot", "x", "--menu-seconds", "5"], "--menu-seconds is about a menu, and there is none"),
        (["boot", "x", "--bootinfo-answer", "partition x"], "--bootinfo-answer partition x: not a number: 'x'"),
        (["boot", "x", "--bootinfo-demand-keys"], "try  --bootinfo-keys FILE"),
        (["prefetch", "ftp://images.example/x"], "images come by http or https"),
        (["explain", "boot.pcap", "-i", "eth0"], "leave out one of the two"),
        (["ping", "192.0.2.1", "--address", "192.0.2.2/24"], "--address is about a network card of our own"),
        (["ping", "192.0.2.1", "--nic", "no-such-card"], "no interface named no-such-card; there are: lo"),
        (["ping", "192.0.2.1", "--nic", "lo", "--mac", "zz"], "--mac zz is no MAC address"),
        (["ping", "192.0.2.1", "--nic", "lo", "--address", "192.0.2.2"], "try  --address 192.0.2.2/24"),
        (["ping", "192.0.2.1", "--nic", "lo", "--gateway", "192.0.2.2"], "--gateway goes with a fixed address"),
        (["doctor", "--nic", "lo", "--dns", "zz"], "--dns zz is no address"),
        (["doctor", "--nic", "lo", "--html", "no-such-folder/x"], "cannot write no-such-folder/x"),
        (["decide", "--config", "x", "--mac", MAC, "--relay", "zz"], "--relay zz is no IPv4 address"),
        (["decide", "--config", "x", "--mac", MAC, "--arch", "bios", "--firmware", "uefi"], "leave out one of the two"),
    ],
)
def test_wrong_usage_is_one_clear_message_and_status_2(
    arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, says in result.output) == (2, True), result.output


@pytest.mark.parametrize(
    ("server", "says"),
    [
        ("http-port = 99_999", ("fleet.toml:2: http-port:", "<= 65535")),
        ('mode = "dhcp"', ("fleet.toml:2: mode: invalid enum value 'dhcp'", "there are proxy, off")),
        ('web = "off"', ("fleet.toml:2: server has no key 'web'",)),
    ],
)
def test_what_a_fleet_file_says_wrong_of_the_server_is_told_with_its_line(
    server: str, says: tuple[str, ...], tmp_path: Path
) -> None:
    fleet = tmp_path / "fleet.toml"
    fleet.write_text(f"[server]\n{server}\n[profiles.disk]\nlocal = true\n[[group]]\nprofile = 'disk'\n")
    result = CliRunner().invoke(main, ["serve", str(fleet), "--state-dir", str(tmp_path)])
    assert (result.exit_code, result.output.count("error:")) == (2, 1), result.output
    for text in says:
        assert text in result.output


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["console", str(tmp_path / "boot.script")])
    assert (result.exit_code, result.output) == (1, f"error: {tmp_path}/boot.script: No such file or directory\n")


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src")}
