"""`bootwire prefetch`: what fleet files and URLs name is on disk afterwards, and what is not is told."""

from __future__ import annotations

import hashlib
import json
import random
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bootwire.cli import main
from http_rig import origin

IMAGE = random.Random(3).randbytes(100_000)
SHA256 = hashlib.sha256(IMAGE).hexdigest()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def serve(request: str, sock: socket.socket, number: int) -> object:
    status = "404 Not Found" if "/none" in request else "200 OK"
    sock.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(IMAGE)}\r\n\r\n".encode() + IMAGE)
    return None


def prefetch(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["prefetch", "--state-dir", str(folder), *arguments])


def test_a_url_is_kept_and_not_fetched_twice(tmp_path: Path) -> None:
    with origin(serve) as there:
        first, second = (prefetch(tmp_path, f"{there.url}/k#sha256={SHA256}") for _ in range(2))
        assert (first.exit_code, second.exit_code, len(there.heads)) == (0, 0, 1)
    assert first.output.startswith(f"fetched  {there.url}/k: 0.1 MB in ")
    assert second.output == f"kept     {there.url}/k: 0.1 MB, sha256 {SHA256}\n"


def test_everything_of_a_fleet_that_lives_at_a_url_is_kept(tmp_path: Path) -> None:
    with origin(serve) as there:
        fleet = tmp_path / "fleet.toml"
        fleet.write_text(
            f'[server]\nstate-dir = "{tmp_path}/state"\n[profiles.p]\nkernel = "{there.url}/k"\n'
            f'initrd = [{{ location = "{there.url}/i", sha256 = "{SHA256}" }}]\nfiles = {{ f = "{there.url}/f" }}\n'
            f'[profiles.q]\nkernel = "{there.url}/k"\n[[group]]\nname = "all"\nprofile = "p"\n'
        )
        result = CliRunner().invoke(main, ["prefetch", str(fleet), "--json"])
        assert result.exit_code == 0, result.output
        assert len(there.heads) == 3
    told = [json.loads(line) for line in result.output.splitlines()]
    assert [(one["location"].rpartition("/")[2], one["state"]) for one in told] == [
        ("k", "fetched"), ("i", "fetched"), ("f", "fetched"),
    ]  # fmt: skip
    assert len(list((tmp_path / "state" / "cache").glob("*.image"))) == 3


def test_what_cannot_be_had_is_told_and_the_rest_is_fetched(tmp_path: Path) -> None:
    with origin(serve) as there:
        result = prefetch(tmp_path, f"{there.url}/none", f"{there.url}/k#sha256={'0' * 64}", f"{there.url}/k")
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[0] == f"failed   {there.url}/none: 127.0.0.1 answers 404 Not Found"
    assert "its SHA-256 is" in lines[1]
    assert lines[2].startswith("fetched")


def test_a_cache_too_small_for_all_is_a_failure(tmp_path: Path) -> None:
    with origin(serve) as there:
        urls = [f"{there.url}/{number}#sha256={SHA256}" for number in range(11)]
        result = prefetch(tmp_path, "--cache-size", "0.001", *urls)
    assert result.exit_code == 1
    assert "--cache-size is too small" in result.output


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("http://h/k#sha1=00", "after # there should be  sha256="),
        ("no-such.toml", "cannot be read"),
    ],
)
def test_what_names_nothing_is_wrong_usage(tmp_path: Path, what: str, says: str) -> None:
    result = prefetch(tmp_path, what)
    assert (result.exit_code, says in result.output) == (2, True), result.output
