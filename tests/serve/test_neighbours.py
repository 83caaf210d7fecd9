"""The kernel's table of neighbours, as proc(5) shows it."""

from __future__ import annotations

from pathlib import Path

from bootwire.serve.neighbours import FRESH, Neighbours

TABLE = """\
IP address       HW type     Flags       HW address            Mask     Device
192.168.1.57     0x1         0x2         52:54:00:12:34:56     *        enp3s0
192.168.1.58     0x1         0x0         00:00:00:00:00:00     *        enp3s0
192.168.1.59     0x1         0x6         52:54:00:AB:CD:EF     *        enp3s0
"""


def test_complete_entries_are_known_and_others_are_not(tmp_path: Path) -> None:
    (tmp_path / "arp").write_text(TABLE)
    table = Neighbours(tmp_path / "arp")
    found = [table.mac_at(f"192.168.1.{last}") for last in (57, 58, 59, 60)]
    assert found == ["52:54:00:12:34:56", "", "52:54:00:ab:cd:ef", ""]


def test_a_reading_is_used_for_a_second(tmp_path: Path) -> None:
    (tmp_path / "arp").write_text(TABLE)
    table = Neighbours(tmp_path / "arp")
    assert table.mac_at("192.168.1.57", 0)
    (tmp_path / "arp").write_text("")
    assert table.mac_at("192.168.1.57", FRESH - 1)
    assert not table.mac_at("192.168.1.57", FRESH)


def test_a_reading_that_lacks_a_neighbour_is_not_used_for_one_with_a_connection(tmp_path: Path) -> None:
    (tmp_path / "arp").write_text(TABLE)
    table = Neighbours(tmp_path / "arp", missed=0)
    assert not table.mac_at("192.168.1.61", 0)
    (tmp_path / "arp").write_text(
        TABLE + "192.168.1.61     0x1         0x2         52:54:00:00:00:61     *        enp3s0\n"
    )
    assert table.mac_at("192.168.1.61", 1) == "52:54:00:00:00:61"


def test_without_a_table_nobody_is_known(tmp_path: Path) -> None:
    assert Neighbours(tmp_path / "none").mac_at("192.168.1.57") == ""


def test_this_kernels_table_is_read() -> None:
    assert Neighbours().mac_at("240.0.0.1") == ""  # nobody can have it (RFC 1112 section 4)
