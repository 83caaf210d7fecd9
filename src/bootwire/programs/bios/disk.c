/* Disks by int 13h and their partition tables: MBR with logical partitions, and GPT (UEFI 5.3). */
#include "boot.h"

u8 sector[4096];

int disk_open(struct disk *d, u8 number) {
  struct registers r = {.eax = 0x0800, .edx = number};
  fill(d, 0, sizeof *d);
  d->number = number, d->sector_size = 512;
  bios(0x13, &r);
  if (r.flags & CARRY || (r.eax & 0xFF00)) return 0;
  if ((number & 0x7F) >= (r.edx & 0xFF)) return 0; /* DL: how many there are */
  d->spt = r.ecx & 63, d->heads = ((r.edx >> 8) & 255) + 1;
  d->cylinders = ((r.ecx >> 8 & 255) | (r.ecx & 0xC0) << 2) + 1;
  d->sectors = (u64)d->cylinders * d->heads * d->spt;

  struct registers e = {.eax = 0x4100, .ebx = 0x55AA, .edx = number};
  bios(0x13, &e);
  if (e.flags & CARRY || (e.ebx & 0xFFFF) != 0xAA55 || !(e.ecx & 1)) return 1;
  d->flags |= 2;
  struct { u16 size, flags; u32 cylinders, heads, spt; u64 sectors; u16 octets; u32 edd; u16 key; u8 length, x[3];
           char bus[4], interface[8]; u8 path[26]; } __attribute__((packed)) p;
  fill(&p, 0, sizeof p);
  p.size = sizeof p;
  struct registers q = {.eax = 0x4800, .edx = number, .esi = NEAR(&p), .ds = SEGMENT};
  bios(0x13, &q);
  if (q.flags & CARRY) return 1;
  if (p.sectors) d->sectors = p.sectors;
  if (p.octets) d->sector_size = p.octets;
  if (p.flags & 4) d->flags |= 1;
  if (p.key == 0xBEDD) { /* whatever length it says: SeaBIOS says 30 */
    u32 n = 0;
    for (int i = 0; i < 8; i++)
      if (p.interface[i] > ' ') d->name[n++] = p.interface[i];
    d->name[n++] = ' ';
    for (int i = 0; i < 4; i++)
      if (p.bus[i] > ' ') d->name[n++] = p.bus[i];
    if (d->name[n - 1] == ' ') d->name[n - 1] = 0;
  }
  return 1;
}

int disk_read(const struct disk *d, u64 at, void *to) {
  if (d->sector_size > sizeof sector) return 0;
  if (d->flags & 2) {
    struct { u8 size, zero; u16 count, offset, segment; u64 at; } __attribute__((packed)) p = {
      16, 0, 1, NEAR(to), SEGMENT, at};
    struct registers r = {.eax = 0x4200, .edx = d->number, .esi = NEAR(&p), .ds = SEGMENT};
    bios(0x13, &r);
    return !(r.flags & CARRY);
  }
  if (!d->spt || !d->heads || at >> 32) return 0;
  u32 track = (u32)at / d->spt, s = (u32)at % d->spt + 1, head = track % d->heads, cylinder = track / d->heads;
  if (cylinder > 1023) return 0;
  struct registers r = {.eax = 0x0201, .ecx = s | (cylinder & 255) << 8 | (cylinder >> 8) << 6,
                        .edx = d->number | head << 8, .ebx = NEAR(to), .es = SEGMENT};
  bios(0x13, &r);
  return !(r.flags & CARRY);
}

static u32 long_at(const u8 *at) { return at[0] | at[1] << 8 | at[2] << 16 | (u32)at[3] << 24; }
static u64 quad_at(const u8 *at) { return long_at(at) | (u64)long_at(at + 4) << 32; }

static int empty(const u8 *at, u32 n) {
  while (n--)
    if (*at++) return 0;
  return 1;
}

static int gpt(const struct disk *d, struct table *t, int (*each)(const struct partition *, void *), void *with) {
  u64 entries = quad_at(sector + 72);
  u32 count = long_at(sector + 80), size = long_at(sector + 84), a_sector = d->sector_size;
  t->scheme = 2, t->identity_size = 16;
  copy(t->identity, sector + 56, 16);
  if (size < 128 || size > a_sector || a_sector % size) return 0;
  if (count > 256) count = 256; /* 128 is usual; a hostile table is not read for ever */
  for (u32 i = 0; i < count; i++) {
    u32 per = a_sector / size;
    if (i % per == 0 && !disk_read(d, entries + i / per, sector)) return 0;
    const u8 *e = sector + i % per * size;
    if (empty(e, 16)) continue;
    struct partition p;
    fill(&p, 0, sizeof p);
    p.index = i + 1, p.scheme = 2, p.start = quad_at(e + 32), p.sectors = quad_at(e + 40) - p.start + 1;
    copy(p.kind, e, 16), copy(p.identity, e + 16, 16), copy(p.name, e + 56, 72);
    int found = each(&p, with);
    if (found) return found;
    if ((i + 1) % per && !disk_read(d, entries + i / per, sector)) return 0; /* `each` may have read others */
  }
  return 0;
}

int partitions(const struct disk *d, struct table *t, int (*each)(const struct partition *, void *), void *with) {
  u8 table[64];
  u32 outer = 0, next;
  int found, protective = 0;
  fill(t, 0, sizeof *t);
  if (!disk_read(d, 0, sector) || sector[510] != 0x55 || sector[511] != 0xAA) return 0;
  copy(table, sector + 446, 64);
  for (int i = 0; i < 4; i++) {
    u8 active = table[16 * i];
    if (active & 0x7F) return 0; /* neither 00 nor 80: code, not a table */
    if (table[16 * i + 4] == 0xEE) protective = 1;
  }
  t->scheme = 1, t->identity_size = 4;
  copy(t->identity, sector + 440, 4);
  if (protective && disk_read(d, 1, sector) && equal(sector, "EFI PART", 8)) return gpt(d, t, each, with);
  for (int i = 0; i < 4; i++) {
    const u8 *e = table + 16 * i;
    struct partition p;
    fill(&p, 0, sizeof p);
    p.index = i + 1, p.scheme = 1, p.flags = e[0], p.type = e[4], p.start = long_at(e + 8), p.sectors = long_at(e + 12);
    if (!p.type || !p.sectors) continue;
    if (p.type == 5 || p.type == 0x0F || p.type == 0x85) outer = p.start;
    if ((found = each(&p, with)) != 0) return found;
  }
  next = outer;
  for (u32 index = 5; outer && index < 64; index++) { /* bounded, a chain may lead in circles */
    if (!disk_read(d, next, sector) || sector[510] != 0x55 || sector[511] != 0xAA) return 0;
    const u8 *e = sector + 446;
    struct partition p;
    fill(&p, 0, sizeof p);
    p.index = index, p.scheme = 1, p.flags = e[0], p.type = e[4];
    p.start = (u64)next + long_at(e + 8), p.sectors = long_at(e + 12);
    u32 link = long_at(e + 24), more = e[20];
    if (p.type && p.sectors && (found = each(&p, with)) != 0) return found;
    if (!more || !link) return 0;
    next = outer + link;
  }
  return 0;
}
