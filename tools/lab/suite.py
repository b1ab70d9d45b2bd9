"""The suite's programs that belong in the lab: which, on which machine, and what became of them.

tests/lab/machines.tsv describes the machines, the third column of tests/environments.tsv names for
every test the machines it runs on; how it is run (command, time-out, files) is asked of ctest,
where it is registered. Each machine boots once for all of its tests.
"""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import boot
import machine as machines
import words
from options import read
from words import LabError, say

TREE = Path(__file__).resolve().parents[2]
PASSED_ON = ("MORSEL_SEED", "MORSEL_FULL")


def rows(path):
    for line in path.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            yield line.split("\t")


def read_machines(path=TREE / "tests/lab/machines.tsv"):
    """{name: (kernel, account, words)} in the order of the table."""
    return {row[0]: (row[1], row[2], shlex.split(row[3]) if len(row) > 3 else [])
            for row in rows(path)}


def read_places(path=TREE / "tests/environments.tsv"):
    """{machine: {test: (may skip, only in full)}} from names like 6.1, intel? and amd+."""
    places = {}
    for row in rows(path):
        for word in row[2].split() if len(row) > 2 else []:
            name = word.rstrip("?+")
            places.setdefault(name, {})[row[0]] = ("?" in word[len(name):], "+" in word[len(name):])
    return places


def registered(build):
    """{name: what ctest knows} of a build tree."""
    done = subprocess.run(["ctest", "--test-dir", build, "--show-only=json-v1"],
                          capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"{build} is no build tree with tests: {done.stderr.strip()[:200]}")
    return {test["name"]: test for test in json.loads(done.stdout)["tests"]}


def program_of(test, account):
    """What the guest is to run: ctest's command, with the files that it names."""
    properties = {entry["name"]: entry["value"] for entry in test.get("properties", [])}
    command = test["command"]
    settings = list(properties.get("ENVIRONMENT", []))
    settings += [f"{name}={os.environ[name]}" for name in PASSED_ON if name in os.environ]
    files = [command[0], *properties.get("REQUIRED_FILES", [])]
    files += [word for word in command[1:] if word.startswith("/") and os.path.exists(word)]
    text = " ".join(["env", *map(shlex.quote, settings), "MORSEL_LAB=1", shlex.join(command)])
    seconds = int(properties.get("TIMEOUT", 300))
    return boot.Program(test["name"], text, tuple(files), seconds, account)


def run_machine(lab, name, description, tests, known, folder):
    """[(test, Result, may skip)] of one machine; whatever keeps it from booting fails them all."""
    kernel_name, account, words_of_it = description
    missing = sorted(test for test in tests if test not in known)
    gone = "listed for the lab, but no such test is registered"
    results = [(test, boot.Result(test, "failed", gone), False) for test in missing]
    programs = [program_of(known[test], account) for test in tests if test in known]
    try:
        machine = machines.from_options(read("run", words_of_it))
        kernel = lab.kernel(kernel_name)
        nodes = boot.run(lab, machine, kernel, programs, folder)
    except LabError as error:
        return results + [(program.name, boot.Result(program.name, "failed", str(error)), False)
                          for program in programs]
    for node, found in enumerate(nodes):
        for result in found:
            may_skip = tests.get(result.name, (False,))[0]
            results.append((result.name + (f"@{node}" if len(nodes) > 1 else ""), result, may_skip))
    return results


def run(lab, build, full=False, only=None, chosen=None, folder=None):
    """Yields (machine, test, Result, may skip) for every test of every machine."""
    words.verbose = True
    descriptions, places = read_machines(), read_places()
    for name in set(places) - set(descriptions):
        why = f"tests/lab/machines.tsv has no machine '{name}'"
        yield name, "table", boot.Result("table", "failed", why), False
    known = registered(build)
    for name, description in descriptions.items():
        tests = {test: marks for test, marks in places.get(name, {}).items()
                 if (full or not marks[1]) and (not only or re.search(only, test))}
        if not tests or (chosen and name not in chosen):
            continue
        say(f"machine {name}: {len(tests)} tests")
        where = Path(folder or Path(build) / "lab") / name
        for test, result, may_skip in run_machine(lab, name, description, tests, known, where):
            (where / f"{test}.log").write_text(result.output)
            yield name, test, result, may_skip


def main(lab, options):
    """The table on stdout: one line a test, and a sum."""
    for name in options.machine or []:
        if name not in read_machines():
            raise LabError(f"tests/lab/machines.tsv has no machine '{name}'")
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    found = run(lab, options.build, options.full, options.only, options.machine, options.log)
    for name, test, result, may_skip in found:
        outcome = "failed" if result.outcome == "skipped" and not may_skip else result.outcome
        counts[outcome] += 1
        why = f": {result.why}" if result.why else ""
        print(f"{outcome:8} {result.seconds:6.1f} s  {name}/{test}{why}", flush=True)
        if outcome == "failed" and result.output:
            print("    " + "\n    ".join(result.output.splitlines()[-15:]), flush=True)
    print(", ".join(f"{count} {word}" for word, count in counts.items()))
    return 1 if counts["failed"] or not counts["passed"] else 0
