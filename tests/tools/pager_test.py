"""morsel pager: it is elected, stays, hands its pool out, takes over, and ends when it is told."""
import json
import os
import signal
import socket
import subprocess
import unittest

import support
from support import PoolTest


class Pager(PoolTest):
    def start(self, *args, env=None):
        process = subprocess.Popen([support.COMMAND, "pager", *args], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, env={**os.environ, **(env or {})})
        self.addCleanup(self.kill, process)
        return process

    @staticmethod
    def kill(process):
        if process.poll() is None:
            process.kill()
        process.communicate()

    def line(self, process):
        """What it says next: who is pager of which pool."""
        word, pid, pool = process.stdout.readline().decode().split()
        self.assertEqual(word, "pager")
        return int(pid), pool

    def ends(self, process, how):
        process.send_signal(how)
        out, err = process.communicate(timeout=60)
        self.assertEqual((process.returncode, err), (0, b""))
        return out

    def test_is_elected_and_ends(self):
        for how in (signal.SIGTERM, signal.SIGINT):
            process = self.start(self.pool)
            self.assertEqual(self.line(process), (process.pid, self.pool))
            self.ends(process, how)
            self.assertEqual(self.json("pool", "info", self.pool)["slots_used"], 0)

    def test_another_takes_over(self):
        first = self.start(self.pool)
        self.assertEqual(self.line(first)[0], first.pid)
        second = self.start(self.pool)
        self.assertEqual(self.line(second)[0], first.pid)
        first.kill()
        first.wait()
        self.assertEqual(self.line(second)[0], second.pid)
        third = self.start("-p", self.pool)
        self.assertEqual(self.line(third)[0], second.pid)
        self.ends(second, signal.SIGTERM)
        self.assertEqual(self.line(third)[0], third.pid)
        self.ends(third, signal.SIGTERM)
        self.ok("pool", "check", self.pool)

    def test_death_in_an_election(self):
        """Wherever a candidate or a pager dies, the next one is elected."""
        trial = self.start(self.pool, env={"MORSEL_PROBE_KILL": "view.elect.locked:1"})
        if trial.stdout.readline():
            return  # built without probes
        for probe in ("view.elect.locked", "view.elect.listening", "view.elect.announced",
                      "view.elect.withdrawn", "view.handover.accepted"):
            with self.subTest(probe=probe):
                first = self.start(self.pool, env={"MORSEL_PROBE_KILL": probe + ":1"})
                # It is elected, and dies at that, before there is another candidate.
                if probe in ("view.elect.withdrawn", "view.handover.accepted"):
                    self.line(first)
                else:
                    first.wait(timeout=60)
                if probe == "view.elect.withdrawn":
                    first.terminate()
                second = self.start(self.pool)
                pid, _ = self.line(second)
                if pid == first.pid:
                    pid, _ = self.line(second)
                self.assertEqual(pid, second.pid)
                first.wait(timeout=60)
                self.ends(second, signal.SIGTERM)
        self.ok("pool", "check", self.pool)

    def test_pool_without_a_name(self):
        """The pool lives on in the pager that received it, and goes on to who asks there."""
        first, second = (os.path.join(self.dir, name) for name in ("a.sock", "b.sock"))
        self.ok("create", self.pool, "here", "1M")
        giver = self.start("--serve", first, self.pool)
        self.line(giver)
        self.assertEqual(os.stat(first).st_mode & 0o777, 0o600)
        keeper = self.start("--serve", second, first)
        self.line(keeper)
        os.unlink(self.pool)
        self.ends(giver, signal.SIGTERM)
        self.assertFalse(os.path.exists(first))
        self.assertEqual(self.line(keeper)[0], keeper.pid)
        with socket.socket(socket.AF_UNIX) as call:
            call.connect(second)
            _, passed, _, _ = socket.recv_fds(call, 64, 1)
        self.assertEqual(len(passed), 1)
        path = "/proc/%d/fd/%d" % (os.getpid(), passed[0])
        names = json.loads(support.morsel("list", "--json", path)[1])
        self.assertIn("here", json.dumps(names))
        os.close(passed[0])
        self.ends(keeper, signal.SIGTERM)
        self.assertFalse(os.path.exists(second))

    def test_failures(self):
        self.assertIn("/nonexistent", self.fails(1, "pager", "/nonexistent"))
        taken = self.file("taken", b"")
        self.assertIn("taken", self.fails(1, "pager", "--serve", taken, self.pool))
        self.assertTrue(os.path.exists(taken))
        self.fails(1, "pager", "--serve", "x" * 200, self.pool)
        self.fails(2, "pager", self.pool, "more")


if __name__ == "__main__":
    unittest.main()
