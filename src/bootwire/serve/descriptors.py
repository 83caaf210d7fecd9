"""Descriptors: as many as may be had, and the kernel's table of them made before they are needed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource

DESCRIPTORS = 16_384
"""Twice the transfers and connections there may be at most, and some to spare."""


def prepare(wanted: int = DESCRIPTORS) -> int:
    """Raise our own limit of open files towards `wanted`, as far as that needs no privilege; what it is now.

    The kernel's table grows when a descriptor does not fit, to 256, 512, 1024 …; in a process with threads each step
    waits for an RCU grace period (fs/file.c, expand_fdtable), 10-20 ms in which nobody is served. So it is made to
    grow now, once.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft == resource.RLIM_INFINITY:
        limit = wanted
    elif soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        limit = most
    else:
        limit = soft
    with contextlib.suppress(OSError):  # without it we are slower for a moment
        highest = os.eventfd(0, os.EFD_CLOEXEC)
        try:
            os.close(fcntl.fcntl(highest, fcntl.F_DUPFD_CLOEXEC, min(limit, wanted) - 1))
        finally:
            os.close(highest)
    return limit
