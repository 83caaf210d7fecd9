/* What every program here uses: the console, time, memory, disks, and PXE. Real mode, one 64 KiB segment (start.S). */

#ifndef BOOT_H
#define BOOT_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

struct registers { u32 eax, ebx, ecx, edx, esi, edi, ebp; u16 es, ds, flags; };
#define CARRY 1

void bios(u8 number, struct registers *r) __attribute__((regparm(0)));
void return_to_rom(void) __attribute__((noreturn));

/* The parameter block at offset 4 of the file; parameters.py writes it. */
enum { NEXT_PROGRAM, NEXT_DEVICE, LOCAL_DISK, REBOOT, HOLD };
struct parameters {
  u8 magic[8];
  u32 server;        /* network order; 0: from the cached packets */
  u16 report_port;   /* host order; 0: do not report */
  u16 bootinfo_port;
  u8 fallback;       /* one of the above */
  u8 tries;          /* of one question before giving up */
  u16 pause;         /* seconds that people may read, at the end */
  char next[128];    /* TFTP name of the next network program, "" for none */
  char message[40];  /* shown at the start */
} __attribute__((packed));
extern struct parameters parameters;

/* text.c */
void put(char c);
void print(const char *format, ...);  /* %s %c %d %u %x %X(2 digits) %w(4 digits) %l(u64) %i(IPv4) %% */
u32 length(const char *text);
void copy(void *to, const void *from, u32 octets);
void fill(void *to, u8 value, u32 octets);
int equal(const void *a, const void *b, u32 octets);
u64 divide(u64 value, u32 by);

/* machine.c */
u32 ticks(void);                      /* 18.2 a second, may wrap at midnight: use `since` */
u32 since(u32 start);
#define TICKS(seconds) ((seconds) * 182 / 10 + 1)
int key(void);                        /* a key that was pressed, 0 for none */
void pause(u32 seconds);              /* ended by a key */
void peek(void *to, u32 physical, u32 octets);  /* any address below 4 GiB; above 1 MiB through the BIOS */
void poke(u32 physical, const void *from, u32 octets);  /* below 1 MiB */
void reboot(void) __attribute__((noreturn));
#define NEAR(pointer) ((u32)(pointer))
#define SEGMENT 0x6000

/* disk.c */
struct disk { u8 number; u8 flags; u16 sector_size; u64 sectors; u32 cylinders; u16 heads, spt; char name[32]; };
int disk_open(struct disk *d, u8 number);
int disk_read(const struct disk *d, u64 sector, void *to);  /* one sector of up to 4096 octets */
struct partition { u32 index; u8 scheme, flags, type; u64 start, sectors; u8 kind[16], identity[16]; u16 name[36]; };
struct table { u8 scheme; u8 identity[16]; u8 identity_size; };
/* Calls `each` for every partition until it returns nonzero; that is returned then, else 0. */
int partitions(const struct disk *d, struct table *t, int (*each)(const struct partition *p, void *with), void *with);
extern u8 sector[4096];

/* pxe.c */
extern u16 pxe_api;                   /* 0 if there is none */
extern u8 undi_version[3];
extern u8 mac[16];
extern u8 mac_size;
extern u32 own, server, router;       /* network order */
int pxe_start(void);                  /* finds PXE and what it knows; 0 if there is none */
u16 pxe(u16 opcode, void *block);     /* PXENV_STATUS, 0 for success */
u16 pxe_packet(u16 which, void *to, u16 room);  /* octets of a cached packet */
u32 pxe_option(const u8 *packet, u32 size, u8 option, const u8 **value);
int udp_open(void);
void udp_close(void);
int udp_send(u32 to, u16 from_port, u16 to_port, const void *data, u16 octets);
int udp_receive(u16 port, void *data, u16 room, u32 *from, u16 *from_port);  /* octets, -1 for none */
int chain_program(u32 from, const char *name);  /* returns only if that failed */
void unload(void);                    /* ends PXE: nothing of it may be called any more */

/* ends.c */
void fall_back(void) __attribute__((noreturn));  /* as the parameters say */
int boot_record(u8 disk, u32 index, int type);   /* chains; returns only if that failed. type: -1, or an MBR type */

/* report.c */
void report_begin(void);
void report_item(u16 type, const void *a, u16 a_size, const void *b, u16 b_size);
int report_send(void);                /* 1 if all parts were acknowledged */
void note(const char *text);          /* prints, and tells the server */

#define swap16(x) ((u16)((u16)(x) << 8 | (u16)(x) >> 8))

void program(void);
extern const char PROGRAM[];           /* its name and version */

#endif
