# SPDX-License-Identifier: Apache-2.0
"""Kernels, qemu and busybox from Debian, for this folder only: nothing is installed and nothing of
the machine's apt is changed.

The mirror is the one that the machine's own apt uses. Each suite gets a sources list, a state and a
cache folder of its own below the store, and is checked against Debian's keyring like every other;
a suite that cannot be checked, or is gone, is Unavailable with apt's own words. What was unpacked
once is used again without the network until --update is given.
"""
import json
import lzma
import os
import pathlib
import re
import shutil
import subprocess
import tarfile

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

# Name, what the version must begin with, suites in the order of trying: the one with updates first.
# Security suites are small (0.3 MB of index), plain ones have 9 to 11 MB.
KERNELS = {
    "5.10": ("5.10.", ("bullseye-security", "bullseye")),
    "6.1": ("6.1.", ("bookworm-security", "bookworm")),
    "6.12": ("6.12.", ("trixie-security", "bookworm-backports", "trixie")),
    "sid": ("", ("sid",)),
    "backports": ("", ("trixie-backports",)),
}


class Unavailable(Exception):
    """What is missing on this machine or on its mirror; the text goes into "skipped: why"."""


def last_lines(text, count=2):
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return "; ".join(lines[-count:]) if lines else "no message"


def os_release():
    values = {}
    for line in pathlib.Path("/etc/os-release").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition("=")
        values[name] = value.strip('"')
    return values


class Mirrors:
    """Where the machine's apt gets Debian and Debian's security updates from."""

    def __init__(self):
        release = os_release()
        self.codename = release.get("VERSION_CODENAME", "")
        if release.get("ID") != "debian" or not shutil.which("apt-get"):
            raise Unavailable("this is not Debian with apt")
        if not os.path.exists(KEYRING):
            raise Unavailable(f"{KEYRING} is missing (package debian-archive-keyring)")
        listed = subprocess.run(["apt-get", "update", "--print-uris"], capture_output=True, text=True,
                                check=False).stdout
        self.archive = self.security = None
        for base, suite in re.findall(r"^'([^']+)/dists/(\S+?)/InRelease'", listed, re.M):
            if suite in (self.codename, "stable", "oldstable"):
                self.archive = self.archive or base
            elif suite in (f"{self.codename}-security", "stable-security", "oldstable-security"):
                self.security = self.security or base
        if not self.archive:
            raise Unavailable(f"apt's sources do not name a mirror of Debian {self.codename}")

    def of(self, suite):
        base = self.security if suite.endswith("-security") else self.archive
        if not base:
            raise Unavailable(f"apt's sources name no mirror for {suite}")
        return base


class PrivateApt:
    """apt with state, cache and sources of its own. `status` is the list of installed packages that
    dependencies are computed against; none: every package counts as missing."""

    def __init__(self, folder, mirrors, suites, status=None):
        self.folder, self.suites = pathlib.Path(folder), suites
        for name in ("state/lists/partial", "cache/archives/partial"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        sources = self.folder / "sources.list"
        sources.write_text("".join(f"deb [signed-by={KEYRING}] {mirrors.of(suite)} {suite} main\n"
                                   for suite in suites))
        if status is None:
            status = self.folder / "status"
            status.write_text("")
        settings = {
            "Dir::State": self.folder / "state", "Dir::Cache": self.folder / "cache",
            "Dir::State::status": status, "Dir::Etc::SourceList": sources,
            "Dir::Etc::SourceParts": "/dev/null", "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Acquire::Languages": "none", "Acquire::Retries": "2", "Acquire::http::Timeout": "30",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
            # The locks and the user _apt are for the machine's own folders.
            "Debug::NoLocking": "true", "APT::Sandbox::User": "",
        }
        self.options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]

    def run(self, tool, *arguments, cwd=None):
        done = subprocess.run([tool, *self.options, "-q", *arguments], cwd=cwd, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                              env={**os.environ, "LC_ALL": "C"})
        return done.returncode, done.stdout

    def update(self):
        code, output = self.run("apt-get", "update", "-o", "APT::Update::Error-Mode=any")
        if code != 0:
            errors = re.findall(r"^(?:E|Err:\d+|W): ?(.*)$", output, re.M)
            raise Unavailable(f"{' '.join(self.suites)}: {errors[0] if errors else last_lines(output)}")

    def show(self, package):
        """{field: value} of the candidate; {} when there is none."""
        code, output = self.run("apt-cache", "show", "--no-all-versions", package)
        return dict(re.findall(r"^([A-Z][\w-]*): (.*)$", output, re.M)) if code == 0 else {}

    def download(self, packages, folder):
        folder.mkdir(parents=True, exist_ok=True)
        code, output = self.run("apt-get", "download", *packages, cwd=folder)
        if code != 0:
            raise Unavailable(f"download of {' '.join(packages)}: {last_lines(output)}")
        return sorted(folder.glob("*.deb"))


# ---- kernels -------------------------------------------------------------------------------------

class Kernel:
    """An unpacked vmlinuz and modules. `identity` is what verified-instruction counts belong to: the release
    alone stays the same over Debian's updates of 5.10 and 6.1."""

    def __init__(self, name, folder):
        self.name, self.image = name, folder / "vmlinuz"
        self.modules = sorted((folder / "modules").glob("*.ko"))
        about = json.loads((folder / "kernel.json").read_text())
        self.suite, self.package, self.version = about["suite"], about["package"], about["version"]
        release = re.match(r"linux-(?:image|binary)-(.*)", self.package).group(1)
        self.release, self.identity = release, f"{release} {self.version}"


def image_packages(apt, wanted_prefix):
    """(names, version) of the packages that hold vmlinuz and modules. Since 7.x they are two:
    linux-binary-*, linux-modules-*."""
    meta = apt.show("linux-image-cloud-amd64")
    if not meta:
        raise Unavailable("no package linux-image-cloud-amd64")
    if not meta["Version"].startswith(wanted_prefix):
        raise Unavailable(f"the kernel there is now {meta['Version']}, not {wanted_prefix}*")
    image = re.search(r"(linux-image-\d\S*-cloud-amd64)", meta.get("Depends", ""))
    if not image:
        raise Unavailable(f"linux-image-cloud-amd64 {meta['Version']} names no image")
    split = re.findall(r"(linux-(?:binary|modules)-\d\S*)", apt.show(image.group(1)).get("Depends", ""))
    return sorted(split) or [image.group(1)], meta["Version"]


# What guests load. A kernel that lacks one goes without, and its guest says so.
MODULES = ("veth.ko", "sch_netem.ko")


def take(debs, folder):
    """vmlinuz, and MODULES uncompressed below modules/, out of `debs` into `folder`."""
    modules = folder / "modules"
    shutil.rmtree(modules, ignore_errors=True)
    modules.mkdir()
    found = set()
    for package in debs:
        with subprocess.Popen(["dpkg", "--fsys-tarfile", package], stdout=subprocess.PIPE) as unpack:
            with tarfile.open(fileobj=unpack.stdout, mode="r|") as archive:
                for member in archive:
                    base = os.path.basename(member.name)
                    name = "vmlinuz" if base.startswith("vmlinuz") else base.removesuffix(".xz")
                    if not member.isfile() or (name != "vmlinuz" and name not in MODULES):
                        continue
                    data = archive.extractfile(member).read()
                    data = lzma.decompress(data) if base.endswith(".xz") else data
                    (folder if name == "vmlinuz" else modules).joinpath(name).write_bytes(data)
                    found.add(name)
                    if len(found) == len(MODULES) + 1:
                        break
            unpack.kill()
    if "vmlinuz" not in found:
        raise Unavailable(f"no vmlinuz in {', '.join(map(os.path.basename, debs))}")


def fetch_kernel(name, folder, mirrors, note):
    prefix, suites = KERNELS[name]
    reasons = []
    for suite in suites:
        try:
            apt = PrivateApt(folder / "apt" / suite, mirrors, [suite])
            apt.update()
            names, version = image_packages(apt, prefix)
            about = {"suite": suite, "package": names[0], "version": version, "modules": [*MODULES]}
            target = folder / "kernel.json"
            if target.exists() and json.loads(target.read_text()) == about:
                return
            note(f"{name}: downloading {' '.join(names)} {version} from {suite}")
            take([str(deb) for deb in apt.download(names, folder / "debs")], folder)
            target.write_text(json.dumps(about))
            return
        except Unavailable as reason:
            reasons.append(f"{suite}: {reason}")
        finally:
            shutil.rmtree(folder / "debs", ignore_errors=True)
            shutil.rmtree(folder / "apt", ignore_errors=True)
    raise Unavailable("; ".join(reasons))


def kernel(name, store, mirrors, update, note):
    """`mirrors` is a function, called only when something has to be downloaded."""
    folder = store / name
    folder.mkdir(parents=True, exist_ok=True)
    known = (folder / "kernel.json").exists() and (folder / "vmlinuz").exists()
    # An earlier version of this program took fewer modules.
    whole = known and json.loads((folder / "kernel.json").read_text()).get("modules") == [*MODULES]
    if not whole or update:
        try:
            fetch_kernel(name, folder, mirrors(), note)
        except Unavailable as reason:
            if not known:
                raise
            note(f"{name}: not updated ({reason})")
    return Kernel(name, folder)


# ---- qemu and busybox ----------------------------------------------------------------------------

class Tools:
    """The emulator and the guest's shell. `private` is the folder they were unpacked to."""

    def __init__(self, private):
        self.busybox = private / "bin" / "busybox"
        self.qemu = private / "usr/bin/qemu-system-x86_64"
        self.arguments = []
        self.environment = dict(os.environ)
        if self.qemu.exists():
            for share in ("qemu", "seabios"):
                self.arguments += ["-L", str(private / "usr/share" / share)]
            folders = [private / "usr/lib/x86_64-linux-gnu", private / "lib/x86_64-linux-gnu"]
            self.environment["LD_LIBRARY_PATH"] = ":".join(map(str, folders))
        else:
            self.qemu = shutil.which("qemu-system-x86_64")

    def version(self):
        done = subprocess.run([str(self.qemu), "--version"], capture_output=True, text=True,
                              env=self.environment, check=False)
        found = re.search(r"version (\S+)", done.stdout)
        if not found:
            raise Unavailable(f"{self.qemu} does not run: {last_lines(done.stdout + done.stderr)}")
        return found.group(1)


def fetch_tools(folder, mirrors, note):
    codename = mirrors.codename
    suites = [codename] + ([f"{codename}-security"] if mirrors.security else [])
    # qemu 10: under 7.2 a 6.12 kernel crashes at boot in one of ten starts.
    wanted = [("qemu-system-x86", suites + [f"{codename}-backports"], ["-t", f"{codename}-backports"]),
              ("qemu-system-x86", suites, [])]
    if shutil.which("qemu-system-x86_64"):
        wanted.append((None, suites, []))
    reason = None
    for qemu, sources, pin in wanted:
        try:
            apt = PrivateApt(folder / "apt", mirrors, sources, "/var/lib/dpkg/status")
            apt.update()
            packages = ["busybox-static"] + ([qemu] if qemu else [])
            # What the machine has installed already is not needed; what is missing is unpacked.
            code, plan = apt.run("apt-get", "install", "-s", "--no-install-recommends",
                                 "--reinstall", *pin, *packages)
            missing = re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+)", plan, re.M)
            if code != 0 or not missing:
                raise Unavailable(f"{' '.join(packages)}: {last_lines(plan)}")
            note(f"downloading {' '.join(packages)} ({len(missing)} packages)")
            private = folder / "new"
            for deb in apt.download([f"{name}={version}" for name, version in missing], folder / "debs"):
                subprocess.run(["dpkg", "-x", str(deb), str(private)], check=True)
            shutil.rmtree(folder / "root", ignore_errors=True)
            private.rename(folder / "root")
            return
        except Unavailable as failed:
            reason = reason or failed
        finally:
            for name in ("debs", "apt", "new"):
                shutil.rmtree(folder / name, ignore_errors=True)
    raise reason


def tools(store, mirrors, update, note):
    folder = store / "tools"
    folder.mkdir(parents=True, exist_ok=True)
    if update or not (folder / "root/bin/busybox").exists():
        try:
            fetch_tools(folder, mirrors(), note)
        except Unavailable:
            if not (folder / "root/bin/busybox").exists():
                raise
    found = Tools(folder / "root")
    if not found.qemu:
        raise Unavailable("no qemu-system-x86_64, neither from apt nor installed")
    return found
