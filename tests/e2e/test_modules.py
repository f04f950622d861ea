# SPDX-License-Identifier: Apache-2.0
"""Parts of the agent beside others: modules that fail, settings that change, a budget that is kept."""
import json
import os
import re
import signal
import time

from harness import (FirewatchTest, binary, require_sampling, selector_of, short_or_full,
                     wait_until)

ALL = "cpu,ticker,unloadable,forgetful"


class ModulesTest(FirewatchTest):

    def write(self, text):
        path = os.path.join(self.folder, "agent.yaml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def start_modules(self, server, *arguments, **options):
        return self.start_agent(server, program=binary("agent_with_test_modules"),
                                arguments=["--modules", ALL, *arguments], **options)

    def modules(self, agent):
        rows = json.loads(agent.get("/status"))["modules"]
        return {row["name"]: row for row in rows}

    def wait_state(self, agent, name, state, seconds=20, why=""):
        def there():
            row = self.modules(agent)[name]
            return row["state"] == state and why in row["why"]
        wait_until(there, seconds, f"module {name} is not {state} {why}")
        return self.modules(agent)[name]

    def reload(self, agent, result="done"):
        """Sends SIGHUP and waits until it was answered by `result`."""
        name = 'firewatch_agent_config_reloads_total{result="%s"}' % result
        before = agent.metrics()[name]
        os.kill(agent.pid, signal.SIGHUP)
        wait_until(lambda: agent.metrics()[name] > before, 20, f"no reload {result}")


class FailureTest(ModulesTest):

    def test_modules_that_fail_leave_the_profiler_alone(self):
        require_sampling()
        server = self.start_server()
        agent = self.start_modules(server)
        modules = self.modules(agent)
        self.assertEqual(modules["cpu"]["state"], "active")
        self.assertEqual(modules["ticker"]["state"], "active")
        self.assertEqual(modules["unloadable"]["state"], "off")
        self.assertIn("load unloadable.bpf.c: ", modules["unloadable"]["why"])
        self.assertIn("module unloadable is off: load", agent.get("/healthz").decode())
        self.assertGreaterEqual(int(agent.get("/ticker")), 1)
        self.assertEqual(agent.metrics()['firewatch_agent_module_state{module="unloadable"}'], 0)

        self.wait_state(agent, "forgetful", "active")
        agent.get("/forgetful/forget")
        row = self.wait_state(agent, "forgetful", "off", why="its maps are gone")
        self.note(row["why"])
        self.wait_state(agent, "forgetful", "active")
        self.assertEqual(agent.metrics()['firewatch_agent_module_failures_total{module="cpu"}'], 0)

        # The server's page shows what each window says.
        def told():
            nodes = server.status()["nodes"]
            return nodes and any(module["name"] == "unloadable" and module["state"] == "off"
                                 for module in nodes[0]["modules"])
        wait_until(told, 20, "the server does not know of the modules")
        self.assertEqual(agent.stop(), 0)
        self.assertGreater(server.samples(), 0)

    def test_doctor_shows_the_modules_of_an_agent(self):
        require_sampling()
        agent = self.start_modules(self.start_server())
        code, output = self.run_program("firewatch", "doctor", "--modules", "--agent",
                                        f"127.0.0.1:{agent.port}")
        self.assertEqual(code, 2, output)  # one is off
        self.assertRegex(output, r"ticker +active +all ticks")
        self.assertIn("load unloadable.bpf.c", output)
        self.assertEqual(agent.stop(), 0)


class ReloadTest(ModulesTest):

    def test_sighup_changes_one_module_and_a_bad_file_none(self):
        require_sampling()
        server = self.start_server()
        path = self.write("ticker:\n  interval: 50ms\n")
        agent = self.start_modules(server, "--config", path)
        self.assertEqual(self.modules(agent)["ticker"]["details"]["interval_ms"], 50)

        self.write("ticker:\n  interval: 10ms\n")
        self.reload(agent)
        self.assertEqual(self.modules(agent)["ticker"]["details"]["interval_ms"], 10)

        # Wrong in one place: refused whole, with the place and the nearest key.
        self.write("ticker:\n  interval: 900ms\nforgetful:\n  colour: red\n")
        self.reload(agent, "refused")
        self.assertEqual(self.modules(agent)["ticker"]["details"]["interval_ms"], 10)
        self.assertIn(f"reload refused, the running configuration stays: {path}:4: unknown key "
                      '"colour" in forgetful', agent.log())
        self.write("ticker:\n  intervall: 900ms\n")
        self.reload(agent, "refused")
        self.assertIn(f'{path}:2: unknown key "intervall" in ticker; did you mean "interval"?',
                      agent.log())
        self.write("ticker: [\n")
        self.reload(agent, "refused")
        self.assertEqual(self.modules(agent)["ticker"]["details"]["interval_ms"], 10)

        # Nobody was started again, no window was lost.
        starts = re.findall(r"module (\w+) is active", agent.log())
        self.assertEqual(sorted(starts), ["cpu", "forgetful", "ticker"])
        self.assertEqual(agent.metrics()['firewatch_agent_module_state{module="cpu"}'], 1)
        self.assertEqual(agent.stop(), 0)

    def test_what_needs_a_restart_is_said(self):
        require_sampling()
        path = self.write("ticker: {interval: 50ms}\n")
        agent = self.start_modules(self.start_server(), "--config", path)
        self.write("ticker: {interval: 50ms}\nnode: other\n")
        self.reload(agent)
        self.assertIn('"node" is changed in the configuration: that needs a restart', agent.log())
        self.assertEqual(agent.stop(), 0)


class BudgetTest(ModulesTest):

    def test_module_over_its_budget_steps_down_and_recovers(self):
        require_sampling()
        path = self.write("ticker:\n  burn: 60\n")
        # The profiler's rate is explicit and there is no --budget: it is not touched.
        agent = self.start_modules(self.start_server(), "--config", path, hz=19)
        row = self.wait_state(agent, "ticker", "degraded", 60, why="over its budget: half")
        self.note(row["why"])
        self.wait_state(agent, "ticker", "off", 60, why="over its budget even at its least")
        self.assertEqual(agent.metrics()[
            'firewatch_agent_module_steps_total{module="ticker",direction="down"}'], 2)
        self.assertEqual(self.modules(agent)["cpu"]["state"], "active")
        self.assertIn("budget: module ticker steps down from all ticks to half", agent.log())
        self.assertEqual(agent.request("/healthz")[0], 200)
        # A budget that it fits into: it comes back after its minute.
        self.write("budget: 90\nticker:\n  burn: 5\n")
        self.reload(agent)
        self.wait_state(agent, "ticker", "degraded", 100)
        if short_or_full(False, True):
            self.wait_state(agent, "ticker", "active", 100)
        self.assertEqual(agent.stop(), 0)

    def test_cpu_seconds_stay_right_while_the_rate_is_lowered(self):
        require_sampling()
        server = self.start_server()
        # Less than any profiler needs: a step about every dozen seconds, 199, 99, 49, 24 Hz.
        agent = self.start_agent(server, hz=199, window="2s", arguments=["--budget", "0.01"])
        steady = self.start("workload_shares", "--seconds", 40, priority=-5)
        steady.wait()
        steps = re.findall(r"budget: module cpu steps down from (\d+ Hz) to (\d+ Hz)", agent.log())
        self.note(f"steps {steps}")
        self.assertGreaterEqual(len(steps), 2)
        hz = {node["hz"] for node in server.status()["nodes"]}
        self.assertNotIn(199, hz)
        self.assertEqual(agent.stop(), 0)
        profile = server.profile(selector_of("workload_shares"))
        seen = profile.total("cpu") / 1e9
        used = steady.cpu_seconds()
        self.note(f"{seen:.2f} s in the profile of {used:.2f} CPU s used")
        self.assertLess(abs(seen / used - 1), 0.10)
