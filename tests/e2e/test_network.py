# SPDX-License-Identifier: Apache-2.0
"""The TCP probe end to end: a lossy path in a network namespace of this test, an agent that looks
at that namespace alone, and what the command line, the page, Prometheus and the server say of it."""
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.parse

from harness import Agent, FirewatchTest, HttpProgram, binary, free_port, require_root, wait_until


class NetworkTest(FirewatchTest):

    def setUp(self):
        super().setUp()
        require_root()
        for tool in ("nft", "ip", "nsenter", "nstat"):
            if not shutil.which(tool):
                self.skipTest(f"no {tool} on this machine")
        self.holder = subprocess.Popen(["unshare", "-n", "sh", "-c",
                                        "ip link set lo up && echo up && exec sleep 300"],
                                       stdout=subprocess.PIPE, text=True)
        self.addCleanup(self.end, self.holder)
        if self.holder.stdout.readline().strip() != "up":
            self.skipTest("no network namespaces here")
        self.path = f"/proc/{self.holder.pid}/ns/net"
        self.config = os.path.join(self.folder, "agent.yaml")
        with open(self.config, "w", encoding="ascii") as file:
            file.write(f"modules: [network]\nbudget: 50\nnetwork:\n  interval: 500ms\n"
                       f"  window: 1s\n"
                       f"  network-namespaces: [{os.stat(self.path).st_ino}]\n")
        self.agent = self.own(Agent(self.folder, 1, arguments=["--config", self.config]))
        self.agent.wait_healthy()
        # The page answers before the modules are started.
        wait_until(lambda: self.module()["state"] != "off", 20,
                   "the module network is off")

    def module(self):
        status = json.loads(self.agent.get("/status"))
        return next(m for m in status["modules"] if m["name"] == "network")

    @staticmethod
    def end(process):
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()

    def inside(self, *command):
        return subprocess.run(["nsenter", f"--net={self.path}", *command], check=True,
                              capture_output=True, text=True, timeout=60).stdout

    def serve(self, port):
        server = subprocess.Popen(["nsenter", f"--net={self.path}", binary("workload_tcp"), "serve",
                                   str(port), "1000000", "0"], stdout=subprocess.PIPE, text=True)
        self.addCleanup(self.end, server)
        self.assertEqual(server.stdout.readline().strip(), "ready")
        return server

    def connections(self, *arguments):
        return subprocess.run([binary("firewatch"), "connections", "--agent",
                               f"127.0.0.1:{self.agent.port}", *arguments], check=True,
                              capture_output=True, text=True, timeout=60).stdout

    def retransmits(self):
        return sum(value for name, value in self.agent.metrics().items()
                   if name.startswith("firewatch_network_retransmits_total"))

    def test_a_retransmit_becomes_a_prometheus_counter(self):
        self.serve(80)
        self.inside(
            "sh", "-c", "nft add table ip t && nft add chain ip t in "
            "'{ type filter hook input priority 0 ; }' && "
            "nft add rule ip t in tcp dport 80 tcp flags syn numgen inc mod 4 == 0 drop")
        self.inside(binary("workload_tcp"), "dial", "127.0.0.1", "80", "12")
        kernel = int(self.inside("nstat", "-asz", "TcpRetransSegs").split()[-2])
        self.assertGreaterEqual(kernel, 3)
        wait_until(lambda: self.retransmits() == kernel, 10,
                   f"retransmits are not the {kernel} that the kernel counts")
        self.check_with_promtool()
        self.scrape_with_prometheus(kernel)

    def check_with_promtool(self):
        if not shutil.which("promtool"):
            return  # Debian's prometheus is not installed: the format is checked by unit tests
        checked = subprocess.run(["promtool", "check", "metrics"], input=self.agent.get("/metrics"),
                                 capture_output=True, timeout=30)
        self.assertEqual((checked.returncode, checked.stdout, checked.stderr), (0, b"", b""))

    def scrape_with_prometheus(self, kernel):
        program = shutil.which("prometheus")
        if not program:
            return
        config, port = os.path.join(self.folder, "prometheus.yml"), free_port()
        with open(config, "w", encoding="ascii") as file:
            json.dump({"scrape_configs": [{"job_name": "agent", "scrape_interval": "1s",
                                           "static_configs": [{"targets": [
                                               f"127.0.0.1:{self.agent.port}"]}]}]}, file)
        prometheus = self.own(HttpProgram(self.folder, "prometheus", [
            program, f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}",
            f"--storage.tsdb.path={self.folder}/tsdb"], port))
        query = urllib.parse.quote("sum(firewatch_network_retransmits_total)")

        def scraped():
            try:
                status, body = prometheus.request(f"/api/v1/query?query={query}")
            except OSError:
                return False
            result = json.loads(body)["data"]["result"] if status == 200 else []
            return bool(result) and float(result[0]["value"][1]) == kernel
        wait_until(scraped, 30, "Prometheus has no retransmits of the agent")

    def test_command_lists_follows_and_filters(self):
        server = self.serve(81)
        follow = subprocess.Popen([binary("firewatch"), "connections", "--follow", "-o", "json",
                                   "--agent", f"127.0.0.1:{self.agent.port}"],
                                  stdout=subprocess.PIPE, text=True)
        self.addCleanup(self.end, follow)
        time.sleep(1.5)
        self.inside(binary("workload_tcp"), "dial", "127.0.0.1", "81", "5")
        refused = subprocess.run(["nsenter", f"--net={self.path}", binary("workload_tcp"), "dial",
                                  "127.0.0.1", "9", "1"], check=False, timeout=30,
                                 stdout=subprocess.DEVNULL)
        self.assertEqual(refused.returncode, 1)
        events = [json.loads(follow.stdout.readline()) for _ in range(20)]
        self.assertEqual({event["comm"] for event in events}, {"workload_tcp"})
        kinds = [event["event"] for event in events]
        self.assertEqual(kinds.count("established"), 10)
        answer = json.loads(self.connections("-o", "json"))
        self.assertEqual(answer["failures"], {"ECONNREFUSED": 1})
        self.assertEqual(answer["totals"]["in"]["closed"], 5)
        self.assertEqual(answer["totals"]["out"]["closed"], 5)
        self.assertEqual(answer["totals"]["out"]["bytes_received"], 10)
        self.assertEqual(len(answer["listeners"]), 1)
        text = self.connections()
        self.assertIn("workload_tcp", text)
        self.assertIn("0.0.0.0:81", text)
        self.assertIn("ECONNREFUSED", text)
        children = json.loads(self.connections("-o", "json", "--pid", str(server.pid)))
        self.assertEqual([item["local"] for item in children["listeners"]], ["0.0.0.0:81"])
        self.assertEqual(json.loads(self.connections("-o", "json", "--pid", "1"))["listeners"], [])

    def on_server(self, server):
        """{(program, role): (opened, closed, sent, received)} of port 82; answers of the server."""
        answer = json.loads(server.query("/api/v1/connections", sort="bytes"))
        sums = {}
        for row in answer["rows"]:
            if row["port"] != 82:
                continue
            self.assertEqual(row["remote"], "127.0.0.1")
            key = (os.path.basename(row["labels"]["exe"]), row["role"])
            numbers = [row[name] for name in ("opened", "closed", "bytes_sent", "bytes_received")]
            sums[key] = tuple(a + b for a, b in zip(sums.get(key, (0, 0, 0, 0)), numbers))
        return sums

    def test_server_has_every_byte_once(self):
        dialer = os.path.join(self.folder, "dialer")
        shutil.copyfile(binary("workload_tcp"), dialer)
        os.chmod(dialer, 0o755)
        self.serve(82)
        self.inside(dialer, "dial", "127.0.0.1", "82", "12")
        # There is no server yet: everything waits in the spool, the rest is written at the end.
        self.agent.stop()
        backup = os.path.join(self.folder, "spool-before")
        shutil.copytree(self.agent.spool, backup)
        expected = {("dialer", "connect"): (12, 12, 0, 24),
                    ("workload_tcp", "accept"): (12, 12, 24, 0)}
        server = self.start_server()
        again = self.own(Agent(self.folder, server.grpc_port,
                               arguments=["--config", self.config])).wait_healthy()
        wait_until(lambda: self.on_server(server) == expected, 30, "the server has not everything")
        again.stop()
        server.stop()
        server = self.start_server(http_port=server.port, grpc_port=server.grpc_port)
        self.assertEqual(self.on_server(server), expected)
        # An agent that has not heard that its windows were stored sends them again.
        shutil.rmtree(self.agent.spool)
        shutil.copytree(backup, self.agent.spool)
        self.own(Agent(self.folder, server.grpc_port,
                       arguments=["--config", self.config])).wait_healthy()
        wait_until(lambda: server.metric("firewatch_ingest_duplicates_total") >= 1, 30,
                   "nothing was sent again")
        self.assertEqual(self.on_server(server), expected)

    def test_single_connections_only_for_those_who_have_the_token(self):
        with open(self.config, encoding="ascii") as file:
            text = file.read()
        self.assertEqual(self.agent.request("/api/v1/connections?limit=0")[0], 200)
        with open(self.config, "w", encoding="ascii") as file:
            file.write(text + "  connections-need-token: on\n")
        self.agent.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.agent.request("/api/v1/connections?limit=0")[0] == 401, 20,
                   "anybody may read the connections")
        self.assertEqual(self.agent.request("/metrics")[0], 200)
        self.assertIn("totals", json.loads(self.connections("-o", "json")))

    def test_status_says_that_the_module_is_active(self):
        module = self.module()
        self.assertIn(module["state"], ("active", "degraded"))
        self.assertTrue(module["details"]["programs"])
