# SPDX-License-Identifier: Apache-2.0
"""A process that runs code out of files whose ELF headers lie. The agent reads them as root."""
import os
import random
import struct

from harness import FirewatchTest, require_sampling, selector_of, wait_until

LOOP_AT = 4096  # workload_hostile jumps there: mov rcx,rdi; 1: dec rcx; jnz 1b; mov rax,rdi; ret
LOOP = bytes.fromhex("4889f9" "48ffc9" "75fb" "4889f8" "c3")
HUGE = 0xFFFF_FFFF_FFFF_FFF0


def elf_header(phoff=64, shoff=0x2000, phnum=1, shnum=4, shentsize=64, shstrndx=1, phentsize=56,
               machine=62):
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)
    return identity + struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, LOOP_AT, phoff, shoff, 0, 64,
                                  phentsize, phnum, shentsize, shnum, shstrndx)


def program_header(offset=0, size=0x3000, kind=1):
    return struct.pack("<IIQQQQQQ", kind, 5, offset, offset, offset, size, size, 0x1000)


def section(name, kind, offset, size, link=0, entry=0):
    return struct.pack("<IIQQQQIIQQ", name, kind, 0, 0, offset, size, link, 0, 8, entry)


def symbol(name, value, size):
    return struct.pack("<IBBHQQ", name, 0x12, 0, 1, value, size)


def image(header, program, sections, tail=b""):
    """Headers at 0, the loop at 4096, section headers at 0x2000, the rest at 0x2800."""
    data = bytearray(0x3000)
    data[0:len(header + program)] = header + program
    data[LOOP_AT:LOOP_AT + len(LOOP)] = LOOP
    data[0x2000:0x2000 + len(sections)] = sections
    data[0x2800:0x2800 + len(tail)] = tail
    return bytes(data)


def hostile_files():
    """{name: bytes}. Each lies about something else."""
    names = b"\0.symtab\0.strtab\0"
    strings = section(9, 3, 0x2900, 64)
    none = section(0, 0, 0, 0)

    def with_symtab(offset, size, entry=24, link=1, tail=b""):
        return image(elf_header(shnum=3), program_header(),
                     none + strings + section(1, 2, offset, size, link, entry),
                     tail + bytes(0x100 - len(tail)) + names)

    chance = random.Random(17)
    files = {
        "sections_beyond_the_end": image(elf_header(shoff=HUGE), program_header(), b""),
        "section_count_65535": image(elf_header(shnum=65535), program_header(), none),
        "section_size_zero": image(elf_header(shentsize=0), program_header(), none),
        "program_headers_beyond": image(elf_header(phoff=HUGE, phnum=65535), b"", none),
        "program_header_size_zero": image(elf_header(phentsize=0), program_header(), none),
        "names_index_beyond": image(elf_header(shstrndx=0xFFFE), program_header(), none),
        "symtab_of_16_exabytes": with_symtab(0x2800, HUGE),
        "symtab_offset_wraps": with_symtab(HUGE, 0x1000),
        "symtab_entry_size_zero": with_symtab(0x2800, 240, entry=0),
        "symtab_entry_size_one": with_symtab(0x2800, 240, entry=1),
        "symtab_links_to_itself": with_symtab(0x2800, 240, link=2),
        "symbol_names_beyond": with_symtab(0x2800, 240, tail=b"".join(
            symbol(0xFFFFFFF0 - i, LOOP_AT, HUGE) for i in range(10))),
        "symbols_that_overlap": with_symtab(0x2800, 240, tail=b"".join(
            symbol(1, i, HUGE - i) for i in range(10))),
        "notes_of_4_gib": image(elf_header(), program_header(0x2800, 0xFFFFFFFF, kind=4), none,
                                struct.pack("<III", 0xFFFFFFFF, 0xFFFFFFFF, 3)),
        "another_machine": image(elf_header(machine=0xF7), program_header(), none),
        "no_elf_at_all": image(b"#!/bin/sh\n", b"", b""),
        "random_bytes": image(b"\x7fELF" + chance.randbytes(2000), b"", chance.randbytes(2000),
                              chance.randbytes(2000)),
    }
    return files


class HostileElfTest(FirewatchTest):

    def write_files(self):
        folder = os.path.join(self.folder, "files")
        os.mkdir(folder)
        paths = []
        for name, data in hostile_files().items():
            paths.append(os.path.join(folder, name))
            with open(paths[-1], "wb") as file:
                file.write(data)
            os.chmod(paths[-1], 0o755)
        return paths

    def refused(self, agent):
        return sum(value for name, value in agent.metrics().items()
                   if "file_refused" in name or "files_refused" in name)

    def test_agent_survives_and_counts_files_that_lie(self):
        require_sampling()
        paths = self.write_files()
        server = self.start_server()
        agent = self.start_agent(server, hz=997)
        before = self.refused(agent)
        self.burn("workload_hostile", "--seconds", 6, *paths)
        wait_until(lambda: self.refused(agent) > before, 90, "no refused file was counted")
        self.assertTrue(agent.is_healthy())
        self.note(f"{self.refused(agent) - before:.0f} of {len(paths)} files refused")
        # And it still names what is honest, behind all the files that wait to be read.
        self.start("workload_shares", "--seconds", 120)
        wait_until(lambda: self.burned(server) > 50, 90, "no names for an honest file", pause=1)
        self.assertEqual(agent.stop(), 0, agent.tail())
        self.check_frames(server, paths)

    def burned(self, server):
        return server.profile(selector_of("workload_shares")).self_by_name().get("burn_40", 0)

    def check_frames(self, server, paths):
        """Time spent in each file shows as FILE+0x1000…: not dropped, no invented name."""
        profile = server.profile('{comm="workload_hostil"}')
        binaries = {os.path.basename(file): n for file, n in profile.binaries().items()}
        missing = [p for p in paths if not binaries.get(os.path.basename(p))]
        self.assertFalse(missing, f"files without a sample: {missing}; seen: {binaries}")
        at = profile.index("samples")
        for frames, values, _, files in profile.samples:
            name = os.path.basename(files[0]) if files else ""
            if name == "no_elf_at_all" and values[at]:
                self.assertIn("+0x", frames[0], "a name for code that has none")
