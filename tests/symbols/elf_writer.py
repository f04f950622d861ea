# SPDX-License-Identifier: Apache-2.0
"""Writes ELF files of our own making: program headers, sections and symbols as a test wants them,
where no linker would. Shares nothing with our reader."""
import struct

PT_LOAD = 1
PF_X, PF_W, PF_R = 1, 2, 4
SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_NOBITS = 1, 2, 3, 8
SHF_ALLOC, SHF_EXECINSTR = 2, 4
STT_NOTYPE, STT_OBJECT, STT_FUNC = 0, 1, 2
ET_EXEC, ET_DYN = 2, 3


class Elf:
    """Build with load(), section(), symbol(), then write(). Contents that are not given are holes of
    the (sparse) file."""

    def __init__(self, kind=ET_EXEC):
        self.kind = kind
        self.loads = []
        self.sections = []  # (name, type, flags, address, offset, size, content)
        self.symbols = []  # (name, address, size, info, section index)

    def load(self, offset, vaddr, filesz, memsz, flags, align=0x1000):
        self.loads.append((offset, vaddr, filesz, memsz, flags, align))

    def section(self, name, content=b"", *, kind=SHT_PROGBITS, flags=0, address=0, offset=None, size=None):
        """Returns the section's number, for symbol()."""
        self.sections.append((name, kind, flags, address, offset, len(content) if size is None else size, content))
        return len(self.sections)

    def symbol(self, name, address, size, section, kind=STT_FUNC, binding=1):
        self.symbols.append((name, address, size, binding << 4 | kind, section))

    def write(self, path):
        names, table = bytearray(b"\0"), bytearray(24)
        for name, address, size, info, section in sorted(self.symbols, key=lambda s: s[3] >> 4):
            table += struct.pack("<IBBHQQ", len(names), info, 0, section, address, size)
            names += name.encode() + b"\0"
        sections = list(self.sections)
        symtab = len(sections) + 1
        local = 1 + sum(1 for s in self.symbols if s[3] >> 4 == 0)
        sections.append((".symtab", SHT_SYMTAB, 0, 0, None, len(table), bytes(table)))
        sections.append((".strtab", SHT_STRTAB, 0, 0, None, len(names), bytes(names)))
        headings = bytearray(b"\0")
        heading_of = {}
        for name in [s[0] for s in sections] + [".shstrtab"]:
            heading_of[name] = len(headings)
            headings += name.encode() + b"\0"
        sections.append((".shstrtab", SHT_STRTAB, 0, 0, None, len(headings), bytes(headings)))

        end = 64 + 56 * len(self.loads)
        for offset, _, filesz, _, _, _ in self.loads:
            end = max(end, offset + filesz)
        for _, kind, _, _, offset, size, _ in sections:
            if offset is not None and kind != SHT_NOBITS:
                end = max(end, offset + size)
        with open(path, "wb") as file:
            placed = []
            for name, kind, flags, address, offset, size, content in sections:
                if offset is None:
                    end = (end + 15) & ~15
                    offset = end
                    end += size
                if content:
                    file.seek(offset)
                    file.write(content)
                link, info, entry = (symtab + 1, local, 24) if name == ".symtab" else (0, 0, 0)
                placed.append(struct.pack("<IIQQQQIIQQ", heading_of[name], kind, flags, address, offset, size,
                                          link, info, 1, entry))
            end = (end + 15) & ~15
            file.seek(end)
            file.write(bytes(64) + b"".join(placed))
            file.seek(0)
            file.write(b"\x7fELF\2\1\1" + bytes(9) + struct.pack(
                "<HHIQQQIHHHHHH", self.kind, 62, 1, self.loads[0][1] if self.loads else 0, 64 if self.loads else 0,
                end, 0, 64, 56, len(self.loads), 64, len(sections) + 1, len(sections)))
            for offset, vaddr, filesz, memsz, flags, align in self.loads:
                file.write(struct.pack("<IIQQQQQQ", PT_LOAD, flags, offset, vaddr, vaddr, filesz, memsz, align))
