"""Real packages from the mirror that this machine's apt uses: the builds there are, told by their content."""

import hashlib
from pathlib import Path

import pytest

from bootwire.assets.kernels import HEAD, Image, Refusal, check_initrd, check_kernel
from bootwire.assets.loaders import Build, catalog_name, identify
from bootwire.serve.packages import Package, fetch_package

pytestmark = pytest.mark.interop

LOADERS = (".efi", ".pxe", ".kpxe", ".kkpxe")
CACHE = Path(__file__).resolve().parents[2] / ".cache/assets"


def fetch(name: str, suite: str | tuple[str, ...], architecture: str, *endings: str) -> Package:
    return fetch_package(name, suite, architecture, lambda path: path.endswith(endings), state=CACHE)


def builds(package: Package) -> dict[str, Build]:
    """By the file's own name; every file must be one we know."""
    found = {}
    for path, file in package.files.items():
        build = identify(file.read_bytes())
        assert build is not None, path
        found[Path(path).name] = build
    return found


def kernel(package: Package) -> Image:
    (path,) = package.files.values()
    with path.open("rb") as file:
        image = check_kernel(file.read(HEAD), path.stat().st_size)
    assert isinstance(image, Image), image
    return image


def test_every_step_is_verified():
    package = fetch("ipxe", "bookworm", "all", *LOADERS)
    assert package.verified.startswith("signed by ")
    assert {hashlib.sha256(path.read_bytes()).hexdigest() for path in package.files.values()} == {
        path.name for path in package.files.values()
    }


def test_debian_12s_ipxe_is_of_2019_without_https_autoexec_and_syslog():
    found = builds(fetch("ipxe", "bookworm", "all", *LOADERS))
    assert {name: (build.architecture, build.drivers) for name, build in found.items()} == {
        "ipxe.efi": ("x86_64", "own"),
        "snponly.efi": ("x86_64", "firmware"),
        "ipxe.pxe": ("bios", "own"),
        "undionly.kpxe": ("bios", "firmware"),
        "undionly.kkpxe": ("bios", "firmware"),
    }
    for build in found.values():
        assert (build.kind, build.version, build.year) == ("ipxe", "1.0.0+git-20190125.36a4c85-5.1", 2019)
        assert "http" in build.features
        assert not build.features & {"https", "autoexec", "syslog"}


def test_debian_13s_ipxe_runs_autoexec_and_speaks_https():
    package = fetch("ipxe", ("trixie", "stable"), "all", *LOADERS)  # of a mirror in the middle of its update, either
    assert package.suite == "trixie"
    found = builds(package)
    assert {build.year for build in found.values()} == {2025}
    assert {"https", "autoexec"} <= found["snponly.efi"].features
    assert "syslog" not in found["snponly.efi"].features
    assert "https" in found["undionly.kpxe"].features
    assert "autoexec" not in found["undionly.kpxe"].features


def test_debian_sids_ipxe_is_2_or_later_and_serves_every_platform():
    package = fetch("ipxe", "sid", "all", *LOADERS)
    found = builds(package)
    assert {build.version.split("+")[0] for build in found.values()} == {package.version.split("+")[0].split("-")[0]}
    assert {catalog_name(build) for build in found.values()} >= {
        "bios/undionly.kpxe", "bios/ipxe.pxe", "x86_64/snponly.efi", "x86_64/ipxe.efi", "arm64/ipxe.efi",
        "riscv64/ipxe.efi", "loong64/ipxe.efi",
    }  # fmt: skip
    assert {"https", "autoexec", "syslog"} <= found["snponly.efi"].features


def test_signed_loaders_name_their_signers():
    (shim,) = builds(fetch("shim-signed", "bookworm", "amd64", "shimx64.efi.signed")).values()
    assert (shim.kind, shim.architecture) == ("shim", "x86_64")
    assert all(signer.startswith("Microsoft") for signer in shim.signers)
    assert shim.signers
    grub = builds(fetch("grub-efi-amd64-signed", "bookworm", "amd64", "grubnetx64.efi.signed"))["grubnetx64.efi.signed"]
    assert (grub.kind, grub.version, grub.signers) == ("grub", "2.06", ("Debian Secure Boot CA",))
    assert "http" not in grub.features
    newer = builds(fetch("grub-efi-amd64-signed", "trixie", "amd64", "grubnetx64.efi.signed"))
    assert "http" in newer["grubnetx64.efi.signed"].features


def test_pxelinux_and_its_http_speaking_brother():
    found = builds(fetch("pxelinux", "bookworm", "all", "pxelinux.0"))
    assert {name: build.kind for name, build in found.items()} == {
        "pxelinux.0": "pxelinux",
        "lpxelinux.0": "lpxelinux",
    }


def test_debian_kernels_for_pcs_and_for_arm_through_their_metapackages():
    amd64 = kernel(fetch_package("linux-image-cloud-amd64", "bookworm", "amd64", _is_kernel, state=CACHE))
    assert amd64.text.startswith("Linux 6.1.0-")
    assert (amd64.architectures, amd64.bios, amd64.efi, amd64.warning) == (("x86_64",), True, True, "")
    arm64 = kernel(fetch_package("linux-image-cloud-arm64", "bookworm", "arm64", _is_kernel, state=CACHE))
    assert (arm64.text, arm64.architectures) == ("Linux for arm64 with EFI stub", ("arm64",))


def test_real_boot_loaders_are_no_initrds_and_memtest_is_a_kernel():
    loader = fetch("ipxe", "bookworm", "all", "snponly.efi").files["usr/lib/ipxe/snponly.efi"].read_bytes()
    answer = check_initrd(loader[:HEAD], len(loader))
    assert isinstance(answer, Refusal)
    assert answer.because.startswith("an EFI program for x86_64, not an initrd")
    assert kernel(fetch("memtest86+", "bookworm", "amd64", "x64.bin")).text == "Memtest86+ v6.10"


def _is_kernel(path: str) -> bool:
    return path.startswith("boot/vmlinuz-")
