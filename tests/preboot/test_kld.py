"""What kernels and modules say of themselves, read from files made by gcc and ld."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import probe_kernel
from bootwire.preboot.handoff.kld import About, about

pytestmark = pytest.mark.interop  # a compiler makes the modules


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return probe_kernel.module(tmp_path_factory.mktemp("m"), provides="one two", wants="three")


def test_a_module_tells_by_its_relocations(module: bytes) -> None:
    assert about(module) == About(("one", "two"), ("three",))


def test_modules_linked_together_tell_of_both(module: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.ko").write_bytes(module)
    other = probe_kernel.module(tmp_path, provides="four")
    (tmp_path / "b.ko").write_bytes(other)
    subprocess.run(["ld", "-r", "-z", "muldefs", "-o", "ab.ko", "a.ko", "b.ko"], cwd=tmp_path, check=True)
    assert sorted(about((tmp_path / "ab.ko").read_bytes()).provides) == ["four", "one", "two"]


def test_a_kernel_tells_by_addresses(module: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.o").write_bytes(module)
    link = "ld -static --no-warn-rwx-segments -Ttext 0xffffffff80200000 --unresolved-symbols=ignore-all -o k m.o"
    subprocess.run([*link.split(), "-e", "module_start"], cwd=tmp_path, check=True)
    assert about((tmp_path / "k").read_bytes()) == About(("one", "two"), ("three",))


def test_a_file_without_any_tells_nothing(tmp_path: Path) -> None:
    assert about(probe_kernel.module(tmp_path)) == about(b"") == About()


@given(st.data())
def test_damaged_modules_tell_something_or_nothing(module: bytes, data: st.DataObject) -> None:
    damaged = bytearray(module)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(16, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    about(bytes(damaged))
