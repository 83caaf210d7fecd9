/* How a program ends: a partition's boot record, another network program, the next boot device, a reset. */
#include "boot.h"

struct entry { u32 edx, esi, es_bx; };
void enter(struct entry *e) __attribute__((regparm(0), noreturn));

#define TABLE 0x7BE /* where an MBR that has moved itself to 0000:0600 has its table: records expect SI there */

struct wanted { u32 index; int type; struct partition found; };

static int match(const struct partition *p, void *with) {
  struct wanted *w = with;
  if (w->type >= 0 ? p->scheme != 1 || p->type != w->type : p->index != w->index) return 0;
  w->found = *p;
  return 1;
}

int boot_record(u8 number, u32 index, int type) {
  static struct disk d;
  struct table t;
  struct wanted w = {index, type};
  u8 entry[16];
  if (!disk_open(&d, number)) {
    print("Disk %x is not there\n", number);
    return 0;
  }
  fill(&w.found, 0, sizeof w.found);
  if ((index || type >= 0) && !partitions(&d, &t, match, &w)) {
    print("Disk %x has no such partition\n", number);
    return 0;
  }
  if (!disk_read(&d, w.found.start, sector) || sector[510] != 0x55 || sector[511] != 0xAA) {
    print("No boot record in sector %l of disk %x\n", w.found.start, number);
    return 0;
  }
  print("Starting the boot record in sector %l of disk %x\n", w.found.start, number);
  /* an MBR entry for it: as it stands, or made for GPT and logical partitions, with the start that they really have */
  fill(entry, 0, sizeof entry);
  entry[0] = 0x80, entry[4] = w.found.scheme == 2 ? 0xED : w.found.type; /* EDD-4 annex A: a hybrid MBR's type */
  entry[1] = 0xFE, entry[2] = entry[3] = entry[5] = 0xFE, entry[6] = entry[7] = 0xFF;
  *(u32 *)(entry + 8) = w.found.start, *(u32 *)(entry + 12) = w.found.sectors >> 32 ? ~0u : (u32)w.found.sectors;
  unload();
  poke(TABLE, entry, sizeof entry);
  poke(0x7C00, sector, d.sector_size);
  struct entry e = {number, w.found.index ? TABLE : 0, 0};
  enter(&e);
}

void fall_back(void) {
  u8 how = parameters.fallback;
  pause(parameters.pause);
  if (how == NEXT_PROGRAM) {
    chain_program(server, parameters.next);
    how = NEXT_DEVICE;
  }
  if (how == LOCAL_DISK) boot_record(0x80, 0, -1);
  if (how == REBOOT) reboot();
  if (how == HOLD) {
    print("Holding here: Ctrl-Alt-Del or a reset starts over\n");
    for (;;) asm volatile("hlt");
  }
  print("Back to the firmware, for the next boot device\n");
  return_to_rom();
}
