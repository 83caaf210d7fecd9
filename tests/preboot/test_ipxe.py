"""iPXE persona: its DHCP timing rules, where it takes the boot file from, and its scripts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from bootwire.engine import S
from bootwire.preboot.personas import ipxe
from bootwire.preboot.personas.steps import Booted, Started, Stopped
from bootwire.wire import dhcp4
from persona_lan import OURS, ROUTER, DhcpServer, Lan, bzimage, pe, seconds

PXE = (60, b"PXEClient")


def proxy(*options: tuple[int, bytes], file: bytes = b"script", after: int = 1, binl: bytes | None = None, siaddr=OURS):
    """A ProxyDHCP server that answers from its `after`th DISCOVER on; binl: the file its port 4011 names."""
    seen_discovers = [0]

    def serve(seen):
        kind = seen.message.type
        if seen.to[1] == 67 and kind == dhcp4.DISCOVER:
            seen_discovers[0] += 1
            if seen_discovers[0] >= after:
                yield reply(seen, 2, file, 67)
        elif seen.to == (OURS, 4011) and binl is not None:
            yield reply(seen, 5, binl, 4011)

    def reply(seen, kind, named, port):
        carried = ((53, bytes((kind,))), (54, dhcp4.packed(OURS)), PXE, *options)
        message = replace(seen.message, op=2, siaddr=siaddr, file=named, options=carried)
        return (OURS, port), ("255.255.255.255" if port == 67 else seen.source[0], 68), dhcp4.emit(message)

    return serve


def lan(*servers, files: dict[str, bytes] | None = None) -> Lan:
    made = Lan(*servers)
    files = files or {}
    made.tftp = lambda name, peer: files.get(name.decode())
    made.http = lambda url, peer: files.get(url, 404)
    return made


# --- DHCP -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("servers", "sent"),
    [
        ((), [0, 1, 3, 7]),
        ((DhcpServer(),), [0, 1, 3]),
        ((DhcpServer(), proxy(file=b"script")), [0, 0]),
        ((DhcpServer(), proxy(file=b"script", after=2)), [0, 1, 1]),
        ((DhcpServer((175, b"\xb0\1\1")),), [0, 0]),
        ((DhcpServer(PXE, siaddr=OURS, file=b"script"),), [0, 0]),
    ],
)
def test_when_it_sends(servers, sent):
    made = lan(*servers, files={"script": b"#!ipxe\nexit 1\n"})
    made.boot(ipxe.rom)
    assert seconds(made.sent()) == sent


def test_a_request_is_repeated_from_a_quarter_of_a_second_on():
    def offers_only(seen):
        yield from (one for one in DhcpServer()(seen) if seen.message.type == dhcp4.DISCOVER)

    made = lan(offers_only, proxy())
    assert made.boot(ipxe.rom).outcome == Stopped("", "No configuration methods succeeded")
    requests = [seen for seen in made.sent() if seen.message.type == dhcp4.REQUEST_LEASE]
    assert seconds(requests) == [0, 0.25, 0.75, 1.75, 3.75, 7.75]


def test_a_proxy_without_a_file_is_asked_on_port_4011():
    made = lan(DhcpServer(), proxy(file=b"", binl=b"script"), files={"script": b"#!ipxe\nexit 1\n"})
    station = made.boot(ipxe.rom)
    (asked,) = made.sent(port=4011)
    assert (asked.source[1], dhcp4.address(asked.message.option(54))) == (68, OURS)
    assert station.fetched == ["TFTP script"]


def test_a_proxy_that_does_not_answer_on_port_4011_is_forgotten():
    made = lan(DhcpServer(), proxy(file=b""))
    station = made.boot(ipxe.rom)
    assert seconds(made.sent(port=4011)) == [0, 0.25, 0.75, 1.75]
    assert station.outcome == Stopped("", "Nothing to boot: no filename")


def test_the_dhcp_servers_own_file_wins_over_the_proxys():
    made = lan(DhcpServer(siaddr="192.0.2.77", file=b"own"), proxy(file=b"script"))
    assert made.boot(ipxe.rom).fetched == ["TFTP own"]


def test_a_nak_is_ignored_by_the_build_of_2019():
    made = lan(DhcpServer(nak=True), proxy())
    assert isinstance(made.boot(ipxe.rom, ipxe="1.0.0+git-20190125").outcome, Stopped)
    assert [seen.message.type for seen in made.sent()].count(dhcp4.DISCOVER) == 1


def test_a_nak_starts_newer_builds_anew():
    naughty = DhcpServer(nak=True)

    def twice(seen):
        naughty.nak = seen.at < S
        return naughty(seen)

    made = lan(twice, proxy(), files={"script": b"#!ipxe\nexit 1\n"})
    assert made.boot(ipxe.rom).fetched == ["TFTP script"]


# --- scripts ----------------------------------------------------------------------------------------------------

BASE = f"http://{OURS}"


def run(script: str, files: dict[str, bytes] | None = None, **more: object):
    """Boot a ROM into a script at /s/boot.ipxe."""
    url = f"{BASE}/s/boot.ipxe"
    made = lan(
        DhcpServer((12, b"host"), (6, bytes((9, 9, 9, 9)))), proxy(file=url.encode()),
        files={url: b"#!ipxe\n" + script.encode(), **{BASE + name: data for name, data in (files or {}).items()}},
    )  # fmt: skip
    return made.boot(ipxe.rom, **more)


def said(script: str, files: dict[str, bytes] | None = None) -> list[str]:
    """What a script echoes."""
    screen = run(script, files).screen
    return [line.removeprefix("> ") for line in screen if line.startswith("> ")]


@pytest.mark.parametrize(
    ("script", "echoed"),
    [
        ("echo > a  b", ["a b"]),
        ("set x 1 2\necho > ${x} ${y}.", ["1 2 ."]),
        ("set x mac\necho > ${net0/${x}:hexhyp}", ["52-54-00-12-34-56"]),
        ("echo > ${mac} ${net0/mac:hexraw}", ["52:54:00:12:34:56 525400123456"]),
        ("echo > ${ip} ${netmask} ${next-server}", ["192.0.2.100 255.255.255.0 192.0.2.10"]),
        ("echo > ${hostname} ${dns} ${proxydhcp/next-server} ${dhcp-server}", ["host 9.9.9.9 192.0.2.10 192.0.2.1"]),
        ("echo > ${platform} ${buildarch} ${version}", ["pcbios i386 2.0.0"]),
        ("echo > ${uuid}", ["03020100-0504-0706-0809-0a0b0c0d0e0f"]),
        ("set a b c\necho > ${a:uristring}", ["b%20c"]),
        ("isset ${nothing} || echo > unset", ["unset"]),
        ("isset ${ip} && echo > set || echo > unset", ["set"]),
        ("iseq a b && echo > same ||\necho > on", ["on"]),
        ("iseq a a && echo > same\niseq a b || echo > different", ["same", "different"]),
        ("nonsense || echo > ${errno}", ["Exec format error: command not found"]),
        ("echo > one # two", ["one"]),
        ("echo > one \\\ntwo", ["one two"]),
        ("goto b\n:a\necho > a\nexit 1\n:b\necho > b\ngoto a", ["b", "a"]),
        ("set n:int32 0\n:again\ninc n\niseq ${n} 3 || goto again\necho > ${n}", ["3"]),
        ("false ; echo > on", ["on"]),
        ("menu\nitem one One\nitem --gap -- --\nitem two Two\nchoose --default two x && echo > ${x}", ["two"]),
        ("set x:hex 01\nclear x\necho > [${x}]", ["[]"]),
        ("chain sub.ipxe || echo > failed ${errno}", ["failed No such file or directory: http://192.0.2.10/s/sub.ipxe"]),
    ],
)  # fmt: skip
def test_what_scripts_say(script, echoed):
    assert said(script) == echoed


def test_a_command_that_fails_ends_the_script_unless_it_is_caught():
    assert said("echo > one\nisset ${nothing}\necho > two") == ["one"]


def test_a_chained_script_runs_relative_to_itself_and_comes_back():
    files = {"/s/sub/a.ipxe": b"#!ipxe\necho > ${cwuri}\nchain b.ipxe", "/s/sub/b.ipxe": b"#!ipxe\necho > b"}
    assert said("chain sub/a.ipxe\necho > back ${cwuri}", files) == [
        f"{BASE}/s/sub/a.ipxe", "b", f"back {BASE}/s/boot.ipxe",
    ]  # fmt: skip


FILES = {"/k": bzimage(), "/i0": b"zero", "/i1": b"one", "/mark": b"#\n", "/nbp": b"\xea" * 9000, "/efi": pe()}


@pytest.mark.parametrize(
    ("script", "cmdline", "initrds"),
    [
        ("kernel /k a=b c\ninitrd /i0\ninitrd /i1\nboot", "a=b c", ["i0", "i1"]),
        ("kernel --name kernel /k\ninitrd --name r /i0\nboot kernel x=${ip}", "x=192.0.2.100", ["r"]),
        ("initrd /i0\nchain /k quiet", "quiet", ["i0"]),
        ("kernel /k\nimgargs k one two\nboot", "one two", []),
        ("kernel /k\nimgfetch --name m /mark ||\nimgfree m ||\nboot", "", []),
        ("initrd /i0\nimgfree\nkernel /k\nboot", "", []),
        ("kernel /missing || kernel /k\nboot || shell", "", []),
    ],
)
def test_the_kernel_that_starts(script, cmdline, initrds):
    outcome = run(script, FILES).outcome
    assert isinstance(outcome, Booted), outcome
    assert (outcome.cmdline, [image.name for image in outcome.initrds]) == (cmdline, initrds)
    assert outcome.kernel.octets == len(FILES["/k"])


def test_a_network_boot_program_starts():
    outcome = run("chain /nbp", FILES).outcome
    assert isinstance(outcome, Started)
    assert outcome.program.url == f"{BASE}/nbp"


def test_an_efi_program_does_not_run_on_a_bios():
    assert run("chain /efi", FILES).outcome == Stopped("", "Exec format error")


@pytest.mark.parametrize(
    "script",
    [
        ":a\ngoto a",
        "chain boot.ipxe",
        "set x ab\n:a\nset x ${x}${x}\ngoto a",
        "goto nowhere",
        "shell",
        "reboot",
        "exit 3",
    ],
)
def test_scripts_that_lead_nowhere_end(script):
    assert isinstance(run(script).outcome, Stopped)


def test_what_is_not_understood_is_reported():
    station = run("sanboot iscsi:10.0.0.1::::iqn.x || ntp 9.9.9.9\nexit 0")
    assert "sanboot: command not found" in station.screen


def test_prompt_and_sleep_take_their_time():
    made: Callable[[str], int] = lambda script: run(script).machine.now  # noqa: E731
    assert made("sleep 7\nexit 1") - made("exit 1") == 7 * S
    assert made("prompt --key s --timeout 2000 Press s ||\nexit 1") - made("exit 1") == 2 * S


def test_the_router_is_the_gateway():
    assert said("echo > ${gateway}") == [ROUTER]
