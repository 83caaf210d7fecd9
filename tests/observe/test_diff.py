"""What differs between two boots."""

from __future__ import annotations

from typing import Any

from boot_stories import Story, booted, mac, records, refused
from bootwire import facts
from bootwire.observe.boots import fold
from bootwire.observe.diff import differences
from bootwire.observe.story import whole


def told(story: Story) -> dict[str, Any]:
    (boot,) = fold(records(story)).all()
    return whole(boot)


def rows(one: Story, other: Story) -> dict[str, tuple[str, str, str]]:
    return {row["what"]: (row["one"], row["other"], row["note"]) for row in differences(told(one), told(other))}


def test_two_boots_that_went_the_same_way_do_not_differ() -> None:
    assert rows(booted(1), booted(1)) == {}


def test_another_machine_that_went_the_same_way_differs_in_who_it_is() -> None:
    assert set(rows(booted(1), booted(2))) == {"machine", "address"}


def test_a_little_slower_is_the_same_and_much_slower_is_told_with_its_factor() -> None:
    def late(seconds: float) -> Story:
        return [(at + (seconds if at >= 9 else 0), fact) for at, fact in booted(1)]

    assert rows(booted(1), late(0.1)) == {}
    found = rows(booted(1), [(at * 3, fact) for at, fact in booted(1)])
    assert found["address took"] == ("0.90 s", "2.70 s", "3.0 times as long")
    assert found["in all"][2] == "3.0 times as long"


def test_where_one_got_stuck_the_stages_and_files_it_lacks_are_told() -> None:
    found = rows(booted(1), refused(1))
    assert found["stage kernel"][:2] == ("reached", "")
    assert found["file kernel"][:2] == ("fetched", "not asked for")
    assert "stage loader" not in found


def test_sizes_options_and_firmware_are_compared() -> None:
    other = [
        (at, facts.TransferStarted(f.machine, f.protocol, f.name, f.peer, f.octets, "blksize 512"))
        if isinstance(f, facts.TransferStarted) and f.protocol == "tftp"
        else (at, f)
        for at, f in booted(1, initrd=99)
    ]
    found = rows(booted(1), other)
    assert found["initrd/0 octets"][:2] == ("40700000", "99")
    assert found["x86_64/snponly.efi options"][:2] == ("blksize 1468", "blksize 512")


def test_the_machines_own_directory_is_no_difference() -> None:
    found = rows(booted(1), booted(2))
    assert "boot file" not in found
    assert mac(1).replace(":", "-") not in str(found)
