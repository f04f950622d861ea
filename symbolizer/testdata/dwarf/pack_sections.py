#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Packs the debug sections of an ELF file for the fuzz targets (dwarf/packed_sections_for_test.h).

    pack_sections.py MAIN OUT [--alt FILE] [--dwp FILE] [--only line,line_str,str]
"""
import argparse
import os
import struct
import subprocess
import tempfile

NAMES = ["info", "abbrev", "str", "line", "line_str", "ranges", "rnglists", "addr", "str_offsets",
         "aranges", "cu_index"]


def sections(path, suffix):
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            out = os.path.join(folder, "section")
            section = f".debug_{name}{suffix if name != 'cu_index' else ''}"
            done = subprocess.run(["objcopy", "-O", "binary", f"--only-section={section}",
                                   "--set-section-flags", f"{section}=alloc", path, out],
                                  capture_output=True)
            if done.returncode == 0 and os.path.exists(out) and os.path.getsize(out) > 0:
                with open(out, "rb") as file:
                    yield name, file.read()
                os.remove(out)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("main")
    parser.add_argument("out")
    parser.add_argument("--alt")
    parser.add_argument("--dwp")
    parser.add_argument("--only", default=",".join(NAMES))
    options = parser.parse_args()
    packed = b""
    for path, first, suffix in ((options.main, 0, ""), (options.alt, 16, ""),
                                (options.dwp, 32, ".dwo")):
        for name, data in sections(path, suffix) if path else ():
            if name in options.only.split(","):
                packed += struct.pack("<BI", first + NAMES.index(name), len(data)) + data
    with open(options.out, "wb") as file:
        file.write(packed)
    print(f"{options.out}: {len(packed)} bytes")


if __name__ == "__main__":
    main()
