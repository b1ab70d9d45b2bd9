"""Mutants: seeded faults that the tests must find.

A mutant is a patch in tests/mutants/ with a head before the diff:

  Mutant: what the fault is
  Promise: which promise of the architecture, or which room
  Killed-by: the ctest name of the test that must find it

Each is applied in a scratch copy (one per processor, in build/mutants), built incrementally, and its
test run once per seed: it must fail every time, within 60 s. The unpatched code must pass the same
test on the same seeds; that is run once per test, with more patience. A test that is still running
after 60 s has found nothing.
"""

import os
import queue
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path

SECONDS = 60
SECONDS_UNPATCHED = 600


def head_of(patch):
    fields = {}
    for line in patch.read_text().splitlines():
        if line.startswith(("diff ", "--- ")):
            break
        match = re.match(r"(Mutant|Promise|Killed-by):\s*(.+)", line)
        if match:
            fields[match.group(1)] = match.group(2).strip()
    return fields


class Scratch:
    """A copy of the tree with a build folder that is reused from mutant to mutant."""

    def __init__(self, tree, files, number):
        self.tree, self.files = tree, files
        self.source = tree / f"build/mutants/src{number}"
        self.build = tree / f"build/mutants/out{number}"
        self.source.mkdir(parents=True, exist_ok=True)

    def restore(self):
        """Makes the copy equal to the tree, touching only what differs, so that builds stay short."""
        wanted = set(self.files)
        for name in self.files:
            target = self.source / name
            content = (self.tree / name).read_bytes()
            if not target.exists() or target.read_bytes() != content:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
                shutil.copymode(self.tree / name, target)
        for path in self.source.rglob("*"):
            if path.is_file() and str(path.relative_to(self.source)) not in wanted:
                path.unlink()

    def configure(self):
        return self._run(["cmake", "-S", self.source, "-B", self.build, "-G", "Ninja",
                          "-DCMAKE_BUILD_TYPE=RelWithDebInfo", "-DMORSEL_PROBES=ON",
                          "-DMORSEL_CHECKS=1", "-DMORSEL_BENCH=OFF"])

    def compile(self, test):
        """Builds the test's program; a test that is a script needs everything."""
        targets = subprocess.run(["ninja", "-C", self.build, "-t", "targets", "all"],
                                 capture_output=True, text=True).stdout
        goal = [test] if re.search(rf"^{re.escape(test)}: phony", targets, re.M) else []
        return self._run(["ninja", "-C", self.build, "-j", "2", *goal])

    def apply(self, patch):
        return self._run(["patch", "-p1", "-s", "-F0", "-d", self.source, "-i", patch])

    def test(self, name, seed, seconds=SECONDS):
        """'passed', 'failed', 'time-out', 'skipped' or 'missing'."""
        with tempfile.TemporaryDirectory(prefix="morsel-mutant-") as left_behind:
            environment = dict(os.environ, MORSEL_SEED=str(seed), MORSEL_LOG="none",
                               TMPDIR=left_behind)
            # In a session of its own, so that all of it can be ended: the test's own time-out, which
            # is longer, would win over ctest's.
            child = subprocess.Popen(["ctest", "--test-dir", self.build, "-R",
                                      f"^{re.escape(name)}$", "--no-tests=error"],
                                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                     errors="replace", env=environment, start_new_session=True)
            try:
                output, _ = child.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.communicate()
                return "time-out"
        if "***Timeout" in output:
            return "time-out"
        if "***Skipped" in output:
            return "skipped"
        if "No tests were found" in output:
            return "missing"
        return "passed" if child.returncode == 0 else "failed"

    def _run(self, command):
        result = subprocess.run(list(map(str, command)), capture_output=True, text=True,
                                errors="replace")
        self.last_output = (result.stdout + result.stderr)[-2000:]
        return result.returncode == 0


def judge(scratch, patch, fields, seeds):
    """None if the mutant was found on every seed, else why not."""
    if not scratch.apply(patch):
        return "the patch does not apply: " + scratch.last_output
    if not scratch.compile(fields["Killed-by"]):
        return "the mutant does not build: " + scratch.last_output
    for seed in seeds:
        outcome = scratch.test(fields["Killed-by"], seed)
        if outcome != "failed":
            return f"{fields['Killed-by']} {outcome} on seed {seed}"
    return None


def check_sound(scratch, test, seeds):
    """None if the unpatched code passes the test on every seed, else what it did."""
    if not scratch.compile(test):
        return "does not build"
    outcomes = [scratch.test(test, seed, SECONDS_UNPATCHED) for seed in seeds]
    return next((outcome for outcome in outcomes if outcome != "passed"), None)


def in_parallel(scratches, jobs, work):
    """Calls work(scratch, job) for every job, one scratch copy at a time each."""
    waiting = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)

    def worker(scratch):
        while True:
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                return
            work(scratch, job)

    threads = [threading.Thread(target=worker, args=(scratch,)) for scratch in scratches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def run_all(tree, files, seeds, tally, parts=1):
    """All mutants, or one of so many parts of them; the first seed says which."""
    patches = sorted((tree / "tests/mutants").glob("*.patch"))[seeds[0] % parts::parts]
    if not patches:
        tally.add("mutants", "patches", "failed", "there is none in tests/mutants")
        return
    scratches = [Scratch(tree, files, number) for number in range(os.cpu_count() or 1)]
    for scratch in scratches:
        scratch.restore()
        if not scratch.configure():
            tally.add("mutants", "configure", "failed", scratch.last_output)
            return
    heads = {patch: head_of(patch) for patch in patches}
    sound = {}

    def judge_test(scratch, test):
        sound[test] = check_sound(scratch, test, seeds)
        print(f"  unpatched {test}: {sound[test] or 'passed'}", flush=True)

    def judge_patch(scratch, patch):
        fields = heads[patch]
        missing = [key for key in ("Mutant", "Promise", "Killed-by") if key not in fields]
        if missing:
            why = f"its head lacks {missing}"
        elif sound[fields["Killed-by"]]:
            why = f"{fields['Killed-by']} {sound[fields['Killed-by']]} without the mutant"
        else:
            why = judge(scratch, patch, fields, seeds)
            scratch.restore()
        print(f"  {patch.stem}: {why or 'found'}", flush=True)
        tally.add("mutants", patch.stem, "failed" if why else "passed", why or "")

    in_parallel(scratches, sorted({head["Killed-by"] for head in heads.values()
                                   if "Killed-by" in head}), judge_test)
    in_parallel(scratches, patches, judge_patch)
