"""The morsel command from end to end, on pools of its own: what it does, prints and answers."""
import ctypes
import errno
import json
import os
import pty
import random
import select
import signal
import struct
import subprocess
import time
import unittest

import support
from support import PoolTest

SEED = int(os.environ.get("MORSEL_SEED", "1"))


def safetensors(tensors):
    """A safetensors file of F32 tensors: {name: (shape, bytes)}."""
    header, data = {}, b""
    for name, (shape, content) in tensors.items():
        header[name] = {"dtype": "F32", "shape": shape,
                        "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def contents(path):
    with open(path, "rb") as file:
        return file.read()


class Usage(unittest.TestCase):
    def refused(self, *args, env=None):
        code, out, err = support.morsel(*args, env=env)
        self.assertEqual((code, out), (2, b""), args)
        self.assertTrue(err, args)

    def test_mistakes(self):
        for args in ([], ["nonsense"], ["pool"], ["pool", "nonsense"], ["list"],
                     ["list", "--nonsense"],
                     ["create", "p", "n"], ["create", "p", "n", "12Q"], ["create", "p", "n", "-1"],
                     ["resize", "p", "n", "1.5"], ["pool", "grow", "p", "x"], ["map", "p"],
                     ["import", "p", "f", "n", "more"], ["doctor", "more"], ["version", "-x"],
                     ["pool", "create", "--mode", "999", "p"],
                     ["create", "--pages=3m", "p", "n", "1"],
                     ["pool", "create", "--group", "no such group", "p"], ["help", "nonsense"],
                     ["pool", "create", "--kind", "memfd", "p"]):
            self.refused(*args)

    def test_help_and_version(self):
        for args in (["--help"], ["-h"], ["help"], ["help", "pool"], ["pool", "--help"],
                     ["version"], ["--version"], ["-V"]):
            code, out, err = support.morsel(*args)
            self.assertEqual((code, err), (0, b""), args)
            self.assertTrue(out)
        versions = json.loads(support.morsel("version", "--json")[1])
        self.assertEqual(sorted(versions), ["command", "library"])

    def test_no_pool(self):
        code, out, err = support.morsel("list", "/nonexistent/pool")
        self.assertEqual((code, out), (1, b""))
        self.assertIn(b"/nonexistent/pool", err)

    def test_full_disk(self):
        with open("/dev/full", "w") as full:
            done = subprocess.run([support.COMMAND, "--help"], stdout=full, stderr=subprocess.PIPE,
                                  check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"No space", done.stderr)


class Pools(PoolTest):
    def test_info(self):
        info = self.json("pool", "info", self.pool)
        self.assertEqual(sorted(info), sorted(support.man_keys("pool info")))
        self.assertEqual(info["bytes"], 256 << 20)
        self.assertEqual((info["path"], info["morsels"]), (self.pool, 0))
        self.assertEqual(info["slots"], 512)
        self.assertLessEqual(info["bytes_metadata"], (2 << 20) + info["bytes_max"] // 5000)
        self.assertRegex(info["uuid"], r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
        self.assertEqual(self.ok("pool", "info", self.pool).split(b"\n")[0].split(),
                         [b"pool", self.pool.encode()])

    def test_three_ways_to_name_the_pool(self):
        by_operand = self.ok("pool", "info", self.pool)
        self.assertEqual(self.ok("pool", "info", "-p", self.pool), by_operand)
        self.assertEqual(self.ok("pool", "info", "--pool=" + self.pool), by_operand)
        self.assertEqual(self.ok("pool", "info", env={"MORSEL_POOL": self.pool}), by_operand)

    def test_create_twice(self):
        self.assertIn(self.pool, self.fails(1, "pool", "create", self.pool))

    def test_options_of_create(self):
        path = os.path.join(self.dir, "other")
        self.ok("pool", "create", "-s", "128M", "--max", "512M", "--budget", "64M", "--mode", "640",
                "--no-huge", "--group", str(os.getgid()), path)
        info = self.json("pool", "info", path)
        self.assertEqual(info["bytes"], 128 << 20)
        self.assertEqual(info["bytes_budget"], 64 << 20)
        self.assertGreaterEqual(info["bytes_max"], 512 << 20)
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o640)
        self.fails(1, "create", path, "big", "100M")
        self.assertEqual((info["bytes_low"], info["bytes_high"]), (56 << 20, 60 << 20))
        self.ok("pool", "budget", path, "same", "--low", "20M", "--high", "40M")
        info = self.json("pool", "info", path)
        self.assertEqual((info["bytes_low"], info["bytes_high"]), (20 << 20, 40 << 20))
        self.fails(1, "pool", "budget", path, "same", "--low", "50M", "--high", "40M")
        self.ok("pool", "budget", path, "32M", "--high", "32M")
        info = self.json("pool", "info", path)
        self.assertEqual((info["bytes_budget"], info["bytes_low"], info["bytes_high"]),
                         (32 << 20, 28 << 20, 32 << 20))
        self.ok("pool", "budget", path, "none")
        self.ok("create", path, "big", "100M")
        self.assertEqual(self.json("pool", "info", path)["bytes_budget"], 0)
        self.fails(1, "pool", "budget", path, "1M")

    def test_kind(self):
        path = os.path.join(self.dir, "other")
        self.fails(1, "pool", "create", "--kind", "hugetlb", path)
        self.assertFalse(os.path.exists(path))
        kind = self.json("pool", "info", self.pool)["kind"]
        self.ok("pool", "create", "--kind", kind, path)

    def test_grow(self):
        self.ok("pool", "grow", self.pool, "64M")
        self.assertEqual(self.json("pool", "info", self.pool)["bytes"], 320 << 20)
        self.fails(1, "pool", "grow", self.pool, "63M")
        self.assertEqual(self.json("pool", "info", self.pool)["extents"], 2)

    def test_check_and_reap(self):
        self.assertEqual(self.ok("pool", "check", self.pool), b"clean\n")
        self.assertEqual(self.json("pool", "check", self.pool), {"findings": [], "clean": True})
        self.assertEqual(self.json("pool", "reap", self.pool), {"reaped": 0})
        self.assertEqual(self.ok("pool", "reap", self.pool), b"0 dead processes cleaned up\n")

    def attach(self):
        """A process that waits in the pool until it is killed, at the latest at the test's end."""
        child = subprocess.Popen([os.path.join(os.environ["MORSEL_EXAMPLES"], "reader"), self.pool])
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        return child

    def test_death(self):
        """A process that waits in a pool is killed: it is seen, and reaped once."""
        child = self.attach()
        while not self.json("list", self.pool)["morsels"]:
            time.sleep(0.01)
        self.assertEqual(self.json("list", self.pool)["morsels"][0]["users"], 1)
        self.assertIn("attached", self.fails(1, "pool", "destroy", self.pool))
        self.assertEqual(self.json("pool", "info", self.pool)["slots_used"], 1)
        child.kill()
        child.wait()
        self.assertEqual(self.json("pool", "reap", self.pool), {"reaped": 1})
        self.assertEqual(self.json("pool", "reap", self.pool), {"reaped": 0})
        info = self.json("pool", "info", self.pool)
        self.assertEqual((info["slots_used"], info["reaped"]), (0, 1))
        self.assertEqual(self.json("list", self.pool)["morsels"][0]["users"], 0)
        self.assertEqual(self.ok("pool", "check", self.pool), b"clean\n")

    def test_forced_destroy(self):
        self.attach()
        while not self.json("pool", "info", self.pool)["slots_used"]:
            time.sleep(0.01)
        self.ok("pool", "destroy", "--force", self.pool)
        self.assertFalse(os.path.exists(self.pool))

    def test_destroy(self):
        self.ok("pool", "destroy", self.pool)
        self.assertFalse(os.path.exists(self.pool))
        self.fails(1, "pool", "destroy", self.pool)

    def test_not_a_pool(self):
        path = self.file("text", b"this is not a pool\n" * 1000)
        self.fails(1, "pool", "info", path)
        self.fails(1, "list", path)
        self.assertEqual(contents(path), b"this is not a pool\n" * 1000)


class Morsels(PoolTest):
    def names(self):
        return sorted(m["name"] for m in self.json("list", self.pool)["morsels"])

    def test_life(self):
        self.ok("create", self.pool, "a", "1.5M")
        self.ok("create", "--lazy", "--evictable", self.pool, "b", "10M")
        self.ok("create", "-c", "--pages", "2m", self.pool, "c", "4M")
        self.fails(1, "create", self.pool, "a", "1")
        listed = {m["name"]: m for m in self.json("list", self.pool)["morsels"]}
        self.assertEqual(sorted(listed), ["a", "b", "c"])
        self.assertEqual(listed["a"]["bytes"], 3 << 19)
        self.assertEqual((listed["b"]["lazy"], listed["b"]["evictable"]), (True, True))
        self.assertEqual((listed["c"]["pages"], listed["c"]["contiguous"]), ("2m", True))
        self.ok("rename", self.pool, "a", "d")
        self.fails(1, "rename", self.pool, "d", "b")
        self.ok("mv", self.pool, "d", "e")
        self.ok("publish", self.pool, "c", "e")
        self.assertEqual(self.names(), ["b", "e"])
        self.assertEqual(self.json("info", self.pool, "e")["bytes"], 4 << 20)
        self.ok("resize", self.pool, "e", "8M")
        self.assertEqual(self.json("info", self.pool, "e")["bytes"], 8 << 20)
        self.ok("seal", self.pool, "e")
        self.assertTrue(self.json("info", self.pool, "e")["sealed"])
        self.fails(1, "resize", self.pool, "e", "1M")
        self.ok("rm", self.pool, "b", "e")
        self.fails(1, "rm", self.pool, "b")
        self.ok("rm", "--force", self.pool, "b")
        self.assertEqual(self.names(), [])
        self.assertEqual(self.ok("pool", "check", self.pool), b"clean\n")

    def test_rm_goes_on(self):
        self.ok("create", self.pool, "there", "4k")
        self.fails(1, "rm", self.pool, "missing", "there")
        self.assertEqual(self.names(), [])

    def test_info_keys(self):
        self.ok("create", self.pool, "a", "4k")
        info = self.json("info", self.pool, "a")
        keys = [key for key in support.man_keys("info") if key != "name_hex"]
        self.assertEqual(sorted(info), sorted(keys))
        self.assertEqual((info["users"], info["format"], info["tensors"]), (0, "bytes", []))
        self.assertLess(abs(info["created_ns"] - time.time_ns()), 120 * 10**9)
        listed = self.json("list", self.pool)["morsels"][0]
        del info["tensors"]
        self.assertEqual(listed, info)

    def test_map(self):
        self.ok("create", self.pool, "a", "5M")
        self.ok("create", "--lazy", self.pool, "lazy", "1M")
        runs = self.json("map", self.pool, "a")["runs"]
        self.assertEqual(sorted(runs[0]), ["allocated", "bytes", "frame", "offset", "order", "resident"])
        end = 0
        for run in runs:
            self.assertEqual(run["offset"], end)
            self.assertTrue(run["allocated"])
            end += run["bytes"]
        self.assertEqual(end, 5 << 20)
        part = self.json("map", "-o", "1M", "-n", "4k", self.pool, "a")["runs"]
        self.assertEqual([(run["offset"], run["bytes"]) for run in part], [(1 << 20, 4096)])
        runs = self.json("map", self.pool, "lazy")["runs"]
        self.assertFalse(any(run["allocated"] for run in runs))
        self.assertEqual(self.ok("map", self.pool, "a").split()[:4],
                         [b"OFFSET", b"SIZE", b"FRAME", b"ORDER"])

    def test_stat(self):
        self.ok("create", self.pool, "a", "5M")
        self.ok("create", "-l", self.pool, "b", "7M")
        stat = self.json("stat", self.pool)
        self.assertEqual(sorted(stat), sorted(support.man_keys("stat")))
        self.assertEqual(stat["morsels"]["count"], 2)
        self.assertEqual(stat["morsels"]["bytes"], 12 << 20)
        self.assertEqual(stat["morsels"]["lazy"], 1)
        self.assertGreaterEqual(stat["bytes_resident"], 5 << 20)
        self.assertLess(stat["bytes_free"], stat["bytes"])
        self.assertIn(b"number space", self.ok("stat", self.pool))

    def test_full_pool(self):
        words = self.fails(1, "create", self.pool, "big", "1T")
        self.assertIn("big", words + "big")
        self.assertEqual(self.names(), [])
        self.assertEqual(self.ok("pool", "check", self.pool), b"clean\n")


@unittest.skipUnless(os.geteuid(), "root may write every file")
class ReadOnly(PoolTest):
    """Who may only read the file can look, and nothing else."""

    def test_clone(self):
        self.ok("create", self.pool, "a", "4M")
        before = self.json("pool", "info", self.pool)["bytes_resident"]
        self.ok("clone", self.pool, "a", "b")
        self.ok("snapshot", self.pool, "b", "c")
        after = self.json("pool", "info", self.pool)["bytes_resident"]
        self.assertLess(after, before + (2 << 20))
        self.assertEqual(self.json("info", self.pool, "c")["bytes"], 4 << 20)
        self.assertTrue(self.json("info", self.pool, "c")["sealed"])
        self.assertFalse(self.json("info", self.pool, "b")["sealed"])
        self.fails(1, "clone", self.pool, "a", "b")
        self.fails(1, "clone", self.pool, "nobody", "d")
        self.fails(2, "clone", self.pool, "a")
        for name in "abc":
            self.ok("rm", self.pool, name)
        self.ok("pool", "check", self.pool)

    def test_advise(self):
        self.ok("create", self.pool, "a", "4M", "--evictable", "--pages", "4k")
        self.ok("create", self.pool, "b", "1M")
        before = self.json("pool", "info", self.pool)["bytes_resident"]
        self.ok("evict", self.pool, "a", "--offset", "1M", "--length", "2M")
        after = self.json("pool", "info", self.pool)["bytes_resident"]
        self.assertLessEqual(after, before - (1 << 20))
        self.ok("evict", self.pool, "a")
        self.ok("prefetch", self.pool, "a", "--length", "2M")
        for advice in ("prefetch", "free", "evict", "normal", "sequential", "random", "will-need",
                       "do-not-need"):
            self.ok("advise", self.pool, "a", advice)
        self.fails(1, "evict", self.pool, "b")
        self.fails(1, "evict", self.pool, "a", "--offset", "5M", "--length", "4k")
        self.fails(2, "advise", self.pool, "a", "nonsense")
        self.fails(2, "advise", self.pool, "a")

    def test_look(self):
        self.ok("create", self.pool, "a", "3M")
        os.chmod(self.pool, 0o444)
        self.assertEqual(self.json("list", self.pool)["morsels"][0]["name"], "a")
        self.assertEqual(self.json("info", self.pool, "a")["users"], 0)
        runs = self.json("map", self.pool, "a")["runs"]
        self.assertEqual(sum(run["bytes"] for run in runs), 3 << 20)
        self.assertEqual(self.json("stat", self.pool)["morsels"]["count"], 1)
        self.assertEqual(self.json("pool", "info", self.pool)["morsels"], 1)
        for args in (["create", self.pool, "b", "4k"], ["rm", self.pool, "a"],
                     ["resize", self.pool, "a", "4k"], ["seal", self.pool, "a"],
                     ["pool", "grow", self.pool, "64M"], ["pool", "check", self.pool]):
            self.fails(1, *args)


class Names(PoolTest):
    """Hostile names are shown harmlessly, and come back whole from -0 and JSON."""

    NAMES = [b"plain", b"two words", b"-rf", b"--help", b"\xff\xfe",
             b"\xc2\x9bred", "caf\u00e9".encode(), b'"quoted"', b"back\\slash", b"x" * 255,
             b"\xe2\x80\xaeback", b"."]

    def test_all(self):
        for name in self.NAMES:
            self.ok("create", "-p", self.pool, "--", name, "4k")
        raw = self.ok("list", "-0", self.pool)
        self.assertEqual(sorted(raw.split(b"\0")[:-1]), sorted(self.NAMES))
        table = self.ok("list", self.pool)
        self.assertEqual(table.count(b"\n"), len(self.NAMES) + 1)
        for byte in table.replace(b"\n", b""):
            self.assertTrue(byte >= 0x20 and byte != 0x7f)
        table.decode()
        back = [bytes.fromhex(m["name_hex"]) if "name_hex" in m else m["name"].encode()
                for m in self.json("list", self.pool)["morsels"]]
        self.assertEqual(sorted(back), sorted(self.NAMES))
        for name in self.NAMES:
            info = json.loads(self.ok("info", "--json", "-p", self.pool, "--", name))
            self.assertEqual(info["bytes"], 4096)
        words = self.fails(1, "info", self.pool, b"no\x1bsuch\xff")
        self.assertNotIn("\x1b", words)
        self.ok("rm", "-p", self.pool, "--", *self.NAMES)

    def test_control_characters(self):
        """The library may refuse them; if it does not, nobody sees them raw."""
        for name in (b"new\nline", b"\x1b[31mred", b"del\x7f"):
            code, _, err = support.morsel("create", self.pool, name, "4k")
            table = self.ok("list", self.pool)
            for byte in (table + err).replace(b"\n", b""):
                self.assertTrue(byte >= 0x20 and byte != 0x7f)
            self.assertEqual(table.count(b"\n"), 2 - code)
            if not code:
                self.ok("rm", self.pool, name)

    def test_too_long(self):
        self.fails(1, "create", self.pool, b"x" * 256, "4k")
        self.fails(1, "create", self.pool, "a/b", "4k")
        self.fails(1, "create", self.pool, "", "4k")


class Models(PoolTest):
    def model(self):
        rng = random.Random(SEED)
        return {"fc.weight": ([3, 4], rng.randbytes(48)), "fc.bias": ([4], rng.randbytes(16)),
                "big": ([1000, 7], rng.randbytes(28000)), "scalar": ([], rng.randbytes(4))}

    def test_bytes(self):
        content = random.Random(SEED).randbytes(3_000_001)
        path = self.file("blob.bin", content)
        self.assertEqual(self.ok("import", "-b", self.pool, path), b"blob.bin: 3000001, bytes\n")
        back = os.path.join(self.dir, "back")
        self.ok("export", self.pool, "blob.bin", back)
        self.assertEqual(contents(back), content)

    def test_tensors(self):
        tensors = self.model()
        content = safetensors(tensors)
        path = self.file("m.safetensors", content)
        made = self.json("import", self.pool, path, "m")
        self.assertEqual((made["name"], made["format"], made["existed"]),
                         ("m", "safetensors", False))
        info = self.json("info", self.pool, "m")
        self.assertEqual({t["name"]: t["shape"] for t in info["tensors"]},
                         {name: shape for name, (shape, _) in tensors.items()})
        for tensor in info["tensors"]:
            data = content[tensor["offset"]:tensor["offset"] + tensor["bytes"]]
            self.assertEqual(data, tensors[tensor["name"]][1])
            self.assertEqual((tensor["type"], tensor["encoded"], tensor["external"]),
                             ("f32", False, False))
        table = self.ok("info", "--tensors", self.pool, "m").decode()
        self.assertRegex(table, r"(?m)^fc\.weight +f32 +3x4 ")
        self.assertRegex(table, r"(?m)^scalar +f32 +scalar ")

    def test_align(self):
        tensors = self.model()
        path = self.file("m", safetensors(tensors))
        self.ok("import", "--align", "4k", self.pool, path)
        info = self.json("info", self.pool, "m")
        for tensor in info["tensors"]:
            self.assertEqual(tensor["offset"] % 4096, 0)
        back = os.path.join(self.dir, "back")
        self.ok("export", self.pool, "m", back)
        self.assertEqual(contents(back), safetensors(tensors))
        self.fails(1, "import", "--align", "3000", self.pool, path, "odd")

    def test_exists(self):
        one, two = self.file("one", b"1" * 5000), self.file("two", b"2" * 6000)
        self.ok("import", self.pool, one, "x")
        code, out, err = support.morsel("import", "-j", self.pool, two, "x")
        self.assertEqual((code, json.loads(out)["bytes"]), (0, 5000))
        self.assertTrue(json.loads(out)["existed"])
        self.assertIn(b"--replace", err)
        self.assertEqual(self.json("import", "--replace", self.pool, two, "x")["bytes"], 6000)
        self.assertEqual([m["name"] for m in self.json("list", self.pool)["morsels"]], ["x"])

    def test_bad_files(self):
        path = self.file("bad.safetensors", struct.pack("<Q", 1 << 60) + b"{}" * 20)
        code, _, _ = support.morsel("import", self.pool, path)
        self.assertIn(code, (0, 1))
        self.fails(1, "import", self.pool, "/nonexistent/file")
        self.fails(1, "import", self.pool, self.dir)
        self.fails(1, "export", self.pool, "missing", os.path.join(self.dir, "x"))
        self.assertEqual(self.ok("pool", "check", self.pool), b"clean\n")


class Terminal(PoolTest):
    """stderr is a terminal: progress is drawn, and SIGINT cancels without a trace."""

    def start(self, *args):
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        child = subprocess.Popen([support.COMMAND, *args], stdout=subprocess.PIPE, stderr=slave)
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        os.close(slave)
        return child, master

    def drain(self, master, child):
        drawn = b""
        while True:
            ready, _, _ = select.select([master], [], [], 0.05)
            if ready:
                try:
                    drawn += os.read(master, 65536)
                except OSError:
                    return drawn
            elif child.poll() is not None:
                return drawn

    def test_progress(self):
        path = self.file("file", b"x" * (8 << 20))
        child, master = self.start("import", self.pool, path)
        drawn = self.drain(master, child)
        self.assertEqual(child.wait(), 0)
        self.assertEqual(child.stdout.read(), b"file: 8.00 MiB, bytes\n")
        child.stdout.close()
        self.assertRegex(drawn.replace(b"\r", b"\n"), rb"import \[#*\.*\] +\d+ %  ")
        self.assertTrue(drawn.endswith(b"\r\x1b[K"), drawn[-20:])

    def test_interrupt(self):
        pool = os.path.join(self.dir, "large")
        path = os.path.join(self.dir, "file")
        self.ok("pool", "create", "-s", "2G", pool)
        store = os.statvfs(self.dir)
        with open(path, "wb") as file:  # long enough to be met in the middle
            file.truncate(min(1 << 30, store.f_bavail * store.f_frsize // 2))
        child, master = self.start("import", pool, path)
        select.select([master], [], [], 30)
        child.send_signal(signal.SIGINT)
        drawn = self.drain(master, child)
        self.assertEqual(child.wait(), 1, drawn)
        self.assertEqual(child.stdout.read(), b"")
        child.stdout.close()
        self.assertIn(b"cancel", drawn.lower())
        self.assertEqual(self.json("list", pool)["morsels"], [])
        self.assertLess(self.json("pool", "info", pool)["bytes_resident"], 64 << 20)
        self.assertEqual(self.ok("pool", "check", pool), b"clean\n")


class Doctor(unittest.TestCase):
    def test_report(self):
        code, out, err = support.morsel("doctor", "--json")
        report = json.loads(out)
        self.assertEqual((code, err), (0 if report["fit"] else 1, b""))
        page = support.man_page("doctor")
        section = page[page.index(".Sh CHECKS"):page.index(".Sh JSON")]
        for check in report["checks"]:
            self.assertEqual(sorted(check),
                             ["detail", "key", "needed", "remedy", "status", "title"])
            self.assertIn(check["status"], ("ok", "limited", "missing"))
            self.assertRegex(section, r"(?m)^\.It .*\b%s\b" % check["key"])
            if check["status"] == "ok":
                self.assertIsNone(check["remedy"])
        counts = [sum(check["status"] == status for check in report["checks"])
                  for status in ("ok", "limited", "missing")]
        self.assertEqual(counts, [report["ok"], report["limited"], report["missing"]])
        self.assertTrue(report["fit"], report)

    def test_table(self):
        code, out, _ = support.morsel("doctor")
        self.assertEqual(code, 0)
        self.assertRegex(out.decode(), r"(?m)^ok +memfd +")
        self.assertTrue(out.rstrip().endswith(b"the core works here"))


NUMBERS = {"memfd_create": 319, "userfaultfd": 323, "io_uring_setup": 425}


def forbid(number, error):
    """For a child before exec: a seccomp filter that answers one system call with an error."""
    def install():
        load, jump, answer = 0x20, 0x15, 0x06  # BPF: load a word, jump if equal, return
        code = struct.pack("HBBI" * 4, load, 0, 0, 0, jump, 0, 1, number,
                           answer, 0, 0, 0x50000 | error, answer, 0, 0, 0x7fff0000)
        program = ctypes.create_string_buffer(code, len(code))
        head = struct.pack("HxxxxxxQ", 4, ctypes.addressof(program))
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.create_string_buffer(head), 0, 0):
            os._exit(99)  # PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP
    return install


@unittest.skipUnless(os.uname().machine == "x86_64", "numbers of system calls are x86-64's")
class DoctorInAContainer(unittest.TestCase):
    """What a container's seccomp profile forbids is found, and seccomp is named as the suspect."""

    def examine(self, name, error):
        done = subprocess.run([support.COMMAND, "doctor", "--json"], capture_output=True,
                              preexec_fn=forbid(NUMBERS[name], error), check=False)
        self.assertNotEqual(done.returncode, 99, "seccomp cannot be set up")
        report = json.loads(done.stdout)
        return done.returncode, report, {check["key"]: check for check in report["checks"]}

    def test_io_uring(self):
        code, _, checks = self.examine("io_uring_setup", errno.EPERM)
        self.assertEqual((code, checks["io_uring"]["status"]), (0, "missing"))
        self.assertIn("seccomp", checks["io_uring"]["detail"] + checks["io_uring"]["remedy"])

    def test_userfaultfd(self):
        for error in (errno.EPERM, errno.ENOSYS):
            code, _, checks = self.examine("userfaultfd", error)
            self.assertEqual(code, 0)
            if os.access("/dev/userfaultfd", os.R_OK | os.W_OK):
                self.assertEqual(checks["userfaultfd"]["status"], "ok")
                self.assertIn("/dev/userfaultfd", checks["userfaultfd"]["detail"])
            else:
                self.assertEqual(checks["userfaultfd"]["status"], "missing")
                self.assertIn("seccomp", checks["userfaultfd"]["detail"])
                self.assertIn("seccomp", checks["userfaultfd"]["remedy"])

    def test_memfd(self):
        code, report, checks = self.examine("memfd_create", errno.ENOSYS)
        self.assertEqual((code, report["fit"], checks["memfd"]["status"]), (1, False, "missing"))
        self.assertTrue(checks["memfd"]["needed"])


if __name__ == "__main__":
    print("seed", SEED, flush=True)
    unittest.main()
