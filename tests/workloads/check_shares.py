#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reads the disassembly of workload_shares and proves that it does what its source says.

Compilers hoist, merge, inline and tail-call such programs; a profile compared with a program that
is not what it seems proves nothing. Checked, with `objdump -d`:
  - each of the 57 levels sets up a frame (push %rbp; mov %rsp,%rbp), calls the next and returns;
  - nobody jumps into another function (a tail call would lose a frame);
  - each of burn_10 … burn_40 holds exactly one loop, all four of the same instructions apart from
    their constant, all aligned alike; nobody else holds that loop;
  - level_57 calls each of the four at one place, the work multiplied by 1, 2, 3, 4;
  - main calls run_rounds, run_rounds calls level_01.
"""
import re
import subprocess
import sys

LEVELS = [f"level_{i:02}" for i in range(1, 58)]
BURNERS = ["burn_10", "burn_20", "burn_30", "burn_40"]


def disassemble(path):
    """{function: [(address, instruction)]}"""
    text = subprocess.run(["objdump", "-d", "--no-show-raw-insn", path], check=True,
                          capture_output=True, text=True).stdout
    functions, current = {}, None
    for line in text.splitlines():
        head = re.match(r"^[0-9a-f]+ <(.+)>:$", line)
        if head:
            current = functions.setdefault(head.group(1), [])
            continue
        row = re.match(r"^\s+([0-9a-f]+):\s+(.*\S)\s*$", line)
        if row and current is not None:
            current.append((int(row.group(1), 16), " ".join(row.group(2).split())))
    return functions


def calls(code):
    return [m.group(1) for _, text in code if (m := re.match(r"call [0-9a-f]+ <([^>+]+)>", text))]


def foreign_jumps(name, code):
    found = []
    for _, text in code:
        jump = re.match(r"j\w+ [0-9a-f]+ <([^>+]+)", text)
        if jump and jump.group(1) != name:
            found.append(text)
    return found


def loops(name, code):
    """Bodies of the backward jumps inside a function, as lists of instructions."""
    bodies = []
    for address, text in code:
        jump = re.match(r"j\w+ ([0-9a-f]+) <" + re.escape(name) + r"[+>]", text)
        if jump and int(jump.group(1), 16) <= address:
            start = int(jump.group(1), 16)
            bodies.append((start, [t for a, t in code if start <= a < address]))
    return bodies


def multiplier(functions, burner):
    """How level_57 scales the turns (in %rsi) right before it calls `burner`."""
    code = functions["level_57"]
    at = next(i for i, (_, text) in enumerate(code) if re.search(rf"call .*<{burner}>", text))
    before = code[at - 1][1]
    if re.match(r"shl \$0x2,%rsi|lea 0x0\(,%rsi,4\),%rsi", before):
        return 4
    if before == "lea (%rsi,%rsi,2),%rsi":
        return 3
    if re.match(r"add %rsi,%rsi|shl (\$0x1,)?%rsi|lea \(%rsi,%rsi,1\),%rsi", before):
        return 2
    return 1


def check(path):
    functions = disassemble(path)
    problems = []

    def expect(condition, text):
        if not condition:
            problems.append(text)

    for name in LEVELS + BURNERS + ["run_rounds", "main"]:
        expect(name in functions, f"{name}: no such function")
    if problems:
        return problems

    for name, following in zip(LEVELS, LEVELS[1:] + [None]):
        code = functions[name]
        text = [t for _, t in code]
        expect("push %rbp" in text[:4] and "mov %rsp,%rbp" in text[:5], f"{name}: no frame set-up")
        expect("ret" in text, f"{name}: does not return")
        wanted = [following] if following else BURNERS
        expect(sorted(calls(code)) == sorted(wanted), f"{name}: calls {calls(code)}, not {wanted}")
    for name in LEVELS + BURNERS + ["run_rounds", "main"]:
        jumps = foreign_jumps(name, functions[name])
        expect(not jumps, f"{name}: leaves by a jump: {jumps}")

    shapes = []
    for name in BURNERS:
        found = loops(name, functions[name])
        expect(len(found) == 1, f"{name}: {len(found)} loops, not one")
        if len(found) != 1:
            continue
        start, body = found[0]
        expect(start % 64 == 0, f"{name}: loop at {start:#x} is not aligned to 64 bytes")
        constants = [t for t in body if re.match(r"add \$0x[0-9a-f]{3,},", t)]
        expect(len(constants) == 1, f"{name}: constants {constants}")
        shapes.append([re.sub(r"\$0x[0-9a-f]{3,}", "CONSTANT", t) for t in body])
        expect(sum("shl" in t or "shr" in t for t in body) == 3, f"{name}: not the xorshift loop")
    expect(all(shape == shapes[0] for shape in shapes), f"loops differ: {shapes}")
    for level in LEVELS:
        expect(not loops(level, functions[level]), f"{level}: holds a loop")
    for factor, burner in enumerate(BURNERS, 1):
        got = multiplier(functions, burner)
        expect(got == factor, f"level_57: {burner} gets {got} x the turns, not {factor} x")
    expect("run_rounds" in calls(functions["main"]), "main does not call run_rounds")
    expect(calls(functions["run_rounds"]).count("level_01") == 1, "run_rounds: level_01")
    return problems


def main():
    problems = check(sys.argv[1])
    for problem in problems:
        print(f"FAIL {problem}")
    if not problems:
        print(f"{sys.argv[1]}: {len(LEVELS)} levels with frames, 4 equal loops, shares 1:2:3:4")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
