"""Files as content: a published directory that nothing escapes from, and single files the operator named."""

from __future__ import annotations

import errno
import os
import stat

from bootwire.serve.content import Content, Missing
from bootwire.wire import http

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

MAX_NAME = 4096  # octets: PATH_MAX of Linux
MAX_LINKS = 40  # symbolic links followed for one name: MAXSYMLINKS of Linux


class PublishedDirectory:
    """A directory whose regular files anyone may read, by names below it.

    Every component is opened below the one before it, never through a path, and never through a symbolic link: a link
    is read and its target walked in the same way, from the directory it stands in. So a relative link that stays
    inside works (Debian's netboot trees are full of them); one that is absolute or climbs out does not, whenever it
    was put there.
    """

    def __init__(self, path: str) -> None:
        """Raises OSError: no such directory, or none that may be entered."""
        self.path = path
        self._root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def open(self, name: str | bytes) -> Content | Missing:
        """Open the regular file called `name`, relative to the directory; a leading "/" and "\\" for "/" are accepted.

        The walk opens at most one descriptor a component; it never blocks on a FIFO or device.
        """
        raw = os.fsencode(name) if isinstance(name, str) else name
        shown = http.os_name(raw)
        if b"\0" in raw or len(raw) > MAX_NAME:
            return Missing("a name that no file has")
        try:
            fd = self._walk(raw.replace(b"\\", b"/").split(b"/"))
        except OSError as error:
            return _missing(error)
        except _Outside as outside:
            return Missing(str(outside), forbidden=True)
        return _content(fd, shown, http.media_type(shown))

    def close(self) -> None:
        os.close(self._root)
