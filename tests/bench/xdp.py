#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The packet firewall: ns per packet by test-run, and packets per second on veth beside nftables with
the same set of prefixes in the same run.

95 % of the prefixes are /17 to /24, 5 % longer. "above" is what judging costs above parsing the same
packet (and above fetching the next of 65,536 sources). veth: one sender past its queueing discipline;
what a packet costs there is sending and dropping together, so the row without a filter (the stack
drops) and the empty one are beside it.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TOOL = ROOT / "build" / "bench" / "bin" / "xdp_bench"
COUNTS = (1, 1_000, 100_000, 1_000_000)


def run(*command, **arguments):
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True,
                          **arguments).stdout


def test_runs(folder):
    print(f"{'prefixes':>9} {'source':<12} {'parse ns':>9} {'judge ns':>9} {'above ns':>9} {'image KiB':>10} {'build ms':>9} {'swap ms':>8}")
    for line in run(TOOL, "--write-lists", folder).splitlines():
        row = json.loads(line)
        print(f"{row['prefixes']:>9} {row['kind']:<12} {row['parse_ns']:>9.0f} {row['judge_ns']:>9.0f} "
              f"{row['above_ns']:>9.0f} {row['image_bytes'] // 1024:>10} {row['build_ms']:>9.1f} {row['swap_ms']:>8.1f}")
    print("load average", " ".join(pathlib.Path("/proc/loadavg").read_text().split()[:3]))


class Veth:
    """Two namespaces and a pair between them; gone at the end, however it ends."""

    def __enter__(self):
        self.near, self.far = f"fwbs{os.getpid()}", f"fwbc{os.getpid()}"
        for name in (self.near, self.far):
            run("ip", "netns", "add", name)
        run("ip", "-n", self.near, "link", "add", "s0", "type", "veth", "peer", "name", "c0", "netns", self.far)
        run("ip", "-n", self.near, "link", "set", "s0", "up")
        run("ip", "-n", self.far, "link", "set", "c0", "up")
        self.mac = json.loads(run("ip", "-n", self.near, "-j", "link", "show", "s0"))[0]["address"]
        return self

    def __exit__(self, *_):
        for name in (self.near, self.far):
            subprocess.run(["ip", "netns", "del", name], check=False)

    def inside(self, name, *command, **arguments):
        return run("nsenter", f"--net=/run/netns/{name}", *command, **arguments)

    def rate(self, path, seconds):
        """Packets per second, the median of five."""
        rates = []
        for _ in range(5):
            row = json.loads(self.inside(self.far, TOOL, "--flood", "c0", "--mac", self.mac, "--list", path,
                                         "--seconds", seconds))
            rates.append(row["sent"] / row["seconds"])
        return sorted(rates)[2]


def nft_rules(path):
    elements = ", ".join(pathlib.Path(path).read_text().split())
    return f"""table netdev t {{
  set b {{
    type ipv4_addr
    flags interval
    elements = {{ {elements} }}
  }}
  chain c {{
    type filter hook ingress device "s0" priority 0; policy accept;
    ip saddr @b counter drop
  }}
}}
"""


def on_veth(folder, counts, seconds):
    print(f"\n{'prefixes':>9} {'no filter':>12} {'firewatch':>12} {'nftables':>12}   packets per second, one sender")
    for count in counts:
        path = f"{folder}/{count}.list"
        with Veth() as veth:
            plain = veth.rate(path, seconds)
            holder = subprocess.Popen(["nsenter", f"--net=/run/netns/{veth.near}", str(TOOL), "--attach", "s0",
                                       "--list", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            if holder.stdout.readline() != "ready\n":
                raise SystemExit("xdp_bench did not attach")
            ours = veth.rate(path, seconds)
            dropped = int(holder.communicate("")[0])
            if dropped == 0:
                raise SystemExit("nothing was dropped")
            try:
                veth.inside(veth.near, "nft", "-f", "-", input=nft_rules(path))
                theirs = f"{veth.rate(path, seconds):.0f}"
            except subprocess.CalledProcessError as error:
                theirs = "refused: " + error.stderr.strip().splitlines()[0][:60]
        print(f"{count:>9} {plain:>12.0f} {ours:>12.0f} {theirs:>12}", flush=True)


def main():
    if os.geteuid() != 0:
        raise SystemExit("needs root: BPF programs and network namespaces")
    full = "--full" in sys.argv
    with tempfile.TemporaryDirectory() as folder:
        test_runs(folder)
        on_veth(folder, COUNTS if full else COUNTS[:3], 3 if full else 1)


if __name__ == "__main__":
    main()
