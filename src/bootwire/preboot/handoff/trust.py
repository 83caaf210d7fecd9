"""Is a file the one that was meant: its SHA-256, and a detached signature by a key that the user named.

Signatures are checked by the tools that are made for it: OpenPGP by gpgv; CMS (as iPXE's imgverify has it) and plain
RSA, ECDSA and Ed25519 by openssl. A signature that was given and cannot be checked is a refusal, never a pass.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bootwire.preboot.handoff.refusal import HandoffError

SECONDS = 60  # how long a tool may take; a tenth of a second is usual


def check_digest(data: bytes, expected: str) -> str:
    """The SHA-256 in hexadecimal. expected: what it must be, "" if nothing is known. Raises HandoffError."""
    found = hashlib.sha256(data).hexdigest()
    if expected and found != expected.strip().lower():
        raise HandoffError(
            f"its SHA-256 is {found}, not {expected.strip().lower()}", "fetch it again, or check where it comes from"
        )
    return found


def check_signature(data: bytes | Path, signature: bytes, keys: Sequence[Path]) -> str:
    """Check a detached signature of octets or of a file; who signed, a phrase. Raises HandoffError.

    keys: OpenPGP keyrings, binary or armoured, for OpenPGP signatures; certificates in PEM that the signer must
    lead to for CMS; public keys in PEM for plain signatures.
    """
    if not keys:
        raise HandoffError("it has a signature, but no key to check it with was given", "name the key to trust")
    known = [(key, _key(key)) for key in keys]
    rings = [(key, text) for key, text in known if not text.lstrip().startswith(_PEM)]
    others = [(key, text) for key, text in known if text.lstrip().startswith(_PEM)]
    with tempfile.TemporaryDirectory(prefix="bootwire-") as folder:
        place = Path(folder)
        if isinstance(data, Path):
            (place / "data").symlink_to(data.absolute())
        else:
            (place / "data").write_bytes(data)
        (place / "signature").write_bytes(_plain(signature))
        if rings and (found := _gpgv(place, rings)):
            return found
        for key, pem in others:
            if _openssl(place, key.absolute(), pem):
                return f"signed by {key.name}"
    raise HandoffError(
        "its signature is bad, or not by any of the keys given",
        "fetch it again, or check where it and the key come from",
    )


_PEM = (b"-----BEGIN CERTIFICATE", b"-----BEGIN PUBLIC KEY", b"-----BEGIN RSA PUBLIC KEY")


def _plain(data: bytes) -> bytes:
    """The octets inside armour or PEM; others as they are."""
    body = re.search(
        rb"-----BEGIN [^\n]+-----\r?\n(?:[^\r\n:]+:[^\n]*\n)*\s*(.*?)(?:\r?\n=[^\n]*)?\r?\n-----END", data, re.S
    )
    try:
        return base64.b64decode(body[1]) if body else data
    except binascii.Error:
        return data


def _gpgv(place: Path, keys: Sequence[tuple[Path, bytes]]) -> str:
    """Who signed, "" if none of these keys did."""
    _need("gpgv", "gpgv")
    options = []
    for number, (_, data) in enumerate(keys):
        ring = place / f"key{number}.gpg"
        ring.write_bytes(_plain(data))
        options += ["--keyring", str(ring)]
    status, said = _run(["gpgv", "--status-fd", "1", *options, str(place / "signature"), str(place / "data")], place)
    lines = [line.split(" ", 3)[1:] for line in said.splitlines() if line.startswith("[GNUPG:] ")]
    good = [fields[2] for fields in lines if fields[0] == "GOODSIG" and len(fields) > 2]
    valid = status == 0 and any(fields[0] == "VALIDSIG" for fields in lines)
    return f"signed by {good[0]}" if good and valid else ""


def _openssl(place: Path, key: Path, pem: bytes) -> bool:
    """A certificate is for CMS signatures, a public key for plain ones (SHA-256, or Ed25519 over all of it)."""
    _need("openssl", "openssl")
    if pem.lstrip().startswith(b"-----BEGIN CERTIFICATE"):
        command = ["cms", "-verify", "-inform", "DER", "-in", "signature", "-content", "data", "-binary",
                   "-purpose", "any", "-CAfile", str(key), "-out", "checked"]  # fmt: skip
    elif "ED25519" in _run(["openssl", "pkey", "-pubin", "-in", str(key), "-text", "-noout"], place)[1]:
        command = ["pkeyutl", "-verify", "-pubin", "-inkey", str(key), "-rawin", "-in", "data", "-sigfile", "signature"]
    else:
        command = ["dgst", "-sha256", "-verify", str(key), "-signature", "signature", "data"]
    return _run(["openssl", *command], place)[0] == 0


def _key(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise HandoffError(f"the key {path} cannot be read: {error.strerror}", "check the path of the key") from None


def _need(tool: str, package: str) -> None:
    if shutil.which(tool) is None:
        raise HandoffError(f"its signature cannot be checked: there is no {tool} here", f"apt-get install {package}")


def _run(command: list[str], place: Path) -> tuple[int, str]:
    environment = {"PATH": os.environ.get("PATH", os.defpath), "GNUPGHOME": str(place), "LC_ALL": "C"}
    done = subprocess.run(
        command, cwd=place, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False,
        env=environment,
    )  # fmt: skip
    return done.returncode, done.stdout
