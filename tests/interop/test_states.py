"""Install once, over the commands and real sockets: armed through the management port, reported with curl, kept over a
restart. Hosts: Bootwire (10.9.0.1), a machine (10.9.0.2), and in some a stranger (10.9.0.3).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bootwire.policy.states import SAME_BOOT
from bootwire.serve.store import FILE
from bootwire.wire import dhcp4
from dhcp_samples import vector
from good_client import udp
from namespaces import Namespace, lan
from product import ROOT, Server, bzimage

pytestmark = pytest.mark.interop

MAC = "52:54:00:12:34:56"
LINK_MAC = "02:00:00:00:00:02"  # of the machine's own interface
FLEET = f"""
[profiles.debian]
kernel = "vmlinuz"
cmdline = "home={{{{ phone_home }}}}"
install = true
[[machine]]
name = "web-1"
mac = "{MAC}"
profile = "debian"
[[group]]
profile = "debian"
"""


class Place:
    def __init__(self, folder: Path, ours: Namespace, client: Namespace) -> None:
        self.folder, self.ours, self.client = folder, ours, client
        (folder / "fleet.toml").write_text(FLEET)
        bzimage(folder / "vmlinuz")
        self.server = self.start()

    def start(self) -> Server:
        options = ("--state-dir", str(self.folder / "state"), "--no-fetch", "--json")
        server = Server(self.ours, str(self.folder / "fleet.toml"), *options, verb="serve")
        server.ready()
        return server

    def command(self, *arguments: str, status: int = 0) -> str:
        """What a command on the server's own machine prints."""
        words = [sys.executable, "-m", "bootwire", *arguments, "--state-dir", str(self.folder / "state")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        done = self.ours.call(
            lambda: subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
        )
        assert done.returncode == status, (done.stdout, done.stderr)
        return done.stdout + done.stderr

    def curl(self, *arguments: str, inside: Namespace | None = None) -> tuple[int, str]:
        words = ["curl", "-s", "-w", "%{stderr}%{http_code}", *arguments]
        done = (inside or self.client).call(lambda: subprocess.run(words, capture_output=True, text=True, check=True))
        return int(done.stderr), done.stdout

    def script(self, mac: str = MAC, inside: Namespace | None = None) -> str:
        url = f"http://10.9.0.1/boot.ipxe?mac={mac.replace(':', '-')}&arch=i386&platform=pcbios"
        return self.curl(url, inside=inside)[1]

    def dhcp(self) -> None:
        """The machine begins a boot: DISCOVER, and REQUEST of 10.9.0.2, which all may hear."""
        discover = replace(
            dhcp4.parse(vector("ipxe-efi-x64-discover")), chaddr=bytes.fromhex(MAC.replace(":", "")).ljust(16, b"\0")
        )
        kind, address = (dhcp4.MESSAGE_TYPE, bytes([dhcp4.REQUEST_LEASE])), dhcp4.packed("10.9.0.2")
        request = replace(discover, options=(kind, (dhcp4.REQUESTED_ADDRESS, address)))
        sock = self.client.call(lambda: udp("lan", dhcp4.CLIENT_PORT))
        with sock:
            for message in (discover, request):
                sock.sendto(dhcp4.emit(message), ("255.255.255.255", dhcp4.SERVER_PORT))
        assert self.server.until("address", machine=MAC)["address"] == "10.9.0.2"

    def later(self) -> None:
        """The server ends, and starts again when the last try is longer ago than one boot takes."""
        self.server.end()
        with contextlib.closing(sqlite3.connect(self.folder / "state" / FILE)) as store, store:
            store.execute("UPDATE machine_states SET since = since - ?", (SAME_BOOT + 1,))
        self.server = self.start()

    def killed(self) -> None:
        """The server dies now, and is started again."""
        self.server.process.send_signal(signal.SIGKILL)
        self.server.wait()
        self.server = self.start()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with lan(2) as (ours, client):
        place = Place(tmp_path, ours, client)
        yield place
        with contextlib.suppress(ProcessLookupError):
            status, said = place.server.end()
            assert (status, "Traceback" in said) == (0, False), said


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[tuple[Place, Namespace]]:
    with lan(3) as (ours, client, stranger):
        place = Place(tmp_path, ours, client)
        yield place, stranger
        status, said = place.server.end()
        assert (status, "Traceback" in said) == (0, False), said


def test_a_stranger_that_names_a_machine_uses_up_none_of_its_tries(stranger: tuple[Place, Namespace]) -> None:
    place, elsewhere = stranger
    place.command("arm", MAC, "--tries", "1")
    assert "kernel --name kernel" in place.script(inside=elsewhere)  # it may be the machine: nobody heard it yet
    place.later()
    assert "installing, 1 left (0 by HTTP alone)" in place.command("machines")
    place.dhcp()
    assert "sanboot" in place.script(inside=elsewhere)
    because = "10.9.0.3 asked, and by DHCP it is at 10.9.0.2, and no try is left for who is not known to be it"
    assert because in place.server.until("script", peer="10.9.0.3")["because"]
    assert "kernel --name kernel" in place.script()
    assert place.server.until("state", phase="installing")["because"] == "it installs, the last try"
    place.later()
    place.dhcp()
    assert "sanboot" in place.script()
    assert "no try is left" in place.server.until("state", phase="failed")["because"]


def test_a_machine_is_known_by_its_mac_on_the_link_where_its_dhcp_is_not_heard(
    stranger: tuple[Place, Namespace],
) -> None:
    place, elsewhere = stranger
    place.command("arm", LINK_MAC, "--tries", "1")
    place.script(LINK_MAC, inside=elsewhere)
    place.later()
    assert "sanboot" in place.script(LINK_MAC, inside=elsewhere)
    assert "kernel --name kernel" in place.script(LINK_MAC)
    assert place.server.until("state", machine=LINK_MAC)["because"] == "it installs, the last try"


def test_armed_installed_and_then_its_disk(place: Place) -> None:
    assert "sanboot" in place.script()  # never armed
    said = place.command("arm", MAC, "--tries", "2", "--within", "1h")
    assert said == f"{MAC}: armed, 2 left: armed for 2 tries\n"
    script = place.script()
    home = re.search(r"home=(http://10\.9\.0\.1/done/\S+)", script)
    assert home
    assert "kernel --name kernel" in script
    assert "sanboot" in place.script("02:00:00:00:00:01")  # the group's, not armed
    assert "installing, 2 left (1 by HTTP alone)" in place.command("machines")
    assert place.curl("-d", "pub_key=x&hostname=web-1", home[1]) == (200, "done\n")
    assert place.curl(home[1])[0] == 403  # a replay
    assert "counts for nothing" in place.server.until("warning", machine=MAC)["what"]
    assert "sanboot" in place.script()
    assert place.server.until("state", phase="installed")["because"] == "it phoned home from 10.9.0.2"
    found = json.loads(place.command("machines", "--json"))["machines"]
    assert [one["state"]["phase"] for one in found if one["machine"] == MAC] == ["installed"]
    assert re.search(rf"(?m)^\d+ +{MAC}", place.command("boots"))


def test_a_killed_server_knows_who_is_armed_and_who_has_installed(place: Place) -> None:
    place.command("arm", MAC, "--profile", "debian")
    first = re.search(r"home=(\S+)", place.script())
    assert first
    place.killed()
    assert "installing debian, 3 left (2 by HTTP alone)" in place.command("machines")
    assert place.curl(first[1]) == (200, "done\n")  # a URL of before the restart
    place.killed()
    assert "sanboot" in place.script()
    assert "it phoned home" in place.server.until("script", machine=MAC)["because"]


def test_what_cannot_be_done_says_why(place: Place) -> None:
    assert "no profile is called 'debain'" in place.command("arm", MAC, "--profile", "debain", status=2)
    assert "no MAC address" in place.command("arm", "web-1", status=2)
    assert "is no time: write 30m" in place.command("arm", MAC, "--within", "soon", status=2)
    assert "no server answers at 127.0.0.1:9" in place.command("machines", "--web", "127.0.0.1:9", status=1)
    assert f"{MAC}: idle" in place.command("disarm", MAC)


def test_arming_needs_the_token_and_this_machine(place: Place) -> None:
    arm = f"http://127.0.0.1:8067/api/states/{MAC}/arm"
    assert place.curl("-X", "POST", arm, inside=place.ours)[0] == 401
    wrong = ("-H", "Authorization: Bearer wrong")
    assert place.curl("-X", "POST", *wrong, arm, inside=place.ours)[0] == 401
    token = (place.folder / "state" / "web-token").read_text().strip()
    right = ("-H", f"Authorization: Bearer {token}")
    assert place.curl("-X", "POST", *right, "-d", '{"tries": 0}', arm, inside=place.ours)[0] == 400
    assert place.curl("-X", "POST", *right, "-d", '{"color": 1}', arm, inside=place.ours)[0] == 400
    assert place.curl("-X", "POST", *right, arm, inside=place.ours)[0] == 200
    for loader in json.loads(place.curl("http://127.0.0.1:8067/api/assets", inside=place.ours)[1]):
        assert hashlib.sha256(Path(loader["path"]).read_bytes()).hexdigest() == loader["sha256"]


def test_phone_home_is_no_place_for_anything_else(place: Place) -> None:
    place.command("arm", MAC)
    place.script()
    for url in ("done/", "done/AAAA", "done/../boot.ipxe", "doc/x/y", "image/x/y"):
        assert place.curl("--path-as-is", f"http://10.9.0.1/{url}")[0] in (403, 404)
    assert place.curl("-d", "x", "http://10.9.0.1/boot.ipxe")[0] == 405
    assert "installing" in place.command("machines")
