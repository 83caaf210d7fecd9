"""`bootwire watch` and `bootwire diff`: pictures of 80 columns, keys, JSON lines, a real terminal."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from boot_stories import booted, hostile, mac, records, refused
from bootwire.cli import main
from bootwire.observe import jsonlines
from bootwire.observe.boots import Boots
from bootwire.observe.story import brief, whole
from bootwire.watch import Lines, Model, WatchError, draw, open_source
from web_site import Running, running

NOW = 1_700_000_100.0


def model(*stories: list[Any], silent: float = 60) -> tuple[Model, Boots]:
    boots = Boots()
    for number, story in enumerate(stories):
        for record in records(story, number):
            boots.take(record)
    boots.tick(10**15 + int(silent * 1e9))
    found = Model()
    found.take(("all", {"now": {"wall": NOW}, "boots": [brief(boot) for boot in boots.machines()]}), NOW)
    return found, boots


def picture(shown: Model, width: int = 80, height: int = 24) -> list[str]:
    console = Console(width=width, height=height, force_terminal=True, color_system=None, legacy_windows=False)
    with console.capture() as captured:
        console.print(draw(shown, width, height, NOW))
    return captured.get().rstrip("\n").split("\n")


def press(shown: Model, boots: Boots, *keys: str) -> bool:
    def whole_of(number: int) -> Any:
        found = boots.numbered(number)
        return whole(found) if found else None

    return all(shown.key(key, whole_of) for key in keys)


@pytest.mark.parametrize("width", [40, 80, 132])
@pytest.mark.parametrize("height", [8, 24, 60])
def test_a_picture_is_never_wider_or_higher_than_the_terminal(width: int, height: int) -> None:
    shown, boots = model(*(booted(number) for number in range(30)), refused(90), hostile(91))
    for keys in ((), ("down", "down"), ("page-down",), ("enter",), ("escape", "/", "x")):
        press(shown, boots, *keys)
        lines = picture(shown, width, height)
        assert len(lines) <= height
        assert all(len(line) <= width for line in lines)


def test_at_80_columns_every_machine_has_its_state_stage_and_time() -> None:
    shown, _ = model(booted(1), refused(2))
    lines = picture(shown)
    assert lines[0].split()[:9] == ["Bootwire", "▸", "0", "running", "✓", "1", "booted", "✕", "1"]
    assert lines[2].startswith(f"✕ stuck    {mac(2)} loader    loader-refused")
    assert lines[3].startswith(f"✓ booted   {mac(1)} alive")
    assert lines[-2].startswith("To fix: switch Secure Boot off")
    assert lines[-1].startswith("↑↓ choose  Enter open  / filter  q quit")


def test_a_file_on_its_way_has_a_bar_a_share_and_a_speed() -> None:
    shown, boots = model(booted(1)[:14], silent=7)
    for second in range(3):
        boots.progress(mac(1), "http", "initrd/0", 10_000_000 * (second + 1))
        shown.take(("boots", [brief(boot) for boot in boots.machines()]), NOW + second)
    assert "███████░░░  74% 10.0 MB/s" in picture(shown)[2]


def test_the_cursor_opens_the_boot_it_is_on_and_leaves_it_again() -> None:
    shown, boots = model(booted(1), refused(2))
    assert press(shown, boots, "down", "enter")
    lines = picture(shown)
    assert lines[0].startswith(f" Boot 1 of {mac(1)}")
    assert any("initrd/0" in line and "█" in line for line in lines)
    assert press(shown, boots, "escape")
    assert picture(shown)[0].startswith(" Bootwire")
    assert not press(shown, boots, "q")


def test_an_opened_boot_says_all_of_what_became_of_it_and_what_to_do() -> None:
    shown, boots = model(refused(2))
    press(shown, boots, "enter")
    said = " ".join(line.strip() for line in picture(shown))
    assert shown.opened
    assert shown.opened["because"] in said
    assert all(fix in said for fix in shown.opened["fix"].split("; "))
    assert any("█" in line for line in picture(shown)), "there is room for the waterfall, too"


def test_a_filter_is_typed_kept_and_dropped() -> None:
    shown, boots = model(booted(1), refused(2))
    press(shown, boots, "/", *"stuck", "enter")
    assert [boot["machine"] for boot in shown.shown()] == [mac(2)]
    press(shown, boots, "escape")
    assert len(shown.shown()) == 2


def test_what_a_peer_says_cannot_command_the_terminal(tmp_path: Path) -> None:
    story = hostile(1)
    lines = [json.loads(jsonlines.line(record)) for record in records(story)]
    for line in lines:
        for name in ("client", "because", "name", "text", "vendor_class", "boot_file"):
            if name in line:
                line[name] = "\x1b[2J\x1b]0;owned\x07\r\n" + line[name]
    path = tmp_path / "evil.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with path.open("rb") as stream:
        shown = Model()
        source = Lines(stream, "evil")
        for event in source.events():
            shown.take(event, NOW)
    for opened in (False, True):
        if opened:
            shown.opened = source.boot(1)
        assert all(line.isprintable() for line in picture(shown))
    run = CliRunner().invoke(main, ["watch", str(path)])
    assert run.exit_code == 0
    assert all(line.isprintable() for line in run.stdout.splitlines())


@pytest.mark.parametrize(("source", "says"), [
    ("no-such-file", "cannot read no-such-file: No such file or directory"),
    ("http://127.0.0.1:9", "no server answers at http://127.0.0.1:9"),
])  # fmt: skip
def test_what_cannot_be_watched_is_told(source: str, says: str) -> None:
    with pytest.raises(WatchError, match=says):
        next(open_source(source).events())
    run = CliRunner().invoke(main, ["watch", "--once", source])
    assert run.exit_code == 1
    assert says in run.stderr


def test_json_lines_with_rubbish_between_are_read() -> None:
    lines = [jsonlines.line(record).encode() + b"\n" for record in records(booted(1))]
    lines[3:3] = [b"\n", b"{", b"[1]\n", b"\xff\xfe\n", b'{"kind":"nonsense"}\n']
    source = Lines(io.BytesIO(b"".join(lines)), "lines")
    events = list(source.events())
    assert events[-1] == ("end", None)
    whole_boot = source.boot(1)
    assert whole_boot
    assert whole_boot["state"] == "booted"


# --- from a running server --------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path / "state") as made:
        yield made


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_running_server_is_watched_once(site: Running) -> None:
    site.tell([fact for _, fact in booted(1)])
    until(lambda: any(line["stage"] == "alive" for line in site.desk.timeline.briefs()))
    run = CliRunner().invoke(main, ["watch", "--once", site.url])
    assert run.exit_code == 0
    assert run.stdout.startswith(f"booted    {mac(1)}")


@pytest.mark.interop
def test_in_a_real_terminal_of_80_columns(site: Running) -> None:
    """tmux is the terminal: what is on its screen, and what keys do."""
    site.tell([fact for number in range(40) for _, fact in booted(number)])
    until(lambda: len(site.desk.timeline.briefs()) == 40)
    tmux = ("tmux", "-L", f"bootwire-{os.getpid()}")
    command = f"{sys.executable} -m bootwire watch {site.url}"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src"), "LC_ALL": "C.UTF-8"}
    subprocess.run([*tmux, "-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", command],
                   env=environment, check=True)  # fmt: skip
    try:

        def screen() -> list[str]:
            shown = subprocess.run([*tmux, "capture-pane", "-p"], capture_output=True, text=True, check=True)
            return shown.stdout.rstrip("\n").split("\n")

        until(lambda: any("40 of 40" in line for line in screen()))
        assert screen()[2].startswith(f"✓ booted   {mac(39)}")
        assert len(screen()) == 24
        site.tell([fact for _, fact in refused(77)])
        until(lambda: f"▸ running  {mac(77)} loader" in screen()[2])
        subprocess.run([*tmux, "send-keys", "Down", "Enter"], check=True)
        until(lambda: screen()[0].startswith(f" Boot 40 of {mac(39)}"))
        assert any("kernel" in line and "█" in line for line in screen())
        subprocess.run([*tmux, "send-keys", "Escape"], check=True)
        until(lambda: screen()[0].startswith(" Bootwire"))
        subprocess.run([*tmux, "send-keys", "q"], check=True)
        until(lambda: subprocess.run([*tmux, "has-session"], capture_output=True).returncode)
    finally:
        subprocess.run([*tmux, "kill-server"], capture_output=True)


def test_a_server_that_nobody_asked_says_so(site: Running) -> None:
    assert CliRunner().invoke(main, ["watch", site.url, "--once"]).stdout == "no machine has asked yet\n"


# --- diff -------------------------------------------------------------------------------------------------------


def diff(*arguments: str) -> tuple[int, str, str]:
    run = CliRunner().invoke(main, ["diff", *arguments])
    return run.exit_code, run.stdout, run.stderr


def test_boots_are_compared_by_number_by_machine_and_by_file(site: Running, tmp_path: Path) -> None:
    site.tell([fact for number in (1, 2) for _, fact in booted(number)])
    site.tell([fact for _, fact in booted(1, initrd=5)])
    until(lambda: sum(line["stage"] == "alive" for line in site.desk.timeline.briefs()) == 2)
    until(lambda: site.desk.timeline.last_of(mac(1)) == 3)
    page = ("--page", site.url)
    assert diff(*page, "1", "1") == (0, diff(*page, "1", "1")[1], "")
    status, out, _ = diff(*page, "1", "2")
    assert (status, f"{mac(2)}  UEFI x64  booted\n\nThe two went the same way, in the same time.\n" in out) == (0, True)
    status, out, _ = diff(*page, f"{mac(1)}~1", mac(1))
    assert "initrd/0 octets" in out
    assert "40700000  ->  5" in out
    path = tmp_path / "boot.jsonl"
    path.write_text("".join(jsonlines.line(record) + "\n" for record in records(booted(2))))
    found = json.loads(diff("--json", *page, str(path), f"{path}:{mac(2)}")[1])
    assert found["rows"] == []
    path.write_text("".join(jsonlines.line(record) + "\n" for record in records(refused(1)) + records(booted(2), 100)))
    status, out, _ = diff(*page, f"{path}:{mac(1)}", f"{path}:{mac(2)}")
    assert (status, f"{mac(1)}  ->  {mac(2)}" in out) == (1, True)


def test_without_a_server_the_state_directory_is_read(tmp_path: Path) -> None:
    with running(tmp_path) as site:
        site.tell([fact for number in (1, 2) for _, fact in booted(number)])
        until(lambda: sum(line["stage"] == "alive" for line in site.desk.timeline.briefs()) == 2)
    status, out, _ = diff("--page", "http://127.0.0.1:9", "--state-dir", str(tmp_path), mac(1), "2")
    assert (status, mac(1) in out, mac(2) in out) == (0, True, True)


@pytest.mark.parametrize(("what", "says", "status"), [
    ("999", "there is no boot 999", 1),
    ("52:54:00:00:00:99", "52:54:00:00:00:99 has not booted from here", 1),
    ("no-such-thing", "no-such-thing is no boot: No such file or directory", 2),
    ("README.md", "README.md has no boot in it", 2),
])  # fmt: skip
def test_a_boot_that_is_not_there_is_told(site: Running, what: str, says: str, status: int) -> None:
    os.chdir(Path(__file__).parents[1])
    found = diff("--page", site.url, what, what)
    assert (found[0], says in found[2]) == (status, True)


def test_without_server_and_history_it_says_what_to_do(tmp_path: Path) -> None:
    status, _, err = diff("--page", "http://127.0.0.1:9", "--state-dir", str(tmp_path), "1", "2")
    assert status == 1
    assert "no server answers at http://127.0.0.1:9, and nothing is kept in" in err
