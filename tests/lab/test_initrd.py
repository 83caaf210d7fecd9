"""The archive is read back here as Linux's own documentation describes the format."""

import gzip
import stat

from hypothesis import given
from hypothesis import strategies as st

from bootwire.lab import initrd


def unpack(archive: bytes) -> dict[str, tuple[int, bytes]]:
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        start = -(-(at + 110 + name_size) // 4) * 4
        at = -(-(start + size) // 4) * 4
        if name == b"TRAILER!!!\0":
            assert at == len(archive)
            return found
        found[name[:-1].decode()] = (mode, archive[start : start + size])


@given(st.dictionaries(st.text("abc/.é", min_size=1, max_size=20), st.binary(max_size=50), max_size=6))
def test_cpio_holds_every_file_whatever_its_length(files: dict[str, bytes]) -> None:
    archive = initrd.cpio(initrd.Entry(name, stat.S_IFREG | 0o644, data) for name, data in files.items())
    assert unpack(archive) == {name: (stat.S_IFREG | 0o644, data) for name, data in files.items()}


def test_the_system_has_an_executable_init_and_busybox() -> None:
    found = unpack(gzip.decompress(initrd.system(b"\x7fELF busybox")))
    assert found["bin/busybox"] == (stat.S_IFREG | 0o755, b"\x7fELF busybox")
    assert found["init"][0] == stat.S_IFREG | 0o755
    assert found["init"][1].startswith(b"#!/bin/busybox sh\n")


def test_the_same_input_makes_the_same_octets() -> None:
    assert initrd.system(b"x") == initrd.system(b"x")
    assert initrd.extra({"a": "1"}) == initrd.extra({"a": "1"})
