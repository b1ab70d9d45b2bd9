#!/usr/bin/env python3
"""Runs the commands and programs in documentation, and compares what they print.

In a Markdown file a fence says what is to be done with it:

    ```sh run            is run by bash; an error ends it
    ```sh run exit=1     must end with that code
    ```c run NAME.c      is compiled against the library and run
    ```c file NAME.c     is put beside, for a later command to use (any language)
    ```text              right after one of the first three: what it prints

In a C file the session in the first comment is run: lines that begin with "$ ", each followed by
what it prints. In what is expected, ... stands for any text.

All pieces of a file share a scratch directory, in which tools/ is the source tree's, and exported
variables. /dev/shm/ in the text is
replaced by a directory of this run below it, so that nobody's pool is touched.
"""
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

TIMEOUT = int(os.environ.get("MORSEL_DOCS_TIMEOUT", "60"))
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```[ \t]*$\n?",
                   re.M | re.S)
SHM = "/dev/shm/"


class Piece:
    """Something to run, where it stands, and what it must print (None: anything)."""

    def __init__(self, kind, body, where, name=None, code=0, expected=None):
        self.kind, self.body, self.where = kind, body, where
        self.name, self.code, self.expected = name, code, expected


def read_markdown(text):
    pieces, last, end = [], None, 0
    for match in FENCE.finditer(text):
        indent = match["indent"]
        body = re.sub("(?m)^" + indent, "", match["body"]) if indent else match["body"]
        words = match["info"].split()
        language, rest = (words or [""])[0], words[1:]
        where = text.count("\n", 0, match.start()) + 1
        follows = last and not text[end:match.start()].strip()
        end = match.end()
        if language == "text" and not rest and follows and last.kind != "file":
            last.expected = body
            last = None
            continue
        last = None
        if rest[:1] not in (["run"], ["file"]):
            continue
        kind = "file" if rest[0] == "file" else language
        name = next((word for word in rest[1:] if "=" not in word), None)
        code = next((int(word[5:]) for word in rest if word.startswith("exit=")), 0)
        if kind not in ("sh", "c", "file") or (kind == "file" and not name):
            raise ValueError("line %d: cannot run ```%s" % (where, match["info"]))
        last = Piece(kind, body, where, name or "program%d.c" % where, code)
        pieces.append(last)
    return pieces


def read_session(text):
    """The commands in the first comment of a C file."""
    pieces = []
    comment = text[:text.index("*/")]
    for number, line in enumerate(comment.split("\n"), 1):
        line = re.sub(r"^ ?\* {0,5}", "", line)
        if line.startswith("$ "):
            pieces.append(Piece("sh", line[2:] + "\n", number, expected=""))
        elif pieces and line.strip():
            pieces[-1].expected += line + "\n"
        elif pieces:
            break
    return pieces


def matches(expected, got):
    """Line ends do not matter; ... stands for any text."""
    tidy = [re.sub(r"[ \t]+$", "", text.strip("\n"), flags=re.M) for text in (expected, got)]
    pattern = ".*".join(re.escape(part) for part in tidy[0].split("..."))
    return re.fullmatch(pattern, tidy[1], re.S) is not None


class Runner:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="morsel-docs-")
        self.shm = tempfile.mkdtemp(prefix="morsel-docs-", dir=SHM if os.path.isdir(SHM) else None)
        self.env = self.environment()
        if os.environ.get("MORSEL_SOURCE"):
            os.symlink(os.path.join(os.environ["MORSEL_SOURCE"], "tools"),
                       os.path.join(self.dir, "tools"))

    def environment(self):
        env = dict(os.environ, LC_ALL="C.UTF-8", TZ="UTC")
        env.pop("MORSEL_POOL", None)
        prefix = env.get("MORSEL_PREFIX", "")
        libs = [folder for folder, _, files in os.walk(prefix) if "libmorsel.so" in files]
        path = [self.compilers()] if env.get("MORSEL_CFLAGS") else []
        path += [os.path.join(prefix, "bin") if libs else os.path.dirname(env["MORSEL_COMMAND"])]
        path += [env["MORSEL_EXAMPLES"]] if "MORSEL_EXAMPLES" in env else []
        env["PATH"] = ":".join(path + [env["PATH"]])
        if libs:
            env["PKG_CONFIG_PATH"] = os.path.join(libs[0], "pkgconfig")
            env["LD_LIBRARY_PATH"] = libs[0]
        return env

    def compilers(self):
        """A folder with compilers that add MORSEL_CFLAGS, so that no text has to mention them."""
        folder = os.path.join(self.dir, ".bin")
        os.mkdir(folder)
        for name in ("cc", "gcc"):
            path = os.path.join(folder, name)
            with open(path, "w") as file:
                file.write('#!/bin/sh\nexec %s %s "$@"\n'
                           % (shutil.which("gcc"), os.environ["MORSEL_CFLAGS"]))
            os.chmod(path, 0o755)
        return folder

    def local(self, text):
        return text.replace(SHM, self.shm + "/")

    def public(self, text):
        return text.replace(self.shm + "/", SHM).replace(self.dir, ".")

    def write(self, piece):
        with open(os.path.join(self.dir, piece.name), "w", encoding="utf-8") as file:
            file.write(self.local(piece.body))

    def shell(self, script):
        whole = ("if [ -e .exports ]; then . ./.exports; fi\n" + script.rstrip("\n") +
                 "\nexport -p >.exports\n")
        child = subprocess.Popen(["bash", "-euo", "pipefail", "-c", whole], cwd=self.dir,
                                 env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, start_new_session=True)
        try:
            out, _ = child.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            out, _ = child.communicate()
            out += b"\n(killed after %d seconds)" % TIMEOUT
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            raise
        return child.returncode, out.decode(errors="replace")

    def run(self, piece):
        """Runs one piece; answers its code and output."""
        if piece.kind == "file":
            self.write(piece)
            return 0, ""
        if piece.kind == "sh":
            return self.shell(self.local(piece.body))
        self.write(piece)
        program = os.path.splitext(piece.name)[0]
        return self.shell("gcc -std=gnu11 -Wall -Wextra -Werror %s -o %s "
                          "$(pkg-config --cflags --libs morsel)\n./%s"
                          % (piece.name, program, program))

    def close(self):
        shutil.rmtree(self.dir, ignore_errors=True)
        shutil.rmtree(self.shm, ignore_errors=True)


def run_file(path):
    """Runs all pieces of a file; answers how many ran, and the faults in words."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    pieces = read_session(text) if path.endswith(".c") else read_markdown(text)
    runner = Runner()
    faults = []
    try:
        for piece in pieces:
            code, out = runner.run(piece)
            out = runner.public(out)
            where = "%s:%d: " % (path, piece.where)
            if code != piece.code:
                faults.append("%sended with %d, not %d, and printed:\n%s"
                              % (where, code, piece.code, out))
                break
            if piece.expected is not None and not matches(piece.expected, out):
                faults.append("%sprinted:\n%s\ninstead of:\n%s" % (where, out, piece.expected))
    finally:
        runner.close()
    return len(pieces), faults


def main(paths):
    bad = 0
    for path in paths:
        count, faults = run_file(path)
        if not count:
            faults = ["%s: nothing in it is to be run" % path]
        for fault in faults:
            print(fault)
        print("%s: %d pieces, %d faults" % (path, count, len(faults)))
        bad += len(faults)
    return 1 if bad or not paths else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
