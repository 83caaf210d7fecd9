/* Text on the BIOS's screen (and on the serial port where the firmware copies it there), and octets in memory. */
#include "boot.h"

void put(char c) {
  struct registers r = {.eax = 0x0E00 | (u8)c, .ebx = 7};
  if (c == '\n') put('\r');
  bios(0x10, &r);
}

u32 length(const char *text) {
  u32 n = 0;
  while (text[n]) n++;
  return n;
}

void copy(void *to, const void *from, u32 octets) {
  for (u8 *t = to; octets--;) *t++ = *(const u8 *)from, from = (const u8 *)from + 1;
}

void fill(void *to, u8 value, u32 octets) {
  for (u8 *t = to; octets--;) *t++ = value;
}

int equal(const void *a, const void *b, u32 octets) {
  const u8 *x = a, *y = b;
  while (octets--)
    if (*x++ != *y++) return 0;
  return 1;
}

void *memcpy(void *to, const void *from, u32 octets) { copy(to, from, octets); return to; }
void *memset(void *to, int value, u32 octets) { fill(to, value, octets); return to; }

u64 divide(u64 value, u32 by) { /* no libgcc here: high half first, then the rest with the 64/32 instruction */
  u32 high = value >> 32, low = value, above = high / by, rest = high % by;
  asm("divl %2" : "+a"(low), "+d"(rest) : "r"(by));
  return (u64)above << 32 | low;
}

static void number(u64 value, u32 base, u32 least) {
  char digits[24];
  u32 n = 0;
  do {
    u64 next = divide(value, base);
    digits[n++] = "0123456789abcdef"[(u32)(value - next * base)];
    value = next;
  } while (value || n < least);
  while (n) put(digits[--n]);
}

void print(const char *format, ...) {
  __builtin_va_list list;
  __builtin_va_start(list, format);
  for (; *format; format++) {
    if (*format != '%') {
      put(*format);
      continue;
    }
    switch (*++format) {
    case 's':
      for (const char *s = __builtin_va_arg(list, const char *); *s; s++) put(*s < ' ' || *s > '~' ? '?' : *s);
      break;
    case 'c': put(__builtin_va_arg(list, int)); break;
    case 'u': number(__builtin_va_arg(list, u32), 10, 1); break;
    case 'x': number(__builtin_va_arg(list, u32), 16, 1); break;
    case 'X': number((u8)__builtin_va_arg(list, u32), 16, 2); break;
    case 'w': number((u16)__builtin_va_arg(list, u32), 16, 4); break;
    case 'l': number(__builtin_va_arg(list, u64), 10, 1); break;
    case 'L': number(__builtin_va_arg(list, u64), 16, 9); break;
    case 'i': {
      u32 address = __builtin_va_arg(list, u32);
      for (int i = 0; i < 4; i++, address >>= 8) {
        if (i) put('.');
        number((u8)address, 10, 1);
      }
      break;
    }
    default: put('%');
    }
  }
}
