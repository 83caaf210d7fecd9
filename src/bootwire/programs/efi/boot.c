/* The start of our EFI programs, their screen, network and ends. */
#include "boot.h"

__attribute__((section(".data"))) volatile struct parameters parameters = {.magic = "BWparam1", .tries = 5,
  .report_port = 6971, .bootinfo_port = 6969, .fallback = NEXT_DEVICE};

const struct guid IMAGE_GUID = {0x5B1B31A1, 0x9562, 0x11D2, {0x8E, 0x3F, 0, 0xA0, 0xC9, 0x69, 0x72, 0x3B}};
const struct guid PXE_GUID = {0x03C4E603, 0xAC28, 0x11D3, {0x9A, 0x2D, 0, 0x90, 0x27, 0x3F, 0xC1, 0x4D}};
const struct guid BLOCK_GUID = {0x964E5B21, 0x6459, 0x11D2, {0x8E, 0x39, 0, 0xA0, 0xC9, 0x69, 0x72, 0x3B}};
const struct guid FILE_GUID = {0x964E5B22, 0x6459, 0x11D2, {0x8E, 0x39, 0, 0xA0, 0xC9, 0x69, 0x72, 0x3B}};
const struct guid PATH_GUID = {0x09576E91, 0x6D3F, 0x11D2, {0x8E, 0x39, 0, 0xA0, 0xC9, 0x69, 0x72, 0x3B}};
const struct guid INFO_GUID = {0x8CF2F62C, 0xBC9B, 0x4821, {0x80, 0x8D, 0xEC, 0x9E, 0xC4, 0x21, 0xA1, 0xA0}};
const struct guid GLOBAL_GUID = {0x8BE4DF61, 0x93CA, 0x11D2, {0xAA, 0x0D, 0, 0xE0, 0x98, 0x03, 0x2B, 0x8C}};

struct table *table;
struct services *services;
struct pxe *pxe;
void *image;
struct loaded_image *loaded;
u8 mac[16], own[4], server[4];
u32 mac_size;

u32 length(const char *s) {
  u32 n = 0;
  while (s[n]) n++;
  return n;
}

void copy(void *to, const void *from, u64 n) {
  for (u64 i = 0; i < n; i++) ((volatile u8 *)to)[i] = ((const u8 *)from)[i];
}

void fill(void *to, u8 value, u64 n) {
  for (u64 i = 0; i < n; i++) ((volatile u8 *)to)[i] = value;
}

int equal(const void *a, const void *b, u64 n) {
  for (u64 i = 0; i < n; i++)
    if (((const u8 *)a)[i] != ((const u8 *)b)[i]) return 0;
  return 1;
}

int same(const struct guid *a, const struct guid *b) {
  return equal(a, b, 16);
}

void *memory(u64 octets) {
  void *found = 0;
  return FAILED(services->allocate(4 /* EfiBootServicesData */, octets, &found)) ? 0 : found;
}

static void put(char c) {
  u16 text[3] = {(u8)c, 0, 0};
  if (c == '\n') text[0] = '\r', text[1] = '\n';
  table->output->string(table->output, text);
}

static void number(u64 value, u32 base, u32 digits) {
  char text[24];
  u32 n = 0;
  do text[n++] = "0123456789abcdef"[value % base], value /= base;
  while (value || n < digits);
  while (n) put(text[--n]);
}

void print(const char *format, ...) {
  __builtin_va_list list;
  __builtin_va_start(list, format);
  for (; *format; format++) {
    if (*format != '%') {
      put(*format);
      continue;
    }
    const char *s;
    const u8 *a;
    switch (*++format) {
    case 's':
      for (s = __builtin_va_arg(list, const char *); *s; s++) put(*s >= ' ' && *s <= '~' ? *s : '?');
      break;
    case 'u': number(__builtin_va_arg(list, u32), 10, 1); break;
    case 'x': number(__builtin_va_arg(list, u32), 16, 1); break;
    case 'X': number(__builtin_va_arg(list, u32), 16, 2); break;
    case 'l': number(__builtin_va_arg(list, u64), 10, 1); break;
    case 'i':
      a = __builtin_va_arg(list, const u8 *);
      for (u32 i = 0; i < 4; i++) {
        if (i) put('.');
        number(a[i], 10, 1);
      }
      break;
    default: put(*format);
    }
  }
  __builtin_va_end(list);
}

int key(void) {
  struct key k;
  return !FAILED(table->input->read(table->input, &k));
}

void pause(u32 seconds) {
  for (u32 i = 0; i < seconds * 10 && !key(); i++) services->stall(100000);
}

/* --- network ----------------------------------------------------------------------------------------------------- */

static int udp_open_once(void) {
  return pxe && pxe->mode->flags[0]; /* Started */
}

int udp_send(u16 from_port, u16 to_port, const void *data, u64 size) {
  union address to = {.word = {0}};
  copy(to.v4, server, 4);
  if (!udp_open_once()) return 0;
  return !FAILED(pxe->write(pxe, 0, &to, &to_port, 0, 0, &from_port, 0, 0, &size, (void *)data));
}

int udp_receive(u16 port, void *data, u64 room, u16 *from_port) {
  union address from = {.word = {0}}, to = {.word = {0}};
  copy(from.v4, server, 4), copy(to.v4, own, 4);
  /* from the server alone, from any of its ports (EFI_PXE_BASE_CODE_UDP_OPFLAGS_ANY_SRC_PORT) */
  status s = pxe->read(pxe, 2, &to, &port, &from, from_port, 0, 0, &room, data);
  if (s == (1ull << 63 | 22)) services->stall(3000000); /* EFI_ICMP_ERROR: nobody is there now, but that said it at once */
  return FAILED(s) ? -1 : (int)room;
}

/* --- reports (src/bootwire/wire/report.py has the format) ---------------------------------------------------------- */

#define PARTS 16
#define ROOM 1400
#define HEAD 20
static u8 part[PARTS][ROOM];
static u16 filled[PARTS];
static u32 last;

void report_begin(void) {
  last = 0, filled[0] = HEAD;
}

void report_item(u16 type, const void *a, u32 a_size, const void *b, u32 b_size) {
  if (a_size + b_size > ROOM - HEAD - 4) b_size = ROOM - HEAD - 4 - a_size;
  u32 size = a_size + b_size;
  if (filled[last] + 4 + size > ROOM) {
    if (last + 1 == PARTS) return;
    filled[++last] = HEAD;
  }
  u8 *to = part[last] + filled[last];
  to[0] = type, to[1] = type >> 8, to[2] = size, to[3] = size >> 8;
  copy(to + 4, a, a_size), copy(to + 4 + a_size, b, b_size);
  filled[last] += 4 + size;
}

static u64 counter(void) {
#ifdef __x86_64__
  u32 low, high;
  asm volatile("rdtsc" : "=a"(low), "=d"(high));
  return (u64)high << 32 | low;
#else
  u64 value;
  asm volatile("mrs %0, cntvct_el0" : "=r"(value));
  return value;
#endif
}

static int send_parts(u32 tries) {
  u8 in[64];
  u16 port = 0, report = parameters.report_port;
  u32 name = (u32)(counter() * 2654435761u >> 7);
  if (!report || !udp_open_once()) return 0;
  for (u32 n = 0; n <= last; n++) {
    u8 *p = part[n];
    int done = 0;
    fill(p, 0, HEAD);
    copy(p, "BWRP\1\1", 6);
    p[6] = n, p[7] = last + 1, p[12] = 2 /* UEFI */, p[14] = ARCHITECTURE;
    copy(p + 8, &name, 4), copy(p + 16, &filled[n], 2);
    for (u32 i = 0; !done && i < tries; i++) {
      udp_send(report, report, p, filled[n]);
      while (!done && (port = 0, udp_receive(report, in, sizeof in, &port)) >= HEAD)
        done = equal(in, "BWRP\1\2", 6) && in[6] == n && equal(in + 8, &name, 4);
    }
    if (!done) return 0;
  }
  return 1;
}

int report_send(void) {
  return send_parts(parameters.tries);
}

void note(const char *text) {
  print("%s\n", text);
  report_begin();
  report_item(1, PROGRAM, length(PROGRAM), 0, 0);
  report_item(2, mac, mac_size, 0, 0);
  report_item(16, text, length(text), 0, 0);
  send_parts(2);
}

/* --- ends -------------------------------------------------------------------------------------------------------- */

static int run(void *source, u64 size, void *path, void *device) {
  void *child = 0;
  struct loaded_image *info;
  status s = services->load(0, image, path, source, size, &child);
  if (FAILED(s)) {
    print("The firmware does not load it (status %x)%s\n", (u32)s, (u32)s == 26 ? ": Secure Boot" : "");
    if (child) services->unload(child);
    return NOT_STARTED;
  }
  if (device && !FAILED(services->protocol(child, &IMAGE_GUID, (void **)&info))) info->device = device;
  s = services->start(child, 0, 0);
  print("It ended with status %x\n", (u32)s);
  return FAILED(s) ? ENDED_BADLY : ENDED_WELL;
}

int chain_program(const u8 *from, const char *name) {
  union address to = {.word = {0}};
  u64 size = 0;
  void *buffer = 0, *path = 0;
  copy(to.v4, from, 4);
  if (!pxe || !name[0]) return NOT_STARTED;
  print("Fetching %s from %i\n", name, from);
  if (FAILED(pxe->mtftp(pxe, 1 /* size */, 0, 0, &size, 0, &to, (const u8 *)name, 0, 0)) || !size || size > 64 << 20 ||
      !(buffer = memory(size)) ||
      FAILED(pxe->mtftp(pxe, 2 /* read */, buffer, 0, &size, 0, &to, (const u8 *)name, 0, 0))) {
    print("It cannot be had\n");
    if (buffer) services->free(buffer);
    return NOT_STARTED;
  }
  services->protocol(loaded->device, &PATH_GUID, &path);
  int how = run(buffer, size, path, loaded->device);
  services->free(buffer);
  return how;
}

static u32 node_size(const u8 *node) {
  return node[2] | node[3] << 8;
}

/* Is a partition of this MBR type, as far as the firmware says what it is? */
static int of_type(void *handle, u32 type) {
  struct partition_info *info;
  if (FAILED(services->protocol(handle, &INFO_GUID, (void **)&info))) return 0;
  return (type == ESP && info->system) || (info->kind == 1 && info->record[4] == type);
}

/* Disks and partitions are counted as hello counts them. */
static int chain_those(u32 disk, u32 index, int typed, u32 type, const char *name) {
  u64 count = 0;
  void **handles = 0;
  u32 at = 0x7F;
  int how = NOT_STARTED;
  if (FAILED(services->handles(2, &BLOCK_GUID, 0, &count, &handles))) return how;
  for (u64 i = 0; i < count; i++) {
    struct block_io *io;
    u8 *whole, *one;
    if (FAILED(services->protocol(handles[i], &BLOCK_GUID, (void **)&io)) || !io->media->present || io->media->logical)
      continue;
    if (++at != disk || FAILED(services->protocol(handles[i], &PATH_GUID, (void **)&whole))) continue;
    u32 size = 0;
    while (whole[size] != 0x7F) size += node_size(whole + size);
    for (u64 j = 0; j < count; j++) {
      void *files;
      if (FAILED(services->protocol(handles[j], &PATH_GUID, (void **)&one)) || !equal(one, whole, size) ||
          one[size] != 4 || one[size + 1] != 1 || FAILED(services->protocol(handles[j], &FILE_GUID, &files)))
        continue; /* a hard drive node (section 10.3.5.1) with a file system on it */
      u32 number;
      copy(&number, one + size + 4, 4);
      if (index ? number != index : of_type(handles[j], type) != typed) continue;
      u32 used = size + node_size(one + size), n = length(name);
      u8 *path = memory(used + 4 + 2 * n + 2 + 4);
      if (!path) continue;
      copy(path, one, used);
      u8 *file = path + used;
      file[0] = 4, file[1] = 4, file[2] = 4 + 2 * n + 2, file[3] = (4 + 2 * n + 2) >> 8;
      for (u32 k = 0; k <= n; k++) file[4 + 2 * k] = name[k] == '/' ? '\\' : name[k], file[5 + 2 * k] = 0;
      copy(file + 4 + 2 * n + 2, "\x7F\xFF\4\0", 4);
      print("Starting %s of partition %u of disk %x\n", name, number, disk);
      int ended = run(0, 0, path, 0);
      if (ended == ENDED_WELL) return ended;
      if (ended) how = ended;
    }
  }
  return how;
}

int chain_file(u32 disk, u32 index, u32 type, const char *name) {
  int how = chain_those(disk, index, 1, type, name);
  if (!how && !index) how = chain_those(disk, index, 0, type, name);
  if (!how) print("Disk %x, partition %u: no loader %s that starts\n", disk, index, name);
  return how;
}

void reset(void) {
  table->runtime->reset(0 /* cold */, 0, 0, 0);
  for (;;) services->stall(1000000);
}

void boot_next(u16 number) { /* section 3.3 */
  static const u16 name[] = {'B', 'o', 'o', 't', 'N', 'e', 'x', 't', 0};
  /* kept over the reset, and seen by boot services and runtime */
  if (!FAILED(table->runtime->set_variable(name, &GLOBAL_GUID, 7, 2, &number))) reset();
  print("BootNext cannot be set\n");
}

status fall_back(void) {
  u8 how = parameters.fallback;
  pause(parameters.pause);
  if (how == NEXT_PROGRAM && chain_program(server, (const char *)parameters.next) == ENDED_WELL) return 0;
  if (how == LOCAL_DISK && chain_file(0x80, 0, ESP, LOADER) == ENDED_WELL) return 0;
  if (how == REBOOT) reset();
  if (how == HOLD) {
    print("Holding here: a reset starts over\n");
    for (;;) services->stall(1000000);
  }
  print("Back to the firmware, for the next boot device\n");
  return 1ull << 63 | 14; /* EFI_NOT_FOUND: the boot manager goes on with what comes next */
}

static const u8 *option(const u8 *packet, u8 code, u32 size) {
  for (u32 at = 240; at + 1 < 1472 && packet[at] != 255; at += packet[at] ? packet[at + 1] + 2 : 1)
    if (packet[at] == code && packet[at + 1] >= size) return packet + at + 2;
  return 0;
}

API status efi_main(void *handle, struct table *given) {
  image = handle, table = given, services = given->services;
  services->watchdog(0, 0, 0, 0);
  if (FAILED(services->protocol(image, &IMAGE_GUID, (void **)&loaded))) return 1ull << 63 | 3;
  services->protocol(loaded->device, &PXE_GUID, (void **)&pxe);
  if (pxe && pxe->mode) {
    struct pxe_mode *m = pxe->mode;
    const u8 *packets[] = {m->flags[REPLY_RECEIVED] ? m->reply : 0, m->flags[PROXY_RECEIVED] ? m->proxy_offer : 0, m->ack};
    copy(own, m->own.v4, 4);
    mac_size = m->ack[2] > 16 ? 16 : m->ack[2];
    copy(mac, m->ack + 28, mac_size);
    for (u32 i = 0; i < 3 && !(server[0] | server[3]); i++) {
      const u8 *found = packets[i] ? option(packets[i], 54, 4) : 0;
      if (packets[i]) copy(server, packets[i] + 20, 4);
      if (!(server[0] | server[3]) && found) copy(server, found, 4);
    }
  }
  if (parameters.server[0]) copy(server, (const void *)parameters.server, 4);
  return program();
}

/* the compiler may call these */
void *memcpy(void *to, const void *from, u64 n) {
  copy(to, from, n);
  return to;
}

void *memset(void *to, int value, u64 n) {
  fill(to, value, n);
  return to;
}
