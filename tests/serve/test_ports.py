"""Who owns a port, and what we say about it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bootwire.serve import ports
from bootwire.serve.ports import Owner, owners, taken


def test_our_own_udp_socket_is_found_with_our_pid() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taker:
        taker.bind(("127.0.0.1", 0))
        port = taker.getsockname()[1]
        (owner,) = owners("udp", port)
        assert (owner.address, owner.pid) == ("127.0.0.1", os.getpid())
        assert str(os.getpid()) in taken("udp", port)[0]
    assert owners("udp", port) == ()


def test_a_tcp_port_is_taken_by_its_listener_not_by_its_connections() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), listener.accept()[0]:
            (owner,) = owners("tcp", port)
            assert owner.pid == os.getpid()


def test_an_ipv6_socket_that_takes_all_addresses_is_found() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as taker:
        taker.bind(("::", 0))
        (owner,) = owners("udp", taker.getsockname()[1])
        assert owner.address == "*"


@pytest.mark.parametrize("how", [("-m", "taker"), ("taker.py",), ("-X", "dev", "-m", "taker")])
def test_a_python_program_goes_by_its_own_name(how: tuple[str, ...], tmp_path: Path) -> None:
    program = "with __import__('socket').create_server(('', 0)) as s: print(s.getsockname()[1], flush=True); input()"
    (tmp_path / "taker.py").write_text(program)
    command = [sys.executable, *how]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as taker:
        assert taker.stdout is not None
        (owner,) = owners("tcp", int(taker.stdout.readline()))
        taker.communicate(b"\n")
    assert owner.name.removesuffix(".py") == "taker"


def test_a_service_is_stopped_by_its_unit_a_process_by_its_number() -> None:
    assert ports.advice("udp", 69, [Owner("*", "in.tftpd", 812, "tftpd-hpa")]) == (
        "UDP port 69 is taken by in.tftpd (process 812)", "sudo systemctl stop tftpd-hpa",
    )  # fmt: skip
    assert ports.advice("udp", 69, [Owner("*", "atftpd", 9)])[1] == "sudo kill 9"


def test_a_port_that_can_move_is_moved_first() -> None:
    what, fix = ports.advice(
        "tcp", 80, [Owner("*", "nginx", 1, "nginx"), Owner("*", "nginx", 2, "nginx")], "--http-port"
    )
    assert what == "TCP port 80 is taken by nginx (process 1) and nginx (process 2)"
    assert fix == "--http-port 8080, or sudo systemctl stop nginx"


def test_an_owner_that_we_may_not_see_is_said_to_be_one() -> None:
    what, fix = ports.advice("tcp", 8080, [Owner("*")])
    assert what == "TCP port 8080 is taken by a process that we may not look at"
    assert fix == "sudo ss -lpn 'sport = :8080' shows who it is"


def test_a_port_that_came_free_meanwhile_is_tried_again() -> None:
    assert ports.advice("udp", 69, [])[1] == "start again"
