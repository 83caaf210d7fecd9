/* Reports to the server by UDP, acknowledged part by part (src/bootwire/wire/report.py has the format). */
#include "boot.h"

#define PARTS 16
#define ROOM 1400 /* octets: fits where tunnels take something of an Ethernet frame */
#define HEAD 20

static u8 part[PARTS][ROOM];
static u16 filled[PARTS];
static u32 last;

void report_begin(void) {
  last = 0, filled[0] = HEAD;
}

void report_item(u16 type, const void *a, u16 a_size, const void *b, u16 b_size) {
  if (a_size + b_size > ROOM - HEAD - 4) b_size = ROOM - HEAD - 4 - a_size;
  u16 size = a_size + b_size;
  if (filled[last] + 4 + size > ROOM) {
    if (last + 1 == PARTS) return; /* more than any report has room for: what came first is there */
    filled[++last] = HEAD;
  }
  u8 *to = part[last] + filled[last];
  to[0] = type, to[1] = type >> 8, to[2] = size, to[3] = size >> 8;
  copy(to + 4, a, a_size);
  copy(to + 4 + a_size, b, b_size);
  filled[last] += 4 + size;
}

static u32 random_number(void) {
  static u32 state;
  u8 low, high;
  asm volatile("xorb %%al, %%al\n\toutb %%al, $0x43\n\tinb $0x40, %%al\n\tmovb %%al, %0\n\tinb $0x40, %%al\n\tmovb %%al, %1"
               : "=&c"(low), "=&d"(high) : : "eax"); /* the timer's counter, latched */
  state = state * 1664525 + 1013904223 + (ticks() << 13 ^ (high << 8 | low) ^ *(u32 *)(mac + 2));
  return state;
}

static int acknowledged(u32 name, u32 n, u32 seconds) {
  static u8 in[64];
  u32 from, start = ticks();
  u16 port;
  while (since(start) < TICKS(seconds)) {
    if (udp_receive(parameters.report_port, in, sizeof in, &from, &port) >= HEAD && from == server &&
        equal(in, "BWRP\1\2", 6) && in[6] == n && *(u32 *)(in + 8) == name)
      return 1;
  }
  return 0;
}

static int send_parts(u32 tries) {
  u32 name = random_number();
  if (!parameters.report_port || !server || !udp_open()) return 0;
  int all = 1;
  for (u32 n = 0; all && n <= last; n++) {
    u8 *p = part[n];
    fill(p, 0, HEAD);
    copy(p, "BWRP\1\1", 6);
    p[6] = n, p[7] = last + 1, p[12] = 1 /* BIOS; architecture 0 */;
    *(u32 *)(p + 8) = name;
    *(u16 *)(p + 16) = filled[n];
    all = 0;
    for (u32 i = 0, seconds = 1; !all && i < tries; i++, seconds *= 2) {
      udp_send(server, parameters.report_port, parameters.report_port, p, filled[n]);
      all = acknowledged(name, n, seconds);
    }
  }
  udp_close();
  return all;
}

int report_send(void) {
  return send_parts(parameters.tries);
}

void note(const char *text) {
  print("%s\n", text);
  if (!pxe_api) return;
  report_begin();
  report_item(1, PROGRAM, length(PROGRAM), 0, 0);
  report_item(2, mac, mac_size, 0, 0);
  report_item(16, text, length(text), 0, 0);
  send_parts(2);
}
