"""Wireshark's DHCP dissector as an independent reader: of what we send, and of the vectors that we read."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from bootwire.engine import dhcp4 as engine
from bootwire.engine.dhcp4 import Answer, Recipe
from bootwire.wire import dhcp4, ip, pcap
from bootwire.wire.dhcp4 import Message
from dhcp_samples import NAMES, changed, vector

pytestmark = pytest.mark.interop

OURS = "192.0.2.10"
FILE = b"52-54-00-12-34-56/x86_64/snponly.efi"
FIELDS = (
    "dhcp.type", "dhcp.id", "dhcp.option.end", "dhcp.ip.your", "dhcp.ip.server", "dhcp.ip.relay", "dhcp.server",
    "dhcp.file", "dhcp.option.type", "dhcp.option.dhcp", "dhcp.option.dhcp_server_id", "dhcp.option.vendor_class_id",
    "dhcp.option.tftp_server_name", "dhcp.option.bootfile_name", "_ws.malformed", "_ws.expert.severity",
    "dhcp.option.vendor.pxeclient.discovery_control", "dhcp.option.vendor.pxeclient.boot_servers.ip",
    "dhcp.option.vendor.pxeclient.boot_menu.desc", "dhcp.option.vendor.pxeclient.menu_prompt.prompt",
    "dhcp.option.vendor.pxeclient.boot_item", "dhcp.option.agent_information_option.agent_circuit_id",
)  # fmt: skip


def dissect(path: Path, payloads: Sequence[bytes], ports: tuple[int, int]) -> list[dict[str, list[str]]]:
    """One dictionary of FIELDS for each UDP payload."""
    source, target = ip.v4_octets(OURS), ip.BROADCAST_V4
    with path.open("wb") as file:
        file.write(pcap.file_header(pcap.RAW_IP))
        for payload in payloads:
            udp = ip.emit_udp(ip.Udp(*ports, payload), source, target)
            packet = ip.emit_ipv4(ip.Ipv4(source, target, ip.UDP, payload=udp))
            file.write(pcap.record(0, packet, len(packet)))
    command = ["tshark", "-r", str(path), "-n", "-T", "fields", "-E", "separator=/t", "-E", "aggregator=|"]
    for name in FIELDS:
        command += ["-e", name]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    rows = [line.split("\t") for line in out.split("\n")[: len(payloads)]]
    return [{name: cell.split("|") if cell else [] for name, cell in zip(FIELDS, row, strict=True)} for row in rows]


def codes(row: dict[str, list[str]]) -> list[int]:
    """Option codes before END, for which some versions of the dissector say 0 and some 255."""
    assert row["dhcp.option.end"] == ["255"]
    assert row["dhcp.option.type"][-1] in ("0", "255")
    return [int(code) for code in row["dhcp.option.type"][:-1]]


def replies() -> list[tuple[str, Message]]:
    """Every recipe as an offer and as an acknowledgement, to a relayed client, with a boot item."""
    found = []
    for recipe in get_args(Recipe):
        vendor = b"HTTPClient" if recipe == "http-boot" else b"PXEClient"
        answer = Answer(recipe, OURS, FILE, vendor)
        found.append((recipe, engine.offer(changed("edk2-x64-relayed-discover"), answer)))
        found.append((recipe, engine.acknowledge(changed("ipxe-boot-item-request"), answer)))
    assert all(reply for _, reply in found)
    return [(recipe, reply) for recipe, reply in found if reply]


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Message, dict[str, list[str]]]]:
    path = tmp_path_factory.mktemp("tshark") / "replies.pcap"
    sent = replies()
    rows = dissect(path, [dhcp4.emit(reply) for _, reply in sent], (67, 68))
    return [(recipe, reply, row) for (recipe, reply), row in zip(sent, rows, strict=True)]


def test_wireshark_finds_nothing_wrong_with_our_replies(read):
    for recipe, _, row in read:
        assert row["_ws.malformed"] == [], recipe
        assert row["_ws.expert.severity"] == [], recipe


def test_wireshark_reads_the_header_as_we_wrote_it(read):
    for _, reply, row in read:
        assert row["dhcp.type"] == ["2"]
        assert row["dhcp.id"] == [f"0x{reply.xid:08x}"]
        assert row["dhcp.ip.your"] == ["0.0.0.0"]
        assert row["dhcp.ip.server"] == [OURS]
        assert row["dhcp.ip.relay"] == [reply.giaddr]
        assert row["dhcp.server"] == [OURS]
        assert row["dhcp.file"] == [FILE.decode()]


def test_wireshark_reads_the_options_in_our_order(read):
    for _, reply, row in read:
        assert codes(row) == [code for code, _ in reply.options]
        assert row["dhcp.option.dhcp"] == [str(reply.type)]
        assert row["dhcp.option.dhcp_server_id"] == [OURS]
        assert row["dhcp.option.vendor_class_id"] == [(reply.option(60) or b"").decode()]
        assert row["dhcp.option.tftp_server_name"] == [OURS]
        assert row["dhcp.option.bootfile_name"] == [FILE.decode()]


def test_wireshark_reads_pxe_options_as_we_meant_them(read):
    offers = {recipe: row for recipe, reply, row in read if reply.type == dhcp4.OFFER}
    assert offers["direct"]["dhcp.option.vendor.pxeclient.discovery_control"] == ["0x08"]
    assert offers["direct"]["dhcp.option.vendor.pxeclient.menu_prompt.prompt"] == ["PXE"]
    assert offers["menu"]["dhcp.option.vendor.pxeclient.discovery_control"] == ["0x03"]
    assert offers["menu"]["dhcp.option.vendor.pxeclient.boot_servers.ip"] == [OURS]
    menu = offers["menu"]["dhcp.option.vendor.pxeclient.boot_menu.desc"]
    assert menu == ["Network boot", "Boot from local disk"]
    assert offers["raspberry"]["dhcp.option.vendor.pxeclient.boot_menu.desc"] == ["Raspberry Pi Boot"]


def test_wireshark_reads_the_boot_item_and_the_relays_information_back(read):
    for recipe, reply, row in read:
        if reply.type == dhcp4.ACK and recipe == "http-boot":  # the dissector reads option 43 by the vendor class
            assert reply.option(dhcp4.VENDOR_SPECIFIC) == bytes.fromhex("470480010000ff")
        elif reply.type == dhcp4.ACK:
            assert row["dhcp.option.vendor.pxeclient.boot_item"] == ["80010000"]
        else:
            assert row["dhcp.option.agent_information_option.agent_circuit_id"] == ["65746830"]


def test_wireshark_and_we_find_the_same_options_in_every_vector(tmp_path):
    names = [name for name in NAMES if name not in ("overload-discover", "bootp-request")]
    rows = dissect(tmp_path / "vectors.pcap", [vector(name) for name in names], (68, 67))
    for name, row in zip(names, rows, strict=True):
        assert codes(row) == [code for code, _ in dhcp4.parse(vector(name)).options], name
        assert row["_ws.malformed"] == [], name


def test_wireshark_joins_what_we_split(tmp_path):
    message = replace(changed("edk2-x64-discover"), options=((53, b"\2"), (67, b"x" * 600)))
    (row,) = dissect(tmp_path / "long.pcap", [dhcp4.emit(message)], (67, 68))
    assert codes(row) == [53, 67, 67, 67]
    assert "".join(row["dhcp.option.bootfile_name"]) == "x" * 600
