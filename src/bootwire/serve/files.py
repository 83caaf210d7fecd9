"""Files as content: a published directory that nothing escapes from, and single files that the operator named."""

from __future__ import annotations

import errno
import functools
import os
import stat
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from bootwire.engine import MS, Ns, S
from bootwire.serve.content import SHORTAGES, Content, Missing
from bootwire.serve.listing import Listed
from bootwire.wire import http
from bootwire.wire.text import printable

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

MAX_NAME = 4096  # octets: PATH_MAX of Linux
MAX_LINKS = 40  # symbolic links followed for one name: MAXSYMLINKS of Linux
MAX_LISTED = 4096  # entries of one listing: some 20 ms of lstat, which hold the transfer loop up

A_DIRECTORY = "a directory"


MAX_KNOWN = 1024
MAX_KNOWN_NAME = 256
"""Names that are remembered in their parts, and octets of one. What they name is looked at every time."""

SMALL = 64 * 1024
MAX_SMALL = 8 * 1024 * 1024
"""Octets up to which a file's are kept in memory, and of all that are kept."""

STILL = 2 * MS
"""How long what a name leads to is not looked at again: within less than a tick of Linux's clock (1 to 10 ms) a file's
version says nothing of a change either."""

UNSURE = 2 * S
"""A file changed so recently may change again without another mtime (FAT counts in 2 s, Linux in ticks of its clock):
it has no key that a cache could go by."""

T = TypeVar("T")
_Name = tuple[list[bytes], str, str]  # components, as shown in the journal, media type
_Version = tuple[int, int, int, int, int]  # device, inode, size, mtime, ctime


class PublishedDirectory:
    """A directory whose regular files anyone may read, by their names below it.

    Every component is opened below the directory before it and never through a symbolic link: a link is read, and its
    target walked in the same way. So a relative link that stays inside works (Debian's netboot trees are full of
    them), and one that is absolute or climbs out does not, whenever it was put there.
    """

    def __init__(self, path: str, clock: Callable[[], Ns] = time.monotonic_ns) -> None:
        """Raises OSError: no such directory, or none that may be entered."""
        self.path = path
        self.clock = clock
        self._names: dict[str | bytes, _Name] = {}
        self._small: OrderedDict[_Version, tuple[bytes, str, str]] = OrderedDict()
        self._small_octets = 0
        self._root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def open(self, name: str | bytes) -> Content | Missing:
        """Open the regular file called `name`. Leading "/", "//" and "\\" for "/" are accepted, ".." is not.

        name  as TFTP's octets or as a decoded HTTP path (PEP 383); anything at all may be in it

        Never blocks on a FIFO or device, holds at most two descriptors on the way. Raises OSError (SHORTAGES).
        """
        known = self._names.get(name) or self._read(name)
        if isinstance(known, Missing):
            return known
        parts, shown, media_type = known
        try:
            found = self._walk(parts, lambda last, directory: self._file(last, directory, shown, media_type))
        except OSError as error:
            return _missing(error)
        if isinstance(found, Content) and found.key is not None:
            found.still = _Still(self, parts, found.key)
        return found

    def version(self, parts: list[bytes]) -> object:
        """The key of what a name's components lead to now. Raises OSError."""
        if len(parts) == 1:  # as most are asked for, tens of thousands of times a second
            try:
                return _version_of(parts[0], self._root)
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
        return self._walk(parts, _version_of)

    def listing(self, name: str | bytes) -> tuple[list[Listed], bool] | Missing:
        """What `open` would find in the directory called `name` ("" for the published one), in no order, and whether
        there is more than MAX_LISTED. Links are listed as what they lead to; FIFOs, devices and links out are not.
        """
        known = self._names.get(name) or self._read(name)
        if isinstance(known, Missing):
            return known
        parts, *_ = known
        try:
            fd = self._walk(parts, _descriptor) if parts else os.open(".", _FILE, dir_fd=self._root)
        except OSError as error:
            return _missing(error)
        listed: list[Listed] = []
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    if len(listed) == MAX_LISTED:
                        return listed, True
                    if (found := self._listed(parts, os.fsencode(entry.name), fd)) is not None:
                        listed.append(found)
        except OSError as error:
            return _missing(error)
        finally:
            os.close(fd)
        return listed, False

    def close(self) -> None:
        os.close(self._root)

    def _read(self, name: str | bytes) -> _Name | Missing:
        try:
            raw = name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name
        except UnicodeEncodeError:
            return Missing("a name that no file has")
        if len(raw) > MAX_NAME or b"\0" in raw:
            return Missing("a name that no file has")
        parts = _split(raw.replace(b"\\", b"/"))
        if b".." in parts:
            return Missing("a name with .. in it", forbidden=True)
        known = parts, printable(b"/".join(parts)), http.media_type(printable(raw))
        if len(raw) <= MAX_KNOWN_NAME:
            if len(self._names) >= MAX_KNOWN:
                self._names.clear()
            self._names[name] = known
        return known

    def _listed(self, parts: list[bytes], name: bytes, directory: int) -> Listed | None:
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                fd = self._walk([*parts, name], _descriptor)
                try:
                    status = os.fstat(fd)
                finally:
                    os.close(fd)
        except OSError:
            return None
        if stat.S_ISDIR(status.st_mode):
            return Listed(name, True, 0, status.st_mtime)
        return Listed(name, False, status.st_size, status.st_mtime) if stat.S_ISREG(status.st_mode) else None

    def _walk(self, parts: list[bytes], arrive: Callable[[bytes, int], T]) -> T:
        """What `arrive` makes of the last of `parts` and the directory it is in, an OSError (ELOOP) for a link; starts
        again from the root for each symbolic link."""
        for _ in range(MAX_LINKS):
            if not parts:
                raise IsADirectoryError(errno.EISDIR, A_DIRECTORY)
            handle, at = self._root, 0
            try:
                for part in parts[:-1]:
                    below = os.open(part, _DIRECTORY, dir_fd=handle)
                    if handle != self._root:
                        os.close(handle)
                    handle, at = below, at + 1
                return arrive(parts[-1], handle)
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                    raise
                target = _link(parts[at], handle)
                if target is None:
                    raise
                parts = _resolved(parts[:at], target) + parts[at + 1 :]
            finally:
                if handle != self._root:
                    os.close(handle)
        raise OSError(errno.ELOOP, "too many symbolic links")

    def _file(self, part: bytes, directory: int, name: str, media_type: str) -> Content | Missing:
        version = _version_of(part, directory)
        if version in self._small:
            data, etag, modified = self._small[version]
            return Content(name, len(data), data, -1, version, etag, modified, media_type)
        found = _content(_descriptor(part, directory), name, media_type)
        return found if isinstance(found, Missing) or found.size > SMALL else self._keep(found)

    def _keep(self, found: Content) -> Content:
        """Read a small file into memory; the next one who asks for it costs a stat(2)."""
        data = os.pread(found.fd, SMALL, 0)
        version = found.key
        if isinstance(version, tuple) and len(data) == found.size:
            found.close()
            found.data = data
            self._small[version] = data, found.etag, found.modified
            self._small_octets += len(data)
            while self._small_octets > MAX_SMALL:
                self._small_octets -= len(self._small.popitem(last=False)[1][0])
        return found


class _Still:
    """Whether a name still leads to the same octets; what it led to within STILL counts."""

    __slots__ = ("_directory", "_looked", "_parts", "_version")

    def __init__(self, directory: PublishedDirectory, parts: list[bytes], version: object) -> None:
        self._directory, self._parts, self._version = directory, parts, version
        self._looked = directory.clock()

    def __call__(self) -> bool:
        now = self._directory.clock()
        if now - self._looked >= STILL:
            try:
                if self._directory.version(self._parts) != self._version:
                    return False
            except OSError:
                return False
            self._looked = now
        return True


def open_local(path: str, name: str, media_type: str) -> Content | Missing:
    """Open a file that the operator named, and call it `name`. Links are followed: the operator's word is enough.

    Raises OSError with one of SHORTAGES.
    """
    try:
        return _content(os.open(path, _FILE), name, media_type)
    except OSError as error:
        return _missing(error)


def for_machine(found: Content | Missing, machine: str) -> Content | Missing:
    """`found`, told to be for a machine."""
    if isinstance(found, Missing):
        return replace(found, machine=machine)
    found.machine = machine
    return found


def _split(raw: bytes) -> list[bytes]:
    return [part for part in raw.split(b"/") if part and part != b"."]


def _descriptor(part: bytes, directory: int) -> int:
    return os.open(part, _FILE | os.O_NOFOLLOW, dir_fd=directory)


def _link(part: bytes, directory: int) -> bytes | None:
    """Where the symbolic link `part` points to; None if it is no link (any more)."""
    try:
        return os.readlink(part, dir_fd=directory)
    except OSError:
        return None


def _resolved(directory: list[bytes], target: bytes) -> list[bytes]:
    """The components of a link's target; `directory` is where the link stands, below the root and free of links."""
    if target.startswith(b"/"):
        raise PermissionError(errno.EPERM, "a symbolic link out of the published directory")
    resolved = directory.copy()
    for part in _split(target):
        if part != b"..":
            resolved.append(part)
        elif resolved:
            resolved.pop()
        else:
            raise PermissionError(errno.EPERM, "a symbolic link out of the published directory")
    return resolved


def _content(fd: int, name: str, media_type: str) -> Content | Missing:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        return Missing(A_DIRECTORY if stat.S_ISDIR(status.st_mode) else "not a regular file", forbidden=True)
    version = _version(status)
    etag, modified = _validators(*version[:4])
    still = time.time_ns() - status.st_mtime_ns >= UNSURE
    return Content(name, status.st_size, None, fd, version if still else None, etag, modified, media_type)


def _version_of(part: bytes, directory: int) -> _Version:
    status = os.stat(part, dir_fd=directory, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, "a symbolic link")
    return _version(status)


def _version(status: os.stat_result) -> _Version:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@functools.lru_cache(maxsize=MAX_KNOWN)
def _validators(device: int, inode: int, size: int, mtime_ns: int) -> tuple[str, str]:
    """ETag and Last-Modified of a file."""
    return f'"{device:x}-{inode:x}-{size:x}-{mtime_ns:x}"', http.format_date(mtime_ns // S)


def _missing(error: OSError) -> Missing:
    if error.errno in SHORTAGES:
        raise error
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR | errno.ENAMETOOLONG:
            return Missing("no such file")
        case errno.EISDIR:
            return Missing(A_DIRECTORY, forbidden=True)
        case errno.ENXIO | errno.ENODEV:
            return Missing("not a regular file", forbidden=True)
        case errno.EPERM | errno.ELOOP:
            return Missing(error.strerror or "a symbolic link", forbidden=True)
        case errno.EACCES:
            return Missing("this server may not read it", forbidden=True)
        case _:
            return Missing(os.strerror(error.errno or 0))
