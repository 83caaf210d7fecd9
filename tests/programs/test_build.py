"""The built boot programs are what their sources say, octet by octet."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootwire.programs import parameters
from bootwire.programs.build import BIOS, OURS, BuildError, build, main


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
