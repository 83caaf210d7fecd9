"""Images on disk: which there are, whether they are still what they were, and which have to go for others.

A file has its name only when it is whole (written beside, synced, renamed). Several processes may share a folder: who
fetches an image holds a lock on its part, and what one has fetched the others find.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

PART_SECONDS = 7 * 24 * 3600.0  # after which a part that nobody went on with is thrown away

ABOUT = {"image": "json", "part": "begun"}  # what stands beside a file that is kept

_Version = tuple[int, int, int]  # inode, size, mtime in ns: changes when somebody writes


@dataclass(frozen=True, slots=True)
class Entry:
    """One image on disk.

    checked  wall-clock seconds when its server last stood by it
    signer   who signed it, "" where no signature was asked for
    """

    path: str
    location: str
    size: int
    sha256: str
    etag: str = ""
    modified: str = ""
    checked: float = 0.0
    signer: str = ""


@dataclass(frozen=True, slots=True)
class Begun:
    """What is known of an image that is here in part."""

    location: str
    whole: int
    etag: str = ""
    modified: str = ""

    @property
    def validator(self) -> str:
        """What If-Range can hold (RFC 9110 section 13.1.5): a strong tag, else a date, else ""."""
        return self.etag if self.etag.startswith('"') else self.modified


class Shelf:
    """The entries of one folder, by key. Any thread.

    size  octets that are kept; the least recently used are thrown away first. Who reads one goes on by descriptor
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self._size = size
        self._entries: OrderedDict[str, Entry] = OrderedDict()  # oldest use first
        self._verified: dict[str, _Version] = {}
        self._lock = threading.Lock()
        self._load()

    def get(self, key: str) -> Entry | None:
        """What is here as far as this process knows, else as the disk has it."""
        with self._lock:
            entry = self._entries.get(key)
        return entry if entry is not None else self.on_disk(key)

    def good(self, key: str, fd: int) -> Entry | None:
        """The entry, if the open file is the one that was verified; used just now."""
        status = os.fstat(fd)
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or self._verified.get(key) != (status.st_ino, status.st_size, status.st_mtime_ns):
                return None
            self._entries.move_to_end(key)
            return entry

    def is_verified(self, key: str) -> bool:
        """Whether the file is the one whose digest was looked at."""
        with self._lock:
            entry = self._entries.get(key)
            return entry is not None and self._verified.get(key) == _version(entry.path)

    def verify(self, key: str, entry: Entry) -> bool:
        """Digest the file (which takes a while); whether it is whole and as it was."""
        before = _version(entry.path)
        if before is None or digest_of(entry.path) != entry.sha256 or _version(entry.path) != before:
            return False
        with self._lock:
            self._entries[key] = entry
            self._verified[key] = before
        return True

    def put(self, key: str, part: Path, entry: Entry) -> None:
        """Give the finished part its name: octets, then description, each whole or not there. Raises OSError."""
        fd = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        about = self.folder / f"{key}.json"
        about.unlink(missing_ok=True)
        os.replace(part, entry.path)
        (self.folder / f"{key}.begun").unlink(missing_ok=True)
        self.renew(key, entry)
        version = _version(entry.path)
        with self._lock:
            if version is not None:
                self._verified[key] = version

    def renew(self, key: str, entry: Entry) -> None:
        """Replace what is said about an image whose octets stay. Raises OSError: it holds until this process ends."""
        with self._lock:
            self._entries[key] = entry
            self._entries.move_to_end(key)
        _write(self.folder / f"{key}.json", entry)

    def drop(self, key: str) -> None:
        with self._lock:
            self._verified.pop(key, None)
            entry = self._entries.pop(key, None)
        if entry is not None:
            for path in (self.folder / f"{key}.json", Path(entry.path)):
                path.unlink(missing_ok=True)

    def make_room(self, key: str, size: int, missing: int) -> bool:
        """Throw away what was not used for longest until an image of `size` fits in, `missing` octets of which are not
        on the disk yet; never `key` itself. Whether it fits now.

        Raises OSError (ENOSPC) where the disk has no room.
        """
        with self._lock:
            others = [(other, entry.size) for other, entry in self._entries.items() if other != key]
        total = sum(kept for _, kept in others) + size
        for other, kept in others:
            if total <= self._size and self._free() >= missing:
                break
            self.drop(other)
            total -= kept
        if self._free() < missing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return total <= self._size

    def claim(self, key: str) -> int | None:
        """A descriptor of the image's part that nobody else writes to, until it is closed; None: somebody does.

        Raises OSError.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f"{key}.part"
        while True:
            fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.stat(part).st_ino == os.fstat(fd).st_ino:
                    return fd
            except BlockingIOError:
                os.close(fd)
                return None
            except FileNotFoundError:
                pass  # finished between the two by another process: its name is another now
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def release(self, key: str, fd: int) -> None:
        """Let go of a part; it is thrown away unless somebody shall go on with it."""
        part = self.folder / f"{key}.part"
        with contextlib.suppress(OSError):
            if self.begun(key) is None and os.stat(part).st_ino == os.fstat(fd).st_ino:
                part.unlink()
        os.close(fd)

    def begun(self, key: str) -> Begun | None:
        """What is known of the part."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            return Begun(**json.loads((self.folder / f"{key}.begun").read_bytes()))
        return None

    def begin(self, key: str, begun: Begun | None) -> None:
        """Remember what the part is of; None: nobody shall go on with it. Raises OSError."""
        path = self.folder / f"{key}.begun"
        if begun is None:
            path.unlink(missing_ok=True)
        else:
            _write(path, begun)

    def _free(self) -> int:
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def _load(self) -> None:
        """Find what earlier runs left; sweep away what nobody will finish."""
        try:
            names = sorted(os.listdir(self.folder))
        except OSError:
            return
        found: list[tuple[float, str, Entry]] = []
        for name in names:
            path, (key, _, kind) = self.folder / name, name.partition(".")
            with contextlib.suppress(OSError):
                status = path.stat()
                if kind == "json":
                    if (entry := self.on_disk(key)) is None:
                        path.unlink()
                    else:
                        found.append((os.stat(entry.path).st_atime, key, entry))
                elif kind in ("image", "part"):
                    about, old = self.folder / f"{key}.{ABOUT[kind]}", time.time() - status.st_mtime > PART_SECONDS
                    if (not about.exists() or (kind == "part" and old)) and _is_nobodys(path):
                        path.unlink()
                elif time.time() - status.st_mtime > PART_SECONDS:
                    path.unlink()
        self._entries = OrderedDict((key, entry) for _, key, entry in sorted(found, key=lambda one: one[0]))

    def on_disk(self, key: str) -> Entry | None:
        """What the disk has, whoever put it there."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            entry = Entry(**json.loads((self.folder / f"{key}.json").read_bytes()))
            if entry.path == str(self.folder / f"{key}.image") and os.stat(entry.path).st_size == entry.size:
                return entry
        return None


def digest_of(path: str) -> str:
    """SHA-256 of a file in lower-case hexadecimal, "" where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _version(path: str) -> _Version | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _is_nobodys(path: Path) -> bool:
    """Whether no process is writing to it."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _write(path: Path, value: Entry | Begun) -> None:
    fresh = path.with_suffix(f".{os.getpid()}.fresh")
    fresh.write_text(json.dumps({name: getattr(value, name) for name in value.__slots__}))
    os.replace(fresh, path)
