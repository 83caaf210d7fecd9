"""apt's configuration as machines really have it."""

from pathlib import Path

import pytest

from bootwire.serve import apt
from bootwire.serve.apt import Mirror


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "etc/apt/sources.list.d").mkdir(parents=True)
    (tmp_path / "etc/apt/trusted.gpg.d").mkdir()
    (tmp_path / "usr/share/keyrings").mkdir(parents=True)
    (tmp_path / "usr/share/keyrings/debian-archive-keyring.gpg").write_bytes(b"keys")
    (tmp_path / "etc/os-release").write_text('ID=debian\nVERSION_CODENAME=bookworm\nNAME="Debian"\n')
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    (root / "etc/apt" / name).write_text(text)


def keyring(root: Path) -> Path:
    return root / "usr/share/keyrings/debian-archive-keyring.gpg"


def test_one_line_style(root):
    write(
        root,
        "sources.list",
        "# deb http://old.example/debian bookworm main\n"
        "deb http://mirror.example/debian/ bookworm main contrib # comment\n"
        "deb-src http://mirror.example/debian bookworm main\n"
        "deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.example/debian"
        " bookworm-updates main\n",
    )
    assert apt.read(root, "").mirrors == (
        Mirror("http://mirror.example/debian", ("bookworm", "bookworm-updates"), ("main", "contrib"), (keyring(root),)),
    )


def test_deb822_style_with_comments_and_a_disabled_entry(root):
    write(
        root,
        "sources.list.d/debian.sources",
        "Types: deb deb-src\n# a comment between\nURIs: http://mirror.example/debian\n"
        "Suites: bookworm bookworm-updates\nComponents: main\n"
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        "\n"
        "Types: deb\nURIs: http://off.example/debian\nSuites: bookworm\nComponents: main\nEnabled: no\n"
        " \n"
        "Types: deb-src\nURIs: http://source.example/debian\nSuites: bookworm\nComponents: main\n",
    )
    assert apt.read(root, "").mirrors == (
        Mirror("http://mirror.example/debian", ("bookworm", "bookworm-updates"), ("main",), (keyring(root),)),
    )


def test_a_key_that_stands_in_the_entry(root):
    write(
        root,
        "sources.list.d/debian.sources",
        "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\nSigned-By:\n"
        " -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBF\n =abcd\n -----END PGP PUBLIC KEY BLOCK-----\n",
    )
    (mirror,) = apt.read(root, "").mirrors
    assert mirror.keyrings == ()
    assert mirror.keys[0].splitlines()[-4:] == ["", "mQINBF", "=abcd", "-----END PGP PUBLIC KEY BLOCK-----"]


def test_archives_of_others_are_left_alone(root):
    write(
        root,
        "sources.list",
        "deb https://packages.example/apt cloud-bookworm main\ndeb https://flat.example/repo ./\n"
        "deb cdrom:[Debian]/ bookworm main\ndeb http://mirror.example/debian bookworm main\n",
    )
    assert [mirror.base for mirror in apt.read(root, "").mirrors] == ["http://mirror.example/debian"]


@pytest.mark.parametrize(
    ("release", "suite"),
    [
        ("VERSION_CODENAME=wilma\nUBUNTU_CODENAME=noble\n", "noble"),
        ("VERSION_CODENAME=kali-rolling\n", "kali-rolling"),
        ("ID=unheard-of\n", "anything"),
    ],
)
def test_derivatives_find_their_archive_too(root, release, suite):
    (root / "etc/os-release").write_text(release)
    write(root, "sources.list", f"deb http://mirror.example/archive {suite} main\n")
    assert [mirror.suites for mirror in apt.read(root, "").mirrors] == [(suite,)]


def test_the_security_archive_comes_last(root):
    write(
        root,
        "sources.list",
        "deb http://mirror.example/debian-security bookworm-security main\n"
        "deb http://mirror.example/debian stable main\n",
    )
    bases = [mirror.base for mirror in apt.read(root, "").mirrors]
    assert bases == ["http://mirror.example/debian", "http://mirror.example/debian-security"]


def test_mirror_lists_of_cloud_images_are_followed(root):
    (root / "etc/apt/mirrors").mkdir()
    write(root, "mirrors/debian.list", "# first\nhttps://mirror.example/debian\tpriority:1\n")
    write(root, "sources.list", "deb mirror+file:///etc/apt/mirrors/debian.list bookworm main\n")
    assert apt.read(root, "").mirrors[0].base == "https://mirror.example/debian"


def test_without_signed_by_every_key_of_the_machine_counts(root):
    for name in ("a.gpg", "b.asc", "c.gpg~"):
        (root / "etc/apt/trusted.gpg.d" / name).write_bytes(b"key")
    write(root, "sources.list", "deb http://mirror.example/debian bookworm main\n")
    names = [path.name for path in apt.read(root, "").mirrors[0].keyrings]
    assert names == ["debian-archive-keyring.gpg", "a.gpg", "b.asc"]


def test_proxies_as_apt_config_dumps_them(root):
    dump = (
        'Acquire::http "";\nAcquire::http::Proxy "http://cache.example:3142/";\n'
        'Acquire::http::Proxy::mirror.example "DIRECT";\nAcquire::http::Pipeline-Depth "0";\n'
    )
    found = apt.read(root, dump)
    assert found.proxies == {"http": "http://cache.example:3142/", "https": "http://cache.example:3142/"}
    assert found.direct == {"mirror.example"}


def test_apts_own_direct_beats_the_environments_proxy(root, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://environment.example:8080")
    assert apt.read(root, "").proxies == {"http": "http://environment.example:8080"}
    assert apt.read(root, 'Acquire::http::Proxy "DIRECT";\n').proxies == {}


def test_a_machine_without_apt_has_no_mirrors(tmp_path):
    assert apt.read(tmp_path, "").mirrors == ()


def test_a_mirror_that_the_operator_names_gets_the_machines_keys(root):
    assert apt.named("http://mirror.example/debian/", root) == Mirror(
        "http://mirror.example/debian", keyrings=(keyring(root),)
    )


@pytest.mark.parametrize(
    "text", ["deb\n", "deb [\n", "deb [a=b] x\n", "\x00\xff", "deb " + "[" * 5000, "deb [ ] http://m x"]
)
def test_odd_lines_are_passed_over(root, text):
    write(root, "sources.list", text)
    write(root, "sources.list.d/x.sources", text + ": x\n :\n\n\n:\n")
    assert apt.read(root, "").mirrors == ()


def test_a_stanza_keeps_its_continuation_lines():
    text = "Package: x\nDescription: short\n long\n .\n end\nno colon\nSHA256:\n a 1 b\n"
    assert apt.parse_stanza(text) == {"package": "x", "description": "short\nlong\n.\nend", "sha256": "\na 1 b"}
