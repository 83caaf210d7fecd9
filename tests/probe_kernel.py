"""A kernel for amd64 that does one thing: print all it was handed on the first serial port, and reset the machine.

It stands where a FreeBSD kernel would: linked at KERNBASE + 2 MiB, entered with `modulep` and `kernend` on the stack.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from bootwire.preboot.handoff.modinfo import Record

_START = """
        .text
        .globl  start
start:  movq    %rsp, %rax
        movl    4(%rax), %edi
        movl    8(%rax), %esi
        movabsq $stack_end, %rsp
        call    probe_main
        .bss
        .balign 16
        .space  8192
stack_end:
"""

_MAIN = r"""
typedef unsigned char u8; typedef unsigned int u32; typedef unsigned long u64;
#define BASE 0xffffffff80000000ul
static void out(unsigned short port, u8 value) { __asm__ volatile("outb %0, %1" :: "a"(value), "Nd"(port)); }
static u8 in(unsigned short port) { u8 v; __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static void put(char c) { while (!(in(0x3fd) & 0x20)) ; out(0x3f8, c); }
static void say(const char *s) { while (*s) put(*s++); }
static void hex(u64 value, int digits) {
    while (digits--) put("0123456789abcdef"[(value >> (4 * digits)) & 15]);
}
static void octets(const u8 *at, u64 count) { while (count--) hex(*at++, 2); }
static u64 checksum(const u8 *at, u64 count) { u64 sum = 0; while (count--) sum = sum * 31 + *at++; return sum; }
static void sections(const u8 *headers, u32 length) {
    for (u32 i = 0; i < length / 64; i++) {
        const u64 *header = (const u64 *)(headers + 64 * i);
        u32 kind = (u32)(header[0] >> 32);
        if (header[2] == 0 || header[2] >= 1ul << 30 || kind == 8) continue;
        say("probe section "); hex(i, 4); put(' ');
        hex(checksum((const u8 *)(BASE + header[2]), header[4]), 16); say("\n");
    }
}

void probe_main(u32 modulep, u32 kernend) {
    const u8 *at = (const u8 *)(BASE + modulep);
    u64 environment = 0, address = 0;
    say("\nprobe modulep "); hex(modulep, 8); say(" kernend "); hex(kernend, 8); say("\n");
    for (int count = 0; count < 1000; count++) {
        u32 kind = *(const u32 *)at, length = *(const u32 *)(at + 4);
        const u8 *data = at + 8;
        if (kind == 0 && length == 0) break;
        say("probe record "); hex(kind, 4); put(' '); octets(data, length); say("\n");
        if (kind == 0x8006) environment = *(const u64 *)data;
        if (kind == 3) address = *(const u64 *)data;
        if (kind == 4) {
            u64 size = *(const u64 *)data;
            const u8 *body = (const u8 *)(BASE + address);
            say("probe body "); hex(checksum(body, size), 16); put(' '); octets(body, size < 32 ? size : 32); say("\n");
        }
        if (kind == 0x8009) sections(data, length);
        if (kind == 0x8003) { say("probe symbols "); octets((const u8 *)(BASE + *(const u64 *)data), 32); say("\n"); }
        at = data + ((length + 7) & ~7u);
    }
    if (environment)
        for (const char *e = (const char *)(BASE + environment); *e; e++) {
            say("probe env "); while (*e) put(*e++); say("\n");
        }
    say("probe done\n");
    for (;;) { out(0x64, 0xfe); __asm__ volatile("hlt"); }
}
"""

_SCRIPT = """
ENTRY(start)
PHDRS { text PT_LOAD FLAGS(5); data PT_LOAD FLAGS(6); }
SECTIONS {
    . = 0xffffffff80200000;
    .text : AT(0x200000) { *(.text*) *(.rodata*) } :text
    . = ALIGN(4096);
    .data : AT(0x201000) { *(.data*) } :data
    .bss : { *(.bss*) *(COMMON) } :data
    /DISCARD/ : { *(.note*) *(.comment) *(.eh_frame*) }
}
"""

_MODULE = """
extern int kernel_counter;
int module_value = 0x600df00d;
int *module_pointer = &module_value;
static int scratch[100];
int module_start(void) { scratch[3] = ++kernel_counter; return module_value; }
"""


_SET = """
struct mod_metadata { int version, type; const void *data; const char *name; };
static const int versions[3];
#define ABOUT(kind, label) static struct mod_metadata about_##label = { 1, kind, versions, #label }; \\
    static struct mod_metadata *const in_##label __attribute__((used, section("set_modmetadata_set"))) = &about_##label;
"""


def kernel(directory: Path) -> bytes:
    """Build it with gcc and binutils."""
    (directory / "start.s").write_text(_START)
    (directory / "main.c").write_text("static int probe_data = 7; int *probe_pointer = &probe_data;\n" + _MAIN)
    (directory / "kernel.ld").write_text(_SCRIPT)
    flags = "-c -O1 -ffreestanding -mcmodel=kernel -mno-red-zone -mgeneral-regs-only -fno-pic -fno-stack-protector"
    _run(directory, f"gcc {flags} -fcf-protection=none main.c start.s")
    _run(directory, "ld -nostdlib -static --no-warn-rwx-segments -T kernel.ld -o kernel start.o main.o")
    return (directory / "kernel").read_bytes()


def module(directory: Path, shared: bool = False, provides: str = "", wants: str = "") -> bytes:
    """A kernel module as FreeBSD/amd64 has them (a relocatable file), or as other machines do (a shared object).

    provides, wants: words, the modules that its metadata says are in it, and those it depends on.
    """
    about = [f"ABOUT(3, {name})\n" for name in provides.split()] + [f"ABOUT(1, {name})\n" for name in wants.split()]
    (directory / "module.c").write_text(_MODULE + (_SET + "".join(about) if about else ""))
    flags = "-O1 -ffreestanding -fno-toplevel-reorder -fno-stack-protector -fcf-protection=none"
    kind = "-fpic -shared -nostdlib" if shared else "-c -mcmodel=kernel -fno-pic"
    _run(directory, f"gcc {flags} {kind} -o module.ko module.c")
    return (directory / "module.ko").read_bytes()


def checksum(data: bytes) -> int:
    """What the kernel computes over each file's octets in memory."""
    total = 0
    for octet in data:
        total = (total * 31 + octet) & (1 << 64) - 1
    return total


@dataclass
class Handed:
    """What the kernel said it was given.

    bodies: checksum and first octets of each file, in the records' order; sections: checksum by file (0 is the
    kernel) and number of the section, for those that lie at a physical address.
    """

    modulep: int = -1
    kernend: int = -1
    records: list[Record] = field(default_factory=list)
    bodies: list[tuple[int, bytes]] = field(default_factory=list)
    sections: dict[tuple[int, int], int] = field(default_factory=dict)
    symbols: bytes = b""
    environment: dict[str, str] = field(default_factory=dict)

    def files(self) -> list[list[Record]]:
        """The records of each file: the kernel's first."""
        groups: list[list[Record]] = []
        for record in self.records:
            if record.kind == 1:
                groups.append([])
            groups[-1].append(record)
        return groups


def read(text: str) -> Handed:
    """Read what came over the serial port; fails unless the kernel came to its end."""
    assert "probe done" in text, text[-2000:]
    handed = Handed()
    for line in re.findall(r"probe (.*)", text):
        word, *rest = line.strip("\r").split(" ", 2)
        if word == "modulep":
            handed.modulep, handed.kernend = int(rest[0], 16), int(rest[1].split()[-1], 16)
        elif word == "record":
            handed.records.append(Record(int(rest[0], 16), bytes.fromhex(rest[1] if len(rest) > 1 else "")))
        elif word == "body":
            handed.bodies.append((int(rest[0], 16), bytes.fromhex(rest[1])))
        elif word == "section":
            handed.sections[len(handed.files()) - 1, int(rest[0], 16)] = int(rest[1], 16)
        elif word == "symbols":
            handed.symbols = bytes.fromhex(rest[0])
        elif word == "env":
            name, _, value = " ".join(rest).partition("=")
            handed.environment[name] = value
    return handed


def _run(directory: Path, command: str) -> None:
    done = subprocess.run(command.split(), cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
