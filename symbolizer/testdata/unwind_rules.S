// SPDX-License-Identifier: Apache-2.0
// One function per form of rule (unwind/fixture_test.cc looks at the marked places). Never run.
#ifdef DEBUG_FRAME
        .cfi_sections .debug_frame
#endif
        .text
        .macro FUNCTION name
        .balign 16
        .globl \name
        .type \name, @function
\name:
        .endm

        FUNCTION plain
        .cfi_startproc
        push %rbp
        .cfi_def_cfa_offset 16
        .cfi_offset %rbp, -16
        push %rbx
        .cfi_def_cfa_offset 24
        .cfi_offset %rbx, -24
        nop
        pop %rbx
        .cfi_def_cfa_offset 16
        .cfi_restore %rbx
        pop %rbp
        .cfi_restore %rbp
        .cfi_def_cfa_offset 8
        ret
        .cfi_endproc
        .size plain, .-plain

        FUNCTION remembers
        .cfi_startproc
        push %rbx
        .cfi_def_cfa_offset 16
        .cfi_offset %rbx, -16
        .cfi_remember_state
        pop %rbx
        .cfi_def_cfa_offset 8
        .cfi_restore %rbx
        ret
        .cfi_restore_state
        nop
        .cfi_endproc
        .size remembers, .-remembers

        FUNCTION far_frame
        .cfi_startproc
        sub $100000, %rsp
        .cfi_def_cfa_offset 100008
        ret
        .cfi_endproc
        .size far_frame, .-far_frame

        FUNCTION from_r11
        .cfi_startproc
        mov %rsp, %r11
        .cfi_def_cfa %r11, 8
        ret
        .cfi_endproc
        .size from_r11, .-from_r11

        // breg6 -8; deref, rbp and rbx saved by expressions on rbp
        FUNCTION realigned
        .cfi_startproc
        nop
        .cfi_escape 0x0f, 3, 0x76, 0x78, 0x06
        .cfi_escape 0x10, 6, 2, 0x76, 0x00
        .cfi_escape 0x10, 3, 2, 0x76, 0x68
        ret
        .cfi_endproc
        .size realigned, .-realigned

        FUNCTION in_register
        .cfi_startproc
        pop %rdi
        .cfi_adjust_cfa_offset -8
        .cfi_register %rip, %rdi
        ret
        .cfi_endproc
        .size in_register, .-in_register

        FUNCTION elsewhere
        .cfi_startproc
        nop
        .cfi_offset %rip, -24
        ret
        .cfi_endproc
        .size elsewhere, .-elsewhere

        FUNCTION root
        .cfi_startproc
        .cfi_undefined %rip
        call plain
        hlt
        .cfi_endproc
        .size root, .-root

        // As glibc has it: rsp + 40 is the sigcontext. The FDE starts a byte early.
        nop
        .balign 16
        nop
        .cfi_startproc
        .cfi_signal_frame
        .cfi_escape 0x0f, 4, 0x77, 0xa0, 1, 0x06
        .cfi_escape 0x10, 16, 3, 0x77, 0xa8, 1
        .cfi_escape 0x10, 6, 3, 0x77, 0xf8, 0
        .cfi_escape 0x10, 3, 3, 0x77, 0x80, 1
        .cfi_escape 0x10, 12, 3, 0x77, 0xc8, 0
        nop
        .globl sigreturn
        .type sigreturn, @function
sigreturn:
        mov $15, %eax
        syscall
        .cfi_endproc
        .size sigreturn, .-sigreturn

        // val_expression of rbx: cannot be said
        FUNCTION unsaid
        .cfi_startproc
        nop
        .cfi_escape 0x16, 3, 2, 0x77, 0x00
        ret
        .cfi_endproc
        .size unsaid, .-unsaid

        // breg7 8; breg16 0; lit15; and; lit10; ge; lit3; shl; plus
        FUNCTION plt
        .cfi_startproc
        .cfi_escape 0x0f, 11, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3a, 0x2a, 0x33, 0x24, 0x22
        nop
        .cfi_endproc
        .size plt, .-plt

        // No CFI at all: the entry point.
        FUNCTION entry
        xor %ebp, %ebp
        call plain
        hlt
        .size entry, .-entry

        .section .note.GNU-stack,"",@progbits
