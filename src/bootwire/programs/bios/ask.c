/* ask: what am I to do? Speaks bootinfo (src/bootwire/wire/bootinfo.py) and does what it is told. */
#include "boot.h"

const char PROGRAM[] = "ask 1";

#define SIZE 520
enum { REQUEST = 1, REPLY, ACK, ORDER };
enum { PART = 1, SYSID, MULTIBOOT, WAIT, RESET, AUTO, MEMORY_FS, RESTART, DISK_PART };
#define CLIENT 9696
#define ORDERS 6970
#define POLL 60 /* seconds between questions while waiting: an order may be lost */

static u8 out[SIZE], in[SIZE];

static void send(u16 opcode) {
  fill(out, 0, SIZE);
  out[0] = 1, out[2] = opcode;
  udp_send(server, CLIENT, parameters.bootinfo_port, out, SIZE);
}

/* A reply or an order that is meant for us, within so many seconds; its opcode, 0 for none. */
static int hear(u32 seconds) {
  u32 start = ticks(), from;
  u16 port;
  while (since(start) < TICKS(seconds)) {
    int n = udp_receive(CLIENT, in, SIZE, &from, &port);
    if (n != SIZE || from != server) continue;
    if (in[2] == REPLY && port == parameters.bootinfo_port) return REPLY;
    if (in[2] == ORDER && (port == ORDERS || port == parameters.bootinfo_port)) return ORDER;
  }
  return 0;
}

/* The first answer; waits 2, 4, 8 ... s. 0: nobody answered. */
static int ask(void) {
  u32 seconds = 2;
  for (u32 i = 0; i < parameters.tries; i++, seconds *= 2) {
    send(REQUEST);
    int opcode = hear(seconds);
    if (opcode) return opcode;
    print(".");
  }
  return 0;
}

static int is_url(const char *path) {
  for (; *path && *path != '/'; path++)
    if (path[0] == ':' && path[1] == '/' && path[2] == '/') return 1;
  return 0;
}

/* "192.0.2.1:/path": the address, and where the path begins; else the server, and all of it. */
static u32 host_of(char **path) {
  u8 octets[4];
  char *s = *path;
  for (int i = 0; i < 4; i++, s++) {
    u32 value = 0, digits = 0;
    while (*s >= '0' && *s <= '9' && digits++ < 3) value = value * 10 + *s++ - '0';
    if (!digits || value > 255 || *s != (i < 3 ? '.' : ':')) return server;
    octets[i] = value;
  }
  *path = s;
  return *(u32 *)octets;
}

/* Do it; returns where it could not be done. */
static void obey(void) {
  u16 type = in[10] | in[11] << 8;
  u32 first = *(u32 *)(in + 12), second = *(u32 *)(in + 16);
  char *path = (char *)in + 12;
  in[267] = in[271] = 0; /* a path's last octet, and a file's: whatever came, it ends there */
  switch (type) {
  case PART:
    print("a boot record: partition %u\n", first);
    boot_record(0x80, first, -1);
    break;
  case DISK_PART:
    print("a boot record: disk %x, partition %u\n", first, second);
    if (first >= 0x80 && first <= 0xFF) boot_record(first, second, -1);
    break;
  case SYSID:
    print("a boot record: the first partition of type %x\n", first);
    if (first <= 255) boot_record(0x80, 0, first);
    break;
  case MULTIBOOT:
    print("a network program: %s\n", path + 4);
    chain_program(first ? first : server, path + 4);
    break;
  case MEMORY_FS:
    print("a memory file system: %s\n", path);
    if (is_url(path)) chain_program(server, parameters.next); /* it asks the server again, and follows the URL */
    else {
      u32 host = host_of(&path);
      chain_program(host, path);
    }
    break;
  case RESET:
  case RESTART: /* another server may be meant: from the firmware's DHCP on */
    print("start over\n");
    udp_close();
    reboot();
  default:
    print("something unknown: type %u\n", type);
  }
}

void program(void) {
  print("\nBootwire %s %s\n", PROGRAM, parameters.message);
  if (!pxe_start()) {
    print("No PXE here: nobody to ask\n");
    fall_back();
  }
  print("%i asks %i what to do ", own, server);
  u32 failures = 0;
  int opcode = udp_open() ? ask() : 0;
  while (opcode) {
    u16 type = in[10] | in[11] << 8;
    u32 failed = opcode == REPLY && *(u32 *)(in + 4);
    if (opcode == ORDER) send(ACK);
    if (failed) break;
    if (type == WAIT) {
      print("\ntold to wait\n");
      do {
        opcode = hear(POLL);
        if (!opcode) send(REQUEST);
      } while (!opcode || (opcode == REPLY && (in[10] | in[11] << 8) == WAIT && !*(u32 *)(in + 4)));
      continue;
    }
    if (type == AUTO) {
      print("\ntold to ask again\n");
      if (opcode == REPLY) pause(2); /* a server that always says so is not asked without end in between */
      opcode = ask();
      continue;
    }
    print("\ntold: ");
    udp_close();
    obey();
    note("ask: what was told could not be done, asking again");
    if (++failures == parameters.tries) break;
    pause(5);
    opcode = udp_open() ? ask() : 0;
  }
  udp_close();
  put('\n');
  note(failures == parameters.tries ? "ask: that was the last try, falling back"
       : opcode ? "ask: the server has nothing for this machine, falling back" : "ask: no answer, falling back");
  fall_back();
}
