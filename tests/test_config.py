"""The fleet file: read whole, or everything that is wrong told at once, each with its line and what to do."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire import config
from bootwire.config import Entry, Fleet, Network, Profile, ServerEntry, read
from bootwire.policy.rules import KEYS

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/reference/fleet-file.md").read_text()
EXAMPLE = ROOT / "docs/examples/fleet/fleet.toml"


def problems(text: str) -> list[tuple[int, str, str]]:
    found = read(text, "f.toml")
    assert isinstance(found, list), found
    return [(one.line, one.what, one.fix) for one in found]


def test_the_example_is_a_fleet() -> None:
    fleet = read(EXAMPLE.read_text(), "fleet.toml")
    assert isinstance(fleet, Fleet)
    assert [rule.title for rule in fleet.rules] == [
        "machine web-1 (fleet.toml:36)", "machine db-1 (fleet.toml:42)", "group arm boards (fleet.toml:47)",
        "group rack 3 (fleet.toml:52)",
    ]  # fmt: skip
    assert EXAMPLE.read_text().splitlines()[35] == "[[machine]]"


def test_all_mistakes_are_told_at_once_with_their_lines() -> None:
    text = """\
[profile.linux]
kernel = "x"

[profiles.linux]
kernel = "vmlinuz"
kernal = 3
cmdline = 7
[profiles.both]
kernel = "x"
local = true
[profiles.none]
message = '''
[[machine]]
'''
[[machine]]
name = "a"
mac = "52:54:00:12:34:5x"
profile = "linx"
[[machine]]
profile = "linux"
[[group]]
match = { arch = "amd64", serail = "x" }
profile = "linux"
"""
    assert problems(text) == [
        (1, "the file has no key 'profile'", "did you mean 'profiles'?"),
        (6, "profiles.linux has no key 'kernal'", "did you mean 'kernel'?"),
        (7, "cmdline: expected a text, got a whole number", ""),
        (8, "profile both has kernel and local at once", "give it one of kernel, script, script-file, local"),
        (11, "profile none has nothing to boot", "give it one of kernel, script, script-file, local"),
        (17, "mac: 52:54:00:12:34:5x is no MAC address: write 52:54:00:12:34:56, or its first octets", ""),
        (18, "no profile is called 'linx'", "did you mean 'linux'?"),
        (19, "machine everybody has no mac, uuid or serial to know it by", "several machines are a [[group]]"),
        (22, "arch: amd64 is no architecture: there are bios, i386, x86_64, arm32, arm64, riscv32, riscv64, loong64, "
             "or a number of option 93", ""),
        (22, "no condition is called 'serail'", "did you mean 'serial'?"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", 1, "no machine and no group: nothing would ever boot"),
        ("a = ", 1, "this is no TOML: invalid value"),
        ("[profiles.x]\nkernel = 'a\n", 3, "this is no TOML"),
        ("profiles = 3\n[[group]]", 1, "profiles should be a table"),
        ("[machine]\nmac = 'x'", 1, "machine should be a list of tables"),
        ("group = [3]", 1, "group number 1 should be a table"),
        ("[networks.lab]\nsubnet = 'x'\n[[group]]", 2, "write a subnet as 10.9.0.0/16"),
        ("[[group]]\nmatch = {network = 'lab'}", 2, "no network is called 'lab'"),
        ("[[group]]\nmatch = {mac = []}", 2, "mac: an empty list fits no machine"),
        ("[[group]]\nvariables = {'a-b' = 1}", 2, "'a-b' is no name for a variable"),
        ("[profiles.x]\nlocal = true\ninitrd = 'i'\n[[group]]", 3, "initrd without a kernel"),
        ("[profiles.x]\nkernel = {location = 'k', sha256 = 'zz'}\n[[group]]", 2, "sha256 of kernel is no 64"),
        ("[profiles.x]\nlocal = true\n[profiles.x.documents]\n'../x' = 'y'\n[[group]]", 3, "is no name for a document"),
        ("[server]\nhttp-port = 'x'\n[[group]]", 2, "http-port: expected"),
        ("x = " + "[" * 3000, 0, "nested too deeply"),
    ],
)
def test_a_mistake_and_its_line(text: str, line: int, what: str) -> None:
    (found, *_) = problems(text)
    assert found[0] == line
    assert what in found[1]


def test_the_same_machine_twice_is_a_mistake() -> None:
    text = "[[machine]]\nname='a'\nmac='52:54:00:12:34:56'\n[[machine]]\nmac='52-54-00-12-34-56'\n"
    assert problems(text) == [(4, "52:54:00:12:34:56 is machine a already (f.toml:1)", "remove one")]


def test_an_answer_to_bootinfo_is_checked_like_everything_else() -> None:
    text = '[profiles.a]\nlocal = true\nbootinfo = "dance"\n[[group]]\nprofile = "a"\n'
    ((line, what, _),) = problems(text)
    assert (line, what.startswith("bootinfo: no bootinfo action: 'dance'; one of: partition N")) == (3, True)


@pytest.mark.parametrize("kind", [Profile, Network, Entry, ServerEntry])
def test_the_reference_has_every_key(kind: type[msgspec.Struct]) -> None:
    for one in msgspec.structs.fields(kind):
        assert f"`{one.encode_name}`" in PAGE, one.encode_name


def test_the_reference_has_every_condition() -> None:
    assert all(f"`{key}`" in PAGE for key in KEYS)


@given(st.text(max_size=300))
def test_any_text_is_a_fleet_or_refused(text: str) -> None:
    assert read(text, "f") is not None


VALUES = st.recursive(
    st.text(max_size=8) | st.integers() | st.booleans(),
    lambda c: st.lists(c, max_size=3) | st.dictionaries(st.text(max_size=8), c, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["profiles", "networks", "group", "machine", "server", "variables", "x"]), VALUES)
)
def test_any_tables_are_a_fleet_or_refused(raw: dict[str, object]) -> None:
    found = config._Reader(raw, {}, "f").fleet()
    assert isinstance(found, Fleet) or found
