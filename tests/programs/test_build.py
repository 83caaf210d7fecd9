"""The built boot programs are what their sources say, octet by octet."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootwire.assets import pe
from bootwire.programs import parameters
from bootwire.programs.build import BIOS, EFI, EFI_TOOLS, OURS, BuildError, build, build_efi, efi_program, main
from bootwire.programs.efi_image import convert


@pytest.mark.interop
@pytest.mark.parametrize("name", OURS)
def test_the_committed_octets_are_what_the_sources_make(name: str):
    assert build(BIOS / f"{name}.c") == (BIOS / f"{name}.pxe").read_bytes()


@pytest.mark.parametrize("name", OURS)
def test_a_program_is_small_and_can_be_told_its_parameters(name: str):
    program = (BIOS / f"{name}.pxe").read_bytes()
    assert len(program) < 16 << 10
    assert parameters.read(program) == parameters.Parameters(tries=4)


@pytest.mark.interop
def test_what_the_compiler_does_not_take_is_said(tmp_path: Path):
    wrong = tmp_path / "wrong.c"
    wrong.write_text('#include "boot.h"\nvoid program(void) { nonsense(); }\n')
    with pytest.raises(BuildError, match="nonsense"):
        build(wrong)
    assert main([str(wrong)]) == 1


@pytest.mark.interop
@pytest.mark.parametrize("architecture", EFI_TOOLS)
@pytest.mark.parametrize("name", OURS)
def test_the_committed_efi_octets_are_what_the_sources_make(name: str, architecture: str):
    assert build_efi(EFI / f"{name}.c", architecture) == efi_program(name, architecture).read_bytes()


@pytest.mark.parametrize("architecture", EFI_TOOLS)
@pytest.mark.parametrize("name", OURS)
def test_an_efi_program_is_small_for_its_machine_and_can_be_told_its_parameters(name: str, architecture: str):
    program = efi_program(name, architecture).read_bytes()
    image = pe.read(program)
    assert image is not None
    assert (image.architecture, image.subsystem, image.sections) == (
        architecture,
        pe.EFI_APPLICATION,
        (".text", ".data", ".reloc"),
    )
    assert len(program) < 16 << 10
    told = parameters.Parameters(next=f"{architecture}/snponly.efi", fallback="hold", tries=3)
    assert parameters.read(program) == parameters.Parameters()
    assert parameters.read(parameters.fill(program, told)) == told


@pytest.mark.interop
def test_addresses_in_an_efi_programs_data_are_moved_with_it(tmp_path: Path):
    source = tmp_path / "table.c"
    source.write_text(
        '#include "boot.h"\nconst char PROGRAM[] = "x";\nconst char *volatile names[] = {PROGRAM, PROGRAM};\n'
        "status program(void) { print(names[1]); return 0; }\n"
    )
    for architecture in EFI_TOOLS:
        program = build_efi(source, architecture)
        section = program.index(b".reloc")
        at = pe.number(program, section + 20, 4)
        places = [pe.number(program, at + 8 + 2 * i, 2) >> 12 for i in range((pe.number(program, at + 4, 4) - 8) // 2)]
        assert places == [10, 10]  # IMAGE_REL_BASED_DIR64


def test_what_is_no_elf_file_makes_no_program():
    with pytest.raises(ValueError, match="no ELF"):
        convert(bytes(100))
