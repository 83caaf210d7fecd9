# How a network program begins on x86 BIOS, and the few things that C cannot say.
#
# The PXE ROM loads a program to 0000:7C00 and calls it: ES:BX is PXENV+, the stack holds the far return address and
# below it the far pointer to !PXE (PXE 2.1 section 4.4.5). We move to segment 6000h, so that 0000:7C00 is free for
# the next program or a boot record, keep the ROM's stack as it is to return on it, and run on our own.

        .code16
        .set    SEGMENT, 0x6000

        .section .start, "ax"
        .globl  _start, parameters
_start: jmp     begin                   # offset 0: 3 octets
        .org    4
parameters:                             # offset 4; layout: parameters.py
        .ascii  "BWparam1"
        .long   0                       # server: the one we came from
        .word   6971, 6969              # ports of reports and of bootinfo
        .byte   1, 4                    # fall back to the next boot device, after 4 tries
        .word   0                       # no pause
        .zero   128 + 40                # no next program, no message
        .org    192
begin:  cli
        cld
        ljmp    $0, $0x7C00 + based - _start    # some loaders call 07C0:0000 instead
based:
        movw    %ss, %cs:0x7C00 + rom_stack + 2 - _start
        movw    %sp, %cs:0x7C00 + rom_stack - _start
        movl    %esp, %ebp              # SS:SP+4 is !PXE
        movw    %sp, %bp
        movl    %ss:4(%bp), %eax
        movl    %eax, %cs:0x7C00 + pxe_pointer - _start
        movw    %bx, %cs:0x7C00 + pxenv_pointer - _start
        movw    %es, %cs:0x7C00 + pxenv_pointer + 2 - _start
        pushw   %cs
        popw    %ds
        movw    $SEGMENT, %ax
        movw    %ax, %es
        movw    $0x7C00, %si
        xorw    %di, %di
        movw    $image_size, %cx
        rep movsb
        ljmp    $SEGMENT, $moved

        .globl  rom_stack, pxe_pointer, pxenv_pointer
        .balign 4
rom_stack:      .long 0                 # far pointer: the stack as the ROM left it
pxe_pointer:    .long 0                 # far pointer, may be nonsense: check it
pxenv_pointer:  .long 0                 # far pointer, the same

        .text
moved:  movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movl    $0xFFF0, %esp
        movl    $bss_start, %edi
        movl    $bss_size, %ecx
        xorl    %eax, %eax
        addr32 rep stosb
        sti
        calll   program
        # program returned: back to the ROM, which goes on with the next boot device

        .globl  return_to_rom
return_to_rom:
        cli
        lssw    %cs:rom_stack, %sp
        xorw    %ax, %ax                # PXENV_EXIT_SUCCESS
        sti
        lretw

# void bios(uint8_t number, struct registers *r): int number with these registers, and what it left in them
        .globl  bios
bios:   movl    4(%esp), %eax
        movl    8(%esp), %ecx
        pushal
        pushw   %ds
        pushw   %es
        movb    %al, 1f + 1
        movl    %ecx, bios_registers
        jmp     0f                      # the changed octet must be read anew
0:      movw    28(%ecx), %es
        movl    (%ecx), %eax
        movl    4(%ecx), %ebx
        movl    12(%ecx), %edx
        movl    16(%ecx), %esi
        movl    20(%ecx), %edi
        movl    24(%ecx), %ebp
        pushl   8(%ecx)
        pushw   30(%ecx)
        popw    %ds
        popl    %ecx
1:      int     $0
        pushl   %ecx
        pushfw
        pushw   %ds
        pushw   %cs
        popw    %ds
        movl    bios_registers, %ecx
        movl    %eax, (%ecx)
        movl    %ebx, 4(%ecx)
        movl    %edx, 12(%ecx)
        movl    %esi, 16(%ecx)
        movl    %edi, 20(%ecx)
        movl    %ebp, 24(%ecx)
        movw    %es, 28(%ecx)
        popw    30(%ecx)
        popw    32(%ecx)
        popl    8(%ecx)
        popw    %es
        popw    %ds
        popal
        sti
        cld
        retl

# uint16_t pxe_call(uint16_t opcode, void *block): by !PXE where there is one (arguments on the stack), else by PXENV+
# (in registers); PXE 2.1 section 3.2. Returns AX.
        .globl  pxe_call
pxe_call:
        pushl   %ebp
        movl    %esp, %ebp
        pushl   %ebx
        pushl   %esi
        pushl   %edi
        pushw   %es
        pushw   %fs
        pushw   %gs
        movl    8(%ebp), %ebx
        movl    12(%ebp), %edi
        pushw   %ds
        popw    %es
        pushl   %ebp
        pushw   %ds
        pushw   %di
        pushw   %bx
        lcallw  *pxe_entry
        addw    $6, %sp
        popl    %ebp
        pushw   %cs
        popw    %ds
        popw    %gs
        popw    %fs
        popw    %es
        popl    %edi
        popl    %esi
        popl    %ebx
        popl    %ebp
        movzwl  %ax, %eax
        sti
        cld
        retl

# void enter(struct entry *e): jump to 0000:7C00 with the registers that e gives, on a stack below it
        .globl  enter
enter:  movl    4(%esp), %ebx
        cli
        cld
        movl    (%ebx), %edx
        movl    4(%ebx), %esi
        movl    8(%ebx), %eax           # far pointer for ES:BX
        xorw    %cx, %cx
        movw    %cx, %ss
        movl    $0x7C00, %esp
        movw    %cx, %ds
        pushl   %eax
        popw    %bx
        popw    %es
        xorl    %eax, %eax
        xorl    %edi, %edi
        xorl    %ebp, %ebp
        sti
        ljmp    $0, $0x7C00

# void enter_program(struct entry *e): the same for a network program: called on the ROM's own stack, as the ROM would
        .globl  enter_program
enter_program:
        cli
        cld
        movl    pxenv_pointer, %eax
        lssw    rom_stack, %sp
        xorw    %cx, %cx
        movw    %cx, %ds
        pushl   %eax
        popw    %bx
        popw    %es
        xorl    %eax, %eax
        sti
        ljmp    $0, $0x7C00

        .bss
        .balign 4
bios_registers: .long 0
        .globl  pxe_entry
pxe_entry:      .long 0
