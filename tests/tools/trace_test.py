"""The static probes: each is in the library's ELF notes, and the scripts of tools/trace name no other.

MORSEL_LIBRARY is libmorsel.so as it was built; MORSEL_SDT is 1 if <sys/sdt.h> was there then.
"""
import glob
import os
import re
import shutil
import subprocess
import unittest

import support

LIBRARY = os.environ["MORSEL_LIBRARY"]
PLACE = re.compile(r"/usr/lib/\S*libmorsel\.so\.0")


def scripts():
    return sorted(glob.glob(os.path.join(support.SOURCE, "tools", "trace", "*.bt")))


def documented():
    """The probes that core/base/trace.h lists, with how many arguments each has."""
    with open(os.path.join(support.SOURCE, "core", "base", "trace.h")) as header:
        lines = re.findall(r"^ \*\t([a-z]+)\t+(\S.*)$", header.read(), re.M)
    return {name: arguments.count(",") + 1 for name, arguments in lines}


def placed():
    """The probes that stand in the sources."""
    found = set()
    for path in glob.glob(os.path.join(support.SOURCE, "core", "*", "*.c")):
        with open(path) as source:
            found |= set(re.findall(r"MRS_TRACE\((\w+),", source.read()))
    return found


def noted():
    """Name: number of arguments, of every probe in the library's notes."""
    _, out, _ = support.run("readelf", "-nW", LIBRARY)
    notes = re.findall(r"Provider: morsel\s+Name: (\w+)\s+Location:.*\s+Arguments:(.*)",
                       out.decode())
    return {name: len(arguments.split()) for name, arguments in notes}


class Probes(unittest.TestCase):
    def test_each_is_in_the_library(self):
        notes = noted()
        self.assertEqual(sorted(notes), sorted(placed()))
        self.assertTrue({"map", "invalidate", "fault", "evict", "reap"} <= set(notes))
        for name, arguments in notes.items():
            self.assertEqual(arguments, documented()[name], name)

    def test_scripts_name_what_there_is(self):
        self.assertTrue(scripts())
        for path in scripts():
            with open(path) as script:
                text = script.read()
            self.assertIn("/*", text, path)
            for name in re.findall(r"libmorsel\.so\.0:morsel:(\w+)", text):
                self.assertIn(name, placed(), path)

    @unittest.skipUnless(shutil.which("bpftrace") and os.geteuid() == 0, "no bpftrace as root")
    def test_scripts_are_understood(self):
        for path in scripts():
            with open(path) as script:
                program = PLACE.sub(LIBRARY, script.read())
            done = subprocess.run(["bpftrace", "-d", "-e", program], capture_output=True,
                                  timeout=120, check=False)
            self.assertEqual(done.returncode, 0, done.stderr.decode()[-500:])


if __name__ == "__main__":
    if os.environ.get("MORSEL_SDT") != "1":
        support.skip("sys/sdt.h was missing when this was built (package systemtap-sdt-dev)")
    if not shutil.which("readelf"):
        support.skip("no readelf (package binutils)")
    unittest.main()
