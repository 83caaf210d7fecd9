"""A package mirror on loopback, built in memory: everything in it can be damaged before it is asked for."""

import contextlib
import hashlib
import io
import lzma
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from bootwire.serve.apt import Apt, Mirror
from serve import openpgp

Members = dict[str, bytes | tarfile.TarInfo]


def ar(**members: bytes) -> bytes:
    """An ar archive; "_" in a name stands for a dot, as in control_tar_xz."""
    data = b"!<arch>\n"
    for name, body in members.items():
        head = f"{name.replace('_', '.'):<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(body):<10}`\n".encode()
        data += head + body + b"\n" * (len(body) % 2)
    return data


def tar(members: Members) -> bytes:
    """A tar of regular files, or of whatever TarInfo is given instead of contents."""
    into = io.BytesIO()
    with tarfile.open(fileobj=into, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, body in members.items():
            if isinstance(body, tarfile.TarInfo):
                archive.addfile(body)
                continue
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return into.getvalue()


def deb(members: Members, pack: Callable[[bytes], bytes] = lzma.compress, ending: str = "xz") -> bytes:
    parts = {"debian-binary": b"2.0\n", "control_tar_xz": lzma.compress(tar({"control": b""}))}
    parts["data_tar" + (f"_{ending}" if ending else "")] = pack(tar(members))
    return ar(**parts)


@dataclass
class FakeMirror:
    """files: path -> octets as served; asked: paths in the order they were asked for; `base` has the port in it."""

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    base: str = ""
    keyring: Path = Path()

    def add(
        self,
        name: str,
        contents: bytes,
        *,
        version: str = "1.0-1",
        suite: str = "stable",
        architecture: str = "amd64",
        depends: str = "",
    ) -> None:
        """Put a .deb into the pool and its paragraph into the index of `suite`; call `sign` when all are in."""
        pool = f"pool/{name}_{version}_{architecture}.deb"
        self.files[pool] = contents
        index = f"dists/{suite}/main/binary-{architecture}/Packages"
        fields = [f"Package: {name}", f"Version: {version}", f"Architecture: {architecture}"]
        fields += [f"Depends: {depends}"] if depends else []
        fields += [f"Filename: {pool}", f"Size: {len(contents)}", f"SHA256: {hashlib.sha256(contents).hexdigest()}"]
        self.files[index] = self.files.get(index, b"") + "\n".join([*fields, "Description: a test", "", ""]).encode()

    def sign(self, suite: str = "stable", *, other_key: bool = False, digests: str = "SHA256", head: str = "") -> None:
        """Pack the indexes of `suite` and write its InRelease."""
        rows = []
        for path in [path for path in self.files if path.startswith(f"dists/{suite}/") and path.endswith("/Packages")]:
            self.files[path + ".xz"] = packed = lzma.compress(self.files[path])
            digest = hashlib.new(digests.lower(), packed).hexdigest()
            rows.append(f" {digest} {len(packed)} {path.removeprefix(f'dists/{suite}/')}.xz")
        text = (
            f"Origin: Test\nSuite: {suite}\nCodename: {suite}-name\nComponents: main\n{head}{digests}:\n"
            + "\n".join(rows)
        )
        self.files[f"dists/{suite}/InRelease"] = openpgp.clearsigned(text, other_key)

    def apt(self, *suites: str, keyrings: bool = True) -> Apt:
        return Apt((Mirror(self.base, suites or ("stable",), keyrings=(self.keyring,) if keyrings else ()),))


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[FakeMirror]:
    """A FakeMirror that answers on a loopback port until the end of the block."""
    mirror = FakeMirror(keyring=folder / "archive.gpg")
    mirror.keyring.write_bytes(openpgp.keyring())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(self.path).partition("/debian/")[2].replace("-name/", "/")  # codenames are links to suites
            mirror.asked.append(path)
            body = mirror.files.get(path)
            self.send_response(200 if body is not None else 404)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        mirror.base = f"http://127.0.0.1:{server.server_address[1]}/debian"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield mirror
        finally:
            server.shutdown()
            thread.join()
