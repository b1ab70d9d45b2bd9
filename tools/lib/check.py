"""Builds and runs every test, in stages, and counts what passed, failed and was skipped.

A stage is one way to build and run the suite:

  dev      warnings are errors, probes on; every test
  asan     AddressSanitizer and UndefinedBehaviorSanitizer; every test
  tsan     ThreadSanitizer; the stress and unit tests of the concurrent rooms
  user     the dev stage again as an ordinary user, from a copy that this user built
  fuzz     each fuzz target for a while, from its corpus
  mutants  each seeded fault must be found by the test that its patch names: a quarter of them at
           reduced counts (MORSEL_SEED says which), all with --full or --mutants
  lab      machines of tests/lab/machines.tsv are booted, emulated, with the tests that belong there

tests/environments.tsv says which tests may be skipped in which environment: a test that is skipped
without standing there, a test that has vanished and a test that nobody listed count as failures.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import lab_stage  # noqa: E402
import mutants as mutants_stage  # noqa: E402

TREE = Path(__file__).resolve().parents[2]
STAGES = ["dev", "asan", "tsan", "user", "fuzz", "mutants", "lab"]
JOBS = str(os.cpu_count() or 2)
MUTANT_PARTS = 4  # of which one is run at reduced counts; MORSEL_SEED says which
LAB_TESTS = "labhost"  # tests that boot a machine; those of label lab run inside of one


class Tally:
    """Counts over all stages, and the names of what failed."""

    def __init__(self):
        self.passed, self.failed, self.skipped = 0, 0, 0
        self.failures = []

    def add(self, stage, name, outcome, why=""):
        if outcome == "passed":
            self.passed += 1
        elif outcome == "skipped":
            self.skipped += 1
            print(f"  skipped {stage}/{name}: {why or 'no reason printed'}", flush=True)
        else:
            self.failed += 1
            self.failures.append(f"{stage}/{name}: {why}")
            print(f"  FAILED {stage}/{name}: {why}", flush=True)


def run(command, **options):
    print("+", " ".join(map(str, command)), flush=True)
    return subprocess.run(list(map(str, command)), **options).returncode


def build(preset, source=TREE, wrapper=()):
    """Configures and builds one preset; False if that failed."""
    quiet = {"cwd": source, "stdout": subprocess.DEVNULL}
    if run([*wrapper, "cmake", "--preset", preset], **quiet):
        return False
    log = source / "build" / f"{preset}.log"
    with open(log, "w") as output:
        code = run([*wrapper, "cmake", "--build", f"build/{preset}", "-j", JOBS],
                   cwd=source, stdout=output, stderr=subprocess.STDOUT)
    if code:
        print(log.read_text()[-6000:])
    return code == 0


def read_environments():
    """{test name: set of environments in which it may be skipped}."""
    listed = {}
    for line in (TREE / "tests/environments.tsv").read_text().splitlines():
        if line and not line.startswith("#"):
            name, may_skip = (line.split("\t") + [""])[:2]
            listed[name] = set(may_skip.split())
    return listed


def skip_reason(text):
    lines = [line for line in (text or "").splitlines() if "skip" in line.lower()]
    return lines[-1].strip() if lines else ""


def ctest(stage, tally, preset, environment, source=TREE, labels=None, wrapper=()):
    """Runs the built tests of one preset and tallies them against the environments table."""
    results = source / "build" / f"{preset}.xml"
    results.unlink(missing_ok=True)
    # Up to twice more what fails: many processes and time-outs on few processors. It is said which did.
    command = [*wrapper, "ctest", "--test-dir", f"build/{preset}", "-j", JOBS, "--output-junit",
               results, "--output-on-failure", "--repeat", "until-pass:3"]
    if labels:
        command += ["-L", labels]
    left_out = "^lab|^models" if stage == "user" else "^lab"  # the models are the same for every user
    if labels != LAB_TESTS:
        command += ["-LE", left_out]
    log = source / "build" / f"{preset}.ctest.log"
    with open(log, "w") as output:
        run(command, cwd=source, stdout=output, stderr=subprocess.STDOUT)
    if not results.exists():
        tally.add(stage, "ctest", "failed", "no result file; see " + str(log))
        return
    listed = read_environments()
    seen = set()
    failed_once = set(re.findall(r"Test +#\d+: (\S+) \.*\*\*\*(?:Failed|Timeout|Exception)",
                                 log.read_text(errors="replace")))
    for case in ElementTree.parse(results).getroot().iter("testcase"):
        name = case.get("name")
        seen.add(name)
        output = case.findtext("system-out") or ""
        if name not in listed:
            tally.add(stage, name, "failed", "not listed in tests/environments.tsv")
        elif case.get("status") == "run":
            if name in failed_once:
                print(f"  second run {stage}/{name}: the first failed, see {log}", flush=True)
            tally.add(stage, name, "passed")
        elif case.find("skipped") is not None and case.get("status") != "fail":
            if environment in listed[name] or "any" in listed[name]:
                tally.add(stage, name, "skipped", skip_reason(output))
            else:
                tally.add(stage, name, "failed", f"skipped, but must run in '{environment}': "
                          + skip_reason(output))
        else:
            print(output[-3000:])
            tally.add(stage, name, "failed", "see build/" + log.name)
    if not labels:
        for name in sorted(set(listed) - seen - tests_labelled(source / "build" / preset, left_out)):
            tally.add(stage, name, "failed", "listed in tests/environments.tsv, but gone")


def tests_labelled(folder, labels):
    """The tests of a build that a stage leaves to others."""
    listing = subprocess.run(["ctest", "--test-dir", folder, "-N", "-L", labels], capture_output=True, text=True)
    return set(re.findall(r"Test +#\d+: (\S+)", listing.stdout))


def stage_preset(stage, tally, labels=None):
    environment = "root" if os.geteuid() == 0 else "user"
    if stage in ("asan", "tsan"):
        environment += "-" + stage
    if not build(stage):
        tally.add(stage, "build", "failed", f"see build/{stage}.log")
        return
    ctest(stage, tally, stage, environment, labels=labels)


def tracked_files():
    """The files of the tree: what git knows or would add, or without git all but build/ and caches."""
    # A checkout may belong to another user than the one who runs this, as in a container.
    listing = subprocess.run(["git", "-c", f"safe.directory={TREE}", "ls-files", "-z", "--cached",
                              "--others", "--exclude-standard"], cwd=TREE, capture_output=True)
    if listing.returncode == 0:
        names = listing.stdout.decode().split("\0")
    else:
        print("  git cannot list the files: " + listing.stderr.decode().strip(), flush=True)
        names = [str(path.relative_to(TREE)) for path in TREE.rglob("*") if path.is_file()]
    left_out = ("build/", ".git/", ".cache/")
    return [name for name in names if name and not name.startswith(left_out)
            and "__pycache__" not in name and (TREE / name).exists()]


def stage_user(tally):
    """The dev stage by an ordinary user, in a folder of its own."""
    if os.geteuid() != 0:
        return  # the dev stage was that already
    home = Path(tempfile.mkdtemp(prefix="morsel-user-"))
    try:
        for name in tracked_files():
            target = home / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TREE / name, target, follow_symlinks=False)
        (home / "build").mkdir(exist_ok=True)
        user = "nobody"
        subprocess.run(["chown", "-R", user, home], check=True)
        wrapper = ["setpriv", "--reuid", user, "--regid", "nogroup", "--clear-groups", "--reset-env",
                   "env", f"HOME={home}", f"MORSEL_CACHE={home}/.cache"]
        for name in ("MORSEL_SEED", "MORSEL_FULL"):
            if name in os.environ:
                wrapper.append(f"{name}={os.environ[name]}")
        if not build("dev", home, wrapper):
            tally.add("user", "build", "failed", "as an ordinary user")
            return
        ctest("user", tally, "dev", "user", home, wrapper=wrapper)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def fuzz_one(target, corpus, seconds, tally):
    """One libFuzzer target from a copy of its corpus; what it finds stays in build/fuzz-findings."""
    findings = TREE / "build/fuzz-findings"
    findings.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as grown:
        command = [target, f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=3000",
                   "-print_final_stats=1", f"-artifact_prefix={findings}/{target.name}-", grown]
        if corpus.is_dir():
            command.append(corpus)
        environment = dict(os.environ, MORSEL_LOG="none", ASAN_OPTIONS="detect_leaks=1")
        result = subprocess.run(command, capture_output=True, text=True, env=environment, errors="replace")
    executions = re.search(r"number_of_executed_units:\s*(\d+)", result.stderr)
    count = int(executions.group(1)) if executions else 0
    print(f"  {target.name}: {count} executions in {seconds} s")
    if result.returncode or not count:
        print(result.stderr[-3000:])
        tally.add("fuzz", target.name, "failed", f"exit {result.returncode}; input in build/fuzz-findings")
    else:
        tally.add("fuzz", target.name, "passed")


def stage_fuzz(tally, full):
    if not build("fuzz"):
        tally.add("fuzz", "build", "failed", "see build/fuzz.log")
        return
    targets = sorted(path for path in (TREE / "build/fuzz/tests/fuzz").iterdir()
                     if path.is_file() and os.access(path, os.X_OK) and "fuzz" in path.name)
    if not targets:
        tally.add("fuzz", "targets", "failed", "none was built")
    for target in targets:
        fuzz_one(target, TREE / "tests/fuzz/corpus" / target.name, 90 if full else 10, tally)


def stage_lab(tally, full, kernel):
    """Boots machines; without the lab kernel the tests that are listed for it fail."""
    if not build("dev"):
        tally.add("lab", "build", "failed", "see build/dev.log")
        return
    trouble = lab_stage.finish(kernel)
    if trouble:
        tally.add("lab", "kernel", *trouble)
    if trouble and trouble[0] == "skipped":
        return
    ctest("lab", tally, "dev", "root" if os.geteuid() == 0 else "user", labels=LAB_TESTS)
    lab_stage.run(tally, full)


def main():
    parser = argparse.ArgumentParser(prog="tools/check", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the counts that the issues name")
    parser.add_argument("--mutants", action="store_true", help="only the mutants, on 5 seeds")
    parser.add_argument("--stage", action="append", choices=STAGES, help="only this stage")
    options = parser.parse_args()

    if options.full:
        os.environ["MORSEL_FULL"] = "1"
    stages = ["mutants"] if options.mutants else options.stage or STAGES
    (TREE / "build").mkdir(exist_ok=True)
    tally = Tally()
    durations = {}
    kernel = lab_stage.begin(options.full) if "lab" in stages else None
    for stage in stages:
        began = time.monotonic()
        print(f"== {stage}", flush=True)
        if stage == "dev" or stage == "asan":
            stage_preset(stage, tally)
        elif stage == "tsan":
            stage_preset(stage, tally, labels="stress|threads")
        elif stage == "user":
            stage_user(tally)
        elif stage == "fuzz":
            stage_fuzz(tally, options.full)
        elif stage == "lab":
            stage_lab(tally, options.full, kernel)
        else:
            every = options.full or options.mutants
            seeds = range(1, 6) if every else [int(os.environ.get("MORSEL_SEED", "1"))]
            mutants_stage.run_all(TREE, tracked_files(), seeds, tally, 1 if every else MUTANT_PARTS)
        durations[stage] = round(time.monotonic() - began)
    print("seconds per stage:", json.dumps(durations))
    for failure in tally.failures:
        print("FAILED", failure)
    print(f"{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped")
    return 1 if tally.failed or not tally.passed else 0


if __name__ == "__main__":
    sys.exit(main())
