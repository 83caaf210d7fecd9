"""Packages from a mirror on loopback: the whole chain, and every link of it broken once."""

import gzip
import hashlib
import json
import lzma
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootwire.serve import packages, signatures
from bootwire.serve.apt import Apt, Mirror
from bootwire.serve.deb import PackageError
from bootwire.serve.packages import fetch_package
from serve import openpgp
from serve.fake_mirror import FakeMirror, ar, deb, serving, tar

needs_gpgv = pytest.mark.skipif(shutil.which("gpgv") is None, reason="no gpgv (Debian's apt brings gpgv or sqv)")
FILES = {"usr/lib/x/loader.efi": b"L" * 5000, "usr/share/doc/x/copyright": b"free"}


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[FakeMirror]:
    with serving(tmp_path) as one:
        yield one


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def only(ending: str):
    return lambda path: path.endswith(ending)


def failure(mirror: FakeMirror, state: Path, name: str = "x", **options: object) -> str:
    options = {"configuration": mirror.apt()} | options
    with pytest.raises(PackageError) as caught:
        fetch_package(name, state=state, **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_a_file_of_a_package_ends_up_under_its_digest(mirror, state):
    mirror.add("x", deb(FILES))
    mirror.sign()
    package = fetch_package("x", state=state, configuration=mirror.apt(), members=only(".efi"))
    digest = hashlib.sha256(b"L" * 5000).hexdigest()
    assert package.files == {"usr/lib/x/loader.efi": state / "blobs" / digest}
    assert package.files["usr/lib/x/loader.efi"].read_bytes() == b"L" * 5000
    assert (package.name, package.version, package.suite) == ("x", "1.0-1", "stable-name")


@needs_gpgv
def test_a_good_signature_is_reported_with_its_key(mirror, state):
    mirror.add("x", deb(FILES))
    mirror.sign()
    assert fetch_package("x", state=state, configuration=mirror.apt()).verified == "signed by Bootwire Test Archive"


@needs_gpgv
def test_armoured_keys_in_files_and_in_source_entries_are_used(mirror, state, tmp_path):
    mirror.add("x", deb(FILES))
    mirror.sign()
    (tmp_path / "key.asc").write_text(openpgp.armoured())
    for one in (
        Mirror(mirror.base, ("stable",), keyrings=(tmp_path / "key.asc",)),
        Mirror(mirror.base, ("stable",), keys=(openpgp.armoured(),)),
    ):
        found = fetch_package("x", state=state, configuration=Apt((one,)), refresh=True)
        assert found.verified == "signed by Bootwire Test Archive"


@needs_gpgv
def test_a_signature_by_an_unknown_key_stops_everything(mirror, state):
    mirror.add("x", deb(FILES), suite="sid")
    mirror.sign("sid", other_key=True)
    mirror.add("x", deb(FILES))
    mirror.sign("stable")
    assert "the signature of InRelease is bad" in failure(mirror, state, suite=("sid", "stable"))
    assert not any(path.startswith("pool") for path in mirror.asked)


@needs_gpgv
def test_text_that_was_changed_after_signing_is_refused(mirror, state):
    mirror.add("x", deb(FILES))
    mirror.sign()
    path = "dists/stable/InRelease"
    mirror.files[path] = mirror.files[path].replace(b"Origin: Test", b"Origin: Evil")
    assert "the signature of InRelease is bad" in failure(mirror, state)


@needs_gpgv
def test_text_outside_the_signed_part_is_not_believed(mirror, state):
    mirror.add("x", deb(FILES))
    mirror.sign()
    path = "dists/stable/InRelease"
    mirror.files[path] = b"Codename: evil\n\n" + mirror.files[path]
    package = fetch_package("x", state=state, configuration=mirror.apt())
    assert package.suite == "stable-name"


def test_without_keys_the_digests_still_count_and_it_is_said(mirror, state):
    mirror.add("x", deb(FILES))
    mirror.sign()
    package = fetch_package("x", state=state, configuration=mirror.apt(keyrings=False))
    assert package.verified == "signature not checked: no archive keys on this machine"


def test_without_any_tool_it_is_said(mirror, state, monkeypatch):
    monkeypatch.setattr(signatures.shutil, "which", lambda name: None)
    mirror.add("x", deb(FILES))
    mirror.sign()
    package = fetch_package("x", state=state, configuration=mirror.apt())
    assert package.verified == "signature not checked: neither gpgv nor sqv on this machine"


def test_an_index_with_another_digest_is_refused(mirror, state):
    mirror.add("x", deb(FILES))
    mirror.sign()
    mirror.files["dists/stable/main/binary-amd64/Packages.xz"] = lzma.compress(b"Package: x\nVersion: 9\n")
    assert "of" in failure(mirror, state)
    assert not (state / "lists").exists() or not list((state / "lists").iterdir())


def test_a_package_of_the_right_size_with_another_digest_is_refused(mirror, state):
    contents = deb(FILES)
    mirror.add("x", contents)
    mirror.sign()
    mirror.files["pool/x_1.0-1_amd64.deb"] = contents[:-1] + bytes([contents[-1] ^ 1])
    assert "has the digest" in failure(mirror, state)
    assert list((state / "debs").iterdir()) == []


@pytest.mark.parametrize("change", [lambda data: data[:-100], lambda data: data + b"more"], ids=["shorter", "longer"])
def test_a_package_of_another_size_is_refused(mirror, state, change):
    contents = deb(FILES)
    mirror.add("x", contents)
    mirror.sign()
    mirror.files["pool/x_1.0-1_amd64.deb"] = change(contents)
    assert f"of {len(contents)} octets came" in failure(mirror, state)
    assert list((state / "debs").iterdir()) == []


def test_a_missing_package_names_mirror_and_suite(mirror, state):
    mirror.add("x", deb(FILES))
    mirror.sign()
    assert failure(mirror, state, "y") == f"y is not to be had: {mirror.base} stable-name has no y for amd64"


def test_a_missing_member_is_a_failure(mirror, state):
    mirror.add("x", deb(FILES))
    mirror.sign()
    assert failure(mirror, state, members=only(".rom")).startswith("x has none of the files wanted")


def test_a_metapackage_leads_to_what_it_depends_on(mirror, state):
    mirror.add(
        "linux-image-cloud", deb({"usr/share/doc/y": b""}), depends="virtual, linux-image-6.1.0-1 (= 6.1.0-1) | y"
    )
    mirror.add("linux-image-6.1.0-1", deb({"boot/vmlinuz-6.1.0-1": b"kernel"}))
    mirror.sign()
    package = fetch_package(
        "linux-image-cloud", state=state, configuration=mirror.apt(), members=lambda path: path.startswith("boot/")
    )
    assert (package.name, list(package.files)) == ("linux-image-6.1.0-1", ["boot/vmlinuz-6.1.0-1"])


def test_a_glob_takes_the_newest_version(mirror, state):
    for version in ("6.1.9-1", "6.1.10-1", "6.1.10~rc1-1"):
        mirror.add(f"linux-image-{version}-cloud", deb({"boot/vmlinuz": version.encode()}), version=version)
    mirror.sign()
    package = fetch_package("linux-image-*-cloud", state=state, configuration=mirror.apt())
    assert package.files["boot/vmlinuz"].read_bytes() == b"6.1.10-1"


def test_the_first_suite_that_has_it_counts(mirror, state):
    mirror.add("x", deb({"f": b"old"}))
    mirror.sign()
    mirror.add("x", deb({"f": b"new"}), version="2.0-1", suite="sid")
    mirror.sign("sid")
    package = fetch_package("x", ("devel", "sid", "stable"), state=state, configuration=mirror.apt())
    assert (package.version, package.suite) == ("2.0-1", "sid-name")


def test_packages_for_all_architectures_may_have_their_own_index(mirror, state):
    mirror.add("y", deb(FILES))
    mirror.add("x", deb(FILES), architecture="all")
    mirror.sign()
    assert fetch_package("x", state=state, configuration=mirror.apt()).architecture == "all"
    assert fetch_package("x", architecture="all", state=state, configuration=mirror.apt()).architecture == "all"


def test_a_mirror_with_sha512_alone_is_fine(mirror, state):
    mirror.add("x", deb(FILES))
    mirror.sign(digests="SHA512")
    assert fetch_package("x", state=state, configuration=mirror.apt()).files


def test_an_index_is_fetched_by_its_digest_where_the_mirror_says_so(mirror, state):
    mirror.add("x", deb(FILES))
    mirror.sign(head="Acquire-By-Hash: yes\n")
    index = mirror.files.pop("dists/stable/main/binary-amd64/Packages.xz")
    by_hash = f"dists/stable/main/binary-amd64/by-hash/SHA256/{hashlib.sha256(index).hexdigest()}"
    mirror.files[by_hash] = index
    assert fetch_package("x", state=state, configuration=mirror.apt()).files


def test_a_mirror_without_by_hash_in_spite_of_its_word_is_asked_by_name(mirror, state):
    mirror.add("x", deb(FILES))
    mirror.sign(head="Acquire-By-Hash: yes\n")
    assert fetch_package("x", state=state, configuration=mirror.apt()).files


def test_a_second_time_needs_no_network(mirror, state):
    mirror.add("x", deb(FILES))
    mirror.sign()
    first = fetch_package("x", state=state, configuration=mirror.apt())
    mirror.asked.clear()
    assert fetch_package("x", state=state, configuration=mirror.apt()) == first
    assert mirror.asked == []


def test_refresh_asks_again_but_fetches_only_what_changed(mirror, state):
    mirror.add("x", deb(FILES))
    mirror.sign()
    fetch_package("x", state=state, configuration=mirror.apt())
    mirror.asked.clear()
    fetch_package("x", state=state, configuration=mirror.apt(), refresh=True)
    assert mirror.asked == ["dists/stable/InRelease"]


def test_a_damaged_blob_is_unpacked_again(mirror, state):
    mirror.add("x", deb(FILES))
    mirror.sign()
    package = fetch_package("x", state=state, configuration=mirror.apt())
    path = package.files["usr/lib/x/loader.efi"]
    path.write_bytes(b"damaged")
    assert fetch_package("x", state=state, configuration=mirror.apt()).files["usr/lib/x/loader.efi"] == path
    assert path.read_bytes() == b"L" * 5000


def test_a_damaged_package_in_the_cache_is_fetched_again(mirror, state):
    mirror.add("x", deb(FILES))
    mirror.sign()
    package = fetch_package("x", state=state, configuration=mirror.apt(), members=only(".efi"))
    (state / "debs" / package.digest).write_bytes(b"!<arch>\n")
    assert fetch_package("x", state=state, configuration=mirror.apt()).files


@pytest.mark.parametrize("record", [b"{}", b"[]", b"not json", b'{"digest": "../../etc/passwd"}'])
def test_a_damaged_record_is_as_none(mirror, state, record):
    mirror.add("x", deb(FILES))
    mirror.sign()
    fetch_package("x", state=state, configuration=mirror.apt())
    for path in (state / "packages").iterdir():
        path.write_bytes(record)
    assert list(packages.kept(state)) == []
    assert fetch_package("x", state=state, configuration=mirror.apt()).files


def hostile(name: str, kind: bytes = tarfile.REGTYPE, to: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


def test_hostile_member_names_go_nowhere(mirror, state, tmp_path):
    members = {
        "usr/ok": b"ok",
        "1": hostile("../../escape"),
        "2": hostile("/etc/absolute"),
        "3": hostile("./a/../../b"),
        "4": hostile("usr/link", tarfile.SYMTYPE, "/etc/passwd"),
        "5": hostile("usr/hard", tarfile.LNKTYPE, "usr/ok"),
        "6": hostile("usr/device", tarfile.CHRTYPE),
        "7": hostile("usr/fifo", tarfile.FIFOTYPE),
    }
    mirror.add("x", deb(members))
    mirror.sign()
    assert list(fetch_package("x", state=state, configuration=mirror.apt()).files) == ["usr/ok"]
    assert [path.name for path in tmp_path.iterdir()] == ["archive.gpg", "state"] or not list(
        tmp_path.glob("**/escape")
    )


@pytest.mark.parametrize(
    ("contents", "sentence"),
    [
        (b"not an ar archive at all", "not a .deb: no ar archive"),
        (b"!<arch>\n", "not a whole .deb: no data.tar in it"),
        (deb(FILES)[:150], "not a whole .deb: no data.tar in it"),
        (ar(data_tar_xz=lzma.compress(tar(FILES))[:-40]), "data.tar.xz cannot be unpacked"),
        (ar(data_tar_xz=b"no xz"), "data.tar.xz cannot be unpacked"),
        (ar(data_tar_gz=gzip.compress(tar(FILES))[:-40]), "data.tar.gz cannot be unpacked"),
        (ar(data_tar_xz=lzma.compress(tar(FILES)[:3000])), "data.tar.xz cannot be unpacked"),
        (ar(data_tar_rar=b"x"), "data.tar.rar is compressed in a way that is not known here"),
    ],
    ids=["text", "empty", "cut", "cut xz", "no xz", "cut gzip", "cut tar", "unknown"],
)
def test_a_package_that_is_none_says_what_is_wrong(mirror, state, contents, sentence):
    mirror.add("x", contents)
    mirror.sign()
    assert sentence in failure(mirror, state)
    assert not list(state.rglob(".new-*"))


@pytest.mark.parametrize(("pack", "ending"), [(gzip.compress, "gz"), (bytes, "")], ids=["gzip", "none"])
def test_other_packings(mirror, state, pack, ending):
    mirror.add("x", deb(FILES, pack, ending))
    mirror.sign()
    assert len(fetch_package("x", state=state, configuration=mirror.apt()).files) == 2


def test_a_package_in_zstd_without_zstd_says_what_to_install(mirror, state, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    mirror.add("x", deb(FILES, lambda data: b"\x28\xb5\x2f\xfd", "zst"))
    mirror.sign()
    with pytest.raises(PackageError, match="compressed with zstd") as caught:
        fetch_package("x", state=state, configuration=mirror.apt())
    assert caught.value.hint == "install the package zstd"


def test_without_any_mirror_it_says_what_to_name(state):
    with pytest.raises(PackageError, match="no apt configuration") as caught:
        fetch_package("x", state=state, configuration=Apt())
    assert "--mirror URL" in caught.value.hint


def test_a_mirror_out_of_reach_is_a_sentence_and_the_next_is_tried(mirror, state):
    mirror.add("x", deb(FILES))
    mirror.sign()
    dead = Mirror("http://127.0.0.1:1/debian", ("stable", "sid"))
    both = Apt((dead, *mirror.apt().mirrors))
    assert fetch_package("x", state=state, configuration=both).files
    with pytest.raises(PackageError, match=r"127\.0\.0\.1:1/debian: .*refused"):
        fetch_package("z", state=state, configuration=Apt((dead,)))


def test_progress_counts_up_to_the_whole(mirror, state):
    contents = deb({"f": bytes(range(256)) * 4000}, lambda data: data, "")
    mirror.add("x", contents)
    mirror.sign()
    said: list[tuple[str, int, int]] = []
    fetch_package("x", state=state, configuration=mirror.apt(), progress=lambda *row: said.append(row))
    assert [row[0] for row in said[:2]] == ["stable index", "stable-name main/binary-amd64/Packages.xz"]
    assert said[-1] == ("x", len(contents), len(contents))


def test_a_login_in_the_mirror_address_becomes_a_header(mirror, state):
    mirror.add("x", deb(FILES))
    mirror.sign()
    address = mirror.base.replace("://", "://user:p%40ss@")
    package = fetch_package("x", state=state, configuration=Apt((Mirror(address, ("stable",)),)))
    assert package.files


def test_the_cache_can_be_read_back(mirror, state):
    mirror.add("x", deb(FILES))
    mirror.sign()
    package = fetch_package("x", state=state, configuration=mirror.apt())
    assert list(packages.kept(state)) == [package]
    record = json.loads(next((state / "packages").iterdir()).read_bytes())
    assert record["version"] == "1.0-1"
