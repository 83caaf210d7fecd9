"""Load a kernel with all it needs, say what it is, and hand over: to a directory, to QEMU, or to this very machine.

    loaded = load(File("vmlinuz", octets), [File("initrd.img", more)], "console=ttyS0")
    print(loaded.describe())
    loaded.save(Path("boot-files"))
    with loaded.start_qemu() as machine: machine.wait()
    loaded.kexec()          # only loads; start() of this module's `machine` lets it run

`load` takes Linux and FreeBSD kernels alike; `load_freebsd` reads a FreeBSD /boot tree as its own loader does. Where
the octets come from (a file, HTTP, TFTP) is the caller's business. Every refusal is a HandoffError.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import os
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from bootwire.assets.kernels import Refusal
from bootwire.preboot.handoff import freebsd, kld, linux, machine, trampoline, trust
from bootwire.preboot.handoff.loader_conf import DEFAULTS, Configuration, Wanted
from bootwire.preboot.handoff.refusal import HandoffError

Read = Callable[[str], bytes]
"""The whole file at an absolute path of the tree, or FileNotFoundError. Many names are tried: it should be quick."""

List = Callable[[str], Sequence[str]]
"""The names in a directory of the tree, or FileNotFoundError; another OSError if it will not be listed."""

MAX_UNPACKED = 1 << 30  # octets; more would not fit below the kernel's first gigabyte anyway
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class File:
    """Octets with a name for people (a path or URL).

    digest: the SHA-256 they must have, "" if any; signature: a detached one that must be good, empty if none.
    """

    name: str
    data: bytes
    digest: str = ""
    signature: bytes = b""


@dataclass(frozen=True, slots=True)
class Part:
    """What we know of one file that is loaded: what it is, its size in octets, its SHA-256, and who vouches for it."""

    name: str
    text: str
    size: int
    digest: str
    trust: str

    def describe(self) -> str:
        return f"{self.name}: {self.text}, {self.size} octets, sha256 {self.digest}, {self.trust}"


@dataclass(frozen=True, slots=True)
class LoadedLinux:
    """A Linux kernel that is all there, its initrds joined in order, and its command line."""

    parts: tuple[Part, ...]
    kernel: linux.Kernel
    initrd: bytes
    command_line: str

    @property
    def architecture(self) -> str:
        return self.kernel.architecture

    def describe(self) -> str:
        """A few lines for a person."""
        return "\n".join([*(part.describe() for part in self.parts), f"command line: {self.command_line or '(none)'}"])

    def save(self, directory: Path) -> list[Path]:
        """Write kernel, initrd (if any) and cmdline (one line of text); the paths. An older initrd does not stay.

        Raises HandoffError, and then nothing is written.
        """
        files = {"kernel": self.kernel.data, "cmdline": self.command_line.encode() + b"\n"}
        if self.initrd:
            return _save(directory, files | {"initrd": self.initrd})
        paths = _save(directory, files)
        (directory / "initrd").unlink(missing_ok=True)
        return paths

    def qemu_command(self, directory: Path, memory: int = 0, extra: Sequence[str] = ()) -> list[str]:
        """The command that starts what `save` wrote to a directory. memory: MiB, 0 for enough."""
        need = 256 + 3 * (len(self.kernel.data) + len(self.initrd)) // MIB
        options = ["-kernel", str(directory / "kernel"), "-append", self.command_line]
        if self.initrd:
            options += ["-initrd", str(directory / "initrd")]
        return _qemu(self.architecture, memory or need, [*options, *extra])

    def start_qemu(self, memory: int = 0, extra: Sequence[str] = (), **options: Any) -> Qemu:
        """Start it in a virtual machine, its serial port on standard input and output. Raises HandoffError.

        memory: MiB, 0 for enough; extra: more QEMU options; options: as subprocess.Popen takes them.
        """
        return Qemu(self.save, lambda directory: self.qemu_command(directory, memory, extra), options)

    def kexec(self, by_segments: bool = False) -> None:
        """Put it in memory, to be started by `machine.start()` (or by `kexec -e`). Raises HandoffError.

        by_segments: through kexec_load(2) on x86_64 and arm64. Without it that way is taken by itself where the
        running kernel lacks kexec_file_load(2), as Debian's for arm64 do.
        """
        machine.check(self.architecture, by_file=not by_segments)
        if not by_segments:
            try:
                return machine.load_files(self.kernel.data, self.initrd, self.command_line)
            except machine.NoSuchCall:
                machine.check(self.architecture, by_file=False)
        try:
            parts = (self.kernel, self.initrd, self.command_line, machine.memory())
            if self.architecture == "arm64":
                placed = linux.place_arm64(*parts, machine.device_tree())
            else:
                placed = linux.place(*parts, machine.screen(), machine.acpi_root())
        except linux.NotStartable as error:
            raise HandoffError(str(error), "start it in QEMU, or save it") from None
        machine.load_segments(placed.entry, placed.segments)


@dataclass(frozen=True, slots=True)
class LoadedFreeBsd:
    """A FreeBSD kernel with modules, environment and flags. notes: what was left out, for a person."""

    parts: tuple[Part, ...]
    kernel: bytes
    modules: tuple[freebsd.Module, ...]
    environment: Mapping[str, str]
    howto: int
    name: str = "/boot/kernel/kernel"
    notes: tuple[str, ...] = ()

    architecture = "x86_64"

    def image(self, memory_map: Sequence[tuple[int, int, int]] | None = None) -> freebsd.Image:
        """Everything as it lies in memory. memory_map: as E820 has it; None: filled in when a PVH guest starts."""
        try:
            return freebsd.build(self.kernel, self.modules, self.environment, self.howto, memory_map, self.name)
        except freebsd.NotLoadable as error:
            raise HandoffError(str(error), "leave something out, or check the files") from None

    def describe(self) -> str:
        """A few lines for a person."""
        variables = [f"  {name}={value}" for name, value in self.environment.items()]
        flags = "".join(letter for letter, (bit, _) in freebsd.HOWTO.items() if self.howto & bit)
        lines = [*(part.describe() for part in self.parts), f"flags: {'-' + flags if flags else '(none)'}"]
        return "\n".join([*lines, "environment:", *variables, *self.notes])

    def save(self, directory: Path) -> list[Path]:
        """Write `freebsd.elf`, which QEMU and other PVH hypervisors start, and `describe.txt`; the paths.

        Raises HandoffError, and then nothing is written.
        """
        files = {"freebsd.elf": trampoline.pvh_elf(self.image()), "describe.txt": self.describe().encode() + b"\n"}
        return _save(directory, files)

    def qemu_command(self, directory: Path, memory: int = 0, extra: Sequence[str] = ()) -> list[str]:
        """The command that starts what `save` wrote to a directory. memory: MiB, 0 for enough."""
        need = 256 + 2 * sum(len(one.data) for one in self.modules) // MIB + 2 * len(self.kernel) // MIB
        options = ["-kernel", str(directory / "freebsd.elf")]
        return _qemu(self.architecture, memory or need, [*options, *extra])

    def start_qemu(self, memory: int = 0, extra: Sequence[str] = (), **options: Any) -> Qemu:
        """Start it in a virtual machine, its serial port on standard input and output. Raises HandoffError.

        memory: MiB, 0 for enough; extra: more QEMU options; options: as subprocess.Popen takes them.
        """
        return Qemu(self.save, lambda directory: self.qemu_command(directory, memory, extra), options)

    def kexec(self) -> None:
        """Put it in memory by kexec_load(2), to be started by `machine.start()`. x86_64 alone. Raises HandoffError."""
        machine.check(self.architecture, by_file=False)
        memory = machine.memory()
        if not memory:
            raise HandoffError("this machine does not tell its memory map (/sys/firmware/memmap)", "start it in QEMU")
        loaded = self
        if (root := machine.acpi_root()) and "acpi.rsdp" not in self.environment:
            loaded = replace(self, environment={**self.environment, "acpi.rsdp": f"{root:#x}"})
        machine.load_segments(trampoline.KEXEC_ENTRY, trampoline.kexec_segments(loaded.image(memory)))


Loaded = LoadedLinux | LoadedFreeBsd


def load(kernel: File, initrds: Sequence[File] = (), command_line: str = "", keys: Sequence[Path] = ()) -> Loaded:
    """Check a kernel and what goes with it, and prepare it. Raises HandoffError.

    A Linux kernel gets the initrds joined in order. A FreeBSD kernel gets them as memory disks (`mfs_root`), and of
    the command line words with a hyphen are boot flags, name=value words its environment.
    keys: what signatures are checked with (see trust.check_signature).
    """
    vouched = [_vouch(file, keys) for file in (kernel, *initrds)]
    data = _unpack(kernel)
    if freebsd.is_kernel(data):
        return _freebsd(kernel, data, initrds, command_line, vouched)
    found = linux.read_kernel(kernel.data)
    if isinstance(found, Refusal):
        raise HandoffError(f"{kernel.name}: {found.because}", "")
    parts = [Part(kernel.name, found.image.text, len(kernel.data), *vouched[0])]
    for file, known in zip(initrds, vouched[1:], strict=True):
        image = linux.read_initrd(file.data)
        if isinstance(image, Refusal):
            raise HandoffError(f"{file.name}: {image.because}", "")
        parts.append(Part(file.name, image.text, len(file.data), *known))
    if wrong := linux.check_command_line(found, command_line):
        raise HandoffError(wrong, "shorten the command line")
    return LoadedLinux(tuple(parts), found, linux.join(file.data for file in initrds), command_line)


def load_freebsd(
    read: Read,
    names: List | None = None,
    flags: str = "",
    environment: Mapping[str, str] | None = None,
    kernel: str = "",
) -> LoadedFreeBsd:
    """Load what a FreeBSD /boot tree says: kernel, modules and memory disk by its loader.conf. Raises HandoffError.

    read: gets files by absolute path ("/boot/loader.conf"); names: lists directories, for loader.conf.d; flags: as
    boot(8) takes them ("-sv"); environment: over what the files say; kernel: the directory below /boot, or a path.
    Files are found plain or compressed (.gz, .bz2), as the loader finds them. Over HTTP, with an httpfs.HttpFs at the
    root of the tree: read=lambda name: fs.cat(name, inflate=False), names=lambda name: [e.name for e in fs.ls(name)].
    """
    configuration = _configure(read, names)
    variables = configuration.variables
    path = configuration.module_path()
    chosen = kernel or variables.get("kernel", "")
    folders = [chosen if chosen.startswith("/") else f"/boot/{chosen}"] if chosen else path
    kernels = [one for one in variables.get("bootfile", "").replace(",", ";").split(";") if one]
    found = _find(read, folders, [*kernels, "kernel"], ("",))
    if found is None and chosen.startswith("/"):
        found = _try(read, chosen)
    if found is None:
        raise HandoffError(f"there is no kernel in {' or '.join(folders)}", "check the address of the tree")
    name, data = found
    path = list(dict.fromkeys([name.rpartition("/")[0], *path]))
    variables |= {"kernelname": name, "module_path": ";".join(path), **(environment or {})}
    parts = [Part(name, _kernel_text(data), len(data), *_vouch(File(name, data), ()))]
    modules = _load_modules(read, path, configuration, data)
    for module in modules:
        text = module.kind or "kernel module"
        parts.append(Part(module.name, text, len(module.data), *_vouch(File(module.name, module.data), ())))
    howto = freebsd.howto(f"{variables.get('kernel_options', '')} {flags}", variables)
    loaded = LoadedFreeBsd(tuple(parts), data, tuple(modules), dict(variables), howto, name, tuple(configuration.notes))
    loaded.image()
    return loaded


@dataclass
class Qemu:
    """A running virtual machine and the files it was started from; as a context manager it ends with both."""

    write: Callable[[Path], object]
    command: Callable[[Path], list[str]]
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._files = tempfile.TemporaryDirectory(prefix="bootwire-")
        try:
            directory = Path(self._files.name)
            command = self.command(directory)
            self.write(directory)
            self.process: subprocess.Popen[Any] = subprocess.Popen(command, **self.options)
        except BaseException:
            self._files.cleanup()
            raise

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the machine is off; QEMU's exit status. Raises subprocess.TimeoutExpired."""
        status = self.process.wait(timeout)
        self._files.cleanup()
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._files.cleanup()

    def __enter__(self) -> Qemu:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


# --- helpers ----------------------------------------------------------------------------------------------------

_QEMU = {  # architecture: (program, package, machine options)
    "x86_64": ("qemu-system-x86_64", "qemu-system-x86", ()),
    "i386": ("qemu-system-x86_64", "qemu-system-x86", ()),
    "arm64": ("qemu-system-aarch64", "qemu-system-arm", ("-machine", "virt", "-cpu", "cortex-a57")),
}


def _qemu(architecture: str, memory: int, options: Iterable[str]) -> list[str]:
    if architecture not in _QEMU:
        raise HandoffError(f"starting kernels for {architecture or 'this architecture'} is not known here", "save it")
    program, package, machine_options = _QEMU[architecture]
    if shutil.which(program) is None:
        raise HandoffError(f"{program} is not installed", f"apt-get install {package}")
    return [
        program, *machine_options, "-accel", "tcg", "-m", str(memory), "-nodefaults", "-no-reboot",
        "-display", "none", "-serial", "mon:stdio", "-device", "virtio-rng-pci", *options,
    ]  # fmt: skip


def _vouch(file: File, keys: Sequence[Path]) -> tuple[str, str]:
    """Digest, and who vouches for the file."""
    try:
        digest = trust.check_digest(file.data, file.digest)
        if file.signature:
            return digest, trust.check_signature(file.data, file.signature, keys)
    except HandoffError as error:
        raise HandoffError(f"{file.name}: {error.because}", error.fix) from None
    return digest, "as expected" if file.digest else "not verified"


def _freebsd(
    kernel: File, data: bytes, disks: Sequence[File], command_line: str, vouched: Sequence[tuple[str, str]]
) -> LoadedFreeBsd:
    words = command_line.split()
    environment = dict(word.split("=", 1) for word in words if "=" in word and not word.startswith("-"))
    if disks:
        environment.setdefault("vfs.root.mountfrom", "ufs:/dev/md0")
    modules = tuple(freebsd.Module(file.name, _unpack(file), "mfs_root") for file in disks)
    parts = [Part(kernel.name, _kernel_text(data), len(kernel.data), *vouched[0])]
    for file, known in zip(disks, vouched[1:], strict=True):
        parts.append(Part(file.name, "mfs_root", len(file.data), *known))
    howto = freebsd.howto(command_line, environment)
    loaded = LoadedFreeBsd(tuple(parts), data, modules, environment, howto)
    loaded.image()
    return loaded


def _kernel_text(data: bytes) -> str:
    return f"FreeBSD {freebsd.version(data)} for amd64".replace("  ", " ")


def _unpack(file: File) -> bytes:
    """The octets inside a gzip or bzip2 file; others as they are."""
    try:
        if file.data[:2] == b"\x1f\x8b":
            unzip = zlib.decompressobj(wbits=31)
            data = unzip.decompress(file.data, MAX_UNPACKED)
            if not unzip.eof:
                raise HandoffError(f"{file.name} is cut off, or too large when unpacked", "fetch it again")
            return data
        if file.data[:3] == b"BZh":
            unbzip = bz2.BZ2Decompressor()
            data = unbzip.decompress(file.data, MAX_UNPACKED)
            if not unbzip.eof:
                raise HandoffError(f"{file.name} is cut off, or too large when unpacked", "fetch it again")
            return data
    except (zlib.error, OSError, ValueError):
        raise HandoffError(f"{file.name} is damaged: it cannot be unpacked", "fetch it again") from None
    return file.data


def _configure(read: Read, names: List | None) -> Configuration:
    configuration = Configuration()
    seen: set[str] = set()

    def take(name: str) -> None:
        if name not in seen:
            seen.add(name)
            with contextlib.suppress(FileNotFoundError):
                configuration.read(read(name).decode("utf-8", "replace"), name)

    take(DEFAULTS)
    for _ in range(4):  # a file may name more files
        before = len(seen)
        for name in configuration.variables["loader_conf_files"].split():
            take(name)
        if len(seen) == before:
            break
    for directory in configuration.variables["loader_conf_dirs"].split() if names else ():
        try:
            found = sorted(names(directory)) if names else []
        except FileNotFoundError:
            continue
        except OSError as error:
            configuration.notes.append(f"{directory} cannot be listed: {error.strerror or error}")
            continue
        for name in found:
            if name.endswith(".conf"):
                take(f"{directory}/{name}")
    for name in configuration.variables["local_loader_conf_files"].split():
        take(name)
    return configuration


_SUFFIXES = (".ko", "", ".debug")  # of kernel modules, in the loader's order (stand/common/module.c)
_PACKED = ("", ".gz", ".bz2")


def _try(read: Read, name: str) -> tuple[str, bytes] | None:
    """A file plain or compressed: its plain name, and the octets unpacked."""
    for ending in _PACKED:
        try:
            data = read(name + ending)
        except FileNotFoundError:
            continue
        return name, _unpack(File(name + ending, data))
    return None


def _find(read: Read, path: Sequence[str], names: Sequence[str], suffixes: Sequence[str]) -> tuple[str, bytes] | None:
    for name in names:
        for directory in [""] if name.startswith("/") else path:
            for suffix in suffixes:
                found = _try(read, f"{directory}/{name}{suffix}" if directory else name + suffix)
                if found is not None:
                    return found
    return None


def _load_modules(read: Read, path: Sequence[str], configuration: Configuration, kernel: bytes) -> list[freebsd.Module]:
    """What the configuration names, in order, then what those depend on and neither kernel nor they contain."""
    found: dict[str, freebsd.Module] = {}
    inside = {"kernel", *kld.about(kernel).provides}
    needs: list[tuple[str, str]] = []

    def take(wanted: Wanted) -> bool:
        module = _load_module(read, path, wanted)
        if module is not None and module.name not in found:
            found[module.name] = module
            if not module.kind:
                about = kld.about(module.data)
                inside.update(about.provides, [module.name.rpartition("/")[2].removesuffix(".ko")])
                needs.extend((name, module.name) for name in about.wants)
        return module is not None

    for wanted in configuration.modules():
        if not take(wanted):
            configuration.notes.append(f"{wanted.name} was not found, as the loader would say and go on")
    for name, by in needs:  # grows while it is gone through
        if name not in inside and not take(Wanted(name)):
            configuration.notes.append(f"{by} needs {name}, which is not here: the kernel will not take {by}")
        inside.add(name)
    return list(found.values())


def _load_module(read: Read, path: Sequence[str], wanted: Wanted) -> freebsd.Module | None:
    found = _find(read, path, [wanted.name], ("",) if wanted.kind else _SUFFIXES)
    if found is None:
        return None
    return freebsd.Module(found[0], found[1], wanted.kind, wanted.flags)


def _save(directory: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write all files under other names first, then give them theirs."""
    written: list[tuple[Path, Path]] = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            if (directory / name).is_dir():
                raise IsADirectoryError(errno.EISDIR, f"{name} is a directory there")
            handle, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=directory)
            written.append((Path(temporary), directory / name))
            with os.fdopen(handle, "wb") as file:
                _write(file, data)
            os.chmod(temporary, 0o644)
        for temporary_path, final in written:
            temporary_path.replace(final)
    except OSError as error:
        for temporary_path, _ in written:
            temporary_path.unlink(missing_ok=True)
        raise HandoffError(f"{directory}: {error.strerror}", "choose another directory, or make room") from None
    return [final for _, final in written]


def _write(file: IO[bytes], data: bytes) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())
