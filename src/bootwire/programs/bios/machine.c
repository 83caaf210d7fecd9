/* Time, keys, memory anywhere below 4 GiB, and starting over. */
#include "boot.h"

u32 ticks(void) {
  u32 now;
  peek(&now, 0x46C, 4); /* BIOS data area */
  return now;
}

u32 since(u32 start) {
  u32 now = ticks();
  return now >= start ? now - start : now + 0x1800B0 - start; /* ticks of a day */
}

int key(void) {
  struct registers r = {.eax = 0x0100};
  bios(0x16, &r);
  if (r.flags & 0x40) return 0; /* ZF: nothing there */
  r.eax = 0;
  bios(0x16, &r);
  return r.eax & 0xFFFF;
}

void pause(u32 seconds) {
  u32 start = ticks();
  if (seconds)
    while (since(start) < TICKS(seconds) && !key()) asm volatile("hlt");
}

static void low(void *to, u32 physical, u32 octets) {
  u16 segment = physical >> 4;
  u32 from = physical & 15, di = NEAR(to), cx = octets;
  asm volatile("pushw %%ds\n\tmovw %3, %%ds\n\taddr32 rep movsb\n\tpopw %%ds"
               : "+S"(from), "+D"(di), "+c"(cx) : "r"(segment) : "memory");
}

/* Int 15h function 87h: moves words between addresses of 32 bits; the descriptors are the 286's with 8 more bits. */
static void high(void *to, u32 physical, u32 octets) {
  u8 table[48];
  u32 target = (SEGMENT << 4) + NEAR(to);
  fill(table, 0, sizeof table);
  for (int i = 0; i < 2; i++) {
    u8 *d = table + 16 + 8 * i;
    u32 base = i ? target : physical;
    d[0] = d[1] = 0xFF;
    d[2] = base, d[3] = base >> 8, d[4] = base >> 16, d[7] = base >> 24;
    d[5] = 0x93;
  }
  struct registers r = {.eax = 0x8700, .ecx = (octets + 1) / 2, .esi = NEAR(table), .es = SEGMENT, .ds = SEGMENT};
  bios(0x15, &r);
}

void peek(void *to, u32 physical, u32 octets) {
  static u8 buffer[512]; /* whole words are moved: never beyond what the caller gave */
  if (physical + octets <= 0x100000) {
    low(to, physical, octets);
    return;
  }
  while (octets) {
    u32 n = octets < sizeof buffer ? octets : sizeof buffer;
    high(buffer, physical, n);
    copy(to, buffer, n);
    to = (u8 *)to + n, physical += n, octets -= n;
  }
}

void poke(u32 physical, const void *from, u32 octets) {
  u16 segment = physical >> 4;
  u32 di = physical & 15, si = NEAR(from), cx = octets;
  asm volatile("pushw %%es\n\tmovw %3, %%es\n\taddr32 rep movsb\n\tpopw %%es"
               : "+S"(si), "+D"(di), "+c"(cx) : "r"(segment) : "memory");
}

void reboot(void) {
  u16 cold = 0;
  for (u32 start = ticks(); since(start) < TICKS(1);) {} /* a serial console has what was said by then */
  poke(0x472, &cold, 2);
  asm volatile("movb $0xFE, %%al\n\toutb %%al, $0x64" ::: "eax"); /* the keyboard controller pulls reset */
  for (u32 start = ticks(); since(start) < TICKS(1);) {}
  asm volatile("ljmp $0xFFFF, $0");
  __builtin_unreachable();
}
