/* ask: what am I to do? Speaks bootinfo (src/bootwire/wire/bootinfo.py) and does what it is told. */
#include "boot.h"

const char PROGRAM[] = "ask 1";

#define SIZE 520
enum { REQUEST = 1, REPLY, ACK, ORDER };
enum { PART = 1, SYSID, MULTIBOOT, WAIT, RESET, AUTO, MEMORY_FS, RESTART, DISK_PART };
#define CLIENT 9696
#define ORDERS 6970
#define READ_SECONDS 3 /* what one read of the firmware waits (EDK2, PXEBC_UDP_TIMEOUT) */
#define POLL 60

static u8 out[SIZE], in[SIZE];

static u32 number(u32 at) {
  return in[at] | in[at + 1] << 8 | in[at + 2] << 16 | (u32)in[at + 3] << 24;
}

static u16 type(void) {
  return in[10] | in[11] << 8;
}

static void send(u16 opcode) {
  fill(out, 0, SIZE);
  out[0] = 1, out[2] = opcode;
  udp_send(CLIENT, parameters.bootinfo_port, out, SIZE);
}

/* A reply or an order that is meant for us, within so many seconds; its opcode, 0 for none. */
static int hear(u32 seconds) {
  for (u32 waited = 0; waited < seconds; waited += READ_SECONDS) {
    u16 port = 0;
    int n = udp_receive(CLIENT, in, SIZE, &port);
    if (n != SIZE) continue;
    if (in[2] == REPLY && port == parameters.bootinfo_port) return REPLY;
    if (in[2] == ORDER && (port == ORDERS || port == parameters.bootinfo_port)) return ORDER;
  }
  return 0;
}

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

/* The number in "Boot0003", -1 for another name. */
static int boot_option(const char *name) {
  int number = 0;
  if (!equal(name, "Boot", 4)) return -1;
  for (u32 i = 4; i < 8; i++) {
    char c = name[i];
    int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) return -1;
    number = number << 4 | digit;
  }
  return name[8] ? -1 : number;
}

/* Do it; returns where it could not be done (0), or what was started has ended. */
static int obey(void) {
  char *path = (char *)in + 12;
  in[267] = in[271] = 0;
  switch (type()) {
  case PART:
    print("partition %u\n", number(12));
    return chain_file(0x80, number(12), ESP, LOADER);
  case DISK_PART:
    print("disk %x, partition %u\n", number(12), number(16));
    return chain_file(number(12), number(16), ESP, LOADER);
  case SYSID:
    print("the first partition of type %x\n", number(12));
    return chain_file(0x80, 0, number(12), LOADER);
  case MULTIBOOT:
    print("a network program: %s\n", path + 4);
    if (boot_option(path + 4) < 0) return chain_program(number(12) ? in + 12 : server, path + 4);
    boot_next(boot_option(path + 4));
    break;
  case MEMORY_FS:
    print("a memory file system: %s\n", path);
    return chain_program(server, is_url(path) ? (const char *)parameters.next : path);
  case RESET:
  case RESTART:
    print("start over\n");
    reset();
  default: print("something unknown: type %u\n", type());
  }
  return NOT_STARTED;
}

status program(void) {
  print("\nBootwire %s %s\n", PROGRAM, (const char *)parameters.message);
  if (!pxe) {
    print("Not started from the network: nobody to ask\n");
    return fall_back();
  }
  print("%i asks %i what to do ", own, server);
  u32 failures = 0;
  int opcode = ask();
  while (opcode) {
    u32 failed = opcode == REPLY && number(4);
    if (opcode == ORDER) send(ACK);
    if (failed) break;
    if (type() == WAIT) {
      print("\ntold to wait\n");
      do {
        opcode = hear(POLL);
        if (!opcode) send(REQUEST);
      } while (!opcode || (opcode == REPLY && type() == WAIT && !number(4)));
      continue;
    }
    if (type() == AUTO) {
      print("\ntold to ask again\n");
      if (opcode == REPLY) pause(2);
      opcode = ask();
      continue;
    }
    print("\ntold: ");
    int how = obey();
    note(how ? "ask: what was told was started and has ended, asking again"
             : "ask: what was told could not be done, asking again");
    if (++failures == parameters.tries) break;
    pause(5);
    opcode = ask();
  }
  print("\n");
  note(failures == parameters.tries ? "ask: that was the last try, falling back"
       : opcode ? "ask: the server has nothing for this machine, falling back" : "ask: no answer, falling back");
  return fall_back();
}
