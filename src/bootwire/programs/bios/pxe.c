/* The PXE API (PXE 2.1 sections 3 and 4): finding it, what it has cached, UDP, and the next network program by TFTP. */
#include "boot.h"

#define PACKED __attribute__((packed))

extern u32 pxe_pointer, pxenv_pointer, pxe_entry, rom_stack;
u16 pxe_call(u16 opcode, void *block) __attribute__((regparm(0)));
void enter_program(void) __attribute__((noreturn));

u16 pxe_api;
u8 undi_version[3];
u8 mac[16], mac_size;
u32 own, server, router;

static u32 linear(u32 far) { return (far >> 16 << 4) + (far & 0xFFFF); }

static int checked(u32 at, const char *signature, u32 signature_size, u32 size_at, u8 *to, u32 room) {
  u8 sum = 0;
  peek(to, at, 16);
  u32 size = to[size_at];
  if (!equal(to, signature, signature_size) || size < 16 || size > room) return 0;
  peek(to, at, size);
  for (u32 i = 0; i < size; i++) sum += to[i];
  return sum == 0;
}

int pxe_start(void) {
  u8 old[64], block[128];
  u32 entry = 0, rom = 0;
  if (!checked(linear(pxenv_pointer), "PXENV+", 6, 8, old, sizeof old)) {
    struct registers r = {.eax = 0x5650}; /* PXE 2.1 section 3.2.2: int 1Ah says where PXENV+ is */
    bios(0x1A, &r);
    if ((r.eax & 0xFFFF) != 0x564E) pxenv_pointer = 0;
    else pxenv_pointer = (u32)r.es << 16 | (r.ebx & 0xFFFF);
    if (!pxenv_pointer || !checked(linear(pxenv_pointer), "PXENV+", 6, 8, old, sizeof old)) fill(old, 0, sizeof old);
  }
  if (old[0]) {
    pxe_api = old[6] | old[7] << 8;
    entry = *(u32 *)(old + 10);
    if (pxe_api >= 0x0201 && !checked(linear(pxe_pointer), "!PXE", 4, 4, block, sizeof block))
      pxe_pointer = *(u32 *)(old + 40);
  }
  if (checked(linear(pxe_pointer), "!PXE", 4, 4, block, sizeof block)) {
    entry = *(u32 *)(block + 16); /* EntryPointSP */
    rom = *(u32 *)(block + 8);    /* UNDIROMID */
    if (!pxe_api) pxe_api = 0x0201;
  }
  if (!entry) return 0;
  pxe_entry = entry;
  if (rom) {
    peek(old, linear(rom), 16);
    if (equal(old, "UNDI", 4)) /* structure revision at 6, UNDI version at 7: low octet first */
      undi_version[0] = old[9], undi_version[1] = old[8], undi_version[2] = old[7];
  }

  /* who we are and who sent us here: the boot server's reply, else the DHCP server's ACK */
  static u8 packet[600];
  for (u16 which = 1; which <= 3; which++) {
    const u8 *value;
    u32 size = pxe_packet(which, packet, sizeof packet);
    if (size < 240) continue;
    if (which == 1) { /* RFC 4578 section 2.2 */
      if (!undi_version[0] && pxe_option(packet, size, 94, &value) == 3) copy(undi_version, value + 1, 2);
      continue;
    }
    if (*(u32 *)(packet + 16)) own = *(u32 *)(packet + 16);
    else if (!own) own = *(u32 *)(packet + 12);
    if (*(u32 *)(packet + 20)) server = *(u32 *)(packet + 20);
    if (pxe_option(packet, size, 3, &value) >= 4) copy(&router, value, 4);
    /* the router is of use only for servers that our own network does not have */
    u32 mask;
    if (pxe_option(packet, size, 1, &value) == 4 && (copy(&mask, value, 4), ((own ^ server) & mask) == 0)) router = 0;
    mac_size = packet[2] <= 16 ? packet[2] : 16;
    copy(mac, packet + 28, 16);
  }
  struct { u16 status, io, irq, mtu, type, size; u8 now[16], burnt[16]; u32 rom; u16 rx, tx; } PACKED undi;
  fill(&undi, 0, sizeof undi);
  if (pxe(0x0C, &undi) == 0 && undi.size && undi.size <= 16) {
    mac_size = undi.size;
    copy(mac, undi.now, 16);
  }
  if (parameters.server) server = parameters.server;
  return 1;
}

u16 pxe(u16 opcode, void *block) {
  u16 wrong = pxe_call(opcode, block);
  u16 status = *(u16 *)block;
  return wrong && !status ? 1 : status;
}

u16 pxe_packet(u16 which, void *to, u16 room) {
  struct { u16 status, which, size, offset, segment, limit; } PACKED cached = {0, which, room, NEAR(to), SEGMENT, 0};
  if (pxe(0x71, &cached)) return 0;
  return cached.size <= room ? cached.size : room;
}

u32 pxe_option(const u8 *packet, u32 size, u8 option, const u8 **value) {
  for (u32 at = 240; at + 1 < size && packet[at] != 255;) {
    if (packet[at] == 0) {
      at++;
      continue;
    }
    u32 n = packet[at + 1];
    if (at + 2 + n > size) break;
    if (packet[at] == option) {
      *value = packet + at + 2;
      return n;
    }
    at += 2 + n;
  }
  return 0;
}

int udp_open(void) {
  struct { u16 status; u32 own; } PACKED open = {0, own};
  return pxe(0x30, &open) == 0;
}

void udp_close(void) {
  u16 status = 0;
  pxe(0x31, &status);
}

int udp_send(u32 to, u16 from_port, u16 to_port, const void *data, u16 octets) {
  struct { u16 status; u32 to, router; u16 from_port, to_port, octets, offset, segment; } PACKED write = {
    0, to, router, swap16(from_port), swap16(to_port), octets, NEAR(data), SEGMENT};
  return pxe(0x33, &write) == 0;
}

int udp_receive(u16 port, void *data, u16 room, u32 *from, u16 *from_port) {
  struct { u16 status; u32 from, to; u16 from_port, port, octets, offset, segment; } PACKED read = {
    0, 0, own, 0, swap16(port), room, NEAR(data), SEGMENT};
  if (pxe(0x32, &read)) return -1;
  *from = read.from, *from_port = swap16(read.from_port);
  return read.octets;
}

/* Block by block to 0000:7C00, since not every ROM can do the whole file at once. The names in the cached packets
 * become the next program's, whose own files (PXELINUX) are looked for beside that name. */
int chain_program(u32 from, const char *name) {
  struct { u16 status; u32 server, router; char name[128]; u16 port, size; } PACKED open;
  struct { u16 status, number, size, offset, segment; } PACKED read;
  u32 n = length(name), at = 0x7C00;
  u16 status;
  if (n == 0 || n >= sizeof open.name) return 0;
  print("Fetching %s from %i ...", name, from);
  fill(&open, 0, sizeof open);
  open.server = from, open.router = router, open.port = swap16(69), open.size = 1408;
  copy(open.name, name, n);
  if ((status = pxe(0x20, &open)) != 0) {
    print(" no: PXE status %x\n", status);
    return 0;
  }
  u16 block = open.size && open.size <= 1456 ? open.size : 512;
  do {
    fill(&read, 0, sizeof read);
    read.size = block, read.segment = at >> 4, read.offset = at & 15;
    status = pxe(0x22, &read);
    if (status == 0) at += read.size;
    if (at > 0x50000) status = 0xFFFF; /* larger than any network program, and soon over our own */
  } while (status == 0 && read.size == block);
  u16 closed = 0;
  pxe(0x21, &closed);
  if (status || at == 0x7C00) {
    print(" no: %s\n", status == 0xFFFF ? "too large" : status ? "the transfer broke off" : "empty");
    return 0;
  }
  print(" %u octets\n", at - 0x7C00);
  for (u16 which = 2; which <= 3; which++) {
    struct { u16 status, which, size, offset, segment, limit; } PACKED cached = {0, which, 0, 0, 0, 0};
    if (pxe(0x71, &cached) == 0 && cached.size >= 240 && cached.segment)
      poke(((u32)cached.segment << 4) + cached.offset + 108, open.name, 128);
  }
  enter_program();
}

void unload(void) {
  u8 block[64];
  fill(block, 0, sizeof block);
  pxe(0x05, block); /* UNDI_SHUTDOWN */
  fill(block, 0, sizeof block);
  pxe(0x70, block); /* UNLOAD_STACK */
  fill(block, 0, sizeof block);
  pxe(0x15, block); /* STOP_UNDI */
}
