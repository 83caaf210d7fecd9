"""Files as content: a published directory that nothing escapes from, and single files that the operator named."""

from __future__ import annotations

import errno
import functools
import os
import stat

from bootwire.serve.content import SHORTAGES, Content, Missing
from bootwire.wire import http
from bootwire.wire.text import printable

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

MAX_NAME = 4096  # octets: PATH_MAX of Linux
MAX_LINKS = 40  # symbolic links followed for one name: MAXSYMLINKS of Linux


class PublishedDirectory:
    """A directory whose regular files anyone may read, by their names below it.

    Every component is opened below the directory before it and never through a symbolic link: a link is read, and its
    target walked in the same way. So a relative link that stays inside works (Debian's netboot trees are full of
    them), and one that is absolute or climbs out does not, whenever it was put there.
    """

    def __init__(self, path: str) -> None:
        """Raises OSError: no such directory, or none that may be entered."""
        self.path = path
        self._root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def open(self, name: str | bytes) -> Content | Missing:
        """Open the regular file called `name`. Leading "/", "//" and "\\" for "/" are accepted, ".." is not.

        name  as TFTP's octets or as a decoded HTTP path (PEP 383); anything at all may be in it

        Never blocks on a FIFO or device, holds at most two descriptors on the way. Raises OSError (SHORTAGES).
        """
        try:
            raw = name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name
        except UnicodeEncodeError:
            return Missing("a name that no file has")
        if len(raw) > MAX_NAME or b"\0" in raw:
            return Missing("a name that no file has")
        parts = _split(raw.replace(b"\\", b"/"))
        if b".." in parts:
            return Missing("a name with .. in it", forbidden=True)
        try:
            fd = self._walk(parts)
        except OSError as error:
            return _missing(error)
        return _content(fd, printable(b"/".join(parts)), http.media_type(printable(raw)))

    def close(self) -> None:
        os.close(self._root)

    def _walk(self, parts: list[bytes]) -> int:
        """A descriptor of the file at the end of `parts`; starts again from the root for each symbolic link."""
        for _ in range(MAX_LINKS):
            if not parts:
                raise IsADirectoryError(errno.EISDIR, "a directory")
            handle, at = self._root, 0
            try:
                for part in parts[:-1]:
                    below = os.open(part, _DIRECTORY, dir_fd=handle)
                    if handle != self._root:
                        os.close(handle)
                    handle, at = below, at + 1
                return os.open(parts[-1], _FILE | os.O_NOFOLLOW, dir_fd=handle)
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


def open_local(path: str, name: str, media_type: str) -> Content | Missing:
    """Open a file that the operator named, and call it `name`. Links are followed: the operator's word is enough.

    Raises OSError with one of SHORTAGES.
    """
    try:
        return _content(os.open(path, _FILE), name, media_type)
    except OSError as error:
        return _missing(error)


def _split(raw: bytes) -> list[bytes]:
    return [part for part in raw.split(b"/") if part and part != b"."]


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
        return Missing("a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file", forbidden=True)
    key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    return Content(
        name,
        status.st_size,
        fd=fd,
        key=key,
        etag=f'"{key[0]:x}-{key[1]:x}-{key[2]:x}-{key[3]:x}"',
        modified=_date(status.st_mtime_ns // 1_000_000_000),
        media_type=media_type,
    )


_date = functools.lru_cache(maxsize=1024)(http.format_date)


def _missing(error: OSError) -> Missing:
    if error.errno in SHORTAGES:
        raise error
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR | errno.ENAMETOOLONG:
            return Missing("no such file")
        case errno.ENXIO | errno.EISDIR | errno.ENODEV:
            return Missing("not a regular file", forbidden=True)
        case errno.EPERM | errno.ELOOP:
            return Missing(error.strerror or "a symbolic link", forbidden=True)
        case errno.EACCES:
            return Missing("this server may not read it", forbidden=True)
        case errno.EMFILE | errno.ENFILE | errno.ENOMEM:
            return Missing(os.strerror(error.errno), short=True)
        case _:
            return Missing(os.strerror(error.errno or 0))
