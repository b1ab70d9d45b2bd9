"""Where the lab's modules are, and programs for its guests."""

import os
import shutil
import sys
import tempfile
import unittest

SOURCE = os.environ.get("MORSEL_SOURCE", os.path.join(os.path.dirname(__file__), "..", ".."))
sys.path.insert(0, os.path.join(SOURCE, "tools", "lab"))

import boot  # noqa: E402
import store  # noqa: E402


class LabTest(unittest.TestCase):
    """Each test has a folder for logs of its own."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="morsel-lab-test-")
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)

    def boot(self, machine, *commands, kernel="6.12", seconds=20, **options):
        """Runs shell commands on a machine: [[Result, ...] for each node]."""
        lab = store.Lab()
        programs = [boot.Program(name, text, (), seconds) for name, text in commands]
        return boot.run(lab, machine, lab.kernel(kernel), programs, self.dir, **options)

    def outcomes(self, results):
        return [(result.name, result.outcome) for result in results]
