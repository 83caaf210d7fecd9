"""The running product's page: a boot over a real cable as it is told there, and its frames as tshark reads them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from good_client import PROBE, GoodClient
from namespaces import Namespace, pair
from product import Server

pytestmark = pytest.mark.interop

PAGE = "http://127.0.0.1:8067"


@pytest.fixture
def cable() -> Iterator[tuple[Namespace, Namespace]]:
    with pair() as (one, two):
        one.run("ip link set lo up")
        yield one, two


def asked(space: Namespace, path: str) -> bytes:
    def get() -> bytes:
        with urllib.request.urlopen(PAGE + path, timeout=10) as answer:
            found: bytes = answer.read()
            return found

    return space.call(get)


def test_a_machine_that_asked_is_on_the_page_with_its_frames_and_the_store_keeps_it(
    cable: tuple[Namespace, Namespace], kernel: str, state: tuple[str, ...], tmp_path: Path
) -> None:
    one, two = cable
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "probe").write_bytes(PROBE)
    server = Server(one, kernel, *state, "--files", str(tmp_path / "files"))
    server.ready()
    assert server.until("listening", service="web")["port"] == 8067

    def boot() -> None:
        with contextlib.closing(GoodClient("there")) as client:
            client.all()

    two.call(boot)
    server.until("transfer-done", protocol="http")
    until, boots = time.monotonic() + 10, list[dict[str, Any]]()
    while not (boots and boots[0]["octets"] >= 2 * len(PROBE)):
        assert time.monotonic() < until, boots
        boots = json.loads(asked(one, "/api/machines"))
    (line,) = boots
    assert line["state"] == "running"
    whole = json.loads(asked(one, f"/api/boots/{line['boot']}"))
    assert [bar["label"] for bar in whole["bars"]].count("probe") == 2
    said = decoded(asked(one, f"/api/boots/{line['boot']}/capture.pcap"), tmp_path / "boot.pcap")
    for wanted in ("DHCP Discover", "DHCP Offer", "Read Request, File: probe", "GET /files/probe"):
        assert any(wanted in text for text in said), said
    metrics = asked(one, "/metrics").decode()
    assert 'bootwire_transfers_total{outcome="done",protocol="tftp"} 1.0' in metrics
    assert server.end()[0] == 0
    again = Server(one, kernel, *state)
    again.ready()
    assert json.loads(asked(one, "/api/boots"))[0]["machine"] == line["machine"]
    assert again.end()[0] == 0


def decoded(octets: bytes, path: Path) -> list[str]:
    path.write_bytes(octets)
    command = ["tshark", "-r", str(path), "-T", "fields", "-e", "_ws.col.Info"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_watch_reads_the_running_product_and_its_json_lines(
    cable: tuple[Namespace, Namespace], kernel: str, state: tuple[str, ...], tmp_path: Path
) -> None:
    one, two = cable
    server = Server(one, kernel, *state)
    server.ready()

    def ask() -> None:
        with contextlib.closing(GoodClient("there")) as client:
            client.dhcp()

    two.call(ask)
    machine = server.until("discover")["machine"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    watch = one.start(
        sys.executable, "-m", "bootwire", "watch", "--once", stdout=subprocess.PIPE, env=environment
    )  # fmt: skip
    shown = watch.communicate(timeout=30)[0].decode()
    assert f"running   {machine}" in shown
    server.end()
    lines = tmp_path / "facts.jsonl"
    lines.write_text("".join(json.dumps(fact) + "\n" for fact in server.facts))
    told = subprocess.run(
        [sys.executable, "-m", "bootwire", "watch", str(lines)],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    assert machine in told.stdout


def test_without_a_page_nothing_listens_there(here: Namespace, kernel: str, state: tuple[str, ...]) -> None:
    here.run("ip link set lo up")
    server = Server(here, kernel, *state, "--web", "off")
    server.ready()
    with pytest.raises(urllib.error.URLError, match="refused"):
        asked(here, "/healthz")
    assert server.end()[0] == 0
