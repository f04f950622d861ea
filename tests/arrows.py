#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Arrows between folders point one way only. Lists every arrow that is not in the plan's table.

    arrows.py            check this source tree; exit code 1 and one line per bad arrow
    arrows.py --list     also print every arrow that exists
    arrows.py --self-test

Three kinds of line make an arrow: `#include "room/…"` in C, C++ and BPF C, `firewatch::room…` in a
CMakeLists.txt (what a library links is what it may include), and an `import` in the page's
TypeScript that leaves web/.
"""
import os
import re
import sys
import tempfile

# "may use", as in ARCHITECTURE.md. Of bpf/, user space sees only bpf/include/ and, in the agent, the
# loaded programs themselves (skeletons, bpf/*.skel.h) and what is a host program, too (HOST_PROGRAMS); of web/, the server sees only the table
# of built files (web/assets.h). A room may always use itself.
MAY_USE = {
    "bpf": set(),
    "base": set(),
    "proto": set(),
    "transport": {"base"},
    "profile": {"base", "proto"},
    "symbolizer": {"base", "bpf"},
    "agent": {"bpf", "base", "proto", "transport", "profile", "symbolizer"},
    "server": {"base", "proto", "transport", "profile", "symbolizer", "web"},
    "cli": {"bpf", "base", "proto", "transport", "profile", "symbolizer", "agent"},
    "web": set(),
    "tests": {"bpf", "base", "proto", "transport", "profile", "symbolizer", "agent", "server",
              "cli"},
}
HOST_PROGRAMS = {"bpf/unwind.h", "bpf/packet.h", "bpf/classify.h"}
LOADS_BPF = {"agent", "tests"}  # may include skeletons, may link firewatch::bpf_NAME
SOURCES = (".h", ".hpp", ".c", ".cc", ".cpp")
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')
LINKED = re.compile(r"\bfirewatch::(\w+)")
IMPORT = re.compile(r"""^\s*(?:import|export)\b.*?["'](\.[^"']*)["']""")


def room_of_target(name):
    """firewatch::profile and firewatch::agent_core -> profile, agent; None for a helper target."""
    return next((room for room in MAY_USE if name == room or name.startswith(room + "_")), None)


def judge_include(root, path, room, included):
    """'' when allowed, else why not."""
    target = included.split("/")[0]
    if target not in MAY_USE or "/" not in included:
        beside = os.path.join(root, os.path.dirname(path), included)
        return "is not written from the root" if os.path.exists(beside) else ""
    if target == room:
        return ""
    if target not in MAY_USE[room]:
        return f"{room} may not use {target}"
    if target == "bpf" and not included.startswith("bpf/include/"):
        if not (room in LOADS_BPF and
                (included.endswith(".skel.h") or included in HOST_PROGRAMS)):
            return "of bpf/, user space may include bpf/include/ only"
    if target == "web" and included != "web/assets.h":
        return "of web/, the server may include web/assets.h only"
    return ""


def judge_link(room, name):
    target = room_of_target(name)
    if target is None or target == room:
        return ""
    if target not in MAY_USE[room]:
        return f"{room} may not use {target}"
    if target == "bpf" and name != "bpf_include" and room not in LOADS_BPF:
        return f"{room} may not load BPF programs"
    return ""


def judge_import(path, imported):
    resolved = os.path.normpath(os.path.join(os.path.dirname(path), imported))
    return "" if resolved.startswith("web" + os.sep) else "the page uses the HTTP API only"


def source_files(root):
    for room in MAY_USE:
        for folder, folders, names in os.walk(os.path.join(root, room)):
            # testdata: programs that tests compile, not code of ours.
            folders[:] = sorted(f for f in folders
                                if f not in ("node_modules", "dist", "build", "testdata"))
            for name in sorted(names):
                yield room, os.path.relpath(os.path.join(folder, name), root)


def check(root):
    """(arrows, bad): the set of (from, to), and lines "file:line: text: why"."""
    arrows, bad = set(), []
    for room, path in source_files(root):
        is_source = path.endswith(SOURCES)
        is_list = os.path.basename(path) == "CMakeLists.txt"
        is_page = room == "web" and path.endswith((".ts", ".tsx"))
        if not (is_source or is_list or is_page):
            continue
        with open(os.path.join(root, path), encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                for used, target, why in arrows_of_line(root, path, room, line, is_source,
                                                        is_list):
                    if target in MAY_USE and target != room:
                        arrows.add((room, target))
                    if why:
                        bad.append(f"{path}:{number}: {used}: {why}")
    return arrows, bad


def arrows_of_line(root, path, room, line, is_source, is_list):
    if is_source:
        match = INCLUDE.match(line)
        if match:
            included = match.group(1)
            yield included, included.split("/")[0], judge_include(root, path, room, included)
    elif is_list:
        for name in LINKED.findall(line.split("#")[0]):
            yield f"firewatch::{name}", room_of_target(name), judge_link(room, name)
    else:
        match = IMPORT.match(line)
        if match:
            yield match.group(1), None, judge_import(path, match.group(1))


# path, text, whether the line is a bad arrow
SELF_TEST = [
    ("base/a.h", '#include "base/b.h"', False),
    ("base/a.cc", '#include "profile/ids.h"', True),
    ("profile/a.h", '#include "proto/pprof.pb.h"', False),
    ("profile/a_test.cc", '#include "server/store/profile_store.h"', True),
    ("symbolizer/elf/a.cc", '#include "bpf/include/frame.h"', False),
    ("symbolizer/elf/b.cc", '#include "bpf/unwind.h"', True),
    ("symbolizer/elf/c.cc", '#include "profile/profile.h"', True),
    ("agent/cpu/a.cc", '#include "bpf/cpu.skel.h"', False),
    ("agent/cpu/b.cc", '#include "bpf/walk.h"', True),
    ("agent/stacks/a.cc", '#include "bpf/unwind.h"', False),
    ("agent/cpu/c.cc", '#include "server/ingest/ingest.h"', True),
    ("server/a.cc", '#include "agent/core/events.h"', True),
    ("server/b.cc", '#include <bpf/libbpf.h>', False),
    ("server/c.cc", '#include "absl/status/status.h"', False),
    ("server/d.cc", '#include "web/assets.h"', False),
    ("server/e.cc", '#include "web/other.h"', True),
    ("cli/a.cc", '#include "agent/core/events.h"', False),
    ("cli/b.cc", '  #  include "server/api/api.h"', True),
    ("cli/c.cc", '#include "bpf/cpu.skel.h"', True),
    ("agent/near.h", "", False),
    ("agent/d.cc", '#include "near.h"', True),
    ("transport/CMakeLists.txt", "target(x DEPS firewatch::base)", False),
    ("profile/CMakeLists.txt", "target(x DEPS firewatch::transport)", True),
    ("server/CMakeLists.txt", "target(x DEPS firewatch::agent_core)", True),
    ("server/x/CMakeLists.txt", "# firewatch::agent_core is not for us", False),
    ("web/src/a.ts", 'import { b } from "./b";', False),
    ("web/src/c.ts", 'import { b } from "../../server/b";', True),
    ("tests/e2e/a.cc", '#include "server/api/api.h"', False),
]


def self_test():
    with tempfile.TemporaryDirectory() as root:
        for path, text, _ in SELF_TEST:
            os.makedirs(os.path.join(root, os.path.dirname(path)), exist_ok=True)
            with open(os.path.join(root, path), "w", encoding="utf-8") as file:
                file.write(text + "\n")
        _, bad = check(root)
    found = {line.split(":")[0] for line in bad}
    wanted = {path for path, _, is_bad in SELF_TEST if is_bad}
    for path in sorted(wanted - found):
        print(f"FAIL self-test: {path}: bad arrow not seen")
    for path in sorted(found - wanted):
        print(f"FAIL self-test: {path}: good arrow refused")
    return found == wanted


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if not self_test():
        return 1
    if "--self-test" in sys.argv:
        print(f"arrows: self-test of {len(SELF_TEST)} cases passed")
        return 0
    arrows, bad = check(root)
    if "--list" in sys.argv:
        for room in MAY_USE:
            targets = sorted(to for start, to in arrows if start == room)
            print(f"{room:10} -> {', '.join(targets) or '-'}")
    for line in bad:
        print(f"FAIL {line}")
    print(f"arrows: {len(arrows)} between {len(MAY_USE)} folders, {len(bad)} not in the table")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
