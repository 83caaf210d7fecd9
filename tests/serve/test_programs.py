"""Boot programs as they are served: which there are, what is filled in, and that a changed file is a changed answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from assets.samples import pe
from bootwire.assets.scripts import Caller
from bootwire.programs import parameters
from bootwire.programs.parameters import MAGIC, Parameters
from bootwire.serve.answers import Answers
from bootwire.serve.boot_scripts import Script
from bootwire.serve.content import Content, Peer
from bootwire.serve.mode import StartError
from bootwire.serve.programs import Programs, ProgramSettings, programs

PEER = Peer("192.0.2.57", 2070, "192.0.2.1")
UNDIONLY = {"bios/undionly.kpxe": None}


def served(found: Programs, name: str) -> Content:
    def script(machine: str, _request: object, _who: Caller, _peer: Peer) -> Script:
        raise AssertionError(machine)

    answers = Answers(
        found.catalog,
        first_script=lambda _machine, _ours: b"",
        boot_script=script,
        machine_at=lambda _: "",
        published=None,
        record=lambda _: None,
    )
    content = answers.tftp(name.encode(), PEER)
    assert isinstance(content, Content)
    return content


@pytest.mark.parametrize("name", ["hello", "ask"])
def test_ours_are_always_there_and_told_what_the_operator_chose(name: str):
    found = programs(ProgramSettings(name, "", "local-disk", 2), UNDIONLY)
    assert (found.name, found.own) == (name, False)
    told = parameters.read(served(found, f"programs/bios/{name}.pxe").data or b"")
    assert told == Parameters("bios/undionly.kpxe", "local-disk", 2)


def test_without_a_program_ours_are_there_for_profiles_that_name_one():
    found = programs(ProgramSettings(), {})
    assert found.name == ""
    bios = {"programs/bios/hello.pxe", "programs/bios/ask.pxe"}
    uefi = {f"programs/{one}/{name}.efi" for one in ("x86_64", "arm64") for name in ("hello", "ask")}
    assert found.names == bios | uefi


@pytest.mark.parametrize(
    ("chosen", "bios", "uefi"),
    [
        ("", "bios/undionly.kpxe", "x86_64/snponly.efi"),
        ("lpxelinux.0", "lpxelinux.0", "x86_64/snponly.efi"),
        ("grub.efi", "bios/undionly.kpxe", "grub.efi"),
    ],
)
def test_machines_go_on_with_what_they_can_run(chosen: str, bios: str, uefi: str):
    found = programs(ProgramSettings("hello", chosen), {**UNDIONLY, "x86_64/snponly.efi": 0})
    for name, following in (("bios/hello.pxe", bios), ("x86_64/hello.efi", uefi)):
        told = parameters.read(served(found, f"programs/{name}").data or b"")
        assert told is not None
        assert told.next == following


def test_a_file_that_changes_is_served_as_it_is_now(tmp_path: Path):
    file = tmp_path / "my first.pxe"
    file.write_bytes(b"one")
    found = programs(ProgramSettings(str(file)), {})
    assert (found.name, found.own) == ("my_first", True)
    before = served(found, "programs/bios/my_first.pxe")
    file.write_bytes(b"two")
    after = served(found, "programs/bios/my_first.pxe")
    assert (before.data, after.data) == (b"one", b"two")
    assert before.key != after.key
    assert before.etag != after.etag


def test_a_file_of_ones_own_is_filled_in_where_it_has_the_block(tmp_path: Path):
    file = tmp_path / "x.pxe"
    file.write_bytes(b"\xe9\xbd\0\0" + MAGIC.ljust(300, b"\0"))
    found = programs(ProgramSettings(str(file), "lpxelinux.0"), UNDIONLY)
    told = parameters.read(served(found, "programs/bios/x.pxe").data or b"")
    assert told is not None
    assert told.next == "lpxelinux.0"


def test_an_efi_file_goes_to_machines_of_its_processor(tmp_path: Path):
    file = tmp_path / "mine.efi"
    file.write_bytes(pe("arm64"))
    assert "programs/arm64/mine.efi" in programs(ProgramSettings(str(file)), {}).names


@pytest.mark.parametrize(
    ("octets", "why"), [(None, "No such file"), (b"", "has 0 octets"), (bytes(parameters.LARGEST + 1), "PXE-E79")]
)
def test_what_cannot_be_a_program_is_refused_at_the_start(tmp_path: Path, octets: bytes | None, why: str):
    file = tmp_path / "x.pxe"
    if octets is not None:
        file.write_bytes(octets)
    with pytest.raises(StartError, match=why) as refused:
        programs(ProgramSettings(str(file)), {})
    assert refused.value.status == 2


def test_a_next_program_with_too_long_a_name_is_refused_at_the_start():
    with pytest.raises(StartError, match="at most 127 fit"):
        programs(ProgramSettings("hello", "x" * 128), {})
