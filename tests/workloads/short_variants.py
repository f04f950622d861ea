#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes N copies of a program, each with a build id of its own.

    short_variants.py PROGRAM DIRECTORY [N]

To a profiler these are N different files that nobody has met before: what a build farm or a test
suite looks like. The code and the symbols stay the same; only the bytes of .note.gnu.build-id
change (by objcopy --update-section, so that sizes and offsets stay as they are).
"""
import hashlib
import os
import struct
import subprocess
import sys


def make_variants(program, directory, count):
    """Returns the paths, in order."""
    os.makedirs(directory, exist_ok=True)
    name = os.path.basename(program)
    paths = []
    for number in range(count):
        path = os.path.join(directory, f"{name}_{number:03}")
        digest = hashlib.sha1(f"{name} {number}".encode()).digest()
        note = struct.pack("<III", 4, len(digest), 3) + b"GNU\0" + digest  # NT_GNU_BUILD_ID
        note_path = os.path.join(directory, "note")
        with open(note_path, "wb") as file:
            file.write(note)
        subprocess.run(["objcopy", "--update-section", f".note.gnu.build-id={note_path}",
                        program, path], check=True)
        os.unlink(note_path)
        paths.append(path)
    return paths


if __name__ == "__main__":
    made = make_variants(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 200)
    print(f"{len(made)} variants in {sys.argv[2]}")
