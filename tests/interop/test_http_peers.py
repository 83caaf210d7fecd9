"""HTTP with programs that others wrote: curl as the machine, nginx as the server a kernel comes from."""

import contextlib
import hashlib
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootwire.facts import TransferDone, TransferFailed, TransferStarted
from bootwire.serve import upstream
from bootwire.serve.files import PublishedDirectory
from http_rig import Client, House, served, streaming

pytestmark = pytest.mark.interop

KERNEL = random.Random(5).randbytes(12_345_678)


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    (tmp_path / "kernel").write_bytes(KERNEL)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "boot.ipxe").write_bytes(b"#!ipxe\n")
    (tmp_path / "a b%.efi").write_bytes(b"MZ")
    tree = PublishedDirectory(str(tmp_path))
    with served(lambda request, peer: tree.open(request.path)) as house:
        yield house
    tree.close()


def curl(house: House, *arguments: str) -> bytes:
    """What curl prints; "URL" in an argument is the server's."""
    url = f"http://127.0.0.1:{house.port}"
    command = ["curl", "--silent", "--show-error", "--max-time", "30", *(a.replace("URL", url) for a in arguments)]
    return subprocess.run(command, check=True, capture_output=True).stdout


# --- curl --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["--http1.1", "--http1.0"])
def test_curl_gets_files_whole(house: House, version: str) -> None:
    assert curl(house, version, "URL/kernel") == KERNEL
    assert curl(house, version, "URL/empty") == b""
    assert curl(house, version, "URL/a%20b%25.efi") == b"MZ"


def test_curl_shows_the_head_of_a_get(house: House) -> None:
    of_head = curl(house, "--head", "URL/kernel").decode()
    of_get = curl(house, "--dump-header", "-", "--output", "/dev/null", "URL/kernel").decode()
    undated = [[line for line in head.split("\r\n") if not line.startswith("Date")] for head in (of_head, of_get)]
    assert undated[0] == undated[1]
    assert f"Content-Length: {len(KERNEL)}" in undated[0]


def test_curl_keeps_its_connection(house: House) -> None:
    urls = ["URL/boot.ipxe", "URL/kernel", "URL/missing", "URL/empty"] * 5
    discarded = [argument for url in urls for argument in ("--output", "/dev/null", url)]
    said = curl(house, "--write-out", "%{num_connects} %{http_code}\\n", *discarded)
    lines = said.decode().split("\n")[:-1]
    assert [line.split()[0] for line in lines] == ["1"] + ["0"] * 19
    assert [line.split()[1] for line in lines] == ["200", "200", "404", "200"] * 5


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("0-0", KERNEL[:1]),
        ("100-199", KERNEL[100:200]),
        ("12000000-", KERNEL[12_000_000:]),
        ("-1000", KERNEL[-1000:]),
        ("0-99999999", KERNEL),
        ("0-1,5-6", KERNEL),
    ],
)
def test_curl_gets_ranges(house: House, asked: str, expected: bytes) -> None:
    assert curl(house, "--range", asked, "URL/kernel") == expected


def test_curl_resumes_a_download(house: House, tmp_path: Path) -> None:
    (tmp_path / "got").write_bytes(KERNEL[:5_000_000])
    curl(house, "--continue-at", "-", "--output", str(tmp_path / "got"), "URL/kernel")
    assert (tmp_path / "got").read_bytes() == KERNEL


def test_curl_resumes_only_what_is_still_the_same(house: House, tmp_path: Path) -> None:
    etag = next(
        line.partition(": ")[2]
        for line in curl(house, "--head", "URL/kernel").decode().split("\r\n")
        if line.startswith("ETag")
    )
    part = ("--range", "5-9", "--write-out", "%{http_code}")
    assert curl(house, *part, "--header", f"If-Range: {etag}", "URL/kernel") == KERNEL[5:10] + b"206"
    os.utime(tmp_path / "kernel", (1, 1))
    assert curl(house, *part, "--header", f"If-Range: {etag}", "URL/kernel") == KERNEL + b"200"


def test_curl_is_told_what_has_not_changed(house: House, tmp_path: Path) -> None:
    saved, code = str(tmp_path / "etag"), ("--output", "/dev/null", "--write-out", "%{http_code}", "URL/kernel")
    assert curl(house, "--etag-save", saved, *code) == b"200"
    assert curl(house, "--etag-compare", saved, *code) == b"304"
    assert curl(house, "--time-cond", str(tmp_path / "kernel"), *code) == b"304"


def test_curl_takes_us_for_a_proxy_in_vain(house: House) -> None:
    code = ("--output", "/dev/null", "--write-out", "%{http_code}", "--proxy", "URL")
    assert curl(house, *code, "http://192.0.2.1/") == b"421"
    refused = subprocess.run(
        ["curl", "-s", "--proxy", f"http://127.0.0.1:{house.port}", "https://192.0.2.1/"], check=False
    )
    assert refused.returncode == 56  # the proxy's answer to CONNECT was no


def test_two_hundred_curls_at_once_get_every_octet(house: House) -> None:
    digest = hashlib.sha256(KERNEL).hexdigest()
    script = "for i in $(seq 20); do curl -sS $URL/kernel | sha256sum & done; wait"
    runs = [
        subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, env={**os.environ, "URL": f"http://127.0.0.1:{house.port}"})
        for _ in range(10)
    ]  # fmt: skip
    lines = [line.split()[0].decode() for run in runs for line in run.communicate()[0].splitlines()]
    told = [fact for fact in house.all_facts() if not isinstance(fact, TransferStarted | TransferDone)]
    assert told == []
    assert lines == [digest] * 200


# --- nginx -------------------------------------------------------------------------------------------------------


class Nginx:
    """An nginx of its own, serving a directory on a free port; `kill` it and `start` it again on the same one."""

    def __init__(self, directory: Path, more: str = "") -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        (directory / "logs").mkdir()
        os.chmod(directory, 0o755)
        self._configuration = directory / "nginx.conf"
        self._configuration.write_text(f"""
            daemon off; master_process off; pid {directory}/pid; error_log {directory}/logs/error.log;
            events {{ worker_connections 1024; }}
            http {{
                access_log off; sendfile on; default_type application/octet-stream;
                client_body_temp_path {directory}/logs; proxy_temp_path {directory}/logs;
                fastcgi_temp_path {directory}/logs; uwsgi_temp_path {directory}/logs; scgi_temp_path {directory}/logs;
                server {{ listen 127.0.0.1:{self.port}; root {directory}/root; {more} }}
            }}
        """)
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(["/usr/sbin/nginx", "-c", str(self._configuration)], stderr=subprocess.DEVNULL)
        clock = threading.Event()
        for _ in range(200):
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            clock.wait(0.05)
        raise AssertionError("nginx does not listen")

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


@contextlib.contextmanager
def nginx(directory: Path, more: str = "") -> Iterator[Nginx]:
    server = Nginx(directory, more)
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def upstream_tree(tmp_path: Path) -> Path:
    directory = tmp_path / "upstream"
    (directory / "root").mkdir(parents=True)
    (directory / "root" / "vmlinuz").write_bytes(KERNEL)
    return directory


def test_a_kernel_comes_through_from_nginx(upstream_tree: Path) -> None:
    with nginx(upstream_tree) as there, streaming(f"{there.url}/vmlinuz") as house:
        assert curl(house, "URL/kernel") == KERNEL
        assert curl(house, "--range", "1000-", "URL/kernel") == KERNEL[1000:]
        assert f"Content-Length: {len(KERNEL)}".encode() in curl(house, "--head", "URL/kernel")
        assert curl(house, "URL/kernel", "URL/here") == KERNEL + b"from here"


def test_what_nginx_has_not_is_a_bad_gateway(upstream_tree: Path) -> None:
    with nginx(upstream_tree) as there, streaming(f"{there.url}/missing") as house:
        code = curl(house, "--output", "/dev/null", "--write-out", "%{http_code}", "URL/kernel")
        assert code == b"502"
        failed = house.fact(TransferFailed)
        assert isinstance(failed, TransferFailed)
        assert failed.because == "127.0.0.1 answers 404 Not Found"


def test_nginx_dies_on_the_way_and_comes_back(upstream_tree: Path) -> None:
    with nginx(upstream_tree, "limit_rate 5m;") as there, streaming(f"{there.url}/vmlinuz") as house:
        with Client(house.port) as client:
            client.send(b"GET /kernel HTTP/1.1\r\n\r\n")
            client.head()
            while len(client.rest) < 1_000_000:
                client.more()
            there.kill()
            there.start()
            while len(client.rest) < len(KERNEL):
                client.more()
            assert client.rest == KERNEL
        house.fact(TransferStarted)
        house.fact(TransferDone)


def test_nginx_dies_on_the_way_and_stays_dead(upstream_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "RESUME_SECONDS", 0.01)
    with nginx(upstream_tree, "limit_rate 5m;") as there, streaming(f"{there.url}/vmlinuz") as house:
        with Client(house.port) as client:
            client.send(b"GET /kernel HTTP/1.1\r\n\r\n")
            client.head()
            client.more()
            there.kill()
            with pytest.raises(ConnectionResetError):
                client.all()
        house.fact(TransferStarted)
        failed = house.fact(TransferFailed)
        assert isinstance(failed, TransferFailed)
        assert 0 < failed.octets < len(KERNEL)


def test_a_long_stream_takes_little_memory(upstream_tree: Path) -> None:
    """Twenty machines fetch 200 MB each from nginx through us."""
    os.truncate(upstream_tree / "root" / "vmlinuz", 200_000_000)
    with nginx(upstream_tree) as there, streaming(f"{there.url}/vmlinuz") as house:
        curl(house, "--range", "0-1000000", "URL/kernel")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        script = "for i in $(seq 20); do curl -s $URL/kernel | wc -c & done; wait"
        environment = {**os.environ, "URL": f"http://127.0.0.1:{house.port}"}
        sizes = subprocess.run(["sh", "-c", script], env=environment, check=True, capture_output=True).stdout.split()
        assert sizes == [b"200000000"] * 20
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # of 4,000,000 KiB


def test_https_is_verified_and_never_left(tmp_path: Path, upstream_tree: Path) -> None:
    """A certificate nobody signed is refused; one that is trusted works; a redirect to plain http is not followed."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    tls = f"""listen 127.0.0.1:{port} ssl; ssl_certificate {certificate}; ssl_certificate_key {key};
              location /moved {{ return 302 http://127.0.0.1:$server_port/vmlinuz; }}"""
    program = """
import json, sys
sys.path[:0] = ["src", "tests"]
from http_rig import Client, streaming
found = []
for path in ("vmlinuz", "moved"):
    with streaming(f"https://127.0.0.1:{sys.argv[1]}/{path}") as house, Client(house.port) as client:
        status, _, body = client.get("/kernel")
        found.append([status, len(body), body[:100].decode("latin-1") if status == 502 else ""])
print(json.dumps(found))
"""

    def ask(**environment: str) -> list[list[object]]:
        command = [sys.executable, "-c", program, str(port)]
        done = subprocess.run(command, env={**os.environ, **environment}, check=True, capture_output=True)
        found: list[list[object]] = json.loads(done.stdout)
        return found

    with nginx(upstream_tree, tls) as there:
        trusted = ask(SSL_CERT_FILE=str(certificate))
        assert trusted[0][:2] == [200, len(KERNEL)]
        assert trusted[1][0] == 502
        untrusted = ask()
        assert untrusted[0][0] == 502
        assert "certificate" in str(untrusted[0][2])
        assert there.port != port
