/* SPDX-License-Identifier: Apache-2.0 */
/* Assembly as people write it: no .type, no .size. */
        .text
        .globl untyped_label
untyped_label:
        nop
        ret
        .balign 64
        .section .note.GNU-stack,"",@progbits
