"""Is an InRelease file signed by a key that this machine trusts? Asked of gpgv, or of sqv where apt uses that.

Only what the tool gives back as signed is believed, never what stands around it.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from bootwire.serve.apt import Mirror
from bootwire.serve.deb import PackageError

SECONDS = 60  # how long a tool may take; a tenth of a second is usual


class Untrusted(PackageError):
    """A signature that is not good: stop, do not look elsewhere for one that is."""


def signed_text(data: bytes, mirror: Mirror) -> tuple[str, str]:
    """The signed text of an InRelease file (RFC 9580 section 7), and how it was verified.

    Without a tool or without keys the text is taken as it is, and the second part says so. Raises Untrusted where
    there are both and the signature is bad or by an unknown key.
    """
    tool = next((name for name in ("gpgv", "sqv") if shutil.which(name)), None)
    if tool is None:
        return _unchecked(data), "signature not checked: neither gpgv nor sqv on this machine"
    with tempfile.TemporaryDirectory(prefix="bootwire-") as folder:
        place = Path(folder)
        keyrings = _keyrings(mirror, place)
        if not keyrings:
            return _unchecked(data), "signature not checked: no archive keys on this machine"
        signed, text = place / "InRelease", place / "text"
        signed.write_bytes(data)
        by = (_gpgv if tool == "gpgv" else _sqv)(keyrings, signed, text)
        if not by:
            raise Untrusted(
                f"{mirror.base}: the signature of InRelease is bad, or by none of the keys of this machine",
                "archive keys are in the packages debian-archive-keyring and ubuntu-keyring",
            )
        return text.read_text("utf-8", "replace"), f"signed by {by}"


def _gpgv(keyrings: list[Path], signed: Path, text: Path) -> str:
    """Name of the key, "" if the signature is not good. A second signature by a key that we lack does no harm."""
    options = [option for path in keyrings for option in ("--keyring", str(path))]
    _, said = _run(["gpgv", "--status-fd", "1", *options, "--output", str(text), str(signed)], signed.parent)
    status = [line.split(" ", 3)[1:] for line in said.splitlines() if line.startswith("[GNUPG:] ")]
    words = {fields[0] for fields in status}
    good = [fields[2] for fields in status if fields[0] == "GOODSIG" and len(fields) > 2]
    if not good or "VALIDSIG" not in words or "BADSIG" in words:
        return ""
    return re.sub(r" *<[^>]*>$", "", good[0])


def _sqv(keyrings: list[Path], signed: Path, text: Path) -> str:
    for path in keyrings:  # one at a time: a keyring that it cannot read must not spoil the others
        status, said = _run(["sqv", f"--keyring={path}", f"--output={text}", "--cleartext", str(signed)], signed.parent)
        if status == 0 and said.split():
            return f"key {said.split()[0]}"
    return ""


def _run(command: list[str], home: Path) -> tuple[int, str]:
    environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "GNUPGHOME": str(home), "LC_ALL": "C"}
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False, env=environment
    )
    return done.returncode, done.stdout


def _keyrings(mirror: Mirror, place: Path) -> list[Path]:
    """Keyrings as the tools read them: armoured ones are decoded into `place`."""
    found = []
    armoured = list(mirror.keys)
    for path in mirror.keyrings:
        with contextlib.suppress(OSError):
            data = path.read_bytes()
            if data.startswith(b"-----BEGIN PGP"):
                armoured.append(data.decode("ascii", "replace"))
            else:
                found.append(path)
    for number, text in enumerate(armoured):
        body = re.search(r"-----BEGIN PGP PUBLIC KEY BLOCK-----\n(?:[^\n]+\n)*\s*\n(.*?)\n(?:=|-----END)", text, re.S)
        with contextlib.suppress(ValueError):
            if body:
                path = place / f"key{number}.gpg"
                path.write_bytes(base64.b64decode(body[1]))
                found.append(path)
    return found


def _unchecked(data: bytes) -> str:
    """The text between the armour lines, dash-escapes undone."""
    text = data.decode("utf-8", "replace")
    found = re.search(r"-----BEGIN PGP SIGNED MESSAGE-----\n(?:[^\n]+\n)*\n(.*?)\n-----BEGIN PGP SIGNATURE", text, re.S)
    return re.sub(r"^- ", "", found[1] if found else text, flags=re.M)
