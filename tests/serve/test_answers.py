"""Names to octets: what a machine gets for each name it may ask, and that no name becomes a path."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootwire.assets.catalog import Blob, Inline, LocalFile, RemoteFile
from bootwire.assets.scripts import Caller
from bootwire.facts import Fact, HandedOver, ScriptServed
from bootwire.serve.answers import Answers, clean_name
from bootwire.serve.boot_scripts import Script
from bootwire.serve.content import Content, Missing, Peer, Reply, Upstream
from bootwire.serve.files import PublishedDirectory
from bootwire.wire.http import Request

MAC, PATH = "52:54:00:12:34:56", "52-54-00-12-34-56"
PEER = Peer("192.0.2.57", 2070, "192.0.2.1")


@pytest.fixture
def facts() -> list[Fact]:
    return []


@pytest.fixture
def answers(tmp_path: Path, facts: list[Fact]) -> Answers:
    (tmp_path / "kernel").write_bytes(b"a kernel")
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "notes.txt").write_bytes(b"notes")
    blobs = (
        Blob("x86_64/snponly.efi", 6, Inline(b"loader"), "application/efi"),
        Blob("kernel", 8, LocalFile(str(tmp_path / "kernel"))),
        Blob("initrd/0", -1, RemoteFile("https://images.example/initrd.gz")),
    )
    return Answers(
        {blob.name: blob for blob in blobs},
        first_script=lambda machine, ours: f"#!ipxe\n# {machine} {ours}\n".encode(),
        boot_script=lambda machine, _, who, peer: Script(
            f"#!ipxe\n# {machine} {who} {peer.ours}\n".encode(), "because"
        ),
        machine_at=lambda address: MAC if address == PEER.address else "",
        published=PublishedDirectory(str(tmp_path / "public")),
        record=facts.append,
    )


def get(path: str, *query: tuple[str, str]) -> Request:
    return Request("GET", path, query, {"user-agent": "iPXE/2.0.0"})


def test_a_loader_is_found_with_and_without_the_machine_before_its_name(answers: Answers) -> None:
    for name in (b"x86_64/snponly.efi", f"{PATH}/x86_64/snponly.efi".encode(), b"/x86_64\\snponly.efi"):
        found = answers.tftp(name, PEER)
        assert isinstance(found, Content)
        assert (found.data, found.machine, found.name) == (b"loader", MAC, "x86_64/snponly.efi")


def test_the_machine_in_the_name_counts_more_than_the_address(answers: Answers) -> None:
    found = answers.tftp(b"aa-bb-cc-dd-ee-ff/x86_64/snponly.efi", PEER)
    assert isinstance(found, Content)
    assert found.machine == "aa:bb:cc:dd:ee:ff"


@pytest.mark.parametrize("name", [b"autoexec.ipxe", f"{PATH}/x86_64/autoexec.ipxe".encode(), b"/autoexec.ipxe"])
def test_autoexec_is_answered_wherever_ipxe_looks_for_it(answers: Answers, facts: list[Fact], name: bytes) -> None:
    found = answers.tftp(name, PEER)
    assert isinstance(found, Content)
    assert found.data == f"#!ipxe\n# {MAC} 192.0.2.1\n".encode()
    assert [type(fact) for fact in facts] == [ScriptServed]


def test_the_script_is_made_for_the_machine_that_says_its_mac(answers: Answers, facts: list[Fact]) -> None:
    found = answers.http(get("/boot.ipxe", ("mac", "AA-BB-CC-DD-EE-FF"), ("arch", "x86_64")), PEER)
    assert isinstance(found, Reply)
    assert found.body == f"#!ipxe\n# aa:bb:cc:dd:ee:ff {Caller('x86_64', '', '2.0.0')} 192.0.2.1\n".encode()
    assert isinstance(facts[0], ScriptServed)
    assert facts[0].machine == "aa:bb:cc:dd:ee:ff"


@pytest.mark.parametrize("mac", ["", "nonsense", "../../etc", "aa-bb", "${mac}"])
def test_without_a_mac_the_address_tells_the_machine(answers: Answers, mac: str) -> None:
    found = answers.http(get("/boot.ipxe", ("mac", mac)), PEER)
    assert isinstance(found, Reply)
    assert found.machine == MAC


def test_a_kernel_file_is_opened_and_a_kernel_url_is_streamed(answers: Answers) -> None:
    kernel = answers.http(get(f"/boot/{PATH}/kernel"), PEER)
    assert isinstance(kernel, Content)
    assert (kernel.size, kernel.machine) == (8, MAC)
    kernel.close()
    initrd = answers.http(get(f"/boot/{PATH}/initrd/0"), PEER)
    assert initrd == Upstream("initrd/0", "https://images.example/initrd.gz", MAC)


def test_the_marker_tells_of_the_hand_over_with_what_was_sent_since_the_script(
    answers: Answers, facts: list[Fact]
) -> None:
    answers.http(get("/boot.ipxe", ("mac", PATH)), PEER)
    answers.count(MAC, 8)
    answers.count("aa:bb:cc:dd:ee:ff", 8)
    assert isinstance(answers.http(get(f"/boot/{PATH}/started"), PEER), Reply)
    handed_over = facts[-1]
    assert isinstance(handed_over, HandedOver)
    assert (handed_over.machine, handed_over.octets) == (MAC, 8)


def test_published_files_are_at_the_tftp_root_and_below_files(answers: Answers) -> None:
    for found in (answers.tftp(b"notes.txt", PEER), answers.http(get("/files/notes.txt"), PEER)):
        assert isinstance(found, Content)
        assert found.size == 5
        found.close()


@pytest.mark.parametrize(
    "name", ["../kernel", "x/../../kernel", "/etc/passwd", "boot/../kernel", "kernel/../../../etc/passwd", "initrd/0"]
)
def test_no_other_name_leads_anywhere_by_tftp(answers: Answers, name: str) -> None:
    assert isinstance(answers.tftp(name.encode(), PEER), Missing)


@pytest.mark.parametrize(
    "path", ["/boot/../kernel", "/files/../kernel", "/kernel", "/boot/", "/nothing", "/boot/x/kernel"]
)
def test_no_other_path_leads_anywhere_by_http(answers: Answers, path: str) -> None:
    assert isinstance(answers.http(get(path), PEER), Missing)


@pytest.mark.parametrize("room", ["", "boot/"])
@pytest.mark.parametrize("name", ["\udcff", "a\nb", "\x1b[2J", "\u202e", "x" * 5000])
def test_a_hostile_name_is_refused_in_words_that_can_be_printed_and_sent(
    answers: Answers, room: str, name: str
) -> None:
    found = answers.http(get(f"/{room}{name}"), PEER)
    assert isinstance(found, Missing)
    assert found.because.isprintable()
    assert len(found.because.encode()) < 400


def test_what_loaders_try_and_do_without_is_no_news(answers: Answers) -> None:
    for name in (b"revocations_sbat.efi", b"pxelinux.cfg/default", b"x86_64-efi/command.lst"):
        found = answers.tftp(name, PEER)
        assert isinstance(found, Missing)
        assert found.quiet


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        (b"bios/undionly.kpxe", "bios/undionly.kpxe"),
        (b"bios/undionly.kpxe\xff\x00garbage", "bios/undionly.kpxe"),
        (b"\\boot\\bcd", "boot/bcd"),
        (b"///kernel", "kernel"),
        (b"name\r\n", "name"),
    ],
)
def test_names_are_read_as_firmware_means_them(name: bytes, meant: str) -> None:
    assert clean_name(name) == meant


def test_a_directory_is_listed_where_its_path_ends_in_a_slash(answers: Answers, tmp_path: Path) -> None:
    (tmp_path / "public" / "a <b>").mkdir()
    page = answers.http(get("/files/"), PEER)
    assert isinstance(page, Reply)
    assert (page.status, page.media_type) == (200, "text/html")
    assert b'<a href="./a%20%3Cb%3E/">a &lt;b&gt;/</a>' in page.body
    assert b'<a href="./notes.txt">notes.txt</a>' in page.body


@pytest.mark.parametrize(("path", "to"), [("/files", "./files/"), ("/files/a <b>", "./a%20%3Cb%3E/")])
def test_a_directory_without_its_slash_is_elsewhere(answers: Answers, tmp_path: Path, path: str, to: str) -> None:
    (tmp_path / "public" / "a <b>").mkdir()
    found = answers.http(get(path), PEER)
    assert isinstance(found, Reply)
    assert (found.status, found.headers) == (301, (("Location", to),))


def test_nothing_but_what_is_published_is_listed(answers: Answers) -> None:
    for path in ("/boot/", "/", "/files/../", "/files/notes.txt/"):
        found = answers.http(get(path), PEER)
        assert isinstance(found, Missing) or b"<a " not in getattr(found, "body", b"")


def test_nothing_is_posted_where_nobody_waits_for_it(answers: Answers) -> None:
    for path in ("/", "/boot.ipxe", "/boot/x/kernel", "/files/notes.txt"):
        found = answers.http(Request("POST", path, (), {}), PEER)
        assert isinstance(found, Reply)
        assert (found.status, dict(found.headers)) == (405, {"Allow": "GET, HEAD"})
