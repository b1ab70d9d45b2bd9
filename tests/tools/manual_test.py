"""Every command has --help, a man page and a completion, and all three know the same options."""
import os
import re
import subprocess
import sys
import unittest

import support


class Manual(unittest.TestCase):
    def test_commands_are_listed(self):
        names = support.commands()
        for name in ("pool create", "pool check", "create", "list", "info", "map", "import",
                     "export", "rm", "stat", "doctor", "version", "help"):
            self.assertIn(name, names)

    def test_help(self):
        for name in support.commands():
            code, out, err = support.morsel(*name.split(), "--help")
            self.assertEqual((code, err), (0, b""), name)
            self.assertTrue(out.startswith(b"Usage: morsel %s " % name.encode()), name)
            self.assertEqual(support.morsel("help", *name.split()), (code, out, err))
            self.assertIn("--help", support.help_options(name))

    def test_pages_explain_the_options(self):
        for name in support.commands():
            page = support.man_page(name)
            explained = re.findall(r"^\.It .*?Fl -([a-z-]+)", page, re.M)
            self.assertEqual(sorted("--" + option for option in explained),
                             sorted(support.help_options(name)), name)
            synopsis = page[:page.index(".Sh DESCRIPTION")]
            for option in explained:
                if option != "help":
                    self.assertIn("Fl -%s" % option, synopsis, name)

    def test_completion_knows_the_options(self):
        script = os.path.join(support.SOURCE, "tools", "morsel", "morsel.bash")
        ask = ('source "$1"; for n in "${!_morsel_options[@]}"; do '
               'echo "$n:${_morsel_options[$n]}"; done')
        _, out, err = support.run("bash", "-c", ask, "bash", script)
        self.assertEqual(err, b"")
        known = dict(line.split(":") for line in out.decode().splitlines())
        self.assertEqual(sorted(known), sorted(support.commands()))
        for name, options in known.items():
            self.assertEqual(sorted(options.split()), sorted(support.help_options(name)), name)

    def test_references_lead_somewhere(self):
        folder = os.path.join(support.SOURCE, "docs", "man")
        written = os.listdir(folder)
        pages = written + ["libmorsel.3", "libmorsel-gpu.3", "libmorsel-iommu.3", "libmorsel-rdma.3"]
        for page in written:
            with open(os.path.join(folder, page)) as file:
                text = file.read()
            for name, section in re.findall(r"\bXr (\S*morsel\S*) (\d)", text):
                self.assertIn("%s.%s" % (name, section), pages, page)
        with open(os.path.join(folder, "morsel.1")) as file:
            overview = file.read()
        for name in support.commands():
            if name != "mv":
                self.assertIn(".It Xr morsel-%s 1" % name.replace(" ", "-"), overview)

    def test_library_page_has_every_function(self):
        script = os.path.join(support.SOURCE, "tools", "lib", "header_manual.py")
        for room in ("core", "iommu"):
            folder = os.path.join(support.SOURCE, room, "include", "morsel")
            headers = sorted(os.path.join(folder, name) for name in os.listdir(folder))
            _, names, _ = support.run(sys.executable, script, "--functions", *headers)
            _, page, err = support.run(sys.executable, script, *headers)
            self.assertEqual(err, b"")
            self.assertGreater(len(names.split()), 25)
            for name in names.split():
                self.assertIn(name + b"(", page)


class Completion(support.PoolTest):
    """What the completion answers at some lines."""

    def complete(self, *words):
        script = os.path.join(support.SOURCE, "tools", "morsel", "morsel.bash")
        ask = ('source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _morsel; '
               'printf "%s\\n" "${COMPREPLY[@]}"')
        path = os.path.dirname(support.COMMAND) + ":" + os.environ["PATH"]
        done = subprocess.run(["bash", "-c", ask, "bash", script, "morsel", *words],
                              capture_output=True, env=dict(os.environ, PATH=path), check=False)
        self.assertEqual(done.stderr, b"")
        return done.stdout.decode().split("\n")[:-1]

    def test_words(self):
        self.assertEqual(self.complete("im"), ["import"])
        self.assertEqual(sorted(self.complete("pool", "")),
                         ["--help"] + sorted(name[5:] for name in support.commands()
                                             if name.startswith("pool ")))
        self.assertEqual(self.complete("list", "--nu"), ["--null"])
        self.assertEqual(self.complete("create", "--pages", "1"), ["1g"])

    def test_names(self):
        self.ok("create", self.pool, "two words", "4k")
        self.ok("create", self.pool, "twin", "4k")
        self.ok("create", self.pool, "other", "4k")
        self.assertEqual(sorted(self.complete("rm", self.pool, "tw")), ["twin", "two\\ words"])
        self.assertEqual(self.complete("info", "-p", self.pool, "o"), ["other"])


if __name__ == "__main__":
    unittest.main()
