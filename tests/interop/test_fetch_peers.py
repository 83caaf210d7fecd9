"""fetch and the file system over HTTP with servers and a proxy that others wrote."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootwire.preboot.fetch import Fetcher, FetchError, Options
from bootwire.preboot.httpfs import BLOCK, HttpFs
from bootwire.preboot.proxies import Proxies
from bootwire.preboot.transport import KernelTransport
from bootwire.serve.answers import Answers
from bootwire.serve.files import PublishedDirectory
from fetch_rig import Place
from http_cases import END, REFUSED, SILENT, TAKEN, sized
from http_rig import served
from namespaces import Namespace

pytestmark = pytest.mark.interop

KERNEL = random.Random(5).randbytes(5 * BLOCK + 678)
NAMES = ["a b%.txt", "kernel", "grün", "x'y&z", "a#b?c"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "boot" / "modules").mkdir(parents=True)
    for name in NAMES:
        (root / "boot" / name).write_bytes(KERNEL if name == "kernel" else name.encode())
    (root / "boot" / "modules" / "if_em.ko.gz").write_bytes(gzip.compress(KERNEL))
    (root / "boot" / "modules" / "plain.ko").write_bytes(b"plain")
    (root / "empty").write_bytes(b"")
    (root / "none").mkdir()
    for path in [tmp_path, *tmp_path.parents[:2], *root.rglob("*"), root]:
        path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
    return root


def free_port(family: socket.AddressFamily = socket.AF_INET) -> int:
    with socket.socket(family) as sock:
        sock.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        port = sock.getsockname()[1]
        assert isinstance(port, int)
        return port


@contextlib.contextmanager
def running(*command: str, port: int, host: str = "127.0.0.1", end: int = signal.SIGTERM) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        until = time.monotonic() + 20
        while True:
            try:
                socket.create_connection((host, port), 5).close()
                break
            except OSError:
                assert process.poll() is None, process.communicate()[0].decode()
                assert time.monotonic() < until
                time.sleep(0.02)
        yield
    finally:
        process.send_signal(end)
        process.communicate(timeout=20)


@contextlib.contextmanager
def nginx(tree: Path, port: int) -> Iterator[str]:
    conf = tree.parent / "nginx.conf"
    conf.write_text(
        f"daemon off; master_process off; user root; pid {tree.parent}/nginx.pid; error_log stderr; events {{}}\n"
        "http { access_log off; default_type application/octet-stream; server {"
        f" listen 127.0.0.1:{port}; root {tree}; autoindex on; }} }}"
    )
    with running("nginx", "-c", str(conf), "-e", "stderr", port=port):
        yield ""


@contextlib.contextmanager
def apache(tree: Path, port: int, *protection: str) -> Iterator[str]:
    """protection: directives for all files."""
    modules = "/usr/lib/apache2/modules"
    names = ["mpm_event", "authz_core", "autoindex", "dir", "mime"]
    if protection:
        names += ["authn_core", "authn_file", "authz_user", "auth_basic", "auth_digest"]
    conf = tree.parent / "apache.conf"
    lines = [f"LoadModule {name}_module {modules}/mod_{name}.so" for name in names]
    lines += [f"Listen 127.0.0.1:{port}", f"ServerRoot {tree.parent}", "ServerName localhost", "PidFile apache.pid"]
    lines += [
        f"DocumentRoot {tree}",
        "ErrorLog /dev/stderr",
        "TypesConfig /dev/null",
        f"DefaultRuntimeDir {tree.parent}",
    ]
    lines += ["User nobody", "Group nogroup"]
    lines += [f"<Directory {tree}>", "Options Indexes", "IndexOptions FancyIndexing NameWidth=*", *protection]
    lines += ["</Directory>"]
    conf.write_text("\n".join(lines) + "\n")
    with running("apache2", "-X", "-f", str(conf), port=port):
        yield ""


@contextlib.contextmanager
def python(tree: Path, port: int) -> Iterator[str]:
    command = (sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(tree), str(port))
    with running(*command, port=port):
        yield ""


@contextlib.contextmanager
def caddy(tree: Path, port: int) -> Iterator[str]:
    listen = ("--listen", f"127.0.0.1:{port}")
    with running("caddy", "file-server", "--browse", "--root", str(tree), *listen, port=port):
        yield ""


@contextlib.contextmanager
def lighttpd(tree: Path, port: int) -> Iterator[str]:
    conf = tree.parent / "lighttpd.conf"
    conf.write_text(
        f'server.bind = "127.0.0.1"\nserver.port = {port}\nserver.document-root = "{tree}"\n'
        'server.modules = ("mod_dirlisting")\ndir-listing.activate = "enable"\n'
        'mimetype.assign = ("" => "application/octet-stream")\n'  # without a type it tells no date
    )
    with running("lighttpd", "-D", "-f", str(conf), port=port):
        yield ""


@contextlib.contextmanager
def ours(tree: Path, port: int) -> Iterator[str]:
    directory = PublishedDirectory(str(tree))
    answers = Answers(
        {}, first_script=lambda *_: b"", boot_script=lambda *_: pytest.fail("no"), machine_at=lambda _: "",
        published=directory, record=lambda _: None,
    )  # fmt: skip
    with served(answers.http) as house:
        yield f"http://127.0.0.1:{house.port}/files/"
    directory.close()


@pytest.fixture(params=[nginx, apache, caddy, lighttpd, python, ours], ids=lambda server: server.__name__)
def fs(request: pytest.FixtureRequest, tree: Path) -> Iterator[HttpFs]:
    port = free_port()
    with request.param(tree, port) as base, Fetcher(KernelTransport(), Options(idle=20)) as fetcher:
        yield HttpFs(fetcher, base or f"http://127.0.0.1:{port}/")


def test_a_tree_is_listed_walked_and_read(fs: HttpFs, tree: Path) -> None:
    walked = {path: {(entry.name, entry.is_directory) for entry in entries} for path, entries in fs.walk()}
    assert walked == {
        "": {("boot", True), ("empty", False), ("none", True)},
        "boot": {*((name, False) for name in NAMES), ("modules", True)},
        "boot/modules": {("if_em.ko.gz", False), ("plain.ko", False)},
        "none": set(),
    }
    for name in NAMES:
        assert fs.cat(f"boot/{name}") == (tree / "boot" / name).read_bytes()
    assert fs.cat("empty") == b""


def test_modules_compressed_and_plain(fs: HttpFs) -> None:
    assert fs.cat("boot/modules/if_em.ko") == KERNEL
    assert fs.cat("boot/modules/plain.ko") == b"plain"
    with pytest.raises(FileNotFoundError):
        fs.open("boot/modules/none.ko")


def test_seeking(fs: HttpFs) -> None:
    with fs.open("boot/kernel") as file:
        for at in (len(KERNEL) - 10, 3 * BLOCK - 5, 0, 4 * BLOCK):
            file.seek(at)
            assert file.read(10) == KERNEL[at : at + 10]


def test_stat(fs: HttpFs, tree: Path) -> None:
    found = fs.stat("boot/kernel")
    assert (found.size, found.modified) == (len(KERNEL), int((tree / "boot/kernel").stat().st_mtime))
    assert fs.stat("boot").is_directory
    with pytest.raises(FileNotFoundError):
        fs.stat("boot/nothing")


# --- passwords ----


@pytest.mark.parametrize("kind", ["Basic", "Digest"])
def test_a_password_that_apache_asks_for(kind: str, tree: Path) -> None:
    users = tree.parent / "users"
    secret = hashlib.md5(b"me:here:x:y z").hexdigest()
    users.write_text(f"me:here:{secret}\n" if kind == "Digest" else f"me:{apache_hash('x:y z')}\n")
    provider = [f"Auth{kind}Provider file", f"AuthUserFile {users}"]
    port = free_port()
    with (
        apache(tree, port, f"AuthType {kind}", "AuthName here", *provider, "Require valid-user"),
        Fetcher(KernelTransport(), Options(idle=20)) as fetcher,
    ):
        for _ in range(3):  # the second asks with what the first has learned
            assert fetcher.read(f"http://me:x%3Ay%20z@127.0.0.1:{port}/boot/kernel") == KERNEL
        fs = HttpFs(fetcher, f"http://me:x%3Ay%20z@127.0.0.1:{port}/")
        assert fs.cat("boot/modules/if_em.ko") == KERNEL
        for wrong in ("me:wrong@", "you:x@", ""):
            with pytest.raises(FetchError) as caught:
                fetcher.read(f"http://{wrong}127.0.0.1:{port}/boot/kernel")
            assert caught.value.why == "denied"


def apache_hash(password: str) -> str:
    """As htpasswd -s makes it."""
    return "{SHA}" + base64.b64encode(hashlib.sha1(password.encode()).digest()).decode()


# --- a proxy ----------------------------------------------------------------------------------------------------


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    conf = tmp_path / "tinyproxy.conf"
    conf.write_text(f"Port {port}\nListen 127.0.0.1\nTimeout 2\nMaxClients 50\nAllow 127.0.0.1\nLogLevel Error\n")
    with running("tinyproxy", "-d", "-c", str(conf), port=port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def place() -> Iterator[Place]:
    place = Place(KernelTransport(), "127.0.0.1", lambda: socket.create_server(("127.0.0.1", 0)))
    yield place
    place.close()


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_taken_directly_is_taken_through_a_proxy(name: str, proxy: str, place: Place) -> None:
    said, body = TAKEN[name]
    with Fetcher(KernelTransport(), Options(idle=20, tries=1, proxies=Proxies.all(proxy))) as fetcher:
        server = place.says((*said, END) if isinstance(said, tuple) else (said, END))
        assert fetcher.read(server.url + "/a%20b") == body
    assert "/a%20b HTTP/1" in server.heads[0]


MENDED = ("two content-lengths", "header without a colon", "NUL in a header")
"""What tinyproxy makes good answers of."""


@pytest.mark.parametrize("name", [name for name in REFUSED if name not in MENDED])
def test_what_is_refused_directly_is_refused_through_a_proxy(name: str, proxy: str, place: Place) -> None:
    said, why = REFUSED[name]
    idle = 0.5 if why == "timeout" else 20
    with Fetcher(KernelTransport(), Options(idle=idle, tries=1, proxies=Proxies.all(proxy))) as fetcher:
        parts = said if isinstance(said, tuple) else (said,)
        server = place.says(parts if parts[-1] is SILENT else (*parts, END))
        with pytest.raises(FetchError):
            fetcher.read(server.url + "/a")


@pytest.mark.parametrize("close", [True, False])
def test_many_files_through_a_proxy(proxy: str, place: Place, close: bool) -> None:
    answers = [(sized(b"%d" % n, *(["Connection: close"] if close else [])), END) for n in range(10)]
    with Fetcher(KernelTransport(), Options(idle=20, tries=1, proxies=Proxies.all(proxy))) as fetcher:
        server = place.says(*answers)
        assert [fetcher.read(f"{server.url}/{n}") for n in range(10)] == [b"%d" % n for n in range(10)]


def test_a_file_system_through_a_proxy(proxy: str, tree: Path) -> None:
    port = free_port()
    with nginx(tree, port), Fetcher(KernelTransport(), Options(idle=20, proxies=Proxies.all(proxy))) as fetcher:
        fs = HttpFs(fetcher, f"http://127.0.0.1:{port}/")
        assert len(list(fs.walk())) == 4
        assert fs.cat("boot/modules/if_em.ko") == KERNEL


def test_https_through_a_proxy_is_verified(proxy: str, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
               "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2",
               "-keyout", str(tmp_path / "key.pem"), "-out", str(both)]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    both.write_text(both.read_text() + (tmp_path / "key.pem").read_text())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                raw, _ = listener.accept()
                with contextlib.suppress(OSError), context.wrap_socket(raw, server_side=True) as tls:
                    while tls.recv(65536):
                        tls.sendall(sized(KERNEL))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/a"
        options = Options(idle=20, tries=1, proxies=Proxies.all(proxy), trust=str(both))
        with Fetcher(KernelTransport(), options) as fetcher:
            assert fetcher.read(url) == KERNEL
        options = Options(idle=20, tries=1, proxies=Proxies.all(proxy))
        with Fetcher(KernelTransport(), options) as fetcher, pytest.raises(FetchError, match="not trusted"):
            fetcher.read(url)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


# --- FTP and TFTP -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_vsftpd(tree: Path, family: socket.AddressFamily, host: str) -> None:
    port = free_port(family)
    empty = tree.parent / "chroot"
    empty.mkdir()
    conf = tree.parent / "vsftpd.conf"
    six = family == socket.AF_INET6
    conf.write_text(
        f"listen={'NO' if six else 'YES'}\nlisten_ipv6={'YES' if six else 'NO'}\nlisten_port={port}\nbackground=NO\n"
        f"anonymous_enable=YES\nanon_root={tree}\nsecure_chroot_dir={empty}\nconnect_from_port_20=NO\n"
        "seccomp_sandbox=NO\nxferlog_enable=NO\n"
    )
    conf.chmod(0o644)
    os.chown(conf, 0, 0)
    with running("/usr/sbin/vsftpd", str(conf), port=port, host=host), Fetcher(KernelTransport()) as fetcher:
        base = f"ftp://{f'[{host}]' if six else host}:{port}"
        assert fetcher.read(base + "/boot/kernel") == KERNEL
        assert fetcher.read(base + "/boot/a%20b%25.txt") == b"a b%.txt"
        assert fetcher.read(base + "/empty") == b""
        with pytest.raises(FetchError) as caught:
            fetcher.read(base + "/boot/nothing")
        assert caught.value.why == "missing"


def test_dnsmasq_by_tftp(tree: Path) -> None:
    shutil.copy(tree / "boot" / "kernel", tree / "k")
    command = [
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--user=root",
        "--enable-tftp",
    ]
    command += [f"--tftp-root={tree}", "--listen-address=127.0.0.1", "--bind-interfaces", "--pid-file"]
    port = free_port()
    space = Namespace()
    process = space.start(*command, f"--port={port}", stderr=subprocess.PIPE)
    try:

        def get(name: str) -> bytes:
            with Fetcher(KernelTransport(), Options(idle=10)) as fetcher:
                return fetcher.read(f"tftp://127.0.0.1/{name}")

        until = time.monotonic() + 20
        while space.run("ss -Hlun sport = :69").strip() == "":
            assert time.monotonic() < until
            assert process.poll() is None, process.communicate()[1]
        assert space.call(lambda: get("boot/kernel")) == KERNEL
        assert space.call(lambda: get("empty")) == b""
        with pytest.raises(FetchError) as caught:
            space.call(lambda: get("nothing"))
        assert caught.value.why == "missing"
    finally:
        process.terminate()
        process.communicate(timeout=20)
        space.close()
