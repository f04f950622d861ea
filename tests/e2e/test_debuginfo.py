# SPDX-License-Identifier: Apache-2.0
"""The server names what the agent could not: a stripped program is sampled, its debug file is
uploaded afterwards, and the profile that was stored before shows inlined functions, files and
lines."""
import json
import os
import shutil
import socket
import subprocess
import time
import unittest
import urllib.error
import urllib.request

from harness import (FirewatchTest, Program, binary, require_sampling, require_tool,
                     wait_until)


class DebugInfoTest(FirewatchTest):

    def stripped(self, source, name):
        """A stripped copy without a debuglink, and its debug file elsewhere: no agent finds it."""
        require_tool("objcopy")
        program = os.path.join(self.folder, name)
        away = os.path.join(self.folder, "away")
        os.makedirs(away, exist_ok=True)
        debug = os.path.join(away, name + ".debug")
        subprocess.run(["objcopy", "--only-keep-debug", binary(source), debug], check=True)
        subprocess.run(["objcopy", "--strip-all", binary(source), program], check=True)
        os.chmod(program, 0o755)
        return program, debug

    def upload(self, server, *files):
        return self.run_program("firewatch", "debuginfo", "upload", "--server",
                                f"127.0.0.1:{server.port}", *files)

    def begin_here(self):
        """Leaves out what was stored until now. Windows of a second may close before a program that
        ran before the agent has been opened: its frames are then known by path and address only,
        and no debug information can be theirs."""
        time.sleep(1.5)
        self.range = {"from": int(time.time() * 1000)}

    range = {}

    def folded(self, server, query):
        lines = server.query("/api/v1/profile", query, format="folded", type="samples",
                             **self.range).decode()
        return {line.rpartition(" ")[0]: int(line.rpartition(" ")[2])
                for line in lines.splitlines()}

    def unnamed(self, server, query):
        return json.loads(server.query("/api/v1/unnamed", query, type="samples", **self.range))

    def put(self, server, build_id, body):
        request = urllib.request.Request(
            f"http://127.0.0.1:{server.port}/api/v1/debuginfo/{build_id}", data=body, method="PUT")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def test_a_stored_profile_gets_names_when_its_debug_file_arrives(self):
        require_sampling()
        program, debug = self.stripped("workload_inline_chain", "secretive")
        server = self.start_server()
        workload = self.own(Program(self.folder, "secretive", [program, "--seconds", "120"]))
        agent = self.start_agent(server, arguments=("--pid", str(workload.pid)))
        query = '{comm="secretive"}'
        wait_until(lambda: server.samples(query) > 100, 60, "samples of the stripped program")

        def told_why():
            """The row of the program, once its file has been read."""
            rows = [one for one in self.unnamed(server, query)["binaries"] if one["path"] == program]
            return rows[0] if rows and rows[0]["reason"] != "pending" else None

        wait_until(told_why, 60, "why the program has no names")
        self.begin_here()
        wait_until(lambda: sum(self.folded(server, query).values()) > 100, 60, "more samples")
        workload.kill()
        agent.stop()
        row = told_why()

        before = self.folded(server, query)
        bare = {stack: count for stack, count in before.items() if "secretive+0x" in stack}
        self.assertGreater(sum(bare.values()), 0.9 * sum(before.values()), before)
        # The dynamic symbols are still there, and name none of these frames.
        self.assertIn(row["reason"], ("stripped", "no_symbols"), row)
        self.assertIn(f"firewatch debuginfo upload {program}", row["advice"])
        told = self.unnamed(server, query)
        self.assertGreater(told["frames"], 0.3 * told["all_frames"])

        # What is not the file is refused, and nothing changes.
        status, text = self.put(server, row["build_id"], open(binary("workload_depth"), "rb").read())
        self.assertEqual(status, 422, text)
        self.assertIn("has build id", text)
        self.assertEqual(self.put(server, row["build_id"], b"no file at all")[0], 422)
        code, text = self.upload(server, program)
        self.assertEqual(code, 1, text)
        self.assertIn("stripped", text)
        self.assertEqual(self.folded(server, query), before)

        code, text = self.upload(server, debug)
        self.assertEqual(code, 0, text)
        self.assertIn("ready: functions, files and lines", text)
        after = self.folded(server, query)
        self.assertEqual(sum(after.values()), sum(before.values()))
        # Stacks that were two addresses of one function may meet; none is split.
        self.assertLessEqual(len(after), len(before))
        named = sum(count for stack, count in after.items() if "main;outer;middle;inner" in stack)
        self.assertGreater(named, 0.9 * sum(after.values()), after)
        self.note(f"{named} of {sum(after.values())} samples show the inlined chain")

        tree = json.loads(server.query("/api/v1/profile", query, format="json", **self.range))
        nodes, names = tree["nodes"], tree["names"]
        inner = next(i for i, name in enumerate(nodes["name"]) if names[name] == "inner")
        self.assertEqual(nodes["flags"][inner] & 7, 1, "inlined and named")
        self.assertTrue(names[nodes["source"][inner]].endswith("tests/workloads/inline_chain.cc"))
        self.assertGreater(nodes["line"][inner], 0)
        self.assertFalse(any(one["path"] == program for one in self.unnamed(server, query)["binaries"]))
        top = json.loads(server.query("/api/v1/top", query, **self.range))
        self.assertEqual(top["functions"][0]["name"], "inner")

        code, text = self.run_program("firewatch", "debuginfo", "list", "--server",
                                      f"127.0.0.1:{server.port}")
        self.assertEqual(code, 0, text)
        self.assertRegex(text, rf"{row['build_id']} +ready .*{program}")

        # The index and what the agent told are on disk: a server that starts anew names at once.
        server.stop()
        server = self.start_server(data=server.data)
        wait_until(lambda: self.folded(server, query) == after, 30, "names after a restart")

    def test_names_that_debug_files_share_are_put_in_when_their_common_file_arrives(self):
        """dwz moves what the debug files of a package share, names of inlined functions above all,
        into a file of its own."""
        require_sampling()
        require_tool("dwz")
        program, debug = self.stripped("workload_inline_chain", "sharing")
        away = os.path.dirname(debug)
        common = os.path.join(away, "common")
        shutil.copy(debug, os.path.join(away, "other.debug"))
        subprocess.run(["dwz", "-m", "common", "sharing.debug", "other.debug"], cwd=away, check=True)
        elsewhere = os.path.join(self.folder, "elsewhere")
        os.rename(common, elsewhere)

        server = self.start_server()
        workload = self.own(Program(self.folder, "sharing", [program, "--seconds", "120"]))
        agent = self.start_agent(server, arguments=("--pid", str(workload.pid)))
        query = '{comm="sharing"}'
        wait_until(lambda: server.samples(query) > 100, 60, "samples of the stripped program")
        self.begin_here()
        wait_until(lambda: sum(self.folded(server, query).values()) > 100, 60, "more samples")
        workload.kill()
        agent.stop()

        code, text = self.upload(server, debug)
        self.assertEqual(code, 0, text)
        self.assertIn("names of inlined functions will be missing until it is uploaded", text)
        some = self.folded(server, query)
        self.assertFalse(any("middle;inner" in stack for stack in some), some)
        _, text = self.run_program("firewatch", "debuginfo", "list", "--server",
                                   f"127.0.0.1:{server.port}")
        self.assertRegex(text, "names are in a dwz file that is missing, build id [0-9a-f]{40}")

        # Also a server that has started anew knows who waits.
        server.stop()
        server = self.start_server(data=server.data)
        code, text = self.upload(server, elsewhere)
        self.assertEqual(code, 0, text)
        self.assertIn("a common file of dwz", text)

        def named():
            stacks = self.folded(server, query)
            inner = sum(n for stack, n in stacks.items() if "main;outer;middle;inner" in stack)
            return inner > 0.9 * sum(stacks.values())

        wait_until(named, 30, "the names of the common file")

        # Where the common file is at hand it is sent before.
        os.rename(elsewhere, common)
        server.stop()
        other = self.start_server(data=os.path.join(self.folder, "other"))
        code, text = self.upload(other, debug)
        self.assertEqual(code, 0, text)
        self.assertIn(f"{common}: debug of build id", text)
        _, text = self.run_program("firewatch", "debuginfo", "list", "--server",
                                   f"127.0.0.1:{other.port}")
        self.assertNotIn("missing", text)

    def test_a_debuginfod_server_that_never_answers_delays_nothing(self):
        with socket.socket() as hole:
            hole.bind(("127.0.0.1", 0))
            hole.listen(16)
            os.environ["DEBUGINFOD_URLS"] = f"http://127.0.0.1:{hole.getsockname()[1]}"
            self.addCleanup(os.environ.pop, "DEBUGINFOD_URLS", None)
            server = self.start_server()
            require_sampling()
            program, _ = self.stripped("workload_inline_chain", "secretive")
            workload = self.own(Program(self.folder, "secretive", [program, "--seconds", "60"]))
            self.start_agent(server, arguments=("--pid", str(workload.pid)))
            query = '{comm="secretive"}'
            wait_until(lambda: server.samples(query) > 0, 30, "the first result")
            wait_until(lambda: self.unnamed(server, query)["frames"] > 0, 10, "a bare frame")
            hole.settimeout(0.5)

            def asked():
                """A query that meets a bare frame asks, unless the agent may still name it."""
                self.unnamed(server, query)
                try:
                    hole.accept()[0].close()
                except TimeoutError:
                    return False
                return True

            wait_until(asked, 60, "the server to ask debuginfod")
            server.stop(20)

    def test_an_agent_sends_debug_information_once_for_all_agents(self):
        require_sampling()
        require_tool("objcopy")
        server = self.start_server()
        program = os.path.join(self.folder, "open_hearted")
        subprocess.run(["objcopy", binary("workload_inline_chain"), program], check=True)
        os.chmod(program, 0o755)
        workload = self.own(Program(self.folder, "open_hearted", [program, "--seconds", "240"]))
        arguments = ("--pid", str(workload.pid), "--lines", "off",
                     "--debuginfo-server", f"http://127.0.0.1:{server.port}")
        first = self.start_agent(server, arguments=arguments)
        query = '{comm="open_hearted"}'

        def named():
            return sum(count for stack, count in self.folded(server, query).items()
                       if "main;outer;middle;inner" in stack)

        wait_until(lambda: any("main;" in stack for stack in self.folded(server, query)), 60,
                   "names of the program")
        self.begin_here()
        wait_until(lambda: sum(self.folded(server, query).values()) > 0, 60, "samples of the program")
        uploaded = 'firewatch_debuginfo_uploads_total{result="uploaded"}'
        present = 'firewatch_debuginfo_uploads_total{result="present"}'
        wait_until(lambda: first.metrics()[uploaded] >= 1, 120, "an upload by the agent")
        wait_until(lambda: named() > 0, 60, "inlined functions, named by the server")
        first.stop()
        # Also what was stored before the upload.
        samples = self.folded(server, query)
        self.assertGreater(named(), 0.9 * sum(samples.values()), samples)
        entry = next(one for one in json.loads(server.get("/api/v1/debuginfo"))["binaries"]
                     if one["path"] == program)
        self.assertEqual([(one["kind"], one["source"]) for one in entry["files"]],
                         [("executable", "agent")], entry)
        self.assertEqual((entry["state"], entry["lines"]), ("ready", True), entry)

        second = self.start_agent(server, arguments=arguments,
                                  spool=os.path.join(self.folder, "second_spool"))
        wait_until(lambda: second.metrics()[present] >= 1, 120, "an answer to the second agent")
        again = next(one for one in json.loads(server.get("/api/v1/debuginfo"))["binaries"]
                     if one["path"] == program)
        self.assertEqual(again["files"][0]["stored_ms"], entry["files"][0]["stored_ms"])
        self.note(f"{named()} samples named; sent {entry['files'][0]['bytes']} bytes once")


if __name__ == "__main__":
    unittest.main()
