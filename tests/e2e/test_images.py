"""A real machine boots a kernel that lives at a URL, while its origin stalls and the server is killed and started."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time

import pytest

from bootwire import facts
from bootwire.lab.network import Host
from lab_bench import WEB_SERVER, Bench

pytestmark = pytest.mark.e2e

# The first answer stops half-way until /go is asked for; /asked tells what was asked for, a line each.
ORIGIN = r"""
import http.server, sys, threading
DATA, go, asked = open(sys.argv[1], "rb").read(), threading.Event(), []

class Origin(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/go": go.set()
        if self.path != "/linux": return self.say(200, "\n".join(asked).encode())
        part = self.headers.get("Range", "")
        asked.append(part or "whole")
        first, _, last = part.removeprefix("bytes=").partition("-")
        at, stop = (int(first), min(int(last or len(DATA)), len(DATA) - 1) + 1) if part else (0, len(DATA))
        fields = [("ETag", '"k"')] + ([("Content-Range", f"bytes {at}-{stop - 1}/{len(DATA)}")] if part else [])
        self.say(206 if part else 200, DATA[at:stop], *fields, half=stop - at > len(DATA) // 2)

    def say(self, status, body, *fields, half=False):
        self.send_response(status)
        for name, value in [*fields, ("Content-Length", str(len(body)))]: self.send_header(name, value)
        self.end_headers()
        if half:
            self.wfile.write(body[: len(body) // 2])
            go.wait()
            body = body[len(body) // 2 :]
        self.wfile.write(body)

    def log_message(self, *_): pass

server = http.server.ThreadingHTTPServer(("", 80), Origin)
print("ready", flush=True)
server.serve_forever()
"""


def asked(host: Host, path: str) -> list[str]:
    process = host.start(["curl", "-sf", f"http://{WEB_SERVER}{path}"], stdout=subprocess.PIPE)
    return process.communicate(timeout=20)[0].decode().split("\n")


@pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "pull-through"])
def test_a_kernel_from_a_url_survives_its_server(bench: Bench, pinned: bool) -> None:
    with bench:
        web = bench.network.host("web", {bench.lan: f"{WEB_SERVER}/24"})
        origin = web.start([sys.executable, "-c", ORIGIN, str(bench.linux.kernel)], stdout=subprocess.PIPE)
        assert origin.stdout is not None
        with origin.stdout as out:
            assert out.readline() == b"ready\n"
        digest = hashlib.sha256(bench.linux.kernel.read_bytes()).hexdigest()
        pin = f', sha256 = "{digest}"' if pinned else ""
        (bench.directory / "fleet.toml").write_text(
            f'[profiles.p]\nkernel = {{ location = "http://{WEB_SERVER}/linux"{pin} }}\n'
            f'initrd = ["{bench.initrds[0]}"]\ncmdline = "console=ttyS0 {bench.token}"\n'
            '[[group]]\nname = "all"\nprofile = "p"\n'
        )
        options = ["--cache", "--cache-dir", str(bench.directory / "cache")]
        bench.start_dhcp()
        first = bench.fleet(options)
        machine = bench.power_on("bios")
        until = time.monotonic() + 120
        while "whole" not in asked(bench.dhcp, "/asked"):
            assert time.monotonic() < until, machine.tail()
            time.sleep(0.2)
        os.kill(first._process.pid, signal.SIGKILL)
        first.stop()
        bench.fleet(options)
        assert asked(bench.dhcp, "/go")
        booted = bench.finish(machine)
        whole = [one for one in asked(bench.dhcp, "/asked") if not one.startswith("bytes=0-")]
    assert booted.token in booted.command_line.split()
    assert [fact for fact in booted.facts if isinstance(fact, facts.ScriptServed)] == []  # the first server's URLs hold
    (kernel,) = [fact for fact in booted.delivered if fact.name == "kernel"]
    assert kernel.octets == bench.linux.kernel.stat().st_size
    assert whole[0] == "whole"
    assert len(whole) == 2
