"""HTTP authentication, the client's side: Basic (RFC 7617) and Digest (RFC 7616)."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Literal


@dataclass(slots=True)
class Challenge:
    """What a server or proxy asked for, and how many answers were built on it."""

    scheme: Literal["basic", "digest"]
    parameters: dict[str, str]
    count: int = 0


def best_challenge(field: str) -> Challenge | None:
    """The best of the challenges in a field: digest with SHA-256, digest with MD5, basic (RFC 9110 section 11.6.1)."""
    found: list[Challenge] = []
    at = 0
    while at < len(field) and (match := _PARAMETER.match(field, at)):
        name, at = match[1].lower(), match.end()
        if match[2] is None and match[3] is None:
            if name in ("basic", "digest"):
                found.append(Challenge("basic" if name == "basic" else "digest", {}))
            else:
                found.append(Challenge("digest", {"algorithm": "unknown"}))
        elif found:
            found[-1].parameters[name] = re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
    return min((one for one in found if _rank(one) < len(_ORDER)), key=_rank, default=None)


def answer(challenge: Challenge, username: str, password: str, method: str, target: str, cnonce: str) -> str:
    """The value of Authorization or Proxy-Authorization; counts the use of the challenge."""
    challenge.count += 1
    if challenge.scheme == "basic":
        return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
    return digest(challenge.parameters, username, password, method, target, cnonce, challenge.count)


def digest(
    challenge: dict[str, str], username: str, password: str, method: str, target: str, cnonce: str, count: int
) -> str:
    """The value of Authorization (RFC 7616 section 3.4). challenge: its parameters, names in lower case."""
    algorithm = challenge.get("algorithm", "MD5")
    name = "sha256" if algorithm.upper().startswith("SHA-256") else "md5"

    def h(text: str) -> str:
        return hashlib.new(name, text.encode(), usedforsecurity=False).hexdigest()

    realm, nonce = challenge.get("realm", ""), challenge.get("nonce", "")
    secret = h(f"{username}:{realm}:{password}")
    if algorithm.lower().endswith("-sess"):
        secret = h(f"{secret}:{nonce}:{cnonce}")
    offered = [word.strip().lower() for word in challenge.get("qop", "").split(",")]
    said = [("username", username), ("realm", realm), ("nonce", nonce), ("uri", target)]
    plain = [("algorithm", algorithm)] if "algorithm" in challenge else []
    if "auth" in offered:
        times = f"{count:08x}"
        answer = h(f"{secret}:{nonce}:{times}:{cnonce}:auth:{h(f'{method}:{target}')}")
        said.append(("cnonce", cnonce))
        plain += [("qop", "auth"), ("nc", times)]
    else:
        answer = h(f"{secret}:{nonce}:{h(f'{method}:{target}')}")
    said.append(("response", answer))
    if "opaque" in challenge:
        said.append(("opaque", challenge["opaque"]))
    quoted = [f'{key}="{_escaped(value)}"' for key, value in said]
    return "Digest " + ", ".join([*quoted, *(f"{key}={value}" for key, value in plain)])


# --- helpers ----------------------------------------------------------------------------------------------------


def _escaped(text: str) -> str:
    """A quoted-string's inside (RFC 9110 section 5.6.4), on one line."""
    return re.sub(r'(["\\])', r"\\\1", re.sub(r"[\x00-\x1f\x7f]", "", text))


_PARAMETER = re.compile(
    r'[ \t,]*([A-Za-z0-9!#$%&\'*+.^_`|~-]+)(?:[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^ \t,"]+))|([ \t]+|$|(?=,)))'
)


_ORDER = {"SHA-256": 0, "SHA-256-SESS": 1, "MD5": 2, "MD5-SESS": 3, "basic": 4}


def _rank(challenge: Challenge) -> int:
    name = "basic" if challenge.scheme == "basic" else challenge.parameters.get("algorithm", "MD5").upper()
    return _ORDER.get(name, len(_ORDER))
