/* hello: shows and reports what PXE and the BIOS tell of a machine, then goes on with the next network program. */
#include "boot.h"

const char PROGRAM[] = "hello 1";

/* item types of a report */
enum { NAME = 1, MAC, PXE, LINK, NIC, ADDRESS, PACKET, CPUID, MODE = 10, MEMORY, DISK, LABEL, PARTITION, SMBIOS };

static u8 buffer[1024];

static void card(void) {
  struct { u16 api; u8 undi[3]; } __attribute__((packed)) versions = {
    pxe_api, {undi_version[0], undi_version[1], undi_version[2]}};
  report_item(NAME, PROGRAM, sizeof PROGRAM - 1, 0, 0);
  report_item(MAC, mac, mac_size, 0, 0);
  report_item(PXE, &versions, 5, 0, 0);
  report_item(ADDRESS, &own, 4, &server, 4);
  print("PXE      %u.%u, UNDI %u.%u.%u\nAddress  %i, server %i", pxe_api >> 8, pxe_api & 255, undi_version[0],
        undi_version[1], undi_version[2], own, server);
  if (router) print(", router %i", router);
  print("\nCard     ");
  for (u32 i = 0; i < mac_size; i++) print(i ? ":%X" : "%X", mac[i]);

  struct { u16 status; u8 bus; u16 vendor, device; u8 class[3], revision; u16 slot, sub_vendor, sub_device; u8 x[8]; }
    __attribute__((packed)) nic;
  fill(&nic, 0, sizeof nic);
  if (pxe(0x12, &nic) == 0) {
    struct { u8 bus, revision; u16 vendor, device; u8 class[3], zero; u16 slot, sub_vendor, sub_device; }
      __attribute__((packed)) told = {nic.bus, nic.revision, nic.vendor, nic.device,
                                      {nic.class[0], nic.class[1], nic.class[2]}, 0, nic.slot, nic.sub_vendor,
                                      nic.sub_device};
    report_item(NIC, &told, sizeof told, 0, 0);
    if (nic.bus == 2) print(", PCI %w:%w at %w", nic.vendor, nic.device, nic.slot);
  }
  struct { u16 status, io, irq, mtu, type, size; u8 now[16], burnt[16]; u32 rom; u16 rx, tx; } __attribute__((packed)) undi;
  struct { u16 status; char name[16]; u32 speed, flags, x[4]; } __attribute__((packed)) link;
  fill(&undi, 0, sizeof undi), fill(&link, 0, sizeof link);
  int known = pxe(0x0C, &undi) == 0;
  known |= pxe(0x13, &link) == 0;
  if (known) {
    struct { u32 speed; u16 mtu, service; } told = {link.speed, undi.mtu, link.flags};
    link.name[15] = 0;
    report_item(LINK, &told, 8, link.name, length(link.name));
    print(", %s, MTU %u, IRQ %u", link.name, undi.mtu, undi.irq);
  }
  put('\n');
  for (u8 which = 1; which <= 3; which++) {
    u32 size = pxe_packet(which, buffer, sizeof buffer), used = 240;
    if (size < 240) continue;
    while (used < size && buffer[used] != 255) used += buffer[used] ? buffer[used + 1] + 2 : 1;
    if (used < size) size = used + 1;
    while (size > 300 && !buffer[size - 1]) size--; /* iPXE's have no END, but all of its buffer */
    report_item(PACKET, &which, 1, buffer, size);
    buffer[235] = 0; /* 127 characters of the file name */
    print("Packet   %s: %u octets, from %i, file \"%s\"\n", which == 1 ? "DISCOVER" : which == 2 ? "ACK" : "reply", size,
          *(u32 *)(buffer + 20), buffer + 108);
  }
}

struct answer { u32 leaf, sub_leaf, eax, ebx, ecx, edx; };

static struct answer cpuid(u32 leaf) {
  struct answer a = {leaf, 0};
  asm volatile("cpuid" : "=a"(a.eax), "=b"(a.ebx), "=c"(a.ecx), "=d"(a.edx) : "a"(leaf), "c"(0));
  report_item(CPUID, &a, sizeof a, 0, 0);
  return a;
}

static void processor(void) {
  char text[49];
  struct answer a = cpuid(0);
  u32 most = a.eax;
  *(u32 *)text = a.ebx, *(u32 *)(text + 4) = a.edx, *(u32 *)(text + 8) = a.ecx, text[12] = 0;
  struct answer one = cpuid(1), seven = {0}, more = {0};
  u32 family = one.eax >> 8 & 15, model = one.eax >> 4 & 15;
  if (family == 6 || family == 15) model |= (one.eax >> 16 & 15) << 4;
  if (family == 15) family += one.eax >> 20 & 255;
  print("CPU      %s, family %u, model %u, stepping %u", text, family, model, one.eax & 15);
  if (most >= 7) seven = cpuid(7);
  u32 extended = cpuid(0x80000000).eax;
  if (extended >= 0x80000001) more = cpuid(0x80000001);
  if (extended >= 0x80000004) {
    for (u32 i = 0; i < 3; i++) {
      struct answer part = cpuid(0x80000002 + i);
      copy(text + 16 * i, &part.eax, 16);
    }
    text[48] = 0;
    print("\n         %s", text);
  }
  u16 status;
  asm volatile("smsw %0" : "=r"(status));
  struct { u8 bits, protected; } mode = {16, status & 1};
  report_item(MODE, &mode, 2, 0, 0);
  print("\n         %s bits, now in %s mode; features %x %x %x %x %x\n", more.edx >> 29 & 1 ? "64" : "32",
        mode.protected ? "virtual 8086" : "real", one.edx, one.ecx, seven.ebx, more.edx, more.ecx);
}

static void memory(void) {
  struct { u64 base, octets; u32 type; } __attribute__((packed)) range;
  struct registers r = {.ebx = 0};
  u32 n = 0, filled = 0;
  do {
    r.eax = 0xE820, r.ecx = 20, r.edx = 0x534D4150, r.edi = NEAR(&range), r.es = SEGMENT; /* "SMAP", ACPI 15.1 */
    bios(0x15, &r);
    if (r.flags & CARRY || r.eax != 0x534D4150) break;
    print("Memory   %L + %L, %s\n", range.base, range.octets,
          range.type == 1 ? "usable" : range.type == 2 ? "reserved" : range.type == 3 ? "ACPI" : range.type == 4 ? "NVS" : "other");
    copy(buffer + filled, &range, 20);
    filled += 20;
    if (filled + 20 > sizeof buffer) report_item(MEMORY, buffer, filled, 0, 0), filled = 0;
  } while (r.ebx && ++n < 200);
  if (filled) report_item(MEMORY, buffer, filled, 0, 0);
  if (n) return;
  struct registers old = {.eax = 0xE801}; /* KiB up to 16 MiB, and 64 KiB above */
  bios(0x15, &old);
  if (old.flags & CARRY) return;
  range.base = 0x100000, range.octets = (u64)(old.eax & 0xFFFF) * 1024, range.type = 1;
  report_item(MEMORY, &range, 20, 0, 0);
  range.base = 0x1000000, range.octets = (u64)(old.ebx & 0xFFFF) * 65536;
  report_item(MEMORY, &range, 20, 0, 0);
}

static int tell_partition(const struct partition *p, void *with) {
  struct { u32 disk, index; u8 scheme, flags, zero[2]; u64 start, sectors; } __attribute__((packed)) told = {
    *(u8 *)with, p->index, p->scheme, p->flags, {0, 0}, p->start, p->sectors};
  print("         %u: from %l, %l sectors, ", p->index, p->start, p->sectors);
  if (p->scheme == 1) {
    report_item(PARTITION, &told, sizeof told, &p->type, 1);
    print("type %X%s\n", p->type, p->flags ? ", active" : "");
    return 0;
  }
  u8 rest[32 + 72];
  u32 n = 0;
  copy(rest, p->kind, 16), copy(rest + 16, p->identity, 16);
  while (n < 36 && p->name[n]) n++;
  copy(rest + 32, p->name, 2 * n);
  report_item(PARTITION, &told, sizeof told, rest, 32 + 2 * n);
  for (u32 i = 0; i < n; i++) put(p->name[i] >= ' ' && p->name[i] <= '~' ? p->name[i] : '?');
  put('\n');
  return 0;
}

static int no_partition(const struct partition *p, void *with) {
  (void)p, (void)with;
  return 0;
}

/* All disks and what kind of table each has come before all partitions: of too many the last ones are left out. */
static void disks(void) {
  static struct disk d;
  struct table t;
  for (u32 number = 0x80; number < 0xC0 && disk_open(&d, number); number++) {
    struct { u32 number; u16 flags, sector_size; u64 sectors; u32 cylinders; u16 heads, spt; } __attribute__((packed))
    told = {number, d.flags, d.sector_size, d.sectors, d.cylinders, d.heads, d.spt};
    report_item(DISK, &told, sizeof told, d.name, length(d.name));
    partitions(&d, &t, no_partition, 0);
    struct { u32 disk; u8 scheme; } __attribute__((packed)) label = {number, t.scheme};
    report_item(LABEL, &label, 5, t.identity, t.identity_size);
  }
  for (u32 number = 0x80; number < 0xC0 && disk_open(&d, number); number++) {
    print("Disk %x  %l sectors of %u, %s\n", number, d.sectors, d.sector_size, d.name);
    partitions(&d, &t, tell_partition, &d.number);
  }
}

static void say_string(const char *what, u32 number, u32 size) {
  const char *s = (const char *)buffer + buffer[1], *end = (const char *)buffer + size - 1;
  while (number > 1 && s < end) s += length(s) + 1, number--;
  print("%s%s", what, number && s < end ? s : "-");
}

static void identity(void) {
  u8 entry[32];
  u32 table = 0, size = 0, at = 0xF0000;
  for (; at < 0x100000 && !table; at += 16) { /* DSP0134 section 5.2 */
    peek(entry, at, 32);
    if (equal(entry, "_SM3_", 5)) table = *(u32 *)(entry + 16), size = *(u32 *)(entry + 12);
    else if (equal(entry, "_SM_", 4) && equal(entry + 16, "_DMI_", 5))
      table = *(u32 *)(entry + 24), size = *(u16 *)(entry + 22);
  }
  u32 end = table + (size < 0x10000 ? size : 0x10000);
  for (u32 n = 0; table && table + 4 < end && n < 512; n++) {
    u32 room = end - table < 512 ? end - table : 512, used;
    peek(buffer, table, room);
    used = buffer[1];
    if (used < 4) break;
    while (used + 1 < room && (buffer[used] || buffer[used + 1])) used++;
    used += 2;
    if (used > room) used = room;
    u8 type = buffer[0];
    if (type <= 4 || type == 17) report_item(SMBIOS, buffer, used, 0, 0);
    if (type == 0) say_string("BIOS     ", buffer[4], used), say_string(" ", buffer[5], used), put('\n');
    if (type == 1) {
      say_string("Machine  ", buffer[4], used), say_string(" ", buffer[5], used), say_string(", serial ", buffer[7], used);
      print("\n         UUID ");
      static const u8 order[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
      for (u32 i = 0; i < 16; i++) print(i == 4 || i == 6 || i == 8 || i == 10 ? "-%X" : "%X", buffer[8 + order[i]]);
      put('\n');
    }
    if (type == 127) break;
    table += used;
  }
}

void program(void) {
  print("\nBootwire %s %s\n", PROGRAM, parameters.message);
  if (!pxe_start()) {
    print("No PXE here: nothing to report by\n");
    fall_back();
  }
  report_begin();
  card(), processor(), memory(), identity(), disks();
  print(report_send() ? "The server has it\n" : "The server did not acknowledge it\n");
  pause(parameters.pause);
  if (parameters.next[0]) {
    chain_program(server, parameters.next);
    note("hello: the next network program could not be started");
    if (parameters.fallback == NEXT_PROGRAM) parameters.fallback = NEXT_DEVICE;
  }
  fall_back();
}
