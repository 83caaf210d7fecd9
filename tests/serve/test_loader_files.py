"""Which loader files are served, and what the commands say. Samples stand for iPXE, so that nothing is fetched."""

import hashlib
import json
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from assets import samples
from bootwire.serve import loaders
from bootwire.serve.apt import Apt, Mirror
from bootwire.serve.deb import PackageError
from serve.fake_mirror import FakeMirror, deb, serving

FULL = ("HTTP", "HTTPS", "syslog", "file:autoexec.ipxe")
SNPONLY = samples.pe("x86_64", samples.ipxe_strings("2.0.0+dfsg-5", *FULL))
ARM64 = samples.pe("arm64", samples.ipxe_strings("2.0.0+dfsg-5", *FULL, drivers="own"))
UNDIONLY = samples.zbin(samples.ipxe_strings("2.0.0+dfsg-5", "HTTP", "HTTPS", drivers="undi"))
OLD_SNPONLY = samples.pe("x86_64", samples.ipxe_strings("1.0.0+git-20190125.36a4c85-5.1", "HTTP"))
OLD_UNDIONLY = samples.zbin(samples.ipxe_strings("1.0.0+git-20190125.36a4c85-5.1", "HTTP", drivers="undi"))
PACKAGE = {
    "usr/lib/ipxe/snponly.efi": SNPONLY,
    "usr/lib/ipxe/ipxe-arm64.efi": ARM64,
    "usr/lib/ipxe/undionly.kpxe": UNDIONLY,
    "usr/lib/ipxe/ipxe.iso": b"not wanted",
    "etc/grub.d/20_ipxe": b"not wanted",
}


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[FakeMirror]:
    with serving(tmp_path) as one:
        one.add("ipxe", deb(PACKAGE), version="2.0.0+dfsg-5", suite="sid", architecture="all")
        one.sign("sid")
        yield one


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with nothing on it."""
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def put(root: Path, path: str, data: bytes) -> Path:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(data)
    return root / path


def said(run, *args: object, **options: object) -> tuple[int, str]:
    lines: list[str] = []
    status = run(lines.append, *args, **options)
    return status, "\n".join(lines)


def test_what_the_distribution_installed_is_found_wherever_it_puts_it(root, state):
    for place in ("usr/lib/ipxe/undionly.kpxe", "usr/share/ipxe/undionly.kpxe", "usr/share/alpine-ipxe/undionly.kpxe"):
        path = put(root, place, UNDIONLY)
        assert loaders.find(state, root=root)["bios/undionly.kpxe"].path == path
        path.unlink()
    path = put(root, "boot/ipxe-arm64.efi", ARM64)
    assert loaders.find(state, root=root)["arm64/ipxe.efi"].path == path


def test_names_mean_nothing(root, state):
    put(root, "usr/share/ipxe/arm64-efi/snponly.efi", ARM64)
    assert list(loaders.find(state, root=root)) == ["arm64/ipxe.efi"]


def test_links_and_copies_count_once_and_other_files_not_at_all(root, state):
    path = put(root, "usr/lib/ipxe/ipxe-arm64.efi", ARM64)
    (path.parent / "ipxe.efi").symlink_to(path.name)
    put(root, "usr/lib/ipxe/broken.efi", b"MZ")
    (path.parent / "dangling.efi").symlink_to("nowhere")
    assert list(loaders.find(state, root=root)) == ["arm64/ipxe.efi"]


def test_kpxe_is_preferred_to_kkpxe(root, state):
    put(root, "given/undionly.kkpxe", UNDIONLY + b"k")
    put(root, "given/undionly.kpxe", UNDIONLY)
    assert loaders.find(state, str(root / "given"), root)["bios/undionly.kpxe"].path.name == "undionly.kpxe"


def test_a_fifo_in_the_given_directory_does_not_hang_us(root, state):
    import os

    put(root, "given/snponly.efi", SNPONLY)
    os.mkfifo(root / "given/pipe.efi")
    assert list(loaders.find(state, str(root / "given"), root)) == ["x86_64/snponly.efi"]


def test_what_was_fetched_beats_an_older_installed_build(mirror, root, state):
    put(root, "usr/lib/ipxe/snponly.efi", OLD_SNPONLY)
    loaders.fetch(state, configuration=mirror.apt())
    found = loaders.find(state, root=root)["x86_64/snponly.efi"]
    assert found.build.version == "2.0.0+dfsg-5"
    assert found.origin.startswith("fetched: ipxe 2.0.0+dfsg-5 of sid-name, sign")


def test_what_the_operator_gave_beats_everything(mirror, root, state):
    loaders.fetch(state, configuration=mirror.apt())
    given = put(root, "given/any.name", OLD_SNPONLY)
    for where in (given, given.parent):
        found = loaders.find(state, str(where), root)
        assert (found["x86_64/snponly.efi"].origin, found["x86_64/snponly.efi"].path) == ("given", given)
        assert found["arm64/ipxe.efi"].origin.startswith("fetched")


def test_a_damaged_fetched_file_is_not_served(mirror, root, state):
    package = loaders.fetch(state, configuration=mirror.apt())
    package.files["usr/lib/ipxe/snponly.efi"].write_bytes(OLD_SNPONLY)
    assert "x86_64/snponly.efi" not in loaders.find(state, root=root)


def test_fetch_takes_loaders_only(mirror, state):
    package = loaders.fetch(state, configuration=mirror.apt())
    assert sorted(package.files) == [
        "usr/lib/ipxe/ipxe-arm64.efi", "usr/lib/ipxe/snponly.efi", "usr/lib/ipxe/undionly.kpxe",
    ]  # fmt: skip


def test_older_ubuntus_second_package_is_fetched_too(tmp_path, root, state):
    with serving(tmp_path) as mirror:
        mirror.add("ipxe", deb({"usr/lib/ipxe/undionly.kpxe": UNDIONLY}), architecture="all")
        mirror.add("grub-ipxe", deb({"boot/ipxe-arm64.efi": ARM64}), architecture="all")
        mirror.sign("stable", head="")
        loaders.fetch(state, configuration=mirror.apt())
    assert list(loaders.find(state, root=root)) == ["arm64/ipxe.efi", "bios/undionly.kpxe"]


def test_of_apts_mirrors_only_the_named_one_is_asked(mirror, state):
    both = Apt((Mirror("http://127.0.0.1:1/debian", ("stable",)), *mirror.apt().mirrors))
    assert loaders.fetch(state, mirror.base + "/", configuration=both).mirror == mirror.base
    with pytest.raises(PackageError, match=r"127\.0\.0\.1:1"):
        loaders.fetch(state, "http://127.0.0.1:1/debian", configuration=both)


def test_blobs_carry_digest_size_and_the_media_type_of_efi_programs(root, state):
    put(root, "usr/lib/ipxe/snponly.efi", SNPONLY)
    put(root, "usr/lib/ipxe/undionly.kpxe", UNDIONLY)
    blobs = loaders.catalog(loaders.find(state, root=root))
    assert blobs["x86_64/snponly.efi"].media_type == "application/efi"
    assert blobs["x86_64/snponly.efi"].size == len(SNPONLY)
    assert blobs["bios/undionly.kpxe"].media_type == "application/octet-stream"
    assert len(blobs["bios/undionly.kpxe"].digest) == 64


def test_ready_with_everything_at_hand_asks_nobody(root, state):
    for name, data in PACKAGE.items():
        put(root, name, data)
    found, notes = loaders.ready(state, root=root)
    assert loaders.missing(found) == ()
    assert notes == []


def test_ready_without_fetching_says_what_to_run(root, state):
    put(root, "usr/lib/ipxe/undionly.kpxe", OLD_UNDIONLY)
    found, notes = loaders.ready(state, fetch_missing=False, root=root)
    assert list(found) == ["bios/undionly.kpxe"]
    assert notes == [
        loaders.Advice("no boot loader for UEFI PCs, UEFI machines with 64-bit ARM", "bootwire assets fetch")
    ]
    assert str(notes[0]) == (
        "no boot loader for UEFI PCs, UEFI machines with 64-bit ARM: run  bootwire assets fetch  "
        "or install the package ipxe"
    )


def test_what_the_user_fetched_is_copied_for_root_and_served_from_there(root, state, tmp_path):
    theirs, digests = tmp_path / "theirs", {}
    for data in (SNPONLY, UNDIONLY, ARM64):
        digests[hashlib.sha256(data).hexdigest()] = data
        put(theirs, f"blobs/{hashlib.sha256(data).hexdigest()}", data)
    put(theirs, f"blobs/{'0' * 64}", OLD_SNPONLY)
    put(theirs, f"blobs/{hashlib.sha256(b'secret').hexdigest()}", b"secret")
    found, notes = loaders.ready(state, fetch_missing=False, root=root, theirs=theirs)
    assert (loaders.missing(found), notes) == ((), [])
    assert {path.name: path.read_bytes() for path in (state / "adopted").iterdir()} == digests
    assert {loader.path.parent for loader in found.values()} == {state / "adopted"}
    assert {loader.origin for loader in found.values()} == {"fetched by the user who started it"}
    assert loaders.missing(loaders.find(state, root=root)) == ()


def test_a_link_to_something_else_is_not_copied(root, state, tmp_path):
    (tmp_path / "theirs" / "blobs").mkdir(parents=True)
    secret = put(tmp_path, "secret", b"secret")
    (tmp_path / "theirs" / "blobs" / hashlib.sha256(b"secret").hexdigest()).symlink_to(secret)
    loaders.ready(state, fetch_missing=False, root=root, theirs=tmp_path / "theirs")
    assert not (state / "adopted").exists()


def test_the_user_who_called_sudo_is_known(monkeypatch):
    daemon = pwd.getpwnam("daemon")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for name, place in (
        ("daemon", Path(daemon.pw_dir) / ".local/share/bootwire"), ("root", None), ("nobody-of-that-name", None),
    ):  # fmt: skip
        monkeypatch.setenv("SUDO_USER", name)
        assert loaders.invoking_user() == place
    monkeypatch.delenv("SUDO_USER")
    assert loaders.invoking_user() is None


def test_ready_says_when_the_given_place_has_nothing_to_serve(root, state):
    put(root, "given/grub.efi", samples.pe("x86_64", b"GNU GRUB"))
    for where in (root / "given", root / "nowhere"):
        assert loaders.ready(state, str(where), fetch_missing=False, root=root)[1][-1] == loaders.Advice(
            f"{where} holds no boot loader that can be served: iPXE builds with HTTP can"
        )


def test_the_summary_names_version_platforms_and_origin(root, state):
    put(root, "usr/lib/ipxe/undionly.kpxe", OLD_UNDIONLY)
    put(root, "usr/lib/ipxe/snponly.efi", OLD_SNPONLY)
    assert loaders.summary(loaders.find(state, root=root)) == (
        "iPXE 1.0.0+git-20190125.36a4c85-5.1 (bios, x86_64), installed"
    )
    assert loaders.summary({}) == "none"


def test_the_summary_calls_no_other_loader_ipxe(root, state):
    lpxelinux = b"\xea\x24\x7c\0\0" + bytes(100) + b"\r\nPXELINUX 6.04 lwIP 20200816 \0"
    put(root, "usr/lib/PXELINUX/lpxelinux.0", lpxelinux)
    put(root, "usr/lib/ipxe/snponly.efi", SNPONLY)
    said = loaders.summary(loaders.find(state, root=root))
    assert set(said.split("; ")) == {"iPXE 2.0.0+dfsg-5 (x86_64), installed", "lpxelinux 6.04 (bios), installed"}


def test_list_explains_each_file(root, state):
    put(root, "usr/lib/ipxe/snponly.efi", OLD_SNPONLY)
    status, text = said(loaders.run_list, state, root=root)
    assert status == 0
    assert "x86_64/snponly.efi\n    iPXE 1.0.0+git-20190125.36a4c85-5.1, UEFI x86_64, firmware's network driver" in text
    assert "cannot: https, autoexec, syslog" in text
    assert "no boot loader for BIOS PCs, UEFI machines with 64-bit ARM" in text


def test_list_as_json_is_one_object(root, state):
    put(root, "usr/lib/ipxe/undionly.kpxe", UNDIONLY)
    status, text = said(loaders.run_list, state, as_json=True, root=root)
    told = json.loads(text)
    assert (status, told["v"], told["missing"]) == (0, 1, ["x86_64", "arm64"])
    assert told["loaders"][0]["features"] == ["http", "https"]


def test_list_of_nothing_fails(root, state):
    assert said(loaders.run_list, state, root=root)[0] == 1


def test_fetch_command_tells_what_came(mirror, state):
    status, text = said(loaders.run_fetch, state, configuration=mirror.apt())
    assert status == 0
    assert text.startswith(f"ipxe 2.0.0+dfsg-5 of sid-name from {mirror.base}: ")
    assert "usr/lib/ipxe/snponly.efi: iPXE 2.0.0+dfsg-5, UEFI x86_64, firmware's network driver" in text


def test_fetch_command_as_json(mirror, state):
    told = json.loads(said(loaders.run_fetch, state, as_json=True, configuration=mirror.apt())[1])
    assert (told["v"], told["package"], told["version"]) == (1, "ipxe", "2.0.0+dfsg-5")


def test_a_failed_fetch_says_why_and_what_to_do(state):
    status, text = said(loaders.run_fetch, state, configuration=Apt())
    assert (status, text) == (
        1,
        "error: this machine has no apt configuration that names a package mirror\n"
        "  try  name a Debian mirror with --mirror URL",
    )
    assert json.loads(said(loaders.run_fetch, state, as_json=True, configuration=Apt())[1])["error"]


def test_verify_finds_the_damaged_file(mirror, root, state):
    package = loaders.fetch(state, configuration=mirror.apt())
    assert said(loaders.run_verify, state, root=root)[0] == 0
    package.files["usr/lib/ipxe/snponly.efi"].write_bytes(b"damaged")
    status, text = said(loaders.run_verify, state, root=root)
    assert status == 1
    assert "DAMAGED ipxe 2.0.0+dfsg-5: usr/lib/ipxe/snponly.efi" in text
    assert "bootwire assets fetch" in text
    assert json.loads(said(loaders.run_verify, state, as_json=True, root=root)[1])["ok"] is False


def test_fetching_again_mends_a_damaged_file(mirror, root, state):
    package = loaders.fetch(state, configuration=mirror.apt())
    package.files["usr/lib/ipxe/snponly.efi"].write_bytes(b"damaged")
    loaders.fetch(state, configuration=mirror.apt())
    assert said(loaders.run_verify, state, root=root)[0] == 0


def test_a_state_directory_that_cannot_be_written_is_a_sentence(mirror, tmp_path):
    blocked = put(tmp_path, "file", b"")
    with pytest.raises(PackageError, match="file"):
        loaders.fetch(blocked / "state", configuration=mirror.apt())


def test_the_state_directory_by_who_asks(monkeypatch, tmp_path):
    assert loaders.state_directory(str(tmp_path)) == tmp_path
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert loaders.state_directory() == Path("/var/lib/bootwire")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/home/ana/data")
    assert loaders.state_directory() == Path("/home/ana/data/bootwire")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/ana")
    assert loaders.state_directory() == Path("/home/ana/.local/share/bootwire")
