# SPDX-License-Identifier: Apache-2.0
"""What a guest sent, compared with what is known: which checks there are and what each expects."""
import collections
import gzip
import json
import os
import re
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import events  # noqa: E402
import guest  # noqa: E402
import judge_network  # noqa: E402
from pprof import Profile  # noqa: E402

SANITIZER_REPORT = re.compile(r"ERROR: \w+Sanitizer|runtime error: |CHECK failed|Check failed")
SHARES = {"burn_10": 10, "burn_20": 20, "burn_30": 30, "burn_40": 40}
GROWTH = 1.10  # of verified instructions, before it is a failure
# An emulated CPU that waits for the machine misses ticks: 400 come on an idle machine, 80 have come
# on a busy one. Fewer say nothing.
FEW = 30
FEW_WATCHED = 15
# Of the stacks of one program, some 70 samples; of all together, 99 %.
WHOLE = 0.9
# No stack to judge: a kernel thread, or a process whose memory has gone in exec or exit.
NO_STACK = {"no_user_stack", "memory_gone"}
SAMPLE_STACK_END = 36  # offset in struct fw_sample

# enum fw_stack_end of bpf/include/frame.h, in its order.
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../bpf/include/frame.h"),
          encoding="utf-8") as header:
    STACK_ENDS = re.findall(r'^  X\(\w+,[\s\\]*"(\w+)"\)', header.read(), re.M)


class Verdict:
    """Checks by name, in the order they were made. `figures` go into the table."""

    def __init__(self):
        self.passed, self.failed, self.figures = [], {}, {}

    def check(self, name, good, detail):
        if good:
            self.passed.append(name)
        else:
            self.failed[name] = detail

    def attempt(self, name, function, *arguments):
        """A check that cannot be made (a file is missing, or does not parse) has failed."""
        try:
            function(*arguments)
        except (AssertionError, KeyError, IndexError, ValueError, OSError, StopIteration,
                struct.error, ZeroDivisionError) as error:
            self.failed[name] = f"cannot be judged: {error!r}"


# ---- one step each -------------------------------------------------------------------------------

def judge_steps(verdict, outcome):
    for name, (code, seconds) in guest.steps(outcome).items():
        verdict.check(f"step {name}", code == 0,
                      f"exit code {code} after {seconds:.0f} s\n{outcome.text(name + '.txt')[-3000:]}")
    for name in outcome.files:
        found = SANITIZER_REPORT.search(outcome.text(name)) if name.endswith(".txt") else None
        if found:
            verdict.check(f"sanitizer {name}", False, outcome.text(name)[found.start():][:4000])
    oops = re.search(r"(?:BUG:|WARNING:|Oops|general protection).*", outcome.text("dmesg.txt"))
    verdict.check("kernel log", not oops, oops and outcome.text("dmesg.txt")[oops.start():][:2000])


def test_cases(outcome):
    """(name, case) of each test of the gtest binaries."""
    for file in ("tests.json", "enforce_tests.json"):
        for suite in json.loads(outcome.text(file))["testsuites"]:
            for case in suite["testsuite"]:
                yield f"{suite['name']}.{case['name']}", case


def judge_tests(verdict, outcome):
    """The gtest binaries: programs load, samplers sample, side-band events arrive, the firewall's
    verdicts on frames are right."""
    bad, skipped, count = [], [], 0
    for name, case in test_cases(outcome):
        count += 1
        if case.get("failures"):
            text = "\n".join(failure["failure"] for failure in case["failures"])
            bad.append(name + ":\n" + "\n".join(text.splitlines()[-25:]))
        elif case.get("result") == "SKIPPED":
            skipped.append(name)
    verdict.check("tests", not bad and count > 20, "\n".join(bad) or f"only {count} tests")
    verdict.figures["tests"] = f"{count - len(bad) - len(skipped)}/{count}"
    verdict.check("no test skipped", not skipped, ", ".join(skipped))


def verified(outcome):
    """{program: verified instructions}, as the tests recorded them."""
    return {key.removeprefix("verified_"): int(value) for _, case in test_cases(outcome)
            for key, value in case.items() if key.startswith("verified_")} | judge_network.verified(outcome)


def judge_verified(verdict, outcome, known):
    """`known`: {program: count} of this very kernel, or None."""
    counts = verified(outcome)
    verdict.check("verified instructions", counts and all(counts.values()), f"no counts: {counts}")
    for program, count in counts.items():
        was = (known or {}).get(program)
        verdict.figures[f"verified {program}"] = f"{count}" + ("" if was else " new")
        verdict.check(f"verified {program}", not was or count <= was * GROWTH,
                      f"{count} instructions, {was} in tests/kernels/verified.json; if that is meant: "
                      "./dev kernels --accept")
    return counts


# ---- profiles ------------------------------------------------------------------------------------

def profile(outcome, name):
    return Profile(outcome.files[f"{name}.pb.gz"])


def count_where(recorded, condition):
    at = recorded.index("samples")
    return sum(values[at] for frames, values, _, _ in recorded.samples if condition(frames))


def percent(part, whole):
    return 100.0 * part / whole


def judge_depth(verdict, outcome):
    """A recursion of 900 without frame pointers is kept whole, with its names. Not in every sample:
    first ones come as copies of the stack, which hold half of it, and `record` has no room for tables
    once AddressSanitizer's heap is over its limit on memory. judge_ends is strict with the same program."""
    recorded = profile(outcome, "depth_nofp")
    at_bottom = count_where(recorded, lambda frames: "burn_leaf" in frames)
    deep = count_where(recorded, lambda frames: "burn_leaf" in frames
                       and frames.count("recurse") >= 900 and "main" in frames)
    verdict.figures["900 levels"] = f"{percent(deep, at_bottom):.1f} %"
    verdict.check("depth", deep >= FEW, f"{deep} of {at_bottom} samples have 900 levels")


def judge_shares(verdict, outcome):
    recorded = profile(outcome, "shares")
    burned = collections.Counter()
    at, reaching = recorded.index("samples"), 0
    for frames, values, _, _ in recorded.samples:
        # An interrupt's kernel frames may lie above the function that was interrupted.
        leaf = next((frame for frame in frames if frame in SHARES), None)
        if leaf:
            burned[leaf] += values[at]
            reaching += values[at] if "main" in frames else 0
    total = sum(burned.values())
    shares = {name: percent(burned[name], total) for name in SHARES}
    verdict.figures["shares"] = "/".join(f"{share:.0f}" for share in shares.values())
    verdict.figures["reach main"] = f"{percent(reaching, total):.1f} %"
    verdict.check("shares", total >= FEW and all(
        abs(shares[name] - wanted) < 500 * (wanted / 100 * (1 - wanted / 100) / total) ** 0.5
        for name, wanted in SHARES.items()), f"{shares} of {total} samples: over five standard deviations")
    verdict.check("shares reach main", reaching >= 0.99 * total, f"{reaching} of {total}")


def judge_syscalls(verdict, outcome):
    recorded = profile(outcome, "syscalls")
    total = count_where(recorded, lambda frames: True)
    # A sample during a system call has one of its entry's names, which differ by kernel.
    kernel = count_where(recorded, lambda frames: any("syscall_64" in frame for frame in frames))
    joined = count_where(recorded, lambda frames: "main" in frames
                         and any("syscall_64" in frame for frame in frames))
    verdict.figures["kernel frames"] = f"{percent(kernel, total):.0f} %"
    verdict.check("kernel frames", total >= FEW and kernel >= 0.4 * total, f"{kernel} of {total}")
    verdict.check("kernel joins user", joined >= 0.85 * kernel, f"{joined} of {kernel} reach main")


# ---- the agent -----------------------------------------------------------------------------------

def judge_agent(verdict, outcome):
    ends, frames, deep = collections.defaultdict(list), collections.Counter(), 0
    for kind, payload in events.records(gzip.decompress(outcome.files["events.gz"]))[1]:
        if kind != events.SAMPLE:
            continue
        _, comm = events.pid_and_comm(kind, payload)
        kernel, user = struct.unpack_from("<HH", payload, 4)
        ends[comm].append(STACK_ENDS[payload[SAMPLE_STACK_END]])
        deep += comm == "deep" and user >= 900
        frames["kernel"] += kernel
        frames["user"] += user
    samples = sum(len(found) for found in ends.values())
    verdict.figures["agent samples"] = samples
    verdict.check("agent samples", samples >= FEW and frames["kernel"] and frames["user"],
                  f"{samples} samples, frames {dict(frames)}")
    # Those that are not deep: on the way down, and before main.
    verdict.check("deep", deep >= WHOLE * len(ends["deep"]),
                  f"{deep} of {len(ends['deep'])} samples have 900 frames")
    judge_ends(verdict, [step.removeprefix("watched_") for step in guest.steps(outcome)
                         if step.startswith("watched_")], ends)
    judge_metrics(verdict, outcome.text("metrics.txt"))


def judge_modules(verdict, outcome):
    """The other modules load their programs; the firewall drops what it is told to, and nothing else.
    With AddressSanitizer's heap the budget may have switched the TCP probe off since its start."""
    log = outcome.text("modules_agent.txt")
    started = re.search(r"module network is (active|degraded)", log)
    verdict.figures["network"] = started.group(1) if started else "off"
    verdict.check("network loads", started, log[-3000:])
    stats, load = outcome.text("xdp_stats.json"), outcome.text("xdp_load.txt")
    interfaces = json.loads(stats).get("interfaces") if stats.startswith("{") else None
    verdict.check("firewall loads", interfaces, load + log[-3000:])
    if not interfaces:
        verdict.figures["firewall"] = "refused"
        return
    state = interfaces[0]
    dropped = sum(rule["dropped_packets"] for rule in state["rules"])
    verdict.figures["firewall"] = f"{state['mode']} on {state['interface']}"
    verdict.check("firewall is attached", state["attached"], stats)
    verdict.check("firewall drops", dropped == 3 and "3 packets transmitted, 0 packets received"
                  in outcome.text("ping_dropped.txt"), load + stats + outcome.text("ping_dropped.txt"))
    for name in ("ping_before.txt", "ping_after.txt"):
        verdict.check(name.removesuffix(".txt"), "3 packets transmitted, 3 packets received"
                      in outcome.text(name), outcome.text(name) + outcome.text("xdp_unload.txt"))


def judge_ends(verdict, watched, ends):
    """From the first whole stack of a process on: before, its tables may not have been built."""
    total = collections.Counter()
    for comm in watched:
        found = [end for end in ends.get(comm[:15], []) if end not in NO_STACK]  # TASK_COMM_LEN
        begin = found.index("root") if "root" in found else len(found)
        after, counts = found[begin:], dict(collections.Counter(found))
        if not comm.startswith("warm_"):
            total.update(after)
            share = f"{percent(after.count('root'), len(after)):.1f} % of {len(after)}" if after else "none"
            verdict.figures[f"root {comm}"] = share
            verdict.check(f"root {comm}", len(after) >= FEW_WATCHED and
                          after.count("root") >= WHOLE * len(after), f"{counts}, {begin} before the first")
    verdict.figures["root all"] = f"{percent(total['root'], sum(total.values())):.2f} %"
    verdict.check("root all", total["root"] >= 0.99 * sum(total.values()), f"{dict(total)}")


def judge_metrics(verdict, metrics):
    lost = {name: float(value) for name, value in
            re.findall(r"^firewatch_agent_lost_total\{[^}]*\"(\w+)\"\} (\S+)$", metrics, re.M)}
    verdict.check("agent metrics", lost, metrics[:500])
    for name in ("ring_full", "scratch_busy", "record_malformed", "kernel_stack_failed",
                 "no_user_registers"):
        verdict.check(f"lost {name}", not lost.get(name), f"{lost.get(name)} {name}")
    tables = re.search(r"^firewatch_unwind_tables (\d+)", metrics, re.M)
    verdict.figures["tables"] = tables.group(1) if tables else "-"


def judge(outcome, known, version):
    """(Verdict, verified-instruction counts). `version`: (major, minor) of the kernel."""
    verdict, counts = Verdict(), {}
    verdict.check("guest", not outcome.why, outcome.why)
    if outcome.why:
        return verdict, counts
    judge_steps(verdict, outcome)
    for name, function, *arguments in (
            ("tests", judge_tests),
            ("depth", judge_depth),
            ("shares", judge_shares), ("syscalls", judge_syscalls),
            ("agent", judge_agent), ("modules", judge_modules),
            ("network", judge_network.judge, version)):
        verdict.attempt(name, function, verdict, outcome, *arguments)
    try:
        counts = judge_verified(verdict, outcome, known)
    except (KeyError, ValueError) as error:
        verdict.failed["verified instructions"] = repr(error)
    return verdict, counts
