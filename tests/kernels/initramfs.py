# SPDX-License-Identifier: Apache-2.0
"""The guest's file system: a cpio archive in the "newc" format, which is what the kernel unpacks at
boot (Documentation/driver-api/early-userspace/buffer-format.rst). Made here, byte by byte: no cpio,
no root, no device nodes (the guest mounts devtmpfs).
"""
import gzip
import os
import pathlib
import re
import stat
import subprocess
import tempfile

LOADER = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)$", re.M)


class Archive:
    """Entries in the order of add; folders on the way to a file are made when missing."""

    def __init__(self):
        self._parts, self._known, self._inode = [], set(), 0

    def _entry(self, name, mode, data=b""):
        self._inode += 1
        path = name.encode() + b"\0"
        # ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        fields = (self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields) + path
        self._parts += [header, bytes(-len(header) % 4), data, bytes(-len(data) % 4)]
        self._known.add(name)

    def folder(self, name):
        parent = os.path.dirname(name)
        if parent and parent not in self._known:
            self.folder(parent)
        if name not in self._known:
            self._entry(name, stat.S_IFDIR | 0o755)

    def add(self, name, data, mode=0o644):
        if name in self._known:
            return
        self.folder(os.path.dirname(name)) if "/" in name else None
        self._entry(name, stat.S_IFREG | mode, data)

    def link(self, name, target):
        self.folder(os.path.dirname(name)) if "/" in name else None
        self._entry(name, stat.S_IFLNK | 0o777, target.encode())

    def data(self):
        self._entry("TRAILER!!!", 0)
        return b"".join(self._parts)


def libraries(programs):
    """Paths of all shared libraries of `programs`, the loader included, as ldd finds them."""
    found = set()
    for program in programs:
        done = subprocess.run(["ldd", program], capture_output=True, text=True)
        if "not found" in done.stdout:
            raise RuntimeError(f"{program}: {done.stdout}")
        found.update(LOADER.findall(done.stdout))  # nothing for a static program
    return sorted(found)


def opened_later(name="libcurl.so.4"):
    """Path of the library that `firewatch` opens when it asks something over HTTP, and of no other."""
    known = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    for line in known.splitlines():
        if line.split()[0] == name and "x86-64" in line:
            return line.split("=> ")[1]
    raise RuntimeError(f"{name} is not installed")


def stripped(path, keep_symbols):
    """Without debug information, and without the symbol table unless names are asked for."""
    with tempfile.NamedTemporaryFile() as scratch:
        subprocess.run(["strip", "--strip-debug" if keep_symbols else "--strip-all",
                        "-o", scratch.name, path], check=True)
        return pathlib.Path(scratch.name).read_bytes()


def build(busybox, init, programs, workloads, files, output):
    """`programs` (ours: stripped) and `workloads` (symbols kept: they are what is looked at) go to
    /usr/bin, their libraries to the paths that ldd names; `files` is {name: bytes}."""
    archive = Archive()
    for name in ("proc", "sys", "dev", "tmp", "out", "etc", "root", "usr/bin", "usr/lib", "usr/lib64"):
        archive.folder(name)
    for name in ("bin", "lib", "lib64"):  # as on every Debian since 12
        archive.link(name, f"usr/{name}")

    def add(name, data):
        archive.add(("usr/" if name.split("/")[0] in ("bin", "lib", "lib64") else "") + name, data, 0o755)

    add("bin/busybox", pathlib.Path(busybox).read_bytes())
    archive.link("usr/bin/sh", "busybox")
    add("init", pathlib.Path(init).read_bytes())
    for path in programs:
        add(f"bin/{os.path.basename(path)}", stripped(path, keep_symbols=False))
    for path in workloads:
        add(f"bin/{os.path.basename(path)}", stripped(path, keep_symbols=True))
    # Where tests have been told at build time that the workloads are.
    build_folder = os.path.dirname(os.path.abspath(programs[0])).lstrip("/")
    archive.link(build_folder, "/usr/bin")
    # A program that tests start and whose file they look for; busybox is one file for all of them.
    add("bin/true", pathlib.Path("/bin/true").read_bytes())
    curl = opened_later()
    for path in [curl, *libraries([*programs, *workloads, "/bin/true", curl])]:
        add(path.lstrip("/"), pathlib.Path(path).read_bytes())
    for name, data in files.items():
        archive.add(name, data)
    # Level 1: the guest, which is emulated, unpacks any level at the same speed.
    pathlib.Path(output).write_bytes(gzip.compress(archive.data(), 1))
