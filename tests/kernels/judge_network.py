# SPDX-License-Identifier: Apache-2.0
"""The TCP probe in a guest (network.sh): what it counted beside what the kernel counted."""
import json
import re


def counters(page):
    """{name: {labels as written: value}} of the probe's metrics."""
    found = {}
    for name, labels, value in re.findall(r"^(firewatch_network_\w+)(?:\{(.*)\})? (\S+)$", page, re.M):
        found.setdefault(name.removeprefix("firewatch_network_"), {})[labels] = float(value)
    return found


def judge(verdict, outcome, kernel):
    """`kernel`: (major, minor)."""
    page = counters(outcome.text("network_metrics.txt"))
    traffic = outcome.text("network_traffic.txt")
    verdict.check("network loads", "retransmits_total" in page,
                  "no metrics of the probe\n" + outcome.text("modules_agent.txt")[-3000:])
    if "retransmits_total" not in page:
        return
    sent_again = int(re.findall(r"^retransmitted (\d+)", traffic, re.M)[-1])
    counted = sum(page["retransmits_total"].values())
    lossy = "loss yes" in traffic
    verdict.figures["retransmits"] = f"{counted:.0f} of {sent_again}" + ("" if lossy else " (no netem)")
    verdict.check("network retransmits", counted == sent_again and (sent_again > 0 or not lossy),
                  f"{counted:.0f} counted, {sent_again} by the kernel, with loss: {lossy}\n{traffic}")
    calls = page.get("retransmit_calls_total", {}).get("")
    # The function may find that it cannot send now: more calls than segments. SYN-ACKs have their own.
    through = counted - page["retransmits_total"].get('kind="syn_ack"', 0)
    verdict.figures["by kprobe"] = "-" if calls is None else f"{calls:.0f} of {through:.0f}"
    verdict.check("network kprobe", calls is not None and calls >= through,
                  f"{calls} calls seen by the kprobe, {through:.0f} segments of data and SYNs")
    failed = page.get("connections_failed_total", {})
    for error, least in (("ECONNREFUSED", 3), ("ENETUNREACH", 2)):
        found = failed.get(f'error="{error}"', 0)
        verdict.figures[error] = f"{found:.0f}"
        verdict.check(f"network {error}", found == least or (error == "ECONNREFUSED" and found > least),
                      f"{found} of {least}: {failed}")
    judge_drops(verdict, page.get("drops_total", {}), lossy, kernel)


def judge_drops(verdict, drops, lossy, kernel):
    names = {re.search(r'reason="([^"]*)"', labels).group(1): value for labels, value in drops.items()}
    verdict.figures["drops"] = ", ".join(f"{name} {value:.0f}" for name, value in sorted(names.items())) or "-"
    verdict.check("network drops", names, "none")
    if kernel >= (6, 12):
        wanted = ["NO_SOCKET"] + (["QDISC_DROP"] if lossy else [])
        verdict.check("network drop reasons", all(name in names for name in wanted),
                      f"{wanted} not among {names}")


def verified(outcome):
    """{program: verified instructions} of the probe, of kernels that keep the count (5.16)."""
    status = json.loads(outcome.text("modules.json"))
    details = next((m.get("details", {}) for m in status["modules"] if m["name"] == "network"), {})
    return {f"network.{program['name']}": program["verified_instructions"]
            for program in details.get("programs", []) if program["verified_instructions"]}
