# SPDX-License-Identifier: Apache-2.0
"""What every end-to-end test uses: servers and agents on free ports in a temporary folder, ended by
their pid however the test ends, their logs searched for sanitizer reports, and the reasons for
which a machine cannot run a test.

Environment:
  FIREWATCH_BIN_DIR      where the binaries are (build/asan/bin); run.py sets it
  FIREWATCH_TEST_SCALE   "full" for the long form of each test; else the short form for CI
"""
import ctypes
import http.client
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
import unittest
import urllib.parse

from pprof import Profile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN_DIR = os.environ.get("FIREWATCH_BIN_DIR", os.path.join(ROOT, "build", "asan", "bin"))
FULL = os.environ.get("FIREWATCH_TEST_SCALE", "") == "full"
SANITIZER_REPORT = re.compile(
    r"ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|runtime error: |CHECK failed|Check failed")
# A sanitized binary is several times slower; a busy machine slower again.
PATIENCE_SECONDS = 60


def short_or_full(short, full):
    return full if FULL else short


def binary(name):
    path = os.path.join(BIN_DIR, name)
    if not os.path.exists(path):
        raise AssertionError(f"{name} is not built in {BIN_DIR}")
    return path


def selector_of(name):
    """Picks this build's program by its path: another run on the same machine has its own."""
    return '{exe="%s"}' % os.path.realpath(binary(name))


def is_sanitized(name):
    with open(binary(name), "rb") as file:
        return b"__asan_init" in file.read()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, seconds, what, pause=0.05):
    """The first true value of condition(); fails with `what` when time is up."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"after {seconds} s: {what}")
        time.sleep(pause)


# ---- what this machine allows --------------------------------------------------------------------

_libc = ctypes.CDLL(None, use_errno=True)
SYS_PERF_EVENT_OPEN, SYS_BPF = 298, 321  # x86-64


def why_no_sampling():
    """'' when BPF maps and per-CPU perf events can be had; the kernel is asked, not Firewatch."""
    attributes = bytearray(128)
    struct.pack_into("=IIQQ", attributes, 0, 1, 128, 0, 10_000_000)  # software, cpu-clock, period
    buffer = (ctypes.c_char * 128).from_buffer(attributes)
    event = _libc.syscall(SYS_PERF_EVENT_OPEN, buffer, -1, 0, -1, 8)  # every process, CPU 0
    if event < 0:
        return f"perf_event_open on a CPU: {os.strerror(ctypes.get_errno())}"
    os.close(event)
    map_attributes = bytearray(72)
    struct.pack_into("=IIII", map_attributes, 0, 2, 4, 8, 1)  # an array of one u64
    buffer = (ctypes.c_char * 72).from_buffer(map_attributes)
    bpf_map = _libc.syscall(SYS_BPF, 0, buffer, 72)
    if bpf_map < 0:
        return f"bpf(BPF_MAP_CREATE): {os.strerror(ctypes.get_errno())}"
    os.close(bpf_map)
    return ""


def require_sampling():
    reason = why_no_sampling()
    if reason:
        raise unittest.SkipTest(f"no privilege to sample: {reason}")


def require_root():
    if os.geteuid() != 0:
        raise unittest.SkipTest("needs root")


def require_tool(name):
    if not shutil.which(name):
        raise unittest.SkipTest(f"{name} is not installed")


def require_release(name):
    if is_sanitized(name):
        raise unittest.SkipTest(f"{name} is built with sanitizers: its memory says nothing "
                                "(run with --bin-dir build/release/bin)")


# ---- processes -----------------------------------------------------------------------------------

def _before_exec(priority):
    """A runner that is killed itself leaves nothing behind (prctl PR_SET_PDEATHSIG, SIGKILL)."""
    _libc.prctl(1, 9)
    if priority < 0 and os.geteuid() == 0:
        _libc.nice(priority)


class Program:
    """A running program with its output in a file. stop() and kill() are by pid and idempotent."""

    def __init__(self, folder, name, command, env=None, priority=0, **options):
        self.name = name
        self.log_path = os.path.join(folder, f"{name}.{time.monotonic_ns()}.log")
        self.command = command
        self.exit_code = None
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env={**os.environ, "UBSAN_OPTIONS": "print_stacktrace=1", **(env or {})},
                cwd=folder, preexec_fn=lambda: _before_exec(priority), **options)
        self.pid = self.process.pid

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def cpu_seconds(self):
        """What a workload printed about itself at its end."""
        return int(re.search(r"^cpu_us=(\d+)$", self.log(), re.M).group(1)) / 1e6

    def alive(self):
        return self.process.poll() is None

    def wait(self, seconds=PATIENCE_SECONDS):
        self.exit_code = self.process.wait(timeout=seconds)
        return self.exit_code

    def stop(self, seconds=PATIENCE_SECONDS, sig=signal.SIGTERM):
        """Asks it to end; the exit code. A program that does not end in time is an error."""
        if self.alive():
            self.process.send_signal(sig)
        try:
            return self.wait(seconds)
        except subprocess.TimeoutExpired as late:
            self.kill()
            raise AssertionError(f"{self.name} (pid {self.pid}) did not end within {seconds} s of "
                                 f"signal {sig}:\n{self.tail()}") from late

    def kill(self):
        if self.alive():
            self.process.kill()
        self.process.wait()

    def tail(self, lines=40):
        text = self.log().splitlines()[-lines:]
        return f"--- {self.name}: {' '.join(self.command)}\n" + "\n".join("  " + t for t in text)

    def sanitizer_report(self):
        text = self.log()
        found = SANITIZER_REPORT.search(text)
        return text[found.start():found.start() + 6000] if found else ""


class HttpProgram(Program):
    """A program with an HTTP port."""

    def __init__(self, folder, name, command, port, **options):
        self.port = port
        super().__init__(folder, name, command, **options)

    def request(self, path, timeout=PATIENCE_SECONDS, method="GET", body=None, headers=None):
        """(status, body). Raises OSError when nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def get(self, path, **parameters):
        """The body of a 200 answer, as bytes."""
        if parameters:
            path += "?" + urllib.parse.urlencode(parameters)
        status, body = self.request(path)
        assert status == 200, f"GET {path}: {status} {body[:300]!r}"
        return body

    def is_healthy(self):
        try:
            return self.request("/healthz", timeout=5)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def wait_healthy(self):
        def healthy_or_dead():
            assert self.alive(), f"{self.name} ended: {self.process.returncode}\n{self.tail()}"
            return self.is_healthy()
        wait_until(healthy_or_dead, PATIENCE_SECONDS, f"/healthz of {self.name} is not 200")
        return self

    def health_ms(self):
        start = time.monotonic()
        status, _ = self.request("/healthz")
        assert status == 200, f"/healthz: {status}"
        return (time.monotonic() - start) * 1000

    def metrics(self):
        """{name with labels: value}, as on /metrics."""
        found = {}
        for line in self.get("/metrics").decode().splitlines():
            row = re.match(r"^([a-zA-Z_:][\w:]*(?:\{.*\})?) (\S+)$", line)
            if row:
                found[row.group(1)] = float(row.group(2))
        return found

    def metric(self, name):
        """Summed over all label sets; fails when there is no such metric."""
        rows = [v for k, v in self.metrics().items() if k == name or k.startswith(name + "{")]
        assert rows, f"{self.name} has no metric {name}"
        return sum(rows)


class Server(HttpProgram):
    def __init__(self, folder, data, http_port=None, grpc_port=None, arguments=(),
                 http_host="127.0.0.1", grpc_host="127.0.0.1"):
        self.grpc_port = grpc_port or free_port()
        self.data = data
        port = http_port or free_port()
        super().__init__(folder, "firewatch-server", [
            binary("firewatch-server"), "--data", data, "--http", f"{http_host}:{port}",
            "--grpc", f"{grpc_host}:{self.grpc_port}", *arguments], port)

    def query(self, path, query=None, **parameters):
        """Everything that the server has, unless from/to are given."""
        now_ms = int(time.time() * 1000)
        parameters.setdefault("from", now_ms - 3 * 3600 * 1000)
        parameters.setdefault("to", now_ms + 60_000)
        if query is not None:
            parameters["query"] = query
        return self.get(path, **parameters)

    def profile(self, query=None, **parameters):
        return Profile(self.query("/api/v1/profile", query, format="pprof", **parameters))

    def samples(self, query=None):
        """Total samples of what matches; 0 when nothing does."""
        text = self.query("/api/v1/top", query, type="samples", limit=1)
        return json.loads(text)["total"]

    def status(self):
        return json.loads(self.get("/api/v1/status"))


class Agent(HttpProgram):
    def __init__(self, folder, grpc_port, hz=99, window="1s", arguments=(), wrapper=(), env=None,
                 spool=None, http_port=None, http_host="127.0.0.1", program=None):
        port = http_port or free_port()
        self.spool = spool or os.path.join(folder, "spool")
        # The probe would look at the sockets of the whole machine; its own test names a namespace.
        if "--modules" not in arguments and "--config" not in arguments:
            arguments = (*arguments, "--modules", "cpu")
        super().__init__(folder, "firewatch-agent", [
            *wrapper, program or binary("firewatch-agent"), "--server", f"127.0.0.1:{grpc_port}",
            "--http", f"{http_host}:{port}", "--hz", str(hz), "--window", window,
            "--spool", self.spool, "--cache", os.path.join(folder, "symbols"), *arguments],
            port, env=env)


# ---- what /proc says -----------------------------------------------------------------------------

def children_of(pid):
    """Of all its threads: the kernel lists a child with the thread that forked it."""
    found = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except FileNotFoundError:
        return found
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                found += [int(child) for child in file.read().split()]
        except FileNotFoundError:
            pass  # it ended
    return found


def cpu_seconds(pid):
    """User and system time of a process, all its threads."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        values = file.read().rsplit(") ", 1)[1].split()
    return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")


def anonymous_kib(pid, children=True):
    """RssAnon of a process and of its children (the symbol helper)."""
    total = 0
    for one in [pid, *(children_of(pid) if children else [])]:
        try:
            with open(f"/proc/{one}/status", encoding="utf-8", errors="replace") as file:
                total += sum(int(line.split()[1]) for line in file if line.startswith("RssAnon"))
        except (FileNotFoundError, ProcessLookupError):
            pass  # the helper ends when it has nothing to do
    return total


def charged_maps_kib(pid):
    """Memory that the kernel charges for the BPF maps a process holds (fdinfo memlock)."""
    total, seen = 0, set()
    for fd in os.listdir(f"/proc/{pid}/fdinfo"):
        try:
            with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii") as file:
                info = dict(line.split(":", 1) for line in file.read().splitlines() if ":" in line)
        except FileNotFoundError:
            continue
        if "map_id" in info and info["map_id"] not in seen:
            seen.add(info["map_id"])
            total += int(info.get("memlock", "0"))
    return total / 1024


# ---- the base of every test ----------------------------------------------------------------------

class FirewatchTest(unittest.TestCase):
    """Starts programs that end with the test. A sanitizer report in any log fails the test; the
    ends of all logs are shown when it fails."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="firewatch-e2e-")
        os.chmod(self.folder, 0o755)
        self.programs = []
        self.notes = []  # figures that the runner prints beside PASS
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.addCleanup(self._end_programs)

    def _end_programs(self):
        reports = []
        for program in reversed(self.programs):
            try:
                program.stop(30)
            except (AssertionError, subprocess.TimeoutExpired) as error:
                reports.append(str(error))
            reports.append(program.sanitizer_report())
        outcome = getattr(self, "_outcome", None)
        if outcome is not None and not outcome.success:
            for program in self.programs:
                print(program.tail(), flush=True)
        reports = [report for report in reports if report]
        if reports:
            self.fail("\n".join(reports))

    def note(self, text):
        self.notes.append(text)

    def own(self, program):
        self.programs.append(program)
        return program

    def start_server(self, **options):
        options.setdefault("data", os.path.join(self.folder, "data"))
        return self.own(Server(self.folder, **options)).wait_healthy()

    def start_agent(self, server, **options):
        port = server if isinstance(server, int) else server.grpc_port
        return self.own(Agent(self.folder, port, **options)).wait_healthy()

    def start(self, name, *arguments, **options):
        """A workload or tool of ours, by the name of its binary."""
        return self.own(Program(self.folder, name, [binary(name), *map(str, arguments)], **options))

    def burn(self, name, *arguments, seconds=180):
        """Runs a workload to its end, ahead of whatever else the machine does; CPU seconds that it
        used by its own getrusage."""
        program = self.start(name, *arguments, priority=-10)
        assert program.wait(seconds) == 0, program.tail()
        return program.cpu_seconds()

    def copied(self, name):
        """A copy that everybody may read and execute: build folders are often private."""
        path = os.path.join(self.folder, name)
        if not os.path.exists(path):
            shutil.copyfile(binary(name), path)
            os.chmod(path, 0o755)
        return path

    def run_program(self, name, *arguments, seconds=PATIENCE_SECONDS, **options):
        """Runs to the end; (exit code, output). For programs that print their answer."""
        program = self.start(name, *arguments, **options)
        return program.wait(seconds), program.log()
