"""The product on a network of others: Debian's clients fetch from it, ordinary hosts never notice it, and it notices
who else serves there. Three hosts on one bridge: Bootwire (10.9.0.1), a client (10.9.0.2), the DHCP server (10.9.0.3).
"""

from __future__ import annotations

import contextlib
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootwire.observe import jsonlines, prose
from good_client import OURS, PROBE, GoodClient
from namespaces import Namespace, dnsmasq, lan
from product import Server, bzimage
from tftp_clients import CLIENTS, get

pytestmark = pytest.mark.interop

SIZES = (0, 512, 1468 * 64, 65464 * 2, 1_000_003)
BODIES = {str(size): random.Random(size).randbytes(size) for size in SIZES}
MANY_BLOCKS = random.Random(1).randbytes(65_536 * 512 + 1)  # more than 65,535 blocks of 512 octets
MAC = "52:54:00:12:34:56"  # of GoodClient


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Namespace]:
    """Where a client is; the product publishes BODIES and `many`."""
    place = tmp_path_factory.mktemp("peers")
    published = place / "published"
    published.mkdir()
    for name, body in (*BODIES.items(), ("many", MANY_BLOCKS)):
        (published / name).write_bytes(body)
    with lan(2) as (ours, client):
        state = ("--state-dir", str(place / "state"), "--no-fetch")
        server = Server(ours, bzimage(place / "vmlinuz"), "--files", str(published), *state)
        server.ready()
        yield client
        assert server.end()[0] == 0


def boot(client: Namespace) -> None:
    """A machine goes through all that a boot consists of."""

    def run() -> None:
        with contextlib.closing(GoodClient("lan")) as machine:
            machine.all()

    client.call(run)


@contextlib.contextmanager
def beside(tmp_path: Path, *options: str) -> Iterator[tuple[Server, Namespace]]:
    """The product beside dnsmasq with these options, and where a client is; it records all it sees to lan.pcap."""
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "probe").write_bytes(PROBE)
    with lan(3) as (ours, client, theirs), dnsmasq(theirs, *options):
        server = Server(
            ours, bzimage(tmp_path / "vmlinuz"), "--state-dir", str(tmp_path / "state"), "--no-fetch", "--json",
            "--files", str(tmp_path / "published"), "--pcap", str(tmp_path / "lan.pcap"),
        )  # fmt: skip
        server.ready()
        yield server, client
        status, said = server.end()
        assert (status, "Traceback" in said) == (0, False), said


def tshark(capture: Path, wanted: str, *fields: str) -> list[list[str]]:
    """The fields of the frames that a filter lets through."""
    shown = [argument for field in fields for argument in ("-e", field)]
    done = subprocess.run(
        ["tshark", "-n", "-r", str(capture), "-Y", wanted, "-T", "fields", *shown],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return [line.split("\t") for line in done.stdout.splitlines()]


# --- Debian's clients --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLIENTS)
def test_tftp_clients_of_debian_get_every_size(client: Namespace, tmp_path: Path, name: str) -> None:
    for size, body in BODIES.items():
        assert client.call(lambda size=size: get(name, (OURS, 69), size, tmp_path / size)) == body, size


@pytest.mark.parametrize("name", ["curl", "busybox", "tftp-hpa", "atftp", "atftp windowsize 2"])
def test_tftp_clients_of_debian_get_more_than_65535_blocks(client: Namespace, tmp_path: Path, name: str) -> None:
    assert client.call(lambda: get(name, (OURS, 69), "many", tmp_path / "many")) == MANY_BLOCKS


def curl(client: Namespace, *arguments: str) -> bytes:
    command = ["curl", "--noproxy", "*", "-sSf", "--max-time", "30", *arguments]
    return client.call(lambda: subprocess.run(command, check=True, capture_output=True).stdout)


def test_curl_gets_whole_files_parts_and_heads_on_one_connection(client: Namespace) -> None:
    url = f"http://{OURS}/files/"
    assert curl(client, url + "many") == MANY_BLOCKS
    assert curl(client, url + "0") == b""
    assert curl(client, "-r", "100-299", url + "1000003") == BODIES["1000003"][100:300]
    assert curl(client, "-r", "-3", url + "1000003") == BODIES["1000003"][-3:]
    head = curl(client, "-I", url + "1000003").decode().lower()
    assert "content-length: 1000003\r\n" in head
    assert "accept-ranges: bytes\r\n" in head
    both = curl(client, "-w", "%{num_connects}", "-o", "/dev/null", url + "512", "-o", "/dev/null", url + "0")
    assert both == b"10"


# --- neighbours --------------------------------------------------------------------------------------------------

UDHCPC = "busybox udhcpc -i lan -n -q -f -t 5 -s /bin/true"
DHCLIENT = "dhclient -1 -sf /bin/true -lf /dev/null -pf /dev/null lan"


@pytest.mark.parametrize("command", [UDHCPC, DHCLIENT], ids=["udhcpc", "dhclient"])
def test_ordinary_hosts_get_their_lease_and_never_hear_from_us(tmp_path: Path, command: str) -> None:
    with beside(tmp_path) as (server, client):
        client.run(command)
        assert server.until("silence", machine="02:00:00:00:00:02")["client"].startswith("ordinary host")
    assert tshark(tmp_path / "lan.pcap", "dhcp.type == 1", "dhcp.option.dhcp")[:2] == [["1"], ["3"]]
    assert tshark(tmp_path / "lan.pcap", "dhcp.type == 2 && ip.src == 10.9.0.1", "frame.number") == []
    assert {fact["kind"] for fact in server.facts} <= {"listening", "warning", "silence", "stopped"}


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--dhcp-boot=pxelinux.0,,10.9.0.3",), "offer with a boot file"),
        (("--dhcp-range=10.9.0.0,proxy", "--pxe-service=X86-64_EFI,Boot,other"), "proxy offer"),
    ],
    ids=["dhcp-boot", "pxe-service"],
)
def test_another_netboot_server_is_told_of(tmp_path: Path, options: tuple[str, ...], what: str) -> None:
    with beside(tmp_path, *options) as (server, client):
        boot(client)
        fact = server.until("rival")
        assert (fact["server"], fact["what"], fact["machine"]) == ("10.9.0.3", what, MAC)
        (line,) = [line for line in server.out.all() if '"kind":"rival"' in line]
        shown = prose.line(jsonlines.parse(line.encode()), 0)
        assert "10.9.0.3 answers, too" in shown
        if what.startswith("offer"):
            fix = "remove the boot file (option 67, `filename`, `dhcp-boot`) from the DHCP server 10.9.0.3"
            assert "iPXE follows that one" in server.until("warning", fix=fix)["what"]


def test_wireshark_finds_nothing_malformed_in_what_we_recorded(tmp_path: Path) -> None:
    with beside(tmp_path) as (_server, client):
        boot(client)
    capture = tmp_path / "lan.pcap"
    assert (
        tshark(capture, "_ws.malformed || _ws.expert.severity >= 8388608", "frame.number", "_ws.expert.message") == []
    )
    offers = tshark(capture, "dhcp.option.dhcp == 2", "ip.src")
    assert sorted(offers) == [["10.9.0.1"], ["10.9.0.3"]]
    blocks = tshark(capture, "tftp.opcode == 3 && ip.src == 10.9.0.1", "tftp.block")
    assert [int(number) for (number,) in blocks] == [1, 2, 3, 4]
    assert tshark(capture, "http.response.code == 200", "http.content_length") == [[str(len(PROBE))]]
