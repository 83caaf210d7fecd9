"""The examples of the documentation run, and say what their pages say."""

from __future__ import annotations

import dataclasses
import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootwire.policy import go_template
from bootwire.policy.boot_api import about, boot_url, expand_cmdline, read_answer
from bootwire.policy.target import Target, Traits

ROOT = Path(__file__).resolve().parents[1]
API = json.loads((ROOT / "docs/reference/boot-api.json").read_text())
PAGE = (ROOT / "docs/reference/boot-api.md").read_text()


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    """The example service's prefix."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(ROOT / "docs/examples/boot_service.py"), "127.0.0.1", str(port)])
    try:
        while True:
            assert process.poll() is None
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except ConnectionRefusedError:
                continue
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def ask(service: str, traits: Traits) -> Target | int:
    url = f"{boot_url(service, traits.machine)}?{about(traits)}"
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            found = read_answer(answer.read(), service)
    except urllib.error.HTTPError as error:
        return error.code
    assert isinstance(found, Target)
    return found


def test_the_example_service_answers_in_every_way(service: str) -> None:
    linux = ask(service, Traits("52:54:00:12:34:56"))
    assert isinstance(linux, Target)
    assert linux.message == "Installing Debian"
    cmdline = expand_cmdline(linux.cmdline, service, {"URL": lambda url: f"<{url}>"})
    assert cmdline == "auto=true url=<http://127.0.0.1:8000/preseed.cfg> console=ttyS0"
    disk = ask(service, Traits("52:54:00:12:34:57"))
    assert isinstance(disk, Target)
    assert disk.local
    arm = ask(service, Traits("02:00:00:00:00:01", platform="arm64"))
    assert isinstance(arm, Target)
    assert arm.kernel is not None
    assert arm.kernel.location == "/srv/arm64/Image"
    assert ask(service, Traits("02:00:00:00:00:01", platform="x86_64")) == 404


def test_the_description_names_every_parameter_that_is_sent() -> None:
    texts = {field.name: "x" for field in dataclasses.fields(Traits)}
    everything = Traits(**texts | {"architecture": 7})  # type: ignore[arg-type]
    said = {pair.partition("=")[0] for pair in about(everything).split("&")}
    described = {p["name"] for p in API["paths"]["/v1/boot/{mac}"]["get"]["parameters"] if p["in"] == "query"}
    assert said == described
    assert all(f"`{name}`" in PAGE for name in said)


def test_the_page_names_every_field_of_an_answer() -> None:
    assert all(f"`{name}`" in PAGE for name in API["components"]["schemas"]["Boot"]["properties"])


def test_the_description_has_the_limits_that_the_code_has() -> None:
    from bootwire.policy.boot_api import MAX_INITRDS

    assert API["components"]["schemas"]["Boot"]["properties"]["initrd"]["maxItems"] == MAX_INITRDS
    assert go_template.expand('{{ URL "x" }}', {"URL": str.upper}) == "X"
