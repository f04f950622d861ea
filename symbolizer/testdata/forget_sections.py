#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""forget_sections.py ELF: sets e_shoff, e_shnum and e_shstrndx to 0, as sstrip does."""
import sys

with open(sys.argv[1], "r+b") as elf:
    elf.seek(40)  # e_shoff
    elf.write(bytes(8))
    elf.seek(60)  # e_shnum, e_shstrndx
    elf.write(bytes(4))
