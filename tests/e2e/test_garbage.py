# SPDX-License-Identifier: Apache-2.0
"""Garbage on every input: a clear answer, a counter, the process alive and quick."""
import random
import re
import socket
import time

from harness import FirewatchTest, is_sanitized, require_sampling

# (path with query, accepted statuses). Every answer must also say why in its body.
BAD_REQUESTS = [
    ("/api/v1/profile?query=%7B", (400,)),
    ("/api/v1/profile?query=%7Bservice%7D", (400,)),
    ("/api/v1/profile?query=%7Bservice%3D~%22(%22%7D", (400,)),
    ("/api/v1/profile?query=%7Ba%3D%22" + "x" * 20_000 + "%22%7D", (400, 414, 431)),
    ("/api/v1/profile?query=%00%ff%fe", (400,)),
    ("/api/v1/profile?from=yesterday", (400,)),
    ("/api/v1/profile?from=99999999999999999999999", (400,)),
    ("/api/v1/profile?from=now-5m&to=now-15m", (400,)),
    ("/api/v1/profile?from=now-999999999999d", (400,)),
    ("/api/v1/profile?format=exe", (400,)),
    ("/api/v1/profile?type=mana", (400,)),
    ("/api/v1/top?limit=-1", (400,)),
    ("/api/v1/top?limit=many", (400,)),
    ("/api/v1/series?step=0", (400,)),
    ("/api/v1/labels/%2e%2e%2f%2e%2e/values", (200, 400, 404)),
    ("/pprof/profile?seconds=-5", (400,)),
    ("/pprof/profile?seconds=1e99", (400,)),
    ("/api/v1/no-such-thing", (404,)),
    ("/../../../../etc/passwd", (400, 404)),
    ("/%2e%2e/%2e%2e/etc/passwd", (400, 404)),
]
RAW_HTTP = [
    b"\x00" * 1000,
    b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\n\r\n",  # no Host
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X: " + b"y" * 200_000 + b"\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
    b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + b"F" * 17,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 64,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x5a" * 500,  # a TLS greeting
]
# What the server must answer to each spoiled window (tests/tools/load.h).
SPOILED = {
    "truncated-zstd": "INVALID_ARGUMENT", "huge-length": "INVALID_ARGUMENT",
    "bomb": "INVALID_ARGUMENT", "cyclic-ids": "INVALID_ARGUMENT",
    "dangling-ids": "INVALID_ARGUMENT", "random-pprof": "INVALID_ARGUMENT",
    "empty-profile": "INVALID_ARGUMENT", "bad-labels": "INVALID_ARGUMENT",
    "huge-label": "INVALID_ARGUMENT", "future-window": "INVALID_ARGUMENT",
    "backward-window": "INVALID_ARGUMENT", "no-agent-id": "INVALID_ARGUMENT",
    "old-protocol": "FAILED_PRECONDITION", "new-protocol": "FAILED_PRECONDITION",
    "unknown-fields": "OK",
}
REFUSALS = re.compile(r"refused|rejected|invalid|malformed|forbidden|errors_total")


def say(port, data, answer_seconds=2):
    """Sends bytes, reads until the peer closes, is silent, or has said enough."""
    answer = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=answer_seconds) as peer:
            peer.sendall(data)
            while len(answer) < 65_536:
                chunk = peer.recv(65_536)
                if not chunk:
                    break
                answer += chunk
    except OSError:
        pass  # closed while we were still talking: a fair answer to garbage
    return answer


def raw_status(answer):
    match = re.match(rb"HTTP/1\.[01] (\d{3})", answer)
    return int(match.group(1)) if match else None


class GarbageTest(FirewatchTest):

    def check_health(self, program, what):
        """Alive and quick. A sanitized binary on a busy machine gets ten times the time."""
        self.assertTrue(program.alive(), f"ended after {what}:\n{program.tail()}")
        took_ms = min(program.health_ms() for _ in range(3))
        limit_ms = 1000 if is_sanitized(program.name) else 100
        self.assertLess(took_ms, limit_ms, f"/healthz in ms after {what}")
        return took_ms

    def refusals(self, program):
        return sum(v for k, v in program.metrics().items() if REFUSALS.search(k))

    def throw_at_http(self, program):
        for data in RAW_HTTP:
            answer = say(program.port, data)
            status = raw_status(answer)
            self.assertTrue(status is None or 400 <= status < 600 and status != 500,
                            f"{data[:60]!r}: {answer[:200]!r}")
        chance = random.Random(11)
        for size in (1, 16, 300, 5000, 70_000):
            say(program.port, chance.randbytes(size), 0.3)
        self.check_health(program, "bytes that are no HTTP")

    def silent_connections(self, port, count=200):
        silent = []
        for _ in range(count):
            peer = socket.create_connection(("127.0.0.1", port), timeout=5)
            self.addCleanup(peer.close)
            silent.append(peer)
        return silent

    def test_http_of_the_server(self):
        server = self.start_server()
        for path, accepted in BAD_REQUESTS:
            with self.subTest(path=path[:60]):
                status, body = server.request(path)
                self.assertIn(status, accepted, f"{path[:80]}: {body[:200]!r}")
                self.assertGreater(len(body), 5, "the answer says nothing")
        for method in ("DELETE", "PUT"):
            status, _ = server.request("/api/v1/labels", method=method)
            self.assertIn(status, (400, 404, 405, 501), method)
        before = self.refusals(server)
        self.throw_at_http(server)
        self.assertGreater(self.refusals(server), before, "no counter of refused requests grew")

    def test_a_time_range_from_the_future_is_empty_or_an_error(self):
        server = self.start_server()
        far_ms = int(time.time() * 1000) + 10 * 365 * 86_400_000
        for path in ("/api/v1/profile", "/api/v1/top", "/api/v1/series", "/pprof/profile"):
            status, body = server.request(f"{path}?from={far_ms}&to={far_ms + 1000}")
            self.assertIn(status, (200, 400, 404), f"{path}: {body[:200]!r}")
        self.check_health(server, "queries of the future")

    def test_silent_connections_cost_nothing(self):
        server = self.start_server()
        self.silent_connections(server.port)
        self.silent_connections(server.grpc_port)
        took_ms = self.check_health(server, "2 x 200 silent connections")
        self.note(f"/healthz {took_ms:.1f} ms beside 400 silent connections")

    def test_random_bytes_on_the_grpc_port(self):
        server = self.start_server()
        chance = random.Random(13)
        for size in (1, 24, 500, 20_000):
            for _ in range(5):
                say(server.grpc_port, chance.randbytes(size), 0.2)
        for data in RAW_HTTP:
            say(server.grpc_port, data, 0.2)
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        for _ in range(10):  # a good greeting, then frames of nonsense
            say(server.grpc_port, preface + chance.randbytes(2000), 0.2)
        self.check_health(server, "random bytes on the gRPC port")
        self.upload_good_window(server)

    def upload_good_window(self, server):
        code, log = self.run_program("ingest_client", "--server",
                                     f"127.0.0.1:{server.grpc_port}", "--give-up", 20)
        self.assertEqual(code, 0, log)
        self.assertEqual(server.profile().self_by_name().get("window_0_1"), 1_000_001)

    def test_spoiled_windows_are_refused_and_counted(self):
        server = self.start_server()
        before = self.refusals(server)
        for kind, wanted in SPOILED.items():
            with self.subTest(kind=kind):
                _, log = self.run_program("ingest_client", "--server",
                                          f"127.0.0.1:{server.grpc_port}", "--spoil", kind)
                status, message = re.search(r"status=(\w+) message=(.*)", log).groups()
                self.assertEqual(status, wanted, message)
                if wanted != "OK":
                    self.assertGreater(len(message), 8, "the refusal says nothing")
        refused = sum(1 for wanted in SPOILED.values() if wanted != "OK")
        self.assertGreaterEqual(self.refusals(server) - before, refused - 2,
                                "the counters of refused uploads")
        self.check_health(server, "spoiled windows")
        self.upload_good_window(server)

    def test_http_of_the_agent(self):
        require_sampling()
        agent = self.start_agent(1)  # nobody listens there: the agent lives without a server
        self.throw_at_http(agent)
        for path in ("/no-such-thing", "/../../etc/passwd", "/metrics/%00", "/?" + "x" * 9000):
            status, _ = agent.request(path)
            self.assertIn(status, (200, 400, 404, 414, 431), path[:40])
        self.silent_connections(agent.port)
        took_ms = self.check_health(agent, "200 silent connections")
        self.note(f"/healthz {took_ms:.1f} ms beside 200 silent connections")
