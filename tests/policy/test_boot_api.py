"""The boot API: every form of answer that Pixiecore documents, what it did with it, and what is done here.

The table is also in docs/reference/boot-api.md; the forms are those of danderson/netboot pixiecore/README.api.md and
booters_test.go. "as Pixiecore" is what that program does; where the comment says otherwise, the difference is meant.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.policy.boot_api import Wrong, about, boot_url, expand_cmdline, locate, read_answer
from bootwire.policy.go_template import TemplateError
from bootwire.policy.target import Image, Target, Traits
from bootwire.wire.bootinfo import Boot, DiskPartition, Reboot, Wait

PREFIX = "http://api.example:8080/pxe"


def read(answer: object, prefix: str = PREFIX) -> Target:
    found = read_answer(answer if isinstance(answer, bytes) else json.dumps(answer).encode(), prefix)
    assert isinstance(found, Target), found
    return found


def wrong(answer: object) -> str:
    found = read_answer(answer if isinstance(answer, bytes) else json.dumps(answer).encode(), PREFIX)
    assert isinstance(found, Wrong), found
    return found.because


def cmdline(given: object) -> str:
    target = read({"kernel": "k", "cmdline": given})
    return expand_cmdline(target.cmdline, PREFIX, {"URL": lambda url: f"<{url}>", "ID": lambda url: f"[{url}]"})


@pytest.mark.parametrize(
    ("given", "prefix", "location"),
    [
        ("https://files.example/k", PREFIX, "https://files.example/k"),  # absolute
        ("/k", PREFIX, "http://api.example:8080/k"),  # from the host's root
        ("i1", PREFIX, "http://api.example:8080/pxe/i1"),  # beside v1
        ("i1", PREFIX + "/", "http://api.example:8080/pxe/i1"),
        ("i1", "http://api.example", "http://api.example/i1"),
        ("a/../b", PREFIX, "http://api.example:8080/pxe/b"),
        ("file:///srv/my%20kernel", PREFIX, "/srv/my kernel"),  # a file of this machine
    ],
)
def test_where_images_are(given: str, prefix: str, location: str) -> None:
    assert locate(given, prefix) == location
    assert read({"kernel": given}, prefix).kernel == Image(location)


@pytest.mark.parametrize("given", ["file://elsewhere/x", "file:relative", "ftp://h/x", "gopher:x", "http:///x", "a b"])
def test_what_is_no_place_for_an_image(given: str) -> None:
    assert isinstance(read_answer(json.dumps({"kernel": given}).encode(), PREFIX), Wrong)


def test_kernel_initrds_cmdline_and_message_as_pixiecore() -> None:
    target = read({"kernel": "k", "initrd": ["a", "b"], "cmdline": "quiet", "message": "Hello"})
    base = "http://api.example:8080/pxe/"
    assert (target.kernel, target.initrds) == (Image(base + "k"), (Image(base + "a"), Image(base + "b")))
    assert (target.cmdline, target.message) == ("quiet", "Hello")  # Pixiecore drops the message


def test_names_without_regard_to_case_unknown_ones_and_what_stands_behind_as_pixiecore() -> None:
    target = read(b'\xef\xbb\xbf {"Kernel": "k", "INITRD": null, "colour": [1, {"a": 2}]} trailing')
    assert target.initrds == ()


def test_a_name_that_fits_exactly_counts_more() -> None:
    target = read(b'{"kernel": "exact", "KERNEL": "other"}')
    assert target.kernel == Image("http://api.example:8080/pxe/exact")


def test_a_script_overrides_everything_and_is_kept_as_it_is_as_pixiecore() -> None:
    target = read({"ipxe-script": "#!ipxe\necho {{ hi }}\n", "kernel": "k"})
    assert (target.script, target.kernel) == ("#!ipxe\necho {{ hi }}\n", None)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (None, ""),
        ("console=ttyS0", "console=ttyS0"),
        ('c={{ URL "https://h/c.yaml" }}', "c=<https://h/c.yaml>"),
        ('c={{ URL "c.yaml" }}', "c=<http://api.example:8080/pxe/c.yaml>"),
        ('c={{ ID "file:///srv/c.yaml" }}', "c=[/srv/c.yaml]"),
        ({}, ""),
        ({"b": True, "a": False}, "a b"),  # false is a bare word, too, as Pixiecore
        ({"k": 'v "quoted"'}, 'k="v \\"quoted\\""'),
        ({"k": {"url": "https://h/c"}}, "k=<https://h/c>"),
        ({"k": "{{ not a template }}"}, 'k="{{ not a template }}"'),
    ],
)
def test_cmdlines_as_pixiecore(given: object, text: str) -> None:
    assert cmdline(given) == text


@pytest.mark.parametrize(
    ("answer", "because"),
    [
        ({}, "names no kernel"),  # Pixiecore boots its own API's URL
        ({"kernel": ""}, "names no kernel"),
        ({"kernel": 7}, "kernel is a number where a URL should be"),
        ({"kernel": "k", "initrd": "a"}, "initrd is a text where a list should be"),
        ({"kernel": "k", "initrd": [None]}, "initrd is null where a URL should be"),
        ({"kernel": "k", "initrd": ["a"] * 65}, "more than 64 initrds"),
        ({"kernel": "k", "cmdline": 3}, "cmdline is a number where a text should be"),
        ({"kernel": "k", "cmdline": {"a": 3}}, "cmdline entry 'a' is a number"),
        ({"kernel": "k", "cmdline": {"a": ["x"]}}, "cmdline entry 'a' is a list"),
        ({"kernel": "k", "cmdline": {"a": {"uri": "x"}}}, "cmdline entry 'a' is an object"),
        ({"kernel": "k", "message": []}, "message is a list where a text should be"),
        ({"kernel": {"url": "k", "sha256": "abc"}}, "sha256 of kernel is no 64 hexadecimal digits"),
        ([], "a list where a JSON object should be"),
        (b"", "no JSON"),
        (b"<html>", "no JSON"),
        (b"\xff\xfe{}", "no UTF-8"),
        (b"[" * 100_000, "too deeply"),
        (b" " * (2 << 20), "longer than 1 MiB"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_reason(answer: object, because: str) -> None:
    assert because in wrong(answer)


@pytest.mark.parametrize("given", ['a={{ URL "x" }}\nb', "{{ print `a\nb` }}"])
def test_a_cmdline_with_a_line_break_is_refused_as_pixiecore(given: str) -> None:
    with pytest.raises(TemplateError, match="line break"):
        cmdline(given)


def test_an_image_that_a_template_names_must_be_one() -> None:
    with pytest.raises(TemplateError, match="neither http, https nor file"):
        cmdline('{{ URL "ldap://h/x" }}')


def test_digests_profile_reason_and_local_disk_are_ours() -> None:
    target = read({"kernel": {"url": "k", "sha256": "AB" * 32}, "profile": "web", "because": "rack 3"})
    assert target.kernel == Image("http://api.example:8080/pxe/k", "ab" * 32)
    assert (target.profile, target.because) == ("web", "the boot service says: rack 3")
    assert read({"local": True}).local


def test_what_the_service_is_told() -> None:
    traits = Traits(
        "52:54:00:12:34:56", uuid="u", platform="arm64", architecture=11, circuit_id="eth 7", stage="discover"
    )
    assert boot_url(PREFIX + "/", traits.machine) == PREFIX + "/v1/boot/52:54:00:12:34:56"
    assert about(traits) == "arch=arm64&architecture=11&uuid=u&circuit-id=eth+7&stage=discover"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)
    )
)
def test_any_json_is_a_target_or_refused(value: object) -> None:
    for answer in (value, {"kernel": value}, {"kernel": "k", "initrd": value}, {"kernel": "k", "cmdline": value}):
        assert isinstance(read_answer(json.dumps(answer).encode(), PREFIX), Target | Wrong)


@given(st.binary(max_size=200))
def test_any_octets_are_a_target_or_refused(body: bytes) -> None:
    assert isinstance(read_answer(body, PREFIX), Target | Wrong)


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ({"bootinfo": "wait"}, Target("the boot service says so", bootinfo=Boot(Wait()))),
        ({"local": True, "bootinfo": "disk 0x80 partition 2"},
         Target("the boot service says so", local=True, bootinfo=Boot(DiskPartition(0x80, 2)))),
        ({"ipxe-script": "#!ipxe", "bootinfo": "reboot"},
         Target("the boot service says so", script="#!ipxe", bootinfo=Boot(Reboot()))),
    ],
)  # fmt: skip
def test_an_answer_to_bootinfo_stands_beside_the_others_or_alone(answer: object, target: Target) -> None:
    assert read(answer) == target


def test_an_answer_to_bootinfo_that_is_none_is_refused() -> None:
    assert wrong({"bootinfo": "dance", "local": True}).startswith("bootinfo: no bootinfo action: 'dance'; one of")
