"""The doctor on a network with dnsmasq (10.9.0.1) and Bootwire (10.9.0.2): what it finds is what is wrong there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from faults import NETWORK, OURS, Site
from namespaces import Namespace, dnsmasq, lan, listening
from product import ROOT, Server

pytestmark = [pytest.mark.interop, pytest.mark.waits]


@pytest.fixture
def hosts() -> Iterator[list[Namespace]]:
    with lan(3) as made:
        yield made


def examined(where: Namespace, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The doctor's exit status and report."""
    words = [sys.executable, "-m", "bootwire", "doctor", "--nic", "lan", "--json", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = where.call(
        lambda: subprocess.run(words, capture_output=True, text=True, env=environment, check=False, timeout=170)
    )
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, report


def causes(report: dict[str, Any], severity: str = "error") -> set[str]:
    return {one["cause"] for one in report["findings"] if one["severity"] == severity}


def test_nothing_is_wrong_where_bootwire_serves_beside_dnsmasq(
    hosts: list[Namespace], kernel: str, state: tuple[str, ...]
) -> None:
    network, ours, client = hosts
    with dnsmasq(network):
        server = Server(ours, kernel, *state, "--cmdline", "quiet splash")
        server.ready()
        status, report = examined(client, "--as", "bios", "--as", "ipxe")
        assert server.end()[0] == 0
    assert (status, causes(report), causes(report, "warning")) == (0, set(), set()), report
    assert all(one["well"] for one in report["trials"])
    assert "quiet splash" in report["trials"][1]["ends"]
    assert report["responders"]["10.9.0.1"] == ["addresses"]
    assert "boots bios" in report["responders"]["10.9.0.2"]
    sizes = {(one["block"], one["window"]): one for one in report["tftp"]}
    assert len(sizes) == 5
    assert all(one["octets"] > 0 and not one["trouble"] for one in sizes.values())
    assert len({one["octets"] for one in sizes.values()}) == 1
    web = {one["role"]: one for one in report["http"]}
    assert (web["kernel"]["status"], web["kernel"]["octets"], web["kernel"]["length"]) == (200, 4096, 4096)
    assert web["kernel"]["whole"]
    assert web["kernel"]["ranges"] is True
    assert abs(web["kernel"]["date"]) < 2


def test_nobody_offers_a_boot(hosts: list[Namespace]) -> None:
    network, _, client = hosts
    with dnsmasq(network):
        status, report = examined(client, "--as", "uefi")
    assert status == 4
    assert "no-boot-server" in causes(report)
    assert report["trials"][0]["well"] is False


def test_nobody_answers_at_all(hosts: list[Namespace]) -> None:
    status, report = examined(hosts[2], "--as", "ipxe")
    assert status == 4
    assert {"nothing-answers", "no-address-for-hosts"} <= causes(report)
    assert report["responders"] == {}


def test_a_second_boot_server(hosts: list[Namespace], kernel: str, state: tuple[str, ...]) -> None:
    network, ours, client = hosts
    with dnsmasq(network, "--dhcp-boot=other.efi,,10.9.0.1"):
        server = Server(ours, kernel, *state)
        server.ready()
        _, report = examined(client, "--as", "bios")
        server.end()
    assert "second-server" in causes(report, "warning") | causes(report)


def test_the_named_server_has_no_tftp(hosts: list[Namespace]) -> None:
    network, _, client = hosts
    with dnsmasq(network, "--dhcp-boot=loader.0,,10.9.0.2"):
        status, report = examined(client, "--as", "bios")
    assert status == 4
    assert "tftp-no-service" in causes(report)


@pytest.mark.parametrize("reaction", ["drop", "reject with icmp type admin-prohibited"])
def test_a_firewall_before_tftp_and_http(hosts: list[Namespace], reaction: str) -> None:
    """What is dropped, and what a firewall refuses in its own name: both are blocked, and the report says which."""
    network, ours, client = hosts
    ours.run("nft add table inet wall")
    ours.run("nft add chain inet wall in '{ type filter hook input priority 0; }'")
    ours.run(f"nft add rule inet wall in udp dport 69 {reaction}")
    ours.run(f"nft add rule inet wall in tcp dport 80 {reaction}")
    options = ("--dhcp-match=set:efi,option:client-arch,7", "--dhcp-boot=tag:!efi,loader.0,,10.9.0.2")
    http = ("--dhcp-vendorclass=set:http,HTTPClient", "--dhcp-option-force=tag:http,60,HTTPClient",
            "--dhcp-boot=tag:http,http://10.9.0.2/loader.efi")  # fmt: skip
    with dnsmasq(network, *options, *http):
        status, report = examined(client, "--as", "bios", "--as", "uefi-http")
    assert status == 4
    assert {"tftp-blocked", "http-blocked"} <= causes(report), report
    assert not {"tftp-no-service", "http-refused"} & causes(report)
    blocked = [one["because"] for one in report["findings"] if one["cause"] == "tftp-blocked"]
    assert ["prohibited" in one for one in blocked] == [reaction != "drop"]


def unsigned(path: Path, machine: int = 0x8664) -> bytes:
    """The headers of an EFI application, and nothing that could run."""
    image = bytearray(4096)
    image[:2], image[0x3C:0x40] = b"MZ", (0x80).to_bytes(4, "little")
    image[0x80:0x84], image[0x84:0x86] = b"PE\0\0", machine.to_bytes(2, "little")
    image[0x94:0x96], image[0x98:0x9A] = (240).to_bytes(2, "little"), (0x20B).to_bytes(2, "little")
    image[0x98 + 68 : 0x98 + 70] = (10).to_bytes(2, "little")
    image[0x98 + 108 : 0x98 + 112] = (16).to_bytes(4, "little")
    path.write_bytes(image)
    return bytes(image)


def readable(place: Path) -> None:
    """dnsmasq drops to a user that is not ours."""
    for one in [place, *place.parents[:2], *place.iterdir()]:
        one.chmod(0o755)


SHIM = Path("/usr/lib/shim/shimx64.efi.signed")


@pytest.mark.parametrize(
    ("kind", "cause", "severity"),
    [
        ("unsigned", "secure-boot-unsigned", "warning"),
        ("arm64", "wrong-architecture", "error"),
        ("text", "loader-not-efi", "error"),
        ("shim", "", ""),
    ],
)
def test_loaders_of_uefi(hosts: list[Namespace], tmp_path: Path, kind: str, cause: str, severity: str) -> None:
    network, _, client = hosts
    loader = tmp_path / "loader.efi"
    match kind:
        case "shim":
            loader.write_bytes(SHIM.read_bytes())
        case "text":
            loader.write_bytes(b"<html>It works!</html>" * 100)
        case _:
            unsigned(loader, 0xAA64 if kind == "arm64" else 0x8664)
    readable(tmp_path)
    with dnsmasq(network, "--enable-tftp", f"--tftp-root={tmp_path}", "--dhcp-boot=loader.efi"):
        _, report = examined(client, "--as", "uefi")
    told = {one["cause"]: one["severity"] for one in report["findings"]}
    program = report["trials"][0]["programs"][0]
    if not cause:
        assert not {name for name in told if name.startswith(("secure", "wrong", "loader"))}, told
        assert (program["kind"], program["architecture"], program["sbat"]) == ("shim", "x86_64", True)
        assert any("Microsoft" in name for name in program["signers"])
    else:
        assert told[cause] == severity, told
    assert report["trials"][0]["programs"][0]["octets"] == loader.stat().st_size


def test_a_script_names_an_initrd_that_is_not_there(hosts: list[Namespace], kernel: str, tmp_path: Path) -> None:
    """A script over HTTP from nginx: the kernel is there, the initrd is not."""
    network, ours, client = hosts
    root = tmp_path / "www"
    root.mkdir()
    (root / "boot.ipxe").write_text("#!ipxe\nkernel vmlinuz quiet\ninitrd images/initrd.img\nboot\n")
    (root / "vmlinuz").write_bytes(Path(kernel).read_bytes())
    readable(root)
    with nginx(ours, root, tmp_path), dnsmasq(network, "--dhcp-boot=http://10.9.0.2/boot.ipxe"):
        status, report = examined(client, "--as", "ipxe")
    assert status == 4
    assert "initrd-missing" in causes(report), report["findings"]
    assert "kernel-missing" not in causes(report)
    web = {one["url"].rpartition("/")[2]: one for one in report["http"]}
    assert web["vmlinuz"]["ranges"] is True
    assert web["initrd.img"]["status"] == 404


@contextlib.contextmanager
def nginx(where: Namespace, root: Path, state: Path, more: str = "") -> Iterator[None]:
    """nginx on port 80 with files below `root`."""
    (state / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {state}/nginx.pid; error_log {state}/error.log;\n"
        "events {}\nhttp { access_log off; default_type application/octet-stream; "
        f"server {{ listen 80; root {root}; {more} }} }}\n"
    )
    command = ("nginx", "-c", str(state / "nginx.conf"), "-e", str(state / "error.log"))
    with listening(where, ("tcp", 80), *command):
        yield


def test_somebody_else_has_the_address(hosts: list[Namespace]) -> None:
    """All of the DHCP server's range answers ARP at another host, too."""
    network, ours, client = hosts
    ours.run("ip route add local 10.9.0.64/26 dev lan")
    ours.run("ip route add local 10.9.0.128/25 dev lan")
    with dnsmasq(network):
        status, report = examined(client, "--as", "ipxe")
    assert status == 4
    told = [one["because"] for one in report["findings"] if one["cause"] == "duplicate-address"]
    assert told
    assert all("02:00:00:00:00:02" in one for one in told)


def test_echoes_are_lost(hosts: list[Namespace]) -> None:
    """Every fourth echo of the boot server is lost; another host's are not."""
    network, ours, client = hosts
    ours.run("nft add table inet wall")
    ours.run("nft add chain inet wall in '{ type filter hook input priority 0; }'")
    ours.run("nft add rule inet wall in icmp type echo-request numgen inc mod 4 == 2 drop")
    with dnsmasq(network, "--dhcp-boot=loader.0,,10.9.0.2"):
        _, report = examined(client, "--as", "ipxe")
    lost = [one["because"] for one in report["findings"] if one["cause"] == "packet-loss"]
    assert len(lost) == 1
    assert "10.9.0.2" in lost[0]
    told = {one["address"]: one for one in report["echoes"]}
    assert 0.15 < told["10.9.0.2"]["loss"] < 0.35
    assert told["10.9.0.1"]["loss"] == 0
    assert 0 < told["10.9.0.1"]["times"][0] < 0.1


@contextlib.contextmanager
def routed(network: Namespace) -> Iterator[Namespace]:
    """A host 10.8.0.2 behind `network`, which routes; the cable to it takes 1400 octets at its routing end."""
    far = Namespace()
    try:
        network.run(f"ip link add far type veth peer name lan netns {far.tid}")
        network.run("ip address add 10.8.0.1/24 dev far")
        network.run("ip link set far mtu 1400 up")
        network.run("sysctl -q net.ipv4.ip_forward=1")
        far.run("ip address add 10.8.0.2/24 dev lan")
        far.run("ip link set lan mtu 1400 up")
        far.run("ip route add default via 10.8.0.1")
        far.wait_for_carrier()
        yield far
    finally:
        far.close()


def test_a_boot_server_behind_a_router_with_a_small_link(hosts: list[Namespace]) -> None:
    network, _, client = hosts
    with routed(network), dnsmasq(network, "--interface=lan", "--dhcp-boot=loader.0,,10.8.0.2"):
        status, report = examined(client, "--as", "ipxe")
    assert status == 4
    assert "tftp-no-service" in causes(report)
    small = [one["because"] for one in report["findings"] if one["cause"] == "small-mtu"]
    assert len(small) == 1
    assert "1400" in small[0]
    assert "10.9.0.1 says" in small[0]
    assert {one["address"]: one["passes"] for one in report["mtu"]}["10.8.0.2"] == 1400


@pytest.mark.parametrize(
    ("option", "cause"),
    [
        ("--dhcp-option=3,10.9.0.77", "router-dead"),
        ("--dhcp-option=3", "no-router"),
        ("--dhcp-option=3,10.9.0.1", "no-route"),
    ],
)
def test_no_way_to_a_boot_server_elsewhere(hosts: list[Namespace], option: str, cause: str) -> None:
    network, _, client = hosts
    network.run("sysctl -q net.ipv4.ip_forward=1")
    with dnsmasq(network, option, "--dhcp-boot=loader.0,,10.8.0.2"):
        status, report = examined(client, "--as", "ipxe")
    assert status == 4
    assert cause in causes(report), report["findings"]
    assert not {"router-dead", "no-router", "no-route"} - {cause} & causes(report)
    assert report["seconds"] < 60


@contextlib.contextmanager
def names(where: Namespace, *records: str) -> Iterator[None]:
    """dnsmasq as a name server alone, which knows these names."""
    addresses = [f"--address={record}" for record in records]
    with listening(
        where, ("udp", 53),
        "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root",
        "--pid-file=", *addresses,
    ):  # fmt: skip
        yield


def test_name_servers_that_disagree_and_one_that_is_not_there(hosts: list[Namespace]) -> None:
    network, ours, client = hosts
    options = ("--dhcp-option=6,10.9.0.1,10.9.0.2,10.9.0.77", "--dhcp-boot=http://boot.lan/boot.ipxe")
    with (
        names(network, "/boot.lan/10.9.0.1"), names(ours, "/boot.lan/10.9.0.2"),
        dnsmasq(network, *options),
    ):  # fmt: skip
        status, report = examined(client, "--as", "ipxe")
    assert status == 4
    assert "dns-differs" in causes(report, "warning"), report["names"]
    silent = [one["because"] for one in report["findings"] if one["cause"] == "dns-unanswered"]
    assert ["10.9.0.77" in one for one in silent] == [True]
    assert {one["server"]: one["addresses"] for one in report["names"]} == {
        "10.9.0.1": ["10.9.0.1"], "10.9.0.2": ["10.9.0.2"], "10.9.0.77": [],
    }  # fmt: skip


def test_a_name_that_nobody_knows(hosts: list[Namespace]) -> None:
    network, _, client = hosts
    options = ("--dhcp-option=6,10.9.0.1", "--dhcp-boot=http://nowhere.lan/boot.ipxe")
    with names(network, "/nowhere.lan/"), dnsmasq(network, *options):
        status, report = examined(client, "--as", "ipxe")
    assert status == 4
    assert "dns-failing" in causes(report), report["names"]


CLOCKS = """
import http.server, socket, struct, threading, time
class Late(http.server.SimpleHTTPRequestHandler):
    def date_time_string(self, timestamp=None):
        return super().date_time_string(time.time() - 3 * 86400)
ntp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
ntp.bind(("", 123))
def serve():
    while True:
        asked, source = ntp.recvfrom(512)
        moment = struct.pack("!Q", int((time.time() + 2208988800 + 9000) * (1 << 32)))
        ntp.sendto(b"\\x24\\1" + bytes(22) + asked[40:48] + moment * 2, source)
threading.Thread(target=serve, daemon=True).start()
http.server.ThreadingHTTPServer(("", 80), Late).serve_forever()
"""


def test_clocks_that_are_wrong(hosts: list[Namespace], tmp_path: Path) -> None:
    """An HTTP server three days behind, a time server two and a half hours ahead, and one that is silent."""
    network, ours, client = hosts
    (tmp_path / "boot.ipxe").write_text("#!ipxe\nexit\n")
    options = ("--dhcp-option=42,10.9.0.2,10.9.0.1", "--dhcp-boot=http://10.9.0.2/boot.ipxe")
    clocks = listening(ours, ("tcp", 80), sys.executable, "-c", CLOCKS, cwd=tmp_path)
    with clocks, dnsmasq(network, *options):
        _, report = examined(client, "--as", "ipxe")
    told = sorted(one["because"] for one in report["findings"] if one["cause"] == "clock-skew")
    assert len(told) == 2, report["clocks"]
    assert "(HTTP) is 3 days behind" in told[0]
    assert "(NTP) is 2.5 h ahead of" in told[1]
    assert "time-server-silent" in causes(report, "info")


def test_ipv6_with_a_boot_file_that_is_not_there(hosts: list[Namespace], tmp_path: Path) -> None:
    network, _, client = hosts
    network.run("ip address add fd00:9::1/64 dev lan nodad")
    until = time.monotonic() + 10
    while "tentative" in network.run("ip -6 address show dev lan"):  # a router speaks from its link-local address
        assert time.monotonic() < until
        time.sleep(0.05)
    six = ("--enable-ra", "--dhcp-range=fd00:9::100,fd00:9::1ff,64", "--enable-tftp", f"--tftp-root={tmp_path}",
           "--dhcp-option=option6:bootfile-url,tftp://[fd00:9::1]/loader.efi")  # fmt: skip
    readable(tmp_path)
    with dnsmasq(network, *six):
        _, report = examined(client, "--as", "ipxe")
        (tmp_path / "loader.efi").write_bytes(bytes(3000))
        readable(tmp_path)
        _, better = examined(client, "--as", "ipxe")
    assert report["ipv6"]["routers"]
    assert report["ipv6"]["dhcp_address"].startswith("fd00:9::1")
    assert any(one.startswith("fd00:9:") for one in report["ipv6"]["addresses"])
    assert "ipv6-boot-fails" in causes(report), report["ipv6"]
    assert "ipv6-boot-fails" not in causes(better), better["ipv6"]
    assert not {"ipv4-only", "ipv6-no-boot"} & causes(better, "info")


def test_a_second_dhcp_server_says_something_else(hosts: list[Namespace]) -> None:
    network, ours, client = hosts
    with dnsmasq(network), dnsmasq(ours, "--dhcp-option=3,10.9.0.99"):
        _, report = examined(client, "--as", "ipxe")
    told = [one["because"] for one in report["findings"] if one["cause"] == "second-dhcp-server"]
    assert len(told) == 1, report["offers"]
    assert "the router" in told[0]
    assert {one["server"] for one in report["offers"]} == {"10.9.0.1", "10.9.0.2"}


def test_who_wins_with_two_boot_servers(hosts: list[Namespace], kernel: str, state: tuple[str, ...]) -> None:
    """iPXE takes the DHCP server's own file; the winner is who it went to."""
    network, ours, client = hosts
    with dnsmasq(network, "--dhcp-boot=http://10.9.0.1/other.ipxe"):
        server = Server(ours, kernel, *state)
        server.ready()
        _, report = examined(client, "--as", "ipxe", "--as", "uefi-http")
        server.end()
    winner = report["winners"][0]
    assert (winner["server"], winner["over"]) == ("10.9.0.1", ["10.9.0.2"]), report["offers"]
    assert "DHCP server's own file" in winner["why"]


def test_the_report_as_a_page(hosts: list[Namespace], tmp_path: Path) -> None:
    """One file, with nothing from elsewhere; what peers say cannot become markup."""
    page = tmp_path / "report.html"
    with dnsmasq(hosts[0], "--dhcp-boot=<script>alert(1)</script>.0,,10.9.0.2"):
        examined(hosts[2], "--as", "bios", "--html", str(page))
    text = page.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "tftp-no-service" in text
    assert not re.findall(r"(?:src|href)=", text)
    assert text.count("<table>") == text.count("</table>") >= 5


def test_a_boot_server_that_is_not_there(hosts: list[Namespace]) -> None:
    with dnsmasq(hosts[0], "--dhcp-boot=loader.0,,10.9.0.66"):
        status, report = examined(hosts[2], "--as", "ipxe")
    assert status == 4
    assert "server-dead" in causes(report), report["findings"]


def test_a_small_mtu_between(hosts: list[Namespace], tmp_path: Path) -> None:
    """What the server sends is larger than what passes, and nobody is told: as in a tunnel."""
    network, _, client = hosts
    (tmp_path / "loader.0").write_bytes(bytes(range(250)) * 400)
    readable(tmp_path)
    client.run("ip link set lan mtu 1300")
    with dnsmasq(network, "--enable-tftp", f"--tftp-root={tmp_path}", "--dhcp-boot=loader.0"):
        status, report = examined(client, "--as", "bios")
    assert status == 4
    assert "tftp-large-blocks" in causes(report), report


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((), "try  --nic eth0"), (("--nic", "lan", "--as", "amiga"), "no firmware called amiga")],
)
def test_wrong_usage(hosts: list[Namespace], arguments: tuple[str, ...], said: str) -> None:
    words = [sys.executable, "-m", "bootwire", "doctor", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = hosts[2].call(lambda: subprocess.run(words, capture_output=True, text=True, env=environment, check=False))
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("relayed", [True, False])
def test_where_a_relay_or_a_switch_places_the_machine_is_shown(relayed: bool, tmp_path: Path) -> None:
    """As one leaves it in the DHCP server's answers: circuit id "p1/7", remote id 00:07 (RFC 3046)."""
    left = "--dhcp-option-force=82,01:04:70:31:2f:37:02:02:00:07"
    with contextlib.ExitStack() as stack:
        site = Site(tmp_path, stack)
        if relayed:
            site.router(NETWORK, OURS, dhcp=(left,))
        else:
            site.dhcp(left)
        site.bootwire()
        report = site.examine("bios")
    said = {one["cause"]: one["because"] for one in report["findings"]}
    cause = "behind-relay" if relayed else "behind-snooping-switch"
    assert "places the machine at circuit id p1/7, remote id 0x0007" in said[cause], said
    placed = {one["server"]: (one["circuit_id"], one["remote_id"]) for one in report["offers"]}
    assert placed == {NETWORK: ("p1/7", "0x0007"), OURS: ("", "")}
