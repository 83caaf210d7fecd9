"""Loading: what is checked, what is found in a FreeBSD tree, what is written, and that refusals change nothing."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import probe_kernel
from bootwire.lab.initrd import extra
from bootwire.preboot.handoff import machine, trust
from bootwire.preboot.handoff.load import File, LoadedFreeBsd, LoadedLinux, load, load_freebsd
from bootwire.preboot.handoff.refusal import HandoffError
from preboot.test_handoff_linux import bzimage
from serve import openpgp

KERNEL = File("http://server/vmlinuz", bzimage())
INITRD = extra({"a": "b"})


@pytest.fixture(scope="module")
def freebsd_kernel(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return probe_kernel.kernel(tmp_path_factory.mktemp("kernel"))


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return probe_kernel.module(tmp_path_factory.mktemp("module"))


def reader(tree: dict[str, bytes]):
    def read(name: str) -> bytes:
        try:
            return tree[name]
        except KeyError:
            raise FileNotFoundError(name) from None

    return read


def linux_loaded() -> LoadedLinux:
    loaded = load(KERNEL, [File("one", INITRD), File("two", INITRD)], "console=ttyS0")
    assert isinstance(loaded, LoadedLinux)
    return loaded


def test_linux_is_described_with_digests_and_command_line() -> None:
    text = linux_loaded().describe()
    assert "Linux for x86_64" in text
    assert hashlib.sha256(KERNEL.data).hexdigest() in text
    assert text.endswith("command line: console=ttyS0")


def test_save_writes_kernel_merged_initrd_and_command_line(tmp_path: Path) -> None:
    paths = linux_loaded().save(tmp_path / "new")
    assert {path.name for path in paths} == {"kernel", "initrd", "cmdline"} == set(os.listdir(tmp_path / "new"))
    assert (tmp_path / "new/kernel").read_bytes() == KERNEL.data
    assert (tmp_path / "new/initrd").read_bytes() == INITRD + bytes(-len(INITRD) % 4) + INITRD
    assert (tmp_path / "new/cmdline").read_text() == "console=ttyS0\n"


def test_save_to_an_impossible_place_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "initrd").mkdir()
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "file"):
        with pytest.raises(HandoffError, match="choose another directory"):
            linux_loaded().save(place)
    assert sorted(os.listdir(tmp_path)) == ["file", "initrd"]


def test_save_leaves_no_initrd_of_another_kernel(tmp_path: Path) -> None:
    linux_loaded().save(tmp_path)
    load(KERNEL).save(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["cmdline", "kernel"]


def test_a_wrong_digest_is_refused() -> None:
    with pytest.raises(HandoffError, match=r"vmlinuz: its SHA-256 is .*, not 0000"):
        load(File("vmlinuz", KERNEL.data, digest="0" * 64))


def test_the_right_digest_is_told() -> None:
    loaded = load(File("vmlinuz", KERNEL.data, digest=hashlib.sha256(KERNEL.data).hexdigest().upper()))
    assert loaded.parts[0].trust == "as expected"


@pytest.mark.parametrize(
    ("kernel", "initrds", "because"),
    [
        (File("k", b"#!ipxe\n"), [], "k: an iPXE script, not a kernel"),
        (KERNEL, [File("i", KERNEL.data)], "i: Linux for x86_64, not an initrd"),
        (File("k", KERNEL.data[:5000]), [], "cut off at 5000"),
    ],
)
def test_wrong_files_are_refused_by_name(kernel: File, initrds: list[File], because: str) -> None:
    with pytest.raises(HandoffError, match=because):
        load(kernel, initrds)


def test_an_openpgp_signature_is_checked(tmp_path: Path) -> None:
    ring, other = tmp_path / "ring.gpg", tmp_path / "other.gpg"
    ring.write_text(openpgp.armoured())
    other.write_bytes(openpgp.keyring(other=True))
    signature = openpgp.detached(b"octets")
    assert trust.check_signature(b"octets", signature, [ring]) == "signed by Bootwire Test Archive <test@example.org>"
    for data, key in ((b"other octets", ring), (b"octets", other)):
        with pytest.raises(HandoffError, match="its signature is bad, or not by any of the keys given"):
            trust.check_signature(data, signature, [key])


@pytest.mark.parametrize("kind", ["rsa:1024", "ed25519"])
def test_openssl_signatures_are_checked(tmp_path: Path, kind: str) -> None:
    def openssl(command: str) -> None:
        subprocess.run(["openssl", *command.split()], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "data").write_bytes(KERNEL.data)
    openssl(f"req -x509 -newkey {kind} -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=test")
    openssl("pkey -in key.pem -pubout -out pub.pem")
    if kind == "ed25519":
        openssl("pkeyutl -sign -inkey key.pem -rawin -in data -out plain.sig")
        kinds = [("plain.sig", "pub.pem")]
    else:
        openssl("dgst -sha256 -sign key.pem -out plain.sig data")
        openssl("cms -sign -binary -noattr -in data -signer cert.pem -inkey key.pem -outform DER -out cms.sig")
        kinds = [("plain.sig", "pub.pem"), ("cms.sig", "cert.pem")]
    for signature, key in kinds:
        file = File("vmlinuz", KERNEL.data, signature=(tmp_path / signature).read_bytes())
        assert load(file, keys=[tmp_path / key]).parts[0].trust == f"signed by {key}"
        changed = File("vmlinuz", bzimage(b"other octets" * 1000), signature=file.signature)
        with pytest.raises(HandoffError, match="its signature is bad"):
            load(changed, keys=[tmp_path / key])


def test_a_signature_without_a_key_or_a_tool_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HandoffError, match="no key to check it with"):
        load(File("vmlinuz", KERNEL.data, signature=b"s"))
    with pytest.raises(HandoffError, match="cannot be read"):
        load(File("vmlinuz", KERNEL.data, signature=b"s"), keys=[tmp_path / "key"])
    (tmp_path / "key").write_bytes(openpgp.keyring())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HandoffError, match=r"no gpgv here; apt-get install gpgv"):
        load(File("vmlinuz", KERNEL.data, signature=b"s"), keys=[tmp_path / "key"])


TREE_CONF = b"""
kernel_options="-v"
m_load="YES"
packed_load="YES"
absent_load="YES"
mfsroot_load="YES"
mfsroot_type="mfs_root"
mfsroot_name="/boot/mfsroot"
vfs.root.mountfrom="ufs:/dev/md0"
"""


@pytest.mark.interop
def test_a_freebsd_tree_is_loaded_by_its_loader_conf(freebsd_kernel: bytes, module: bytes) -> None:
    tree = {
        "/boot/kernel/kernel.gz": gzip.compress(freebsd_kernel),
        "/boot/loader.conf": TREE_CONF,
        "/boot/loader.conf.d/x.conf": b'from="directory"',
        "/boot/loader.conf.local": b'boot_serial="YES"',
        "/boot/device.hints": b'hint.uart.0.at="isa"',
        "/boot/kernel/m.ko": module,
        "/boot/modules/packed.ko.gz": gzip.compress(module),
        "/boot/mfsroot.gz": gzip.compress(b"disk" * 1000),
    }
    loaded = load_freebsd(reader(tree), lambda folder: ["x.conf", "y.txt"], environment={"mine": "1"})
    assert [(one.name, one.kind) for one in loaded.modules] == [
        ("/boot/kernel/m.ko", ""), ("/boot/modules/packed.ko", ""), ("/boot/mfsroot", "mfs_root"),
    ]  # fmt: skip
    assert loaded.modules[1].data == module
    assert loaded.modules[2].data == b"disk" * 1000
    assert loaded.howto == 0x1800
    expected = {"vfs.root.mountfrom": "ufs:/dev/md0", "from": "directory", "hint.uart.0.at": "isa", "mine": "1"}
    assert expected.items() <= loaded.environment.items()
    assert loaded.environment["kernelname"] == "/boot/kernel/kernel"
    assert loaded.notes == ("absent was not found, as the loader would say and go on",)


@pytest.mark.interop
def test_another_kernel_brings_its_own_modules(freebsd_kernel: bytes, module: bytes) -> None:
    tree = {
        "/boot/kernel.old/kernel": freebsd_kernel,
        "/boot/kernel.old/m.ko": module,
        "/boot/kernel/m.ko": b"",
        "/boot/loader.conf": b'm_load="YES"',
    }
    loaded = load_freebsd(reader(tree), kernel="kernel.old")
    assert loaded.name == "/boot/kernel.old/kernel"
    assert [one.name for one in loaded.modules] == ["/boot/kernel.old/m.ko"]
    assert loaded.environment["module_path"] == "/boot/kernel.old;/boot/kernel;/boot/modules"


@pytest.mark.interop
def test_a_kernel_asked_for_is_not_replaced_by_the_usual_one(freebsd_kernel: bytes) -> None:
    tree = {"/boot/kernel/kernel": b"not this", "/boot/test/kernel.gz": gzip.compress(freebsd_kernel)}
    assert load_freebsd(reader(tree), kernel="/boot/test/kernel").name == "/boot/test/kernel"
    with pytest.raises(HandoffError, match="there is no kernel in /boot/absent;"):
        load_freebsd(reader(tree), kernel="absent")


@pytest.mark.interop
def test_what_modules_depend_on_comes_with_them_once(freebsd_kernel: bytes, tmp_path: Path) -> None:
    tree = {
        "/boot/kernel/kernel": freebsd_kernel,
        "/boot/kernel/a.ko": probe_kernel.module(tmp_path, provides="a", wants="kernel b inner c"),
        "/boot/kernel/b.ko.gz": gzip.compress(probe_kernel.module(tmp_path, provides="b inner", wants="c")),
        "/boot/kernel/c.ko": probe_kernel.module(tmp_path, provides="c", wants="absent"),
        "/boot/loader.conf": b'a_load="YES"',
    }
    loaded = load_freebsd(reader(tree))
    assert [one.name for one in loaded.modules] == [f"/boot/kernel/{name}.ko" for name in "abc"]
    assert [note.partition(",")[0] for note in loaded.notes] == ["/boot/kernel/c.ko needs absent"]


@pytest.mark.parametrize(
    ("change", "because"),
    [
        ({"/boot/kernel/kernel": None}, "there is no kernel in /boot/kernel or /boot/modules"),
        ({"/boot/kernel/kernel": b"\x7fELF"}, "truncated"),
        ({"/boot/kernel/m.ko": b"text"}, "m.ko: no ELF magic"),
        ({"/boot/kernel/m.ko": None, "/boot/kernel/m.ko.gz": b"\x1f\x8b\x08\0"}, "m.ko.gz is cut off"),
    ],
)
def test_a_broken_freebsd_tree_is_refused(freebsd_kernel: bytes, module: bytes, change, because: str) -> None:
    tree = {"/boot/kernel/kernel": freebsd_kernel, "/boot/kernel/m.ko": module, "/boot/loader.conf": b'm_load="YES"'}
    tree = {name: data for name, data in (tree | change).items() if data is not None}
    with pytest.raises(HandoffError, match=because):
        load_freebsd(reader(tree))


@pytest.mark.interop
def test_a_freebsd_kernel_takes_initrds_as_memory_disks(freebsd_kernel: bytes) -> None:
    loaded = load(File("kernel", freebsd_kernel), [File("root", gzip.compress(b"disk"))], "-s console=comconsole")
    assert isinstance(loaded, LoadedFreeBsd)
    assert loaded.modules[0].data == b"disk"
    assert loaded.environment == {"console": "comconsole", "vfs.root.mountfrom": "ufs:/dev/md0"}
    assert loaded.howto == 0x2


def test_without_qemu_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HandoffError, match=r"qemu-system-x86_64 is not installed; apt-get install qemu-system-x86"):
        linux_loaded().start_qemu()


def test_kexec_of_a_kernel_for_another_machine_is_refused() -> None:
    with pytest.raises(HandoffError, match=r"the kernel is for riscv32, this machine is"):
        machine.check("riscv32", by_file=True)


def test_kexec_without_privilege_or_support_is_refused() -> None:
    """In a process that may not do it, whatever the kernel of this machine can."""
    program = (
        "from bootwire.preboot.handoff import machine\n"
        "from bootwire.preboot.handoff.refusal import HandoffError\n"
        "try:\n    machine.check(machine.architecture(), by_file=True)\n"
        "except HandoffError as error:\n    print(error.because)\n"
    )
    reads = "--inh-caps=-all,+dac_read_search", "--ambient-caps=+dac_read_search"  # this checkout, wherever it is
    drop = ["setpriv", "--reuid=65534", "--clear-groups", *reads]
    command = [*(drop if os.geteuid() == 0 else []), sys.executable, "-c", program]
    source = str(Path(machine.__file__).parents[3])
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": source}, capture_output=True, text=True, check=True)
    assert "only root" in done.stdout or "without kexec" in done.stdout
