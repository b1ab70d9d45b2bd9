"""Mutants: seeded faults that the tests must find.

A mutant is a patch in tests/mutants/ with a head before the diff:

  Mutant: what the fault is
  Promise: which promise of the architecture, or which room
  Killed-by: the ctest name of the test that must find it

Each is applied in a scratch copy (build/mutants/src), built incrementally, and its test run once per
seed: it must fail every time, within 60 s. The unpatched code must pass the same test on the same
seeds; that is run once per test. A test that is still running after 60 s has found nothing.
"""

import re
import shutil
import subprocess
from pathlib import Path

SECONDS = 60


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

    def __init__(self, tree, files):
        self.tree, self.files = tree, files
        self.source = tree / "build/mutants/src"
        self.build = tree / "build/mutants/out"

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
        return self._run(["ninja", "-C", self.build, *goal])

    def apply(self, patch):
        return self._run(["patch", "-p1", "-s", "-F0", "-d", self.source, "-i", patch])

    def test(self, name, seed):
        """'passed', 'failed', 'time-out' or 'skipped'."""
        command = ["env", f"MORSEL_SEED={seed}", "MORSEL_LOG=none", "ctest", "--test-dir", self.build,
                   "-R", f"^{re.escape(name)}$", "--timeout", str(SECONDS), "--no-tests=error"]
        output = subprocess.run(list(map(str, command)), capture_output=True, text=True,
                                errors="replace")
        if "***Timeout" in output.stdout:
            return "time-out"
        if "***Skipped" in output.stdout:
            return "skipped"
        if "No tests were found" in output.stdout + output.stderr:
            return "missing"
        return "passed" if output.returncode == 0 else "failed"

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


def run_all(tree, files, seeds, tally):
    patches = sorted((tree / "tests/mutants").glob("*.patch"))
    if not patches:
        tally.add("mutants", "patches", "failed", "there is none in tests/mutants")
        return
    scratch = Scratch(tree, files)
    scratch.source.mkdir(parents=True, exist_ok=True)
    scratch.restore()
    if not scratch.configure():
        tally.add("mutants", "configure", "failed", scratch.last_output)
        return
    heads = {patch: head_of(patch) for patch in patches}
    sound = {}
    for test in sorted({head.get("Killed-by", "") for head in heads.values()} - {""}):
        built = scratch.compile(test)
        outcomes = [scratch.test(test, seed) for seed in seeds] if built else ["does not build"]
        sound[test] = next((o for o in outcomes if o != "passed"), None)
        print(f"  unpatched {test}: {sound[test] or 'passed'}", flush=True)
    for patch in patches:
        fields = heads[patch]
        missing = [key for key in ("Mutant", "Promise", "Killed-by") if key not in fields]
        if missing:
            tally.add("mutants", patch.stem, "failed", f"its head lacks {missing}")
            continue
        if sound[fields["Killed-by"]]:
            tally.add("mutants", patch.stem, "failed",
                      f"{fields['Killed-by']} {sound[fields['Killed-by']]} without the mutant")
            continue
        why = judge(scratch, patch, fields, seeds)
        scratch.restore()
        print(f"  {patch.stem}: {why or 'found'}", flush=True)
        tally.add("mutants", patch.stem, "failed" if why else "passed", why or "")
