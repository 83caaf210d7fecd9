"""Debian packages that the lab needs: which are missing, and putting them in place with apt when we may."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from bootwire.lab.network import LabError

_POLICY = Path("/usr/sbin/policy-rc.d")  # invoke-rc.d(8): exit status 101 forbids starting a service
_FORBID = "#!/bin/sh\nexit 101\n"
_INSTALL = ("apt-get", "install", "-y", "--no-install-recommends")


def install(packages: Sequence[str]) -> None:
    """Install Debian packages, starting none of their services. Needs root. Raises LabError with the command to run."""
    remedy = f"run  sudo apt-get install --no-install-recommends {' '.join(packages)}"
    if shutil.which("apt-get") is None:
        raise LabError(
            f"missing, and there is no apt-get here: {' '.join(packages)}\n  install them by their names here"
        )
    if os.geteuid() != 0:
        raise LabError(f"missing: {' '.join(packages)}\n  {remedy}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with _no_service_starts():
        done = _apt([*_INSTALL, *packages], environment)
        if done.returncode:  # perhaps because the lists are old
            _apt(["apt-get", "update"], environment)
            done = _apt([*_INSTALL, *packages], environment)
    if done.returncode:
        raise LabError(f"apt-get could not install {' '.join(packages)}\n{_last_lines(done.stdout)}\n  {remedy}")


def _apt(command: Sequence[str], environment: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        check=False,
    )


def _last_lines(output: bytes) -> str:
    return "\n".join("  " + line for line in output.decode(errors="replace").splitlines()[-6:])


@contextlib.contextmanager
def _no_service_starts() -> Iterator[None]:
    """A DHCP server that starts by itself would be on the host's network; one with a policy of its own keeps it."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text(_FORBID)
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)
