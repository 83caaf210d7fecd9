/* hello: shows and reports what the firmware tells of a machine, then goes on with the next network program. */
#include "boot.h"

const char PROGRAM[] = "hello 1";
enum { NAME = 1, MAC, PXE, ADDRESS = 6, PACKET, CPUID, REGISTER, MODE, MEMORY, DISK, LABEL, PARTITION, SMBIOS };

static void card(void) {
  report_item(NAME, PROGRAM, sizeof PROGRAM - 1, 0, 0);
  print("Firmware UEFI %u.%u\n", table->header.revision >> 16, (table->header.revision & 0xFFFF) / 10);
  if (!pxe) return;
  struct { u16 api; u8 undi[3]; } __attribute__((packed)) versions = {0x0201, {0, 0, 0}};
  report_item(MAC, mac, mac_size, 0, 0);
  report_item(PXE, &versions, 5, 0, 0);
  report_item(ADDRESS, own, 4, server, 4);
  print("Address  %i, server %i\nCard     ", own, server);
  for (u32 i = 0; i < mac_size; i++) print(i ? ":%X" : "%X", mac[i]);
  print("\n");
  struct pxe_mode *m = pxe->mode;
  u8 *kept[] = {m->flags[DISCOVER_VALID] ? m->discover : 0, m->flags[ACK_RECEIVED] ? m->ack : 0,
                m->flags[REPLY_RECEIVED] ? m->reply : m->flags[PROXY_RECEIVED] ? m->proxy_offer : 0};
  for (u8 which = 1; which <= 3; which++) {
    u8 *packet = kept[which - 1];
    u32 used = 240;
    if (!packet) continue;
    while (used < 1300 && packet[used] != 255) used += packet[used] ? packet[used + 1] + 2 : 1;
    report_item(PACKET, &which, 1, packet, used < 1300 ? used + 1 : 1300);
  }
}

#ifdef __x86_64__
struct answer { u32 leaf, sub_leaf, eax, ebx, ecx, edx; };

static struct answer cpuid(u32 leaf) {
  struct answer a = {leaf, 0, 0, 0, 0, 0};
  asm volatile("cpuid" : "=a"(a.eax), "=b"(a.ebx), "=c"(a.ecx), "=d"(a.edx) : "a"(leaf), "c"(0));
  report_item(CPUID, &a, sizeof a, 0, 0);
  return a;
}

static void processor(void) {
  char text[49];
  struct answer a = cpuid(0);
  copy(text, &a.ebx, 4), copy(text + 4, &a.edx, 4), copy(text + 8, &a.ecx, 4), text[12] = 0;
  print("CPU      %s", text);
  u32 most = a.eax;
  cpuid(1);
  if (most >= 7) cpuid(7);
  u32 extended = cpuid(0x80000000).eax;
  if (extended >= 0x80000001) cpuid(0x80000001);
  if (extended >= 0x80000004) {
    for (u32 i = 0; i < 3; i++) {
      struct answer brand = cpuid(0x80000002 + i);
      copy(text + 16 * i, &brand.eax, 16);
    }
    text[48] = 0;
    print(", %s", text);
  }
  print("\n");
  u8 mode[2] = {64, 1};
  report_item(MODE, mode, 2, 0, 0);
}
#else
static void processor(void) {
  struct { u32 number; u64 value; } __attribute__((packed)) told = {0xC000, 0}; /* MIDR_EL1 */
  u64 value;
  asm volatile("mrs %0, midr_el1" : "=r"(value));
  told.value = value;
  report_item(REGISTER, &told, sizeof told, 0, 0);
  print("CPU      implementer %x, part %x\n", (u32)(value >> 24 & 255), (u32)(value >> 4 & 0xFFF));
  u8 mode[2] = {64, 1};
  report_item(MODE, mode, 2, 0, 0);
}
#endif

/* The memory map in E820's types: usable, reserved, ACPI, NVS (section 7.2, ACPI 15.4); neighbours of a kind are one. */
static void map(void) {
  u64 size = 0, name, step = 0;
  u32 version, filled = 0;
  struct range { u64 base, octets; u32 type; } __attribute__((packed)) range, now = {0, 0, 0};
  static u8 out[1200];
  services->memory_map(&size, 0, &name, &step, &version);
  size += 4096;
  u8 *buffer = memory(size);
  if (!buffer || FAILED(services->memory_map(&size, buffer, &name, &step, &version)) || step < 40) return;
  u64 usable = 0;
  for (u8 *at = buffer; at + step <= buffer + size + step; at += step) {
    int end = at + step > buffer + size;
    if (!end) {
      u32 type;
      copy(&type, at, 4), copy(&range.base, at + 8, 8), copy(&range.octets, at + 24, 8);
      range.octets <<= 12;
      range.type = type == 7 || (type >= 1 && type <= 4) ? 1 : type == 9 ? 3 : type == 10 ? 4 : 2;
      if (range.type == 1) usable += range.octets;
      if (now.octets && range.type == now.type && range.base == now.base + now.octets) {
        now.octets += range.octets;
        continue;
      }
    }
    if (now.octets) {
      copy(out + filled, &now, 20);
      filled += 20;
    }
    if (filled && (end || filled + 20 > sizeof out)) report_item(MEMORY, out, filled, 0, 0), filled = 0;
    if (end) break;
    now = range;
  }
  print("Memory   %l MiB usable\n", usable >> 20);
  services->free(buffer);
}

static void tell_partition(u32 disk, u32 index, u8 scheme, u8 flags, u64 start, u64 sectors, const u8 *rest, u32 size) {
  struct { u32 disk, index; u8 scheme, flags, zero[2]; u64 start, sectors; } __attribute__((packed)) told = {
    disk, index, scheme, flags, {0, 0}, start, sectors};
  report_item(PARTITION, &told, sizeof told, rest, size);
  print("         %u: from %l, %l sectors\n", index, start, sectors);
}

static u32 word(const u8 *at) {
  return at[0] | at[1] << 8 | at[2] << 16 | (u32)at[3] << 24;
}

static int sector(struct block_io *io, u64 at, u8 *to) {
  return at <= io->media->last && !FAILED(io->read(io, io->media->id, at, io->media->block, to));
}

static void gpt(struct block_io *io, u32 disk, u8 *head, u8 *entries) {
  u64 first = word(head + 72) | (u64)word(head + 76) << 32;
  u32 count = word(head + 80), each = word(head + 84), block = io->media->block;
  if (each < 128 || each > block || block % each || count > 256) return;
  for (u32 i = 0; i < count; i++) {
    u32 at = i * each % block, n = 0;
    if (!at && !sector(io, first + i * each / block, entries)) return;
    u8 *e = entries + at, none[16] = {0};
    if (equal(e, none, 16)) continue;
    while (n < 36 && (e[56 + 2 * n] || e[57 + 2 * n])) n++;
    u64 start = word(e + 32) | (u64)word(e + 36) << 32, end = word(e + 40) | (u64)word(e + 44) << 32;
    u8 rest[104];
    copy(rest, e, 32), copy(rest + 32, e + 56, 2 * n);
    tell_partition(disk, i + 1, 2, 0, start, end - start + 1, rest, 32 + 2 * n);
  }
}

static void mbr(struct block_io *io, u32 disk, u8 *first, u8 *more) {
  u64 extended = 0;
  for (u32 i = 0; i < 4; i++) {
    u8 *e = first + 446 + 16 * i;
    if (!e[4]) continue;
    tell_partition(disk, i + 1, 1, e[0], word(e + 8), word(e + 12), e + 4, 1);
    if (e[4] == 5 || e[4] == 15 || e[4] == 0x85) extended = word(e + 8);
  }
  u64 at = extended;
  for (u32 index = 5; at && index < 64 && sector(io, at, more) && more[510] == 0x55 && more[511] == 0xAA; index++) {
    u8 *e = more + 446;
    if (!e[4]) break;
    tell_partition(disk, index, 1, e[0], at + word(e + 8), word(e + 12), e + 4, 1);
    at = e[20] ? extended + word(e + 24) : 0;
  }
}

static const char *kind(void *handle) {
  u8 *path, *node = 0;
  if (FAILED(services->protocol(handle, &PATH_GUID, (void **)&path))) return "";
  for (u8 *at = path; at[0] != 0x7F; at += at[2] | at[3] << 8) node = at;
  if (!node) return "";
  if (node[0] == 3) return node[1] == 18 ? "SATA" : node[1] == 23 ? "NVMe" : node[1] == 2 ? "SCSI" : node[1] == 5 ? "USB" : "ATA";
  return node[0] == 1 ? "PCI" : "";
}

static void disks(void) {
  u64 count = 0;
  void **handles = 0;
  static u8 first[4096], second[4096];
  u32 numbers = 0;
  if (FAILED(services->handles(2 /* ByProtocol */, &BLOCK_GUID, 0, &count, &handles))) return;
  for (u32 pass = 0; pass < 2; pass++) { /* disks and tables before partitions: of too many the last are left out */
    numbers = 0x7F;
    for (u64 i = 0; i < count; i++) {
      struct block_io *io;
      if (FAILED(services->protocol(handles[i], &BLOCK_GUID, (void **)&io))) continue;
      struct media *m = io->media;
      if (!m->present || m->logical || m->block < 512 || m->block > 4096) continue;
      u32 number = ++numbers;
      int has = sector(io, 0, first) && first[510] == 0x55 && first[511] == 0xAA;
      int modern = has && sector(io, 1, second) && equal(second, "EFI PART", 8);
      if (pass) {
        print("Disk %x  %l sectors of %u, %s\n", number, m->last + 1, m->block, kind(handles[i]));
        if (modern) gpt(io, number, second, first);
        else if (has) mbr(io, number, first, second);
        continue;
      }
      struct { u32 number; u16 flags, size; u64 sectors; u32 cylinders; u16 heads, spt; } __attribute__((packed)) told = {
        number, m->removable ? 1 : 0, m->block, m->last + 1, 0, 0, 0};
      report_item(DISK, &told, sizeof told, kind(handles[i]), length(kind(handles[i])));
      struct { u32 disk; u8 scheme; } __attribute__((packed)) label = {number, modern ? 2 : has ? 1 : 0};
      report_item(LABEL, &label, 5, modern ? second + 56 : first + 440, modern ? 16 : has ? 4 : 0);
    }
  }
}

static void identity(void) {
  static const struct guid SMBIOS_GUID = {0xEB9D2D31, 0x2D88, 0x11D3, {0x9A, 0x16, 0, 0x90, 0x27, 0x3F, 0xC1, 0x4D}};
  static const struct guid SMBIOS3_GUID = {0xF2FD1544, 0x9794, 0x4A2C, {0x99, 0x2E, 0xE5, 0xBB, 0xCF, 0x20, 0xE3, 0x94}};
  u8 *at = 0;
  u64 size = 0;
  for (u64 i = 0; i < table->entries; i++) {
    u8 *entry = table->configuration[i].table;
    if (same(&table->configuration[i].guid, &SMBIOS3_GUID)) {
      u64 address;
      copy(&address, entry + 16, 8);
      at = (u8 *)address, size = word(entry + 12);
    } else if (!at && same(&table->configuration[i].guid, &SMBIOS_GUID))
      at = (u8 *)(u64)word(entry + 24), size = entry[22] | entry[23] << 8;
  }
  u8 *end = at + (size < 0x10000 ? size : 0x10000);
  for (u32 n = 0; at && at + 4 < end && at[1] >= 4 && n < 512; n++) { /* DSP0134 section 6.1 */
    u8 *next = at + at[1];
    while (next + 1 < end && (next[0] || next[1])) next++;
    next += 2;
    if (next > end) break;
    if (at[0] <= 4 || at[0] == 17) report_item(SMBIOS, at, next - at < 512 ? next - at : 512, 0, 0);
    if (at[0] == 127) break;
    at = next;
  }
}

status program(void) {
  print("\nBootwire %s %s\n", PROGRAM, (const char *)parameters.message);
  report_begin();
  card(), processor(), map(), identity(), disks();
  if (!pxe) {
    print("Not started from the network: nothing to report by\n");
    return fall_back();
  }
  print(report_send() ? "The server has it\n" : "The server did not acknowledge it\n");
  pause(parameters.pause);
  if (parameters.next[0]) {
    if (chain_program(server, (const char *)parameters.next) == ENDED_WELL) return 0;
    note("hello: the next network program could not be started");
    if (parameters.fallback == NEXT_PROGRAM) parameters.fallback = NEXT_DEVICE;
  }
  return fall_back();
}
