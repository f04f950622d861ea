# SPDX-License-Identifier: Apache-2.0
"""Who may talk to the HTTP ports: this machine, by its own names, and nobody's web page."""
import os

from harness import Agent, FirewatchTest, Server, require_sampling

FOREIGN = ["evil.example", "evil.example:7171", "127.0.0.1.evil.example", "192.0.2.1",
           "localhost.evil"]


class SecurityTest(FirewatchTest):

    def check_policy(self, program, path):
        for host in FOREIGN:
            status, body = program.request(path, headers={"Host": host})
            self.assertEqual(status, 403, f"Host {host}: {body[:100]!r}")
        for origin in ("http://evil.example", "https://localhost.evil", "null"):
            status, body = program.request(path, headers={"Origin": origin})
            self.assertEqual(status, 403, f"Origin {origin}: {body[:100]!r}")
        for host in (f"127.0.0.1:{program.port}", f"localhost:{program.port}"):
            status, _ = program.request(path, headers={"Host": host})
            self.assertEqual(status, 200, f"Host {host}")
        status, _ = program.request(path, headers={"Origin": f"http://127.0.0.1:{program.port}"})
        self.assertEqual(status, 200, "its own origin")

    def test_foreign_host_and_origin_at_the_server(self):
        self.check_policy(self.start_server(), "/api/v1/labels")

    def test_foreign_host_and_origin_at_the_agent(self):
        require_sampling()
        self.check_policy(self.start_agent(1), "/metrics")

    def refused(self, program):
        """It must end by itself, at once, and say what would make it start."""
        self.own(program)
        self.assertNotEqual(program.wait(30), 0, program.tail())
        self.assertIn("--insecure", program.log(), program.tail())

    def test_server_listens_on_loopback_only(self):
        for option in ("http_host", "grpc_host"):
            with self.subTest(option=option):
                self.refused(Server(self.folder, os.path.join(self.folder, "data"),
                                    **{option: "0.0.0.0"}))

    def test_server_listens_elsewhere_when_told_to(self):
        server = self.start_server(http_host="0.0.0.0", grpc_host="0.0.0.0",
                                   arguments=["--insecure"])
        self.assertTrue(server.is_healthy())

    def test_agent_listens_on_loopback_only(self):
        require_sampling()
        self.refused(Agent(self.folder, 1, http_host="0.0.0.0"))
