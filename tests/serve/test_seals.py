"""Sealed tokens: only ours, only for their purpose, only until their time; the key outlives a restart."""

from __future__ import annotations

import base64
import os
import random
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bootwire.serve.seals import KEY_FILE, Sealed, Seals, load_key

NOW = 1_700_000_000.0
MAC = "52:54:00:12:34:56"
KEY = bytes(range(32))


def test_what_is_sealed_is_opened() -> None:
    token = Seals(KEY).seal("image", MAC, ("https://h/k?a=ä", "", "kernel"), NOW, 60)
    assert Seals(KEY).open("image", token, NOW + 59) == Sealed(MAC, int(NOW) + 60, ("https://h/k?a=ä", "", "kernel"))
    assert token.replace("-", "").replace("_", "").isalnum()
    assert "https" not in base64.urlsafe_b64decode(token + "==").decode("latin-1")  # nobody reads it


def test_an_expired_token_says_since_when() -> None:
    token = Seals(KEY).seal("image", MAC, ("x",), NOW, 60)
    assert Seals(KEY).open("image", token, NOW + 70) == "the URL has expired 10 s ago"


@pytest.mark.parametrize("scope", ["", "secret", "imag", "image "])
def test_a_token_is_good_for_its_own_purpose_only(scope: str) -> None:
    token = Seals(KEY).seal("image", MAC, ("x",), NOW, 60)
    assert isinstance(Seals(KEY).open(scope, token, NOW), str)


def test_another_servers_token_is_none_of_ours() -> None:
    token = Seals(bytes(32)).seal("image", MAC, ("x",), NOW, 60)
    assert Seals(KEY).open("image", token, NOW) == "the token in the URL is not one of this server's"


def test_of_a_hundred_thousand_forgeries_none_is_accepted() -> None:
    seals, chance = Seals(KEY), random.Random(7)
    good = seals.seal("image", MAC, ("https://h/k", "", "kernel"), NOW, 60)
    raw = base64.urlsafe_b64decode(good + "=" * (-len(good) % 4))
    accepted = 0
    for number in range(100_000):
        forged = bytearray(raw)
        match number % 4:
            case 0:
                forged[chance.randrange(len(forged))] ^= 1 << chance.randrange(8)
            case 1:
                del forged[chance.randrange(len(forged)) :]
            case 2:
                forged += chance.randbytes(chance.randrange(1, 9))
            case _:
                forged = bytearray(chance.randbytes(chance.randrange(200)))
        accepted += isinstance(seals.open("image", base64.urlsafe_b64encode(forged).decode().rstrip("="), NOW), Sealed)
    assert accepted == 0


@pytest.mark.parametrize("token", ["", "=", "a", "..", "a" * 100_000, "%00", "ä", "\ud800", "a+b/", "a b"])
def test_what_is_no_token_is_refused(token: str) -> None:
    assert isinstance(Seals(KEY).open("image", token, NOW), str)


def test_the_key_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    state = tmp_path / "new" / "state"
    key = load_key(state)
    assert (len(key), load_key(state)) == (32, key)
    assert stat.S_IMODE(os.stat(state / KEY_FILE).st_mode) == 0o600
    assert os.listdir(state) == [KEY_FILE]


def test_a_torn_key_file_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_bytes(b"short")
    assert len(load_key(tmp_path)) == 32


def test_servers_that_start_at_once_have_one_key(tmp_path: Path) -> None:
    (tmp_path / f".{KEY_FILE}.{os.getpid()}").write_bytes(b"what a crash left")
    with ThreadPoolExecutor(8) as threads:
        keys = set(threads.map(load_key, [tmp_path] * 64))
    assert len(keys) == 1


def test_a_url_made_before_a_restart_or_by_another_server_of_the_same_key_holds(tmp_path: Path) -> None:
    token = Seals(load_key(tmp_path)).seal("image", MAC, ("x",), NOW, 60)
    assert Seals(load_key(tmp_path)).open("image", token, NOW) == Sealed(MAC, int(NOW) + 60, ("x",))
