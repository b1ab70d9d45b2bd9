"""dump, restore, stat --openmetrics, top and who from end to end, beside a process that maps."""
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import unittest

import support
from support import PoolTest

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*"'
SAMPLE = re.compile(r"^(%s)(?:\{(%s(?:,%s)*)?\})? (-?[0-9.eE+-]+)$" % (NAME, LABEL, LABEL))


def openmetrics(text):
    """Checks the text against the format's rules; answers {sample name: [(labels, value)]}."""
    lines = text.split("\n")
    if lines[-1] or lines[-2] != "# EOF":
        raise ValueError("the text does not end with '# EOF' and a line feed")
    samples, types, family, closed = {}, {}, None, set()
    for line in lines[:-2]:
        if line.startswith("# "):
            _, word, name, rest = line.split(" ", 3)
            if word not in ("TYPE", "UNIT", "HELP"):
                raise ValueError(line)
            if name != family:
                if name in closed:
                    raise ValueError("metrics of one family are not together: " + line)
                closed.add(name)
                family = name
            if word == "TYPE":
                types[name] = rest
            if word == "UNIT" and not name.endswith("_" + rest):
                raise ValueError("the unit is not in the name: " + line)
            continue
        match = SAMPLE.match(line)
        if not match:
            raise ValueError("no sample: " + line)
        name = match.group(1)
        expected = family + ("_total" if types[family] == "counter" else "")
        if name != expected:
            raise ValueError("%s in the family %s" % (name, family))
        at = (match.group(2), float(match.group(3)))
        if at[0] in [labels for labels, _ in samples.setdefault(name, [])]:
            raise ValueError("twice: " + line)
        samples[name].append(at)
    return samples


class Metrics(PoolTest):
    def test_openmetrics(self):
        self.ok("create", self.pool, 'quote"back\\slash', "1M")
        self.ok("create", self.pool, "plain", "64k")
        text = self.ok("stat", "--openmetrics", self.pool).decode()
        samples = openmetrics(text)
        self.assertEqual(samples["morsel_faults_total"][0][1], 0)
        self.assertEqual(sorted(value for _, value in samples["morsel_object_resident_bytes"]),
                         [65536, 1048576])
        self.assertGreater(samples["morsel_resident_bytes"][0][1], 1048576)
        self.assertEqual(samples["morsel_objects"][0][1], 2)

    def test_the_validator_can_fail(self):
        good = self.ok("stat", "--openmetrics", self.pool).decode()
        for bad in (good[:-6], good.replace("_total{", "{", 1), good + "\n",
                    good.replace('"} 0', '"} none', 1),
                    good.replace("# UNIT morsel_resident_bytes bytes",
                                 "# UNIT morsel_resident_bytes pages")):
            with self.assertRaises(ValueError):
                openmetrics(bad)

    def test_json(self):
        stat = self.json("stat", self.pool)
        text = self.ok("stat", "--openmetrics", self.pool).decode()
        for name in stat["counters"]:
            if name != "shootdown_ns":
                self.assertIn("morsel_%s_total" % name, text)
        self.fails(2, "stat", "--json", "--openmetrics", self.pool)


class Top(PoolTest):
    def test_batch(self):
        self.ok("create", self.pool, "some name", "1M")
        out = self.ok("top", "--batch", "-n", "2", "-d", "0", "-b", self.pool).decode()
        self.assertEqual(out.count("FAULTS/s"), 2)
        self.assertNotIn("\x1b", out)
        self.assertRegex(out, r"some name +1048576 +1048576 +0 +0 +0 +0")
        self.fails(2, "top", "-d", "4000", self.pool)

    def test_interrupt(self):
        top = subprocess.Popen([support.COMMAND, "top", "--batch", self.pool],
                               stdout=subprocess.PIPE)
        self.assertIn(self.pool.encode(), top.stdout.readline())
        top.send_signal(signal.SIGINT)
        self.assertEqual(top.wait(timeout=60), 0)
        top.stdout.close()

    def test_key(self):
        main, end = pty.openpty()
        top = subprocess.Popen([support.COMMAND, "top", self.pool], stdin=end, stdout=end)
        os.close(end)
        seen = b""
        while b"FAULTS/s" not in seen:
            self.assertTrue(select.select([main], [], [], 60)[0])
            seen += os.read(main, 4096)
        self.assertIn(b"\x1b[H", seen)
        time.sleep(0.1)
        os.write(main, b"q")
        self.assertEqual(top.wait(timeout=60), 0)
        os.close(main)


# Another process: opens the pool, maps the morsel, grants a page, says its address and stays.
HOLDER = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
library.morsel_addr.restype = ctypes.c_void_p
library.morsel_errormsg.restype = ctypes.c_char_p
pool, morsel, view = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
grant = (ctypes.c_uint64 * 32)()
def must(code):
    if code:
        sys.exit(library.morsel_errormsg().decode())
must(library.morsel_pool_open(sys.argv[2].encode(), None, ctypes.byref(pool)))
must(library.morsel_open(pool, b"m", None, ctypes.byref(morsel)))
must(library.morsel_map(morsel, None, ctypes.byref(view)))
must(library.morsel_acquire(view, ctypes.c_uint64(4096), ctypes.c_uint64(4096), 1, grant))
print(library.morsel_addr(view), flush=True)
sys.stdin.read()
"""


class Who(PoolTest):
    def holder(self):
        library = os.path.join(os.path.dirname(os.environ["MORSEL_LIBRARY"]), "libmorsel.so.0")
        process = subprocess.Popen([sys.executable, "-c", HOLDER, library, self.pool],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                   env={**os.environ, "LD_PRELOAD": library})
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.stdin.close)
        return process, int(process.stdout.readline())

    def test_plain(self):
        self.ok("create", self.pool, "m", "1M")
        who = self.json("who", self.pool, "m", "1")
        self.assertEqual(sorted(who), sorted(support.man_keys("who")))
        self.assertEqual((who["state"], who["holders"]), ("resident", []))
        self.assertIn("not evictable", who["why_not_evicted"])
        self.fails(2, "who", self.pool, "m", "x")
        self.fails(1, "who", self.pool, "m", "256")
        self.fails(1, "who", self.pool, "none", "0")

    @unittest.skipIf(support.CFLAGS, "a sanitized library is not loaded by python")
    def test_holder(self):
        self.ok("create", self.pool, "m", "1M", "--evictable", "--pages", "4k")
        process, address = self.holder()
        holders = self.json("who", self.pool, "m", "1")["holders"]
        self.assertEqual(sorted(h["what"] for h in holders), ["grant", "view"])
        view = [h for h in holders if h["what"] == "view"][0]
        self.assertEqual((view["pid"], view["address"]), (process.pid, address + 4096))
        self.assertIn(str(process.pid), self.ok("who", self.pool, "m", "1").decode())
        holders = self.json("who", self.pool, "m", "9")["holders"]
        self.assertEqual([h["what"] for h in holders], ["view"])


class Dumps(PoolTest):
    def setUp(self):
        super().setUp()
        self.content = os.urandom(300000)
        self.source = self.file("source", self.content)
        self.dump = os.path.join(self.dir, "dump")
        self.ok("import", self.pool, self.source, "m")

    def content_of(self, name):
        out = os.path.join(self.dir, "out")
        self.ok("export", self.pool, name, out)
        with open(out, "rb") as file:
            return file.read()

    def test_full(self):
        info = self.json("dump", self.pool, "m", self.dump, "--full")
        self.assertEqual(sorted(info), sorted(support.man_keys("dump")))
        self.assertEqual(info["bytes_file"], os.stat(self.dump).st_size)
        self.fails(1, "restore", self.pool, self.dump)
        self.ok("restore", self.pool, self.dump, "copy")
        self.assertEqual(self.content_of("copy"), self.content)
        self.assertIn("stored", self.ok("dump", self.pool, "m", self.dump).decode())

    def test_range_and_more(self):
        self.json("dump", self.pool, "m", self.dump)
        self.ok("restore", self.pool, self.dump, "copy", "--lazy")
        self.assertEqual(self.json("info", self.pool, "copy")["bytes_allocated"], 0)
        self.ok("restore", self.pool, self.dump, "copy", "--more", "--range", "64k", "4k")
        self.assertEqual(self.json("info", self.pool, "copy")["bytes_allocated"], 65536)
        self.assertEqual(self.content_of("copy")[65536:131072], self.content[65536:131072])
        self.ok("restore", self.pool, self.dump, "copy", "--more")
        self.assertEqual(self.content_of("copy"), self.content)
        self.ok("dump", self.pool, "m", self.dump, "--range", "128k", "64k")
        self.ok("restore", self.pool, self.dump, "part")
        self.assertEqual(self.content_of("part")[131072:196608], self.content[131072:196608])
        for mistake in (["--range", "1"], ["--range", "x", "1"], ["--range", "1", "0"],
                        ["--full", "--range", "0", "1"]):
            self.fails(2, "dump", "-p", self.pool, "m", self.dump, *mistake)

    def test_incremental(self):
        self.ok("dump", self.pool, "m", self.dump)
        info = self.json("dump", self.pool, "m", self.dump + ".2", "--incremental", self.dump)
        self.assertEqual((info["kind"], info["bytes_stored"]), ("incremental", 0))
        self.ok("restore", self.pool, self.dump + ".2", "copy")
        self.assertEqual(self.content_of("copy"), self.content)
        os.rename(self.dump, self.dump + ".old")
        self.fails(1, "restore", self.pool, self.dump + ".2", "other")
        self.ok("restore", self.pool, self.dump + ".2", "other", "--base", self.dump + ".old")
        self.ok("seal", self.pool, "m")
        info = self.json("dump", self.pool, "copy", self.dump + ".3", "--snapshot", "m")
        self.assertEqual(info["bytes_stored"], 0)

    def test_damage(self):
        self.ok("dump", self.pool, "m", self.dump)
        with open(self.dump, "r+b") as file:
            file.seek(5000)
            byte = file.read(1)
            file.seek(5000)
            file.write(bytes([byte[0] ^ 1]))
        self.assertIn("damaged", self.fails(1, "restore", self.pool, self.dump, "copy"))
        self.assertIn("not a dump", self.fails(1, "restore", self.pool, self.source, "copy"))
        self.assertEqual(self.ok("pool", "check", self.pool), b"clean\n")


if __name__ == "__main__":
    unittest.main()
