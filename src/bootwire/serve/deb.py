"""Debian packages as files: an ar archive with a compressed tar in it (deb(5)), and how versions sort (deb-version(7)).

Names inside are only compared, never used as paths. What is not a regular file is passed over.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import re
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

MAX_MEMBERS = 100_000  # files in a package; kernels have about 5,000


class PackageError(Exception):
    """Why a package cannot be had or read. `hint` is what to do next, "" if nobody knows."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.hint = hint


def unpack(deb: Path, take: Callable[[str, int, IO[bytes]], None]) -> None:
    """Call `take(path in the package, octets, contents)` for every regular file, in order; what it leaves is skipped.

    Paths have no leading "./" or "/"; members whose path has "..", or which are links or devices, are passed over.
    Raises PackageError if this is no whole .deb.
    """
    name = "data.tar"
    try:
        with deb.open("rb") as file, contextlib.ExitStack() as stack:
            name, start, size = _data_member(file)
            stream = stack.enter_context(_unpacked(file, name, start, size))
            tar = stack.enter_context(tarfile.open(fileobj=stream, mode="r|"))
            for number, member in enumerate(tar):
                if number >= MAX_MEMBERS:
                    raise PackageError(f"{deb.name} has more than {MAX_MEMBERS} members")
                path = member.name.removeprefix("./")
                contents = tar.extractfile(member) if member.isreg() else None
                if contents is not None and path and ".." not in path.split("/") and not path.startswith("/"):
                    take(path, member.size, contents)
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError, ValueError) as error:
        raise PackageError(f"{deb.name}: {name} cannot be unpacked: {error}") from None


def version_key(version: str) -> tuple[object, ...]:
    """Sorts as deb-version(7) says: "~" before the end, before letters, before everything else; numbers by value."""
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
    return (int(epoch) if epoch.isdecimal() else 0, _part_key(upstream), _part_key(revision))


def _part_key(text: str) -> tuple[object, ...]:
    def weight(c: str) -> int:
        return -1 if c == "~" else ord(c) if c.isalpha() else ord(c) + 256

    pieces = re.findall(r"(\D*)(\d*)", text)
    return tuple(((*map(weight, word), 0), int(number or 0)) for word, number in pieces)


def _data_member(file: IO[bytes]) -> tuple[str, int, int]:
    """Name, offset and size of data.tar.* in an ar archive (deb(5))."""
    at, end = 8, file.seek(0, 2)
    file.seek(0)
    if file.read(8) != b"!<arch>\n":
        raise PackageError("not a .deb: no ar archive")
    while at + 60 <= end:
        file.seek(at)
        header = file.read(60)
        name, size = header[:16].rstrip(b" /").decode("ascii", "replace"), header[48:58].strip()
        if header[58:] != b"`\n" or not size.isdigit() or at + 60 + int(size) > end:
            break
        if name.startswith("data.tar"):
            return name, at + 60, int(size)
        at += 60 + int(size) + int(size) % 2
    raise PackageError("not a whole .deb: no data.tar in it")


@contextlib.contextmanager
def _unpacked(file: IO[bytes], name: str, start: int, size: int) -> Iterator[IO[bytes]]:
    """data.tar as a stream."""
    section = io.BufferedReader(_Section(file, start, size))
    ending = name.removeprefix("data.tar")
    if ending == ".xz":
        with lzma.open(section, "rb") as stream:
            yield stream
    elif ending == ".gz":
        with gzip.open(section, "rb") as unzipped:
            yield cast("IO[bytes]", unzipped)
    elif ending == "":
        yield section
    elif ending == ".zst":
        with _unzstd(section) as stream_out:
            yield stream_out
    else:
        raise PackageError(f"{name} is compressed in a way that is not known here")


@contextlib.contextmanager
def _unzstd(section: IO[bytes]) -> Iterator[IO[bytes]]:
    tool = shutil.which("zstd")
    if not tool:
        raise PackageError("this package is compressed with zstd", "install the package zstd")
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(section, copy)
        copy.seek(0)
        command = [tool, "-dcq", "--memory=256MB"]
        with subprocess.Popen(command, stdin=copy, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
            assert child.stdout
            try:
                yield child.stdout
            finally:
                child.kill()


class _Section(io.RawIOBase):
    """A read-only window into a file."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file, self._at, self._end = file, start, start + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._at)
        data = self._file.read(min(len(buffer), self._end - self._at))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
