"""What a file is taken for, and what a person is told about a wrong one."""

import bz2
import lzma
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets import samples
from bootwire.assets.kernels import HEAD, Image, Refusal, check_initrd, check_kernel


def kernel(data: bytes) -> Image:
    image = check_kernel(data[:HEAD], len(data))
    assert isinstance(image, Image), image
    return image


def refused(answer: Image | Refusal) -> str:
    assert isinstance(answer, Refusal), answer
    return answer.because


def test_a_64_bit_bzimage_with_efi_stub_boots_everywhere_on_pcs():
    image = kernel(samples.bzimage())
    assert (image.kind, image.text) == ("linux", "Linux 6.1.0-37-amd64 for x86_64")
    assert (image.version, image.architectures) == ("6.1.0-37-amd64", ("x86_64",))
    assert (image.bios, image.efi, image.warning) == (True, True, "")


def test_a_32_bit_bzimage_is_for_i386():
    assert kernel(samples.bzimage(stub="i386", wide=False)).architectures == ("i386",)


def test_without_efi_stub_a_kernel_is_warned_about():
    image = kernel(samples.bzimage(stub=""))
    assert image.architectures == ("x86_64",)
    assert not image.efi
    assert image.warning == "UEFI cannot start a kernel without EFI stub"


def test_a_bzimage_that_names_no_builder_is_not_called_linux():
    assert kernel(samples.bzimage("2.0.0+dfsg-5", stub="")).text == "a bzImage 2.0.0+dfsg-5 for x86_64"


@pytest.mark.parametrize(("version", "kind"), [("Memtest86+ v6.10", "memtest"), ("MEMDISK 6.04", "memdisk")])
def test_programs_in_bzimage_form_are_known_by_their_version(version, kind):
    assert kernel(samples.bzimage(version, stub="")).kind == kind


def test_a_cut_off_bzimage_is_refused_with_both_sizes():
    whole = samples.bzimage()
    assert refused(check_kernel(whole, 5000)) == (
        "a Linux kernel cut off at 5000 of 10240 octets; download or copy it again"
    )


def test_an_unknown_size_is_not_held_against_a_kernel():
    assert isinstance(check_kernel(samples.bzimage(), -1), Image)


def test_an_arm64_image_with_efi_stub():
    image = kernel(samples.arm64_image())
    assert (image.text, image.architectures) == ("Linux for arm64 with EFI stub", ("arm64",))
    assert (image.bios, image.efi) == (False, True)


def test_an_arm64_image_without_efi_stub_is_warned_about():
    assert kernel(samples.arm64_image(stub=False)).warning


def test_a_gzipped_arm64_image_is_known_and_warned_about():
    image = kernel(samples.gz(samples.arm64_image()))
    assert image.text == "Linux for arm64 with EFI stub, gzip-compressed"
    assert "unpack it first" in image.warning


def test_efi_zboot_names_its_compression():
    assert kernel(samples.zboot()).text == "Linux for arm64 (EFI zboot, gzip)"


def test_a_unified_kernel_image_is_told_by_its_sections():
    image = kernel(samples.pe(sections=(".text", ".osrel", ".linux", ".initrd")))
    assert (image.kind, image.text) == ("uki", "a unified kernel image for x86_64")


def test_an_efi_program_may_be_booted():
    image = kernel(samples.pe("arm64"))
    assert (image.kind, image.architectures, image.efi, image.bios) == ("efi", ("arm64",), True, False)


@pytest.mark.parametrize("data", [samples.multiboot(), samples.multiboot2()])
def test_multiboot_kernels(data):
    assert kernel(data).kind == "multiboot"


def test_a_multiboot_mark_with_a_wrong_sum_is_chance():
    data = bytearray(samples.multiboot())
    data[68] ^= 1
    assert kernel(bytes(data)).kind == "unknown"


def test_a_multiboot_elf_is_no_refusal():
    assert kernel(samples.elf(3).ljust(256, b"\0") + samples.multiboot()).kind == "multiboot"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (samples.iso(), "an ISO image, not a kernel; loop-mount it and take"),
        (samples.elf(), "an ELF program for x86_64, not a kernel to boot; give the bzImage or Image (often vmlinuz)"),
        (samples.cpio(), "an initrd (cpio archive), not a kernel; the kernel comes first"),
        (
            samples.gz(samples.cpio()),
            "an initrd (cpio archive), gzip-compressed, not a kernel; the kernel comes first",
        ),
        (
            b"\x28\xb5\x2f\xfd" + bytes(range(200)),
            "a file, zstd-compressed, not a kernel; the kernel comes first",
        ),
        (b"\r\n<!DOCTYPE html><html>404", "a web page, not a kernel; the address probably gave an error"),
        (b"<HTML><BODY>login</BODY>", "a web page, not a kernel"),
        (b"#!ipxe\nboot\n", "an iPXE script, not a kernel"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer, not a kernel; fetch the file itself"),
        (b"hello there\n" * 100, "a text file, not a kernel"),
        (b"MSWIM\0\0\0" + bytes(300), "a Windows image (WIM), not a kernel; Windows starts with wimboot"),
        (b"hsqs" + bytes(300), "a squashfs file system, not a kernel"),
        (b"!<arch>\ndebian-binary", "a Debian package, not a kernel"),
        (b"QFI\xfb" + bytes(300), "a qcow2 disk image, not a kernel"),
        (samples.pe(subsystem=3), "a Windows program for x86_64, not a kernel"),
        (b"", "an empty file, not a kernel; the download or the disk may have failed"),
        (bytes(510) + b"\x55\xaa", "a disk image, not a kernel"),
        (bytes(257) + b"ustar\x0000" + bytes(300), "a tar archive, not a kernel"),
    ],
)
def test_what_is_no_kernel_is_refused_by_name(data, sentence):
    assert refused(check_kernel(data[:HEAD], len(data))).startswith(sentence)


def test_a_file_of_no_known_kind_is_served_with_a_warning():
    image = kernel(bytes(range(128, 256)) * 40)
    assert (image.kind, image.warning) == ("unknown", "it is served as it is, unchecked")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (samples.cpio(), "a cpio archive"),
        (samples.gz(samples.cpio()), "a cpio archive, gzip-compressed"),
        (lzma.compress(samples.cpio()), "a cpio archive, xz-compressed"),
        (lzma.compress(samples.cpio(), lzma.FORMAT_ALONE), "a cpio archive, lzma-compressed"),
        (bz2.compress(samples.cpio()), "a cpio archive, bzip2-compressed"),
        (b"\x28\xb5\x2f\xfd" + bytes(100), "an archive, zstd-compressed"),
        (b"\x02\x21\x4c\x18" + bytes(100), "an archive, lz4-compressed"),
        (b"\x89LZO\0\r\n\x1a\n" + bytes(100), "an archive, lzo-compressed"),
    ],
)
def test_initrds_in_every_compression_that_linux_unpacks(data, text):
    answer = check_initrd(data[:HEAD], len(data))
    assert isinstance(answer, Image)
    assert (answer.kind, answer.text, answer.warning) == ("initrd", text, "")


@pytest.mark.parametrize(
    ("at", "magic"), [(0, b"hsqs"), (0x438, b"\x53\xef"), (0, b"-rom1fs-"), (0, b"\x45\x3d\xcd\x28")]
)
def test_file_system_images_need_support_in_the_kernel(at, magic):
    answer = check_initrd(bytes(at) + magic + bytes(2000), 5000)
    assert isinstance(answer, Image)
    assert answer.warning == "the kernel must have it built in, and needs root=/dev/ram0"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (samples.pe("x86_64"), "an EFI program for x86_64, not an initrd; the kernel comes first"),
        (samples.bzimage(), "Linux 6.1.0-37-amd64 for x86_64, not an initrd; the kernel comes first"),
        (samples.gz(samples.arm64_image()), "Linux for arm64 with EFI stub, gzip-compressed, not an initrd"),
        (samples.gz(b"a text\n" * 50), "a text file, gzip-compressed, not an initrd"),
        (samples.iso(), "an ISO image, not an initrd"),
        (b"<html>", "a web page, not an initrd; the address probably gave"),
        (samples.elf(), "an ELF program, not an initrd"),
        (b"", "an empty file, not an initrd"),
        (b"070707" + b"0" * 100, "a cpio archive in the old format, which Linux does not unpack, not an initrd"),
    ],
)
def test_what_is_no_initrd_is_refused_by_name(data, sentence):
    assert refused(check_initrd(data[:HEAD], len(data))).startswith(sentence)


def test_other_kernels_than_linux_may_be_given_any_file():
    wimboot = kernel(samples.bzimage("wimboot v2.8.0"))
    assert wimboot.kind == "wimboot"
    assert isinstance(check_initrd(b"MSWIM\0\0\0" + bytes(100), 108, wimboot), Image)
    assert refused(check_initrd(b"", 0, wimboot)).startswith("an empty file")


SAMPLES = [
    samples.bzimage(), samples.arm64_image(), samples.zboot(), samples.pe(sections=(".linux",)), samples.multiboot(),
    samples.gz(samples.cpio()), samples.elf(), lzma.compress(samples.cpio()), bz2.compress(samples.cpio()),
    samples.pe(signature=samples.signature("A")),
]  # fmt: skip


@pytest.mark.parametrize("sample", SAMPLES, ids=range(len(SAMPLES)))
def test_every_prefix_has_an_answer(sample):
    for size in range(min(len(sample), 1400)):
        assert isinstance(check_kernel(sample[:size], size), Image | Refusal)
        assert isinstance(check_initrd(sample[:size], size), Image | Refusal)


@given(st.sampled_from(SAMPLES), st.data())
def test_every_mutation_has_an_answer(sample, data):
    head = bytearray(sample[:4096])
    for _ in range(data.draw(st.integers(1, 8))):
        head[data.draw(st.integers(0, min(len(head), 1200) - 1))] = data.draw(st.integers(0, 255))
    assert isinstance(check_kernel(bytes(head), data.draw(st.integers(-1, 2**40))), Image | Refusal)
    assert isinstance(check_initrd(bytes(head)), Image | Refusal)


@given(st.binary(max_size=2000))
def test_any_octets_have_an_answer(head):
    assert isinstance(check_kernel(head, len(head)), Image | Refusal)
    assert isinstance(check_initrd(head, len(head)), Image | Refusal)


def test_of_a_compressed_bomb_no_more_than_the_head_is_unpacked():
    bomb = lzma.compress(bytes(40 << 20), preset=0)[:HEAD]
    tracemalloc.start()
    try:
        answer = check_initrd(bomb, len(bomb))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(answer, Image)
    assert peak < 1 << 20
