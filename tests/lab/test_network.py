"""The lab's private network: reachable inside, invisible outside, gone afterwards."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bootwire.lab import network

pytestmark = pytest.mark.e2e  # needs root


def namespaces() -> set[str]:
    return set(os.listdir(network.NETNS_DIR)) if network.NETNS_DIR.exists() else set()


def interfaces() -> list[str]:
    return os.listdir("/sys/class/net")


def test_hosts_on_two_segments_reach_each_other_through_a_router() -> None:
    with network.Network() as net:
        here, there = net.segment(), net.segment()
        net.host("router", {here: "10.77.0.1/24", there: "10.77.1.1/24"}, forwards=True)
        near = net.host("near", {here: "10.77.0.2/24"}, gateway="10.77.0.1")
        net.host("far", {there: "10.77.1.2/24"}, gateway="10.77.1.1")
        assert b"1 packets received" in near.run(["busybox", "ping", "-c", "1", "10.77.1.2"])


def test_nothing_of_it_is_left_or_ever_visible_on_the_host() -> None:
    before = namespaces(), interfaces()
    with network.Network() as net:
        lan = net.segment()
        process = net.host("one", {lan: "10.77.0.1/24"}).start(["sleep", "600"])
        lan.tap()
        assert interfaces() == before[1]
    assert (namespaces(), interfaces()) == before
    assert process.returncode == -signal.SIGTERM


def test_an_error_while_building_leaves_nothing() -> None:
    before = namespaces()
    with pytest.raises(network.LabError, match="10\\.77\\.0\\.999"), network.Network() as net:
        net.host("one", {net.segment(): "10.77.0.999/24"})
    assert namespaces() == before


def test_what_a_dead_process_with_our_pid_left_is_no_obstacle() -> None:
    first = network.Network()
    number = int(first.prefix.split("-")[1])
    left = f"bw{os.getpid()}-{number + 1}-wire"
    subprocess.run(["ip", "netns", "add", left], check=True)
    with network.Network() as net:
        assert net.wire.namespace == left
    assert left not in namespaces()


BUILD_AND_WAIT = """
import subprocess, time
from bootwire.lab.network import Network
with Network() as net:
    host = net.host("one", {net.segment(): "10.77.0.1/24"})
    process = host.start(["sh", "-c", "echo ready; exec sleep 600 >&-"], stdout=subprocess.PIPE)
    process.stdout.readline()  # by now it is bound to die with us
    print(net.prefix, process.pid, flush=True)
    time.sleep(600)
"""


def lab_process() -> tuple[subprocess.Popen[str], str, int]:
    source = str(Path(network.__file__).parents[2])
    lab = subprocess.Popen(
        [sys.executable, "-c", BUILD_AND_WAIT],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": source},
    )
    assert lab.stdout is not None
    prefix, pid = lab.stdout.readline().split()
    return lab, prefix, int(pid)


def test_what_a_killed_lab_left_is_removed_by_the_next() -> None:
    lab, prefix, pid = lab_process()
    lab.kill()
    lab.communicate()
    assert any(name.startswith(prefix) for name in namespaces())
    with network.Network():
        assert not any(name.startswith(prefix) for name in namespaces())
    assert not network.is_running(pid)


def test_a_running_lab_is_left_alone_by_another() -> None:
    lab, prefix, pid = lab_process()
    with network.Network():
        assert any(name.startswith(prefix) for name in namespaces())
        assert network.is_running(pid)
    lab.send_signal(signal.SIGINT)
    lab.communicate()
    assert not any(name.startswith(prefix) for name in namespaces())
