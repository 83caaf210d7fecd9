"""Boot loaders told by their content; what real packages hold is tested in tests/interop/test_package_mirror.py."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets import samples
from bootwire.assets.loaders import MAX_SIZE, Build, catalog_name, choose, identify

NEW = samples.ipxe_strings("2.0.0+dfsg-5", "HTTP", "HTTPS", "VLAN", "syslog", "file:autoexec.ipxe")
OLD = samples.ipxe_strings("1.0.0+git-20190125.36a4c85-5.1", "HTTP", "TFTP")


def build(data: bytes) -> Build:
    found = identify(data)
    assert found is not None
    return found


def test_an_efi_build_says_all_about_itself():
    assert build(samples.pe("x86_64", NEW)) == Build(
        "ipxe", "x86_64", "2.0.0+dfsg-5", "firmware", frozenset({"http", "https", "vlan", "syslog", "autoexec"})
    )


def test_debian_12s_build_is_of_2019_and_lacks_what_came_later():
    old = build(samples.pe("x86_64", OLD))
    assert (old.version, old.year) == ("1.0.0+git-20190125.36a4c85-5.1", 2019)
    assert old.features == {"http", "tftp"}


def test_a_bios_build_is_unpacked_and_read():
    strings = samples.ipxe_strings("1.21.1+git20250501.dad20602+dfsg-1", "HTTP", "HTTPS", drivers="undi")
    found = build(samples.zbin(strings))
    assert (found.kind, found.architecture, found.version) == ("ipxe", "bios", "1.21.1+git20250501.dad20602+dfsg-1")
    assert (found.drivers, found.year) == ("firmware", 2025)
    assert found.features == {"http", "https"}


def test_strings_after_x86_padding_are_found():
    strings = samples.ipxe_strings("2.0.0+dfsg-5", "HTTP", drivers="undi", padding=b"\x66\x90\x90")
    assert build(samples.zbin(strings)).version == "2.0.0+dfsg-5"


def test_a_build_with_its_own_drivers_is_told_from_one_with_the_firmwares():
    own = samples.ipxe_strings("2.0.0", "HTTP", drivers="own")
    assert build(samples.pe("arm64", own)).drivers == "own"
    assert build(samples.zbin(own)).drivers == "own"


def test_a_version_that_is_not_there_is_said_to_be_unknown():
    found = build(samples.pe("x86_64", samples.ipxe_strings("no version", "HTTP")))
    assert found.version == ""
    assert str(found) == "iPXE unknown version, UEFI x86_64, firmware's network driver"


def test_upstreams_own_version_form_is_read():
    assert (
        build(samples.pe("x86_64", samples.ipxe_strings("1.21.1+ (g4bd064d)", "HTTP"))).version == "1.21.1+ (g4bd064d)"
    )


def test_shim_with_its_version_and_both_signers():
    body = (
        b"\0UEFI SHIM\n$Version: 16.1 $\n$BuildMachine: buildhost $\n\0\nshim,4,UEFI shim,shim,1,https://example.org\n"
    )
    signed = samples.signature("Microsoft Corporation UEFI CA 2011", "Microsoft UEFI CA 2023")
    found = build(samples.pe("x86_64", body, signature=signed))
    assert (found.kind, found.version) == ("shim", "16.1")
    assert found.signers == ("Microsoft Corporation UEFI CA 2011", "Microsoft UEFI CA 2023")
    assert str(found) == "shim 16.1, UEFI x86_64, signed: Microsoft Corporation UEFI CA 2011, Microsoft UEFI CA 2023"


def test_grub_with_and_without_http():
    body = b"\0GNU GRUB  version %s\0\ngrub,5,Free Software Foundation,grub,2.12,https://www.gnu.org/software/grub/\n"
    assert build(samples.pe("arm64", body)).features == frozenset()
    assert build(samples.pe("arm64", body + b"\0net/http.c\0")).features == {"http"}
    assert build(samples.pe("arm64", body)).version == "2.12"


def test_syslinux_and_its_two_bios_brothers():
    assert str(build(samples.pe("i386", b"\0Syslinux 6.04 (EFI; 20200816)\n\0"))) == "syslinux 6.04, UEFI i386"
    for name, word in (("pxelinux", b"PXE"), ("lpxelinux", b"lwIP")):
        head = b"\xea\x24\x7c\0\0" + bytes(100) + b"\r\nPXELINUX 6.04 " + word + b" 20200816 \0"
        assert str(build(head)) == f"{name} 6.04, BIOS"


def test_an_unknown_efi_program_stays_unknown():
    assert str(build(samples.pe("x86_64", b"hello"))) == "EFI program, UEFI x86_64"


@pytest.mark.parametrize(
    "data", [b"", b"\xea" + bytes(9000), samples.bzimage(stub=""), samples.elf(), bytes(MAX_SIZE + 1)]
)
def test_what_is_no_boot_loader_is_none(data):
    assert identify(data) is None


def test_windows_programs_are_no_boot_loaders():
    assert identify(samples.pe("x86_64", NEW, subsystem=3)) is None


def named(name: str, **differs: object) -> Build:
    kind, drivers = ("bios", "firmware") if name == "bios/undionly.kpxe" else (name.split("/")[0], "firmware")
    fields = {
        "kind": "ipxe",
        "architecture": kind,
        "version": "1.21.1",
        "drivers": drivers,
        "features": frozenset({"http"}),
    }
    return Build(**(fields | differs))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("architecture", "drivers", "name"),
    [
        ("bios", "firmware", "bios/undionly.kpxe"),
        ("bios", "own", "bios/ipxe.pxe"),
        ("x86_64", "firmware", "x86_64/snponly.efi"),
        ("x86_64", "own", "x86_64/ipxe.efi"),
        ("arm64", "own", "arm64/ipxe.efi"),
        ("riscv64", "", "riscv64/ipxe.efi"),
    ],
)
def test_names_in_the_catalog(architecture, drivers, name):
    assert catalog_name(Build("ipxe", architecture, "2.0.0", drivers, frozenset({"http"}))) == name


def test_loaders_that_cannot_fetch_over_http_or_are_not_ipxe_are_not_served():
    assert catalog_name(Build("ipxe", "bios", "1.0.0", "firmware")) == ""
    assert catalog_name(Build("grub", "x86_64", "2.12", features=frozenset({"http"}))) == ""
    assert choose([("grub", Build("grub", "x86_64", "2.12", features=frozenset({"http"})))]) == {}


def test_the_build_that_can_more_is_chosen_whatever_the_order():
    old, new = named("x86_64/x"), named("x86_64/x", features=frozenset({"http", "autoexec"}), version="1.21.0")
    for pairs in ([("old", old), ("new", new)], [("new", new), ("old", old)]):
        assert choose(pairs) == {"x86_64/snponly.efi": ("new", new)}


def test_of_equally_able_builds_the_newer_version_is_chosen():
    old, new = named("bios/undionly.kpxe", version="1.9.1"), named("bios/undionly.kpxe", version="1.21.1+dfsg-2")
    assert choose([("old", old), ("new", new)])["bios/undionly.kpxe"][0] == "new"


def test_of_equals_the_first_stays():
    assert choose([("a", named("arm64/x")), ("b", named("arm64/x"))])["arm64/snponly.efi"][0] == "a"


SAMPLES = [
    samples.pe("x86_64", NEW, signature=samples.signature("One", "Two")),
    samples.zbin(samples.ipxe_strings("2.0.0", "HTTP", drivers="undi")),
]


@settings(max_examples=60)
@given(st.sampled_from(SAMPLES), st.data())
def test_every_cut_and_mutation_has_an_answer(sample, data):
    octets = bytearray(sample[: data.draw(st.integers(0, len(sample)))])
    for _ in range(data.draw(st.integers(0, 8))):
        if octets:
            octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    assert isinstance(identify(bytes(octets)), Build | None)


@given(st.binary(max_size=400), st.integers(0, 500), st.integers(0, 2**32))
def test_certificate_tables_of_any_octets_have_an_answer(table, at, size):
    from bootwire.assets import der

    names = der.signers(bytes(at) + table, at, size)
    assert all(name.isprintable() for name in names)


@given(st.data())
def test_a_damaged_signature_never_raises(data):
    table = bytearray(samples.signature("Microsoft UEFI CA 2023"))
    table[data.draw(st.integers(0, len(table) - 1))] = data.draw(st.integers(0, 255))
    assert isinstance(build(samples.pe("x86_64", NEW, signature=bytes(table))).signers, tuple)


def test_a_signature_that_cannot_be_read_is_shown_as_one():
    table = b"\x10\0\0\0\0\x02\x02\0" + b"12345678"
    assert build(samples.pe("x86_64", NEW, signature=table)).signers == ("?",)
