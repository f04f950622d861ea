# SPDX-License-Identifier: Apache-2.0
"""One boot of one kernel in qemu by software emulation (never KVM: nested, it hangs). The guest has
two serial ports: the console, and one over which init.sh sends all results as a tar.
"""
import io
import re
import subprocess
import tarfile
import time

BOOT_SECONDS = 60   # 4 to 7 s on an idle machine
GUEST_SECONDS = 600
BOOTS = 4           # a boot that does not reach userspace is repeated


class Outcome:
    """`files` is {name: bytes} of the guest's /out; empty when the guest did not come to its end.
    `why` says then what happened, with the console's last lines."""

    def __init__(self):
        self.files, self.why, self.console = {}, "", ""
        self.seconds = self.boots = 0

    def text(self, name):
        return self.files.get(name, b"").decode("utf-8", "replace")


def unpack(path):
    """The files of a tar that came over the serial port; {} when it is cut short."""
    try:
        with tarfile.open(fileobj=io.BytesIO(path.read_bytes()), mode="r:gz") as archive:
            return {member.name.removeprefix("./"): archive.extractfile(member).read()
                    for member in archive.getmembers() if member.isfile()}
    except (tarfile.TarError, EOFError, OSError):
        return {}


def boot_once(tools, image, initrd, folder, name):
    """'' when the guest came to its end, "boot" when it never reached userspace, else what happened."""
    console, results = folder / f"{name}.console", folder / f"{name}.tar.gz"
    command = [str(tools.qemu), *tools.arguments, "-accel", "tcg,thread=multi", "-cpu", "max",
               "-smp", "2", "-m", "2048", "-nodefaults", "-no-user-config", "-display", "none",
               "-no-reboot", "-kernel", str(image), "-initrd", str(initrd),
               "-append", "console=ttyS0 quiet panic=-1",
               "-serial", f"file:{console}", "-serial", f"file:{results}"]
    for path in (console, results):
        path.write_bytes(b"")
    with open(folder / f"{name}.qemu", "wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                   env=tools.environment)
    started = time.monotonic()
    try:
        while process.poll() is None:
            time.sleep(0.2)
            seconds = time.monotonic() - started
            if seconds > BOOT_SECONDS and b"FIREWATCH userspace" not in console.read_bytes():
                return "boot"
            if seconds > GUEST_SECONDS:
                return f"not at its end after {GUEST_SECONDS} s"
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
    text = console.read_text(errors="replace")
    if "FIREWATCH userspace" not in text:
        return "boot"
    return "" if "FIREWATCH done" in text else "the kernel stopped"


def run(tools, image, initrd, folder, name):
    outcome, started = Outcome(), time.monotonic()
    why = "boot"
    while why == "boot" and outcome.boots < BOOTS:
        outcome.boots += 1
        why = boot_once(tools, image, initrd, folder, name)
    outcome.seconds = time.monotonic() - started
    outcome.console = (folder / f"{name}.console").read_text(errors="replace")
    outcome.files = unpack(folder / f"{name}.tar.gz")
    if why == "boot":
        why = f"no userspace in {BOOTS} boots"
    if why or not outcome.files:
        log = (folder / f"{name}.qemu").read_text(errors="replace")
        tail = "\n".join((log + outcome.console).splitlines()[-25:])
        outcome.why = f"{why or 'the results did not arrive'}\n{tail}"
    return outcome


def steps(outcome):
    """{step: (exit code, seconds of the guest's clock)} from the console."""
    found = re.findall(r"^FIREWATCH step (\S+) (\d+) ([\d.]+) ([\d.]+)", outcome.console, re.M)
    return {name: (int(code), float(end) - float(begin)) for name, code, begin, end in found}
