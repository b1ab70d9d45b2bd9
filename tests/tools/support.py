"""What the Python tests of the command share: where things are, running them, and skipping.

The places come from the environment, set by tests/tools/CMakeLists.txt:
    MORSEL_COMMAND   the morsel program        MORSEL_SOURCE   the source tree
    MORSEL_PREFIX    a staged installation     MORSEL_CFLAGS   what the library was sanitized with
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

COMMAND = os.environ.get("MORSEL_COMMAND", "morsel")
SOURCE = os.environ.get("MORSEL_SOURCE", os.path.join(os.path.dirname(__file__), "..", ".."))
PREFIX = os.environ.get("MORSEL_PREFIX", "")
CFLAGS = os.environ.get("MORSEL_CFLAGS", "").split()
SKIP = 77


def skip(reason):
    """Ends a test program that cannot run here, the way ctest knows."""
    print("skipped: " + reason, file=sys.stderr)
    sys.exit(SKIP)


def run(*args, env=None, **options):
    """Runs a program; answers its exit code, stdout and stderr, as bytes."""
    whole = dict(os.environ)
    whole.pop("MORSEL_POOL", None)
    whole.update(env or {})
    done = subprocess.run(args, capture_output=True, env=whole, timeout=120, check=False, **options)
    return done.returncode, done.stdout, done.stderr


def morsel(*args, env=None):
    return run(COMMAND, *args, env=env)


def scratch():
    """A fresh directory on tmpfs where there is one."""
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    return tempfile.mkdtemp(prefix="morsel-test-", dir=where)


class PoolTest(unittest.TestCase):
    """Each test has a directory and a pool of its own."""

    def setUp(self):
        self.dir = scratch()
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.pool = os.path.join(self.dir, "pool")
        self.ok("pool", "create", "--size", "256M", self.pool)

    def ok(self, *args, env=None):
        """Runs a command that must succeed quietly; answers its stdout."""
        code, out, err = morsel(*args, env=env)
        self.assertEqual((code, err), (0, b""), " ".join(map(str, args)))
        return out

    def json(self, *args):
        return json.loads(self.ok(*args, "--json"))

    def fails(self, expected, *args, env=None):
        """Runs a command that must fail with the code, in words; answers the words."""
        code, out, err = morsel(*args, env=env)
        self.assertEqual((code, out), (expected, b""), " ".join(map(str, args)))
        self.assertTrue(err.startswith(b"morsel"), err)
        return err.decode(errors="replace")

    def file(self, name, content):
        path = os.path.join(self.dir, name)
        with open(path, "wb") as out:
            out.write(content)
        return path


def commands():
    """The commands that `morsel --help` lists: ["pool create", ..., "help"]."""
    _, out, _ = morsel("--help")
    names = []
    for line in out.decode().split("\n"):
        if line.startswith("  ") and not line.startswith("   "):
            names.append(line[2:15].strip())
    return names


def help_options(name):
    """The long options that --help of a command lists."""
    _, out, _ = morsel(*name.split(), "--help")
    options = []
    for line in out.decode().split("\n"):
        words = line.split()
        if line.startswith("  ") and words and words[0].startswith("-"):
            options.append(words[1] if words[0].endswith(",") else words[0])
    return options


def man_page(name):
    """The source of a command's man page, following a page that points to another."""
    folder = os.path.join(SOURCE, "docs", "man")
    with open(os.path.join(folder, "morsel-%s.1" % name.replace(" ", "-"))) as page:
        text = page.read()
    if text.startswith(".so man1/"):
        with open(os.path.join(folder, text[len(".so man1/"):].strip())) as page:
            text = page.read()
    return text


def man_keys(name):
    """The JSON keys that a command's man page explains."""
    inside, keys = False, []
    for line in man_page(name).split("\n"):
        if line.startswith(".Sh"):
            inside = line == ".Sh JSON"
        elif inside and line.startswith(".It "):
            keys += line[4:].replace(",", " ").split()
    return keys
