/* What our EFI programs share: the firmware's tables as far as they are used (UEFI 2.10), and what is built on them.
 * Names and numbers are the specification's; comments give its sections. */
#pragma GCC visibility push(hidden) /* no global offset table */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef u64 status;
#ifdef __x86_64__
#define API __attribute__((ms_abi))
#define ARCHITECTURE 7
#define LOADER "/EFI/BOOT/BOOTX64.EFI" /* section 3.5.1.1 */
#else
#define API
#define ARCHITECTURE 11
#define LOADER "/EFI/BOOT/BOOTAA64.EFI"
#endif
#define FAILED(s) ((s) >> 63)

struct guid { u32 a; u16 b, c; u8 d[8]; };
struct header { u64 signature; u32 revision, size, crc, reserved; };

struct output { void *reset; status (API *string)(struct output *, const u16 *); };
struct key { u16 scan, unicode; };
struct input { void *reset; status (API *read)(struct input *, struct key *); void *wait; };

struct services { /* section 4.4 */
  struct header header;
  void *raise, *restore, *pages, *free_pages;
  status (API *memory_map)(u64 *size, void *map, u64 *key, u64 *step, u32 *version);
  status (API *allocate)(u32 type, u64 size, void **buffer);
  status (API *free)(void *buffer);
  void *create_event, *set_timer, *wait_event, *signal, *close_event, *check_event, *install, *reinstall, *uninstall;
  status (API *protocol)(void *handle, const struct guid *, void **interface);
  void *reserved, *notify, *locate, *locate_path, *configure;
  status (API *load)(u8 policy, void *parent, void *path, void *source, u64 size, void **image);
  status (API *start)(void *image, u64 *size, u16 **data);
  void *exit;
  status (API *unload)(void *image);
  void *exit_services, *monotonic;
  status (API *stall)(u64 microseconds);
  status (API *watchdog)(u64 seconds, u64 code, u64 size, u16 *data);
  void *connect, *disconnect, *open, *close, *information, *protocols;
  status (API *handles)(u32 type, const struct guid *, void *key, u64 *count, void ***buffer);
};

struct runtime { /* section 4.5 */
  struct header header;
  void *get_time, *set_time, *get_wakeup, *set_wakeup, *set_virtual, *convert;
  status (API *get_variable)(const u16 *, const struct guid *, u32 *attributes, u64 *size, void *data);
  void *next_variable;
  status (API *set_variable)(const u16 *, const struct guid *, u32 attributes, u64 size, const void *data);
  void *high_monotonic;
  void (API *reset)(u32 type, status, u64 size, const void *data);
};

struct table {
  struct header header;
  u16 *vendor;
  u32 revision, padding;
  void *input_handle; struct input *input;
  void *output_handle; struct output *output;
  void *error_handle, *error;
  struct runtime *runtime;
  struct services *services;
  u64 entries; struct { struct guid guid; void *table; } *configuration;
};

struct loaded_image { u32 revision, padding; void *parent; struct table *table; void *device, *path; };

/* sections 24.3: EFI_PXE_BASE_CODE_PROTOCOL */
union address { u8 v4[4]; u32 word[4]; };
struct pxe_mode {
  u8 flags[17], ttl, tos, padding;
  union address own, mask;
  u8 discover[1472], ack[1472], proxy_offer[1472], pxe_discover[1472], reply[1472];
};
enum { DISCOVER_VALID = 8, ACK_RECEIVED, PROXY_RECEIVED, PXE_DISCOVER_VALID, REPLY_RECEIVED }; /* of flags */
struct pxe {
  u64 revision;
  void *start, *stop, *dhcp, *discover;
  status (API *mtftp)(struct pxe *, u32 operation, void *buffer, u8 overwrite, u64 *size, u64 *block, union address *server,
                      const u8 *name, void *info, u8 no_buffer);
  status (API *write)(struct pxe *, u16 flags, union address *to, u16 *to_port, union address *gateway,
                      union address *from, u16 *from_port, u64 *header_size, void *header, u64 *size, void *data);
  status (API *read)(struct pxe *, u16 flags, union address *to, u16 *to_port, union address *from, u16 *from_port,
                     u64 *header_size, void *header, u64 *size, void *data);
  void *filter, *arp, *parameters, *station, *packets;
  struct pxe_mode *mode;
};

struct media { u32 id; u8 removable, present, logical, read_only, caching, padding[3]; u32 block, align; u64 last; };
struct block_io {
  u64 revision; struct media *media; void *reset;
  status (API *read)(struct block_io *, u32 media, u64 block, u64 size, void *buffer);
};

struct partition_info { /* section 13.18: EFI_PARTITION_INFO_PROTOCOL, of firmware since 2.7 */
  u32 revision, kind; /* 1: MBR, 2: GPT */
  u8 system, reserved[7], record[128];
} __attribute__((packed));
#define ESP 0xEF /* MBR type of an EFI system partition (section 5.2.2) */

struct parameters { /* src/bootwire/programs/parameters.py */
  char magic[8];
  u8 server[4];
  u16 report_port, bootinfo_port;
  u8 fallback, tries;
  u16 pause;
  char next[128], message[40];
} __attribute__((packed));
extern volatile struct parameters parameters;
enum { NEXT_PROGRAM, NEXT_DEVICE, LOCAL_DISK, REBOOT, HOLD };

extern const struct guid IMAGE_GUID, PXE_GUID, BLOCK_GUID, PATH_GUID, FILE_GUID, INFO_GUID, GLOBAL_GUID;
extern struct table *table;
extern struct services *services;
extern struct pxe *pxe;      /* 0 where the program was not started from the network */
extern void *image;
extern struct loaded_image *loaded;
extern u8 mac[16], own[4], server[4];
extern u32 mac_size;
extern const char PROGRAM[];

void print(const char *format, ...); /* %s %u %x %X(2 digits) %l(u64) %i(u8[4]) %% */
u32 length(const char *);
void copy(void *to, const void *from, u64 octets);
void fill(void *to, u8 value, u64 octets);
int equal(const void *, const void *, u64 octets);
void *memory(u64 octets);    /* 0 if there is none */
int key(void);
void pause(u32 seconds);     /* ended by a key */
int same(const struct guid *, const struct guid *);

int udp_send(u16 from_port, u16 to_port, const void *data, u64 size);
int udp_receive(u16 port, void *data, u64 room, u16 *from_port); /* octets, -1 after some 3 s without any */
void report_begin(void);
void report_item(u16 type, const void *a, u32 a_size, const void *b, u32 b_size);
int report_send(void);
void note(const char *);

enum { NOT_STARTED, ENDED_WELL, ENDED_BADLY };
int chain_program(const u8 *from, const char *name); /* one of these */
/* A loader of a partition with a file system. partition 0: the first of an MBR type, or else the first that starts. */
int chain_file(u32 disk, u32 partition, u32 type, const char *name);
void reset(void) __attribute__((noreturn));
void boot_next(u16 number);  /* starts over with boot option Boot####; returns if that could not be set */
status fall_back(void);
status program(void);
