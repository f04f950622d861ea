# SPDX-License-Identifier: Apache-2.0
"""The known call chains of the `stacks` workloads (tests/workloads/stacks), root first.

A stack is reduced to the workload's own named functions; what is left must be the beginning of one
of the mode's chains: the moment may lie anywhere on the way to the leaf. So a frame that is missing,
doubled or invented, or a wrong order, shows.
"""
import re

RUN = {"alloca": "Alloca", "protector": "Protector", "recursion": "Recursion",
       "realign": "Realign", "longjmp": "Longjmp", "coroutine": "Coroutine",
       "exception": "Exception", "signal": "Signal", "altstack": "Altstack", "vfork": "Vfork",
       "threads": "Threads", "plt": "Plt", "resolve": "Resolve", "openssl": "Openssl",
       "zstd": "Zstd", "qsort": "Qsort", "libc": "Libc"}
MODES = list(RUN)
STATIC_MODES = [mode for mode in MODES if mode not in ("plt", "resolve", "openssl")]
# GNU's compilers put rare parts of a function elsewhere, under a name of their own.
CLONE = re.compile(r"(\.(cold|part|isra|constprop)[.\d]*| \[clone .*\])+$")


def recursion_chain(depth):
    """As recursion_next() of frames.cc calls."""
    chain = []
    while depth > 0:
        chain.append("recursion_next")
        if depth % 4:
            chain.append({1: "recursion_small", 2: "recursion_medium", 3: "recursion_large"}[depth % 4])
        depth -= 1
    return chain + ["recursion_next"]


def chains_of(mode):
    """Every whole chain of the mode, without `main` and the mode's Run function."""
    root = [f"{mode}_root"]
    leaf = [f"{mode}_leaf"]
    if mode == "alloca":
        return [root + ["alloca_step"] * 5 + leaf]
    if mode == "protector":
        return [root + ["protector_step"] * 4 + leaf]
    if mode == "recursion":
        return [root + recursion_chain(514) + leaf]
    if mode == "realign":
        return [root + ["realign_dynamic"] * 3 + ["realign_fixed"] + leaf]
    if mode == "longjmp":
        return [root + ["longjmp_step"] * 6 + leaf, root + ["longjmp_after"]]
    if mode == "coroutine":
        return [root + ["coroutine_resume"] + leaf]
    if mode == "exception":
        unwinding = [root + ["exception_catch"] + ["exception_step"] * n + leaf for n in range(7)]
        return unwinding + [root + ["exception_catch"] + ["exception_step"] * 6 +
                            ["exception_throw"] + leaf]
    if mode in ("signal", "altstack"):
        plain = ["signal_root", "signal_interrupted"]
        handler = ["signal_handler", "signal_leaf"]
        return [plain[:n] + handler for n in range(3)] + [plain]
    if mode == "vfork":
        return [root + leaf, root + ["vfork_parent"]]
    if mode == "threads":
        return [[]]
    if mode == "openssl":
        return [root + ["openssl_digest"], root + ["openssl_encrypt"]]
    if mode == "qsort":
        return [root + ["qsort_compare"] + leaf]
    if mode == "libc":
        return [root + [f"libc_{part}"] for part in ("strings", "format", "memory", "system")]
    return [root]  # plt, resolve, zstd: the rest is in libraries


RUST = [["rust_root"] + ["rust_step"] * 6 + ["rust_leaf"]] + [
    ["rust_root"] + ["rust_panic"] * n + ["rust_leaf"] for n in range(1, 5)]


def own_functions(mode, names):
    """Those of the workload's own functions that chains_of names, in order."""
    if mode == "rust":
        known = {name for chain in RUST for name in chain}
    else:
        known = {name for chain in chains_of(mode) for name in chain}
        known |= {"main", f"Run{RUN[mode]}()"}
        known |= {"threads_task", "threads_leaf"} if mode == "threads" else set()
    stripped = (CLONE.sub("", name) for name in names)
    return [name for name in stripped if name in known]


def why_wrong(mode, names):
    """'' when the stack (root first) is the beginning of a known chain, else what is wrong."""
    own = own_functions(mode, names)
    if mode == "rust":
        chains = RUST
    else:
        chains = [["main", f"Run{RUN[mode]}()"] + chain for chain in chains_of(mode)]
        if mode == "threads":
            chains.append(["threads_task", "threads_leaf"])
    if any(own == chain[:len(own)] for chain in chains):
        return ""
    shown = own if len(own) < 14 else own[:6] + ["..."] + own[-6:]
    return f"{';'.join(shown)} ({len(own)} functions) is no known chain of {mode}"


def reaches_leaf(mode, names):
    """True when the stack got as far as the function that the mode spends its time in."""
    own = own_functions(mode, names)
    if mode == "rust":
        return "rust_leaf" in own
    if mode == "resolve":  # most of it is dlopen and dlclose
        return "RunResolve()" in own
    ends = {chain[-1] for chain in chains_of(mode) if chain} | {"threads_leaf"}
    return bool(own) and own[-1] in ends
