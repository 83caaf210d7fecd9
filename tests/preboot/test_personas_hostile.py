"""Personas against servers that say anything: each boot ends, in bounded virtual time, and nothing raises."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bootwire.preboot.personas import bios, edk2, freebsd, host, ipxe, raspberry, u_boot, uefi_http
from bootwire.preboot.personas.steps import Booted, Started, Stopped
from bootwire.wire import dhcp4
from persona_lan import OURS, DhcpServer, Lan, Seen, bzimage, pe

FIRMWARE = {
    "bios": bios.boot, "edk2": edk2.boot, "freebsd": freebsd.boot, "host": host.boot, "ipxe": ipxe.rom,
    "raspberry-3": lambda machine: raspberry.boot(machine, raspberry.Build(3)), "raspberry-4": raspberry.boot,
    "u-boot": u_boot.boot, "u-boot-efi": lambda machine: u_boot.boot(machine, u_boot.EFI), "uefi-http": uefi_http.boot,
}  # fmt: skip

names = st.sampled_from(
    [b"", b"x", b"x.efi", b"pxelinux.0", b"grubx64.efi", b"undionly.kpxe", b"http://192.0.2.10/x", b"http://[::/",
     b"\xff\xfe", b"tftp://", b"http://h:99999/\xe4", b"../../x", b"a" * 127, b"${x", b"${${}}", b"http://192.0.2.10/x.efi"]
)  # fmt: skip
addresses = st.sampled_from(["0.0.0.0", OURS, "255.255.255.255", "192.0.2.77", "0.1.2.3"])
tlvs = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=12)), max_size=4).map(
    lambda pairs: b"".join(bytes((code, len(value))) + value for code, value in pairs)
)
values = st.binary(max_size=40) | tlvs | names | st.sampled_from([b"PXEClient", b"HTTPClient", b"\xff\xff\xff\0"])
codes = st.sampled_from([1, 3, 6, 12, 13, 17, 43, 51, 54, 58, 59, 60, 66, 67, 77, 93, 97, 175, 209, 210]) | st.integers(
    1, 254
)
options = st.lists(
    st.tuples(codes.filter(lambda code: code not in (52, 53)), values), max_size=8, unique_by=lambda o: o[0]
)
replies = st.fixed_dictionaries(
    {"kind": st.sampled_from([0, 2, 2, 2, 5, 5, 6, 9]), "yiaddr": addresses, "siaddr": addresses, "file": names,
     "options": options, "port": st.sampled_from([67, 67, 4011, 1])}
)  # fmt: skip
contents = st.sampled_from([None, b"", pe(), bzimage(4096), b"\xea" * 600]) | st.binary(max_size=200)


def hostile(said: list[dict]):
    """Answers each datagram with some of `said`, in turn."""
    turn = [0]

    def serve(seen: Seen):
        asked = seen.message
        for _ in range(2):
            answer = said[turn[0] % len(said)]
            turn[0] += 1
            own = ((53, bytes((answer["kind"],))),) if answer["kind"] else ()
            message = replace(
                asked, op=2, yiaddr=answer["yiaddr"], siaddr=answer["siaddr"], file=answer["file"],
                options=(*own, *answer["options"]), flags=0x8000,
            )  # fmt: skip
            yield (OURS, answer["port"]), ("255.255.255.255", seen.source[1]), dhcp4.emit(message)

    return serve


def finish(lan: Lan, firmware: str) -> None:
    outcome = lan.boot(FIRMWARE[firmware]).outcome
    assert isinstance(outcome, Booted | Started | Stopped)


@pytest.mark.parametrize("firmware", FIRMWARE)
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(said=st.lists(replies, min_size=1, max_size=4), content=contents, beside=st.booleans())
def test_dhcp_that_says_anything(firmware, said, content, beside):
    servers = [hostile(said), DhcpServer()] if beside else [hostile(said)]
    lan = Lan(*servers)
    lan.tftp = lambda name, peer: content
    lan.http = lambda url, peer: 404 if content is None else content
    finish(lan, firmware)


WORDS = """kernel initrd boot chain goto :a a || && ; set x ${x} ${net0/mac:hexhyp} # imgfree imgargs choose item menu
    --name -- isset iseq inc exit sleep 1 -1 dhcp label default append include menuentry { } linux /x default=9 = " ' \\
    initrd=a,b http://192.0.2.10/x tftp://[ (http,)/x rd_load=YES rd_type=md rd_name=x [all] ${${x} ${x:int8} \0 \u00e4
    99999999999999999999999999999 imgfetch autoboot prompt ifconf"""
words = st.sampled_from(WORDS.split())
scripts = st.lists(st.lists(words, max_size=6).map(" ".join), max_size=12).map(lambda lines: "\n".join(lines).encode())


@pytest.mark.parametrize("firmware", ["ipxe", "bios", "edk2", "u-boot", "freebsd", "raspberry-4"])
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(text=scripts)
def test_scripts_and_configurations_that_say_anything(firmware, text):
    pxe, direct = (60, b"PXEClient"), (43, b"\x06\x01\x08\x09\x16\x00\x00\x13Raspberry Pi Boot  \x0a\x02\x00P\xff")
    file = {"ipxe": b"s.ipxe", "bios": b"pxelinux.0", "edk2": b"grubx64.efi"}.get(firmware, b"x")
    own = (pxe, direct, (17, b"tftp://192.0.2.10/r")) if firmware != "u-boot" else ()
    lan = Lan(DhcpServer(*own, siaddr=OURS, file=file))
    programs = {"pxelinux.0": b"\xea" * 600, "grubx64.efi": pe(), "s.ipxe": b"#!ipxe\n" + text}
    lan.tftp = lambda name, peer: programs.get(name.decode("utf-8", "replace"), text)
    lan.http = lambda url, peer: b"#!ipxe\n" + text
    finish(lan, firmware)
