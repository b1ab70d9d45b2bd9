"""The runner of the documentation finds what is wrong in it, and lets pass what is right."""
import os
import tempfile
import unittest

import run_docs


class Runner(unittest.TestCase):
    def faults(self, text, suffix=".md"):
        with tempfile.NamedTemporaryFile("w", suffix=suffix) as file:
            file.write(text)
            file.flush()
            return run_docs.run_file(file.name)

    def test_right(self):
        text = ("words\n```sh run\necho one; export X=2\n```\n\n```text\none\n```\n"
                "```sh\nfalse\n```\n```sh run exit=3\necho $X >&2; exit 3\n```\n```text\n2\n```\n"
                "```sh file in/a.txt\n```\n").replace("in/a.txt", "a.txt")
        self.assertEqual(self.faults(text), (3, []))

    def test_ellipsis(self):
        self.assertTrue(run_docs.matches("a ... b\n", "a 1\n2 b\n"))
        self.assertTrue(run_docs.matches("a  \n", "a"))
        self.assertFalse(run_docs.matches("a ... b", "a x c"))
        self.assertFalse(run_docs.matches("a.b", "axb"))

    def test_wrong(self):
        for text in ("```sh run\necho two\n```\n```text\none\n```\n",
                     "```sh run\nfalse\ntrue\n```\n",
                     "```sh run\nfalse | true\n```\n",
                     "```sh run exit=1\ntrue\n```\n",
                     "```sh run\ntrue\n```\n```text\nsomething\n```\n"):
            count, faults = self.faults(text)
            self.assertEqual((count, len(faults)), (1, 1), text)

    def test_nothing_to_run(self):
        with tempfile.NamedTemporaryFile("w", suffix=".md") as file:
            self.assertEqual(run_docs.main([file.name]), 1)
        with self.assertRaises(ValueError):
            self.faults("```perl run\n```\n")

    def test_session(self):
        good = ("/*\n * Idea.\n *\n *     $ echo a; echo b\n *     a\n *     b\n"
                " *     $ true\n */\nint x;\n")
        self.assertEqual(self.faults(good, ".c"), (2, []))
        count, faults = self.faults(good.replace(" *     b\n", ""), ".c")
        self.assertEqual((count, len(faults)), (2, 1))

    def test_pools_are_elsewhere(self):
        text = ("```sh run\necho /dev/shm/pool; touch /dev/shm/run-docs-probe\n```\n"
                "```text\n/dev/shm/pool\n```\n")
        self.assertEqual(self.faults(text), (1, []))
        self.assertFalse(os.path.exists("/dev/shm/run-docs-probe"))


if __name__ == "__main__":
    unittest.main()
