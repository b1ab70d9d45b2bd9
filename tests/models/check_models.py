#!/usr/bin/env python3
"""Checks the Promela models: every state of each, and that every guard of them is needed.

    check_models.py [--model NAME]... [--seconds N]

A model is verified in several configurations (macros that say who takes part), each exhaustively:
all states stored, none hashed away, the search complete. Then the model is made once for each of its
guards without that guard, and spin must find an error. Needs spin and a C compiler; exit 77 without.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEPTH = 2_000_000
MEMORY_MB = 1900

# Name, macros; "heavy" ones run one at a time, so that all stays below 2 GiB.
CONFIGURATIONS = {
    "retarget": [
        ("pager dies", "-DDEATH=0 -DMAP_ONCE", "heavy"),
        ("writer dies", "-DDEATH=1 -DMAP_ONCE", ""),
        ("late mapper dies", "-DDEATH=2 -DMAP_ONCE", ""),
        ("maps and unmaps", "", ""),
        ("registry's stamp", "-DSTAMPS -DMAP_ONCE", ""),
        ("no pager answers", "-DSILENT", ""),
        ("writer reads too", "-DREADS -DMAP_ONCE", ""),
        ("pins", "-DPINS -DMAP_ONCE", ""),
        ("pinner dies", "-DPINS -DMAP_ONCE -DDEATH=2", "heavy"),
        ("mail", "-DMAIL -DMAP_ONCE", ""),
        ("asker dies", "-DMAIL -DMAP_ONCE -DNO_WRITER -DDEATH=0", ""),
        ("asked dies", "-DMAIL -DMAP_ONCE -DNO_WRITER -DDEATH=2", ""),
        ("maps anew", "-DREMAPS -DREADS -DNO_MAPPER", ""),
        ("dies mapping anew", "-DREMAPS -DREADS -DNO_MAPPER -DDEATH=1", ""),
        ("gives up", "-DGIVES_UP -DREADS -DMAP_ONCE", ""),
        ("two pagers", "-DPAGERS=2 -DREADS -DNO_MAPPER", ""),
        ("one of two pagers dies", "-DPAGERS=2 -DREADS -DNO_MAPPER -DDEATH=0", ""),
    ],
    "clone": [
        ("both are written", "", ""),
        ("cloned once more", "-DAGAIN", ""),
        ("late view", "-DLATE -DNO_A", ""),
        ("two writers of the source", "-DTWO -DNO_B", ""),
        ("cloner dies", "-DDEATH=0", ""),
        ("writer of the source dies", "-DDEATH=1", ""),
        ("writer of the clone dies", "-DDEATH=2", ""),
        ("writer dies, once more", "-DAGAIN -DDEATH=1", ""),
        ("late view, cloner dies", "-DLATE -DNO_A -DDEATH=0", ""),
        ("late view dies", "-DLATE -DNO_A -DDEATH=3", ""),
    ],
    "move": [
        ("two views", "", ""),
        ("late view", "-DLATE", ""),
        ("mover dies", "-DDEATH=0", ""),
        ("user dies", "-DDEATH=1", ""),
        ("who follows dies", "-DDEATH=2", ""),
    ],
}

# In which configuration the lack of a guard must show.
WITHOUT = {
    "retarget": {
        "INTENT_FIRST": "-DDEATH=0 -DNO_MAPPER", "PROTECT": "-DNO_MAPPER", "ALL_PROTECTED": "-DSILENT",
        "PAGER_FENCE": "", "MAPPER_FENCE": "", "MAPPER_SETTLES": "", "PIN_SETTLES": "-DPINS",
        "PINS_LOOKED_AT": "-DPINS", "REGISTRY_STAMP": "", "CLEAN_EPOCH": "",
        "EPOCH_BEFORE_LOOK": "-DREADS", "LIST_BEFORE_EPOCH": "-DREADS",
        "COPIED_BEFORE_PUNCH": "-DDEATH=0 -DNO_MAPPER", "SAVE_DIRTY": "-DNO_MAPPER",
        "OLD_SLOT_LAST": "-DDEATH=0 -DNO_MAPPER", "FILL_UNDER_LOCK": "", "RECHECK": "",
        "SLOT_UNDER_LOCK": "", "EEXIST_KEEPS": "", "FILL_PROTECTS": "", "UNPROTECT_LOCKED": "-DNO_MAPPER",
        "DIRTY_FIRST": "-DREADS -DNO_MAPPER", "PIN_DIRTIES": "-DPINS", "ALL_ACKS": "-DMAIL",
        "ACK_LAST": "-DMAIL", "REPAIR_LOOKS": "-DDEATH=0 -DMAP_ONCE", "WAKE": "-DREADS -DMAP_ONCE",
        "REMAP_PINS": "-DREMAPS -DREADS -DNO_MAPPER", "REMAP_EPOCH": "-DREMAPS -DREADS -DNO_MAPPER",
        "ANSWER_NAMES": "-DMAIL",
        "PINS_BEFORE_EPOCH": "-DREMAPS -DREADS -DNO_MAPPER",
    },
    "clone": {
        "CLONE_FENCE": "", "CLONE_SETTLES": "", "FROZEN_LOOK": "", "BREAK_FROZEN": "-DAGAIN",
        "BREAK_FENCE": "-DAGAIN", "PROTECT": "", "LATE_SETTLES": "-DLATE -DNO_A",
        "LATE_PROTECTS": "-DLATE -DNO_A", "SOURCE_MARKED": "", "THAW_LAST": "", "SHARED_LOOK": "",
        "WAY_STILL": "-DTWO -DNO_B", "TABLE_LOCKED": "-DTWO -DNO_B", "TABLE_RECHECK": "-DTWO -DNO_B",
        "ENTRY_COUNTED": "", "ENTRY_MARKED": "", "COPY_MARKED": "", "LINK_BEFORE_DROP": "-DTWO -DNO_B",
        "PAGE_RECHECK": "-DTWO -DNO_B", "FOLLOW_FIRST": "-DTWO", "RECOUNT": "-DDEATH=2",
        "COPY_NOTED": "-DDEATH=2", "REPAIR_THAWS": "-DDEATH=0", "REPAIR_UNLOCKS": "-DDEATH=2",
        "REPAIR_DROPS": "-DDEATH=0",
    },
    "move": {
        "STOP_WRITERS": "", "PINS_LOOKED_AT": "", "PUNCH": "", "COUNTED": "", "STALE_MAPS": "",
        "UNDER_LOCK": "", "NOT_FOR_LAG": "", "LETTER_HOLDS": "", "FOLLOW_PINS": "", "LATE_COUNT": "-DLATE",
        "LATE_SETTLES": "-DLATE", "REPAIR_ENTERS": "-DDEATH=0", "REPAIR_PUNCHES": "-DDEATH=0",
        "REPAIR_COUNTS": "-DDEATH=0",
    },
}


class Failed(Exception):
    pass


def run(command, folder, seconds):
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=seconds)
    return result.returncode, result.stdout + result.stderr


def guards_of(model):
    """{name: number} of the guards that the model defines."""
    text = (HERE / f"{model}.pml").read_text()
    part = text[text.index("#define GUARD(n)"):text.index("/* ---- shared memory ---- */")]
    return {name: int(number) for name, number in re.findall(r"^#define (\w+)\s+(\d+)", part, re.M)}


class Search:
    """What one verification found."""

    def __init__(self, model, macros, seconds, optimize):
        folder = Path(tempfile.mkdtemp(prefix="morsel-model-"))
        try:
            code, said = run(["spin", "-a", *macros.split(), str(HERE / f"{model}.pml")], folder, 60)
            if code or "error" in said.lower():
                raise Failed(f"spin: {said.strip()[-400:]}")
            code, said = run(["cc", optimize, "-w", "-DSAFETY", "-DNOFAIR", f"-DMEMLIM={MEMORY_MB}",
                              "-o", "pan", "pan.c"], folder, 120)
            if code:
                raise Failed("cc: " + " ".join(said.split())[-200:])
            _, self.said = run(["./pan", f"-m{DEPTH}", "-w22"], folder, seconds)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self.errors = self._number(r"errors: (\d+)")
        self.states = self._number(r"(\d+) states, stored")
        self.transitions = self._number(r"(\d+) transitions")
        self.complete = ("Search not completed" not in self.said and "out of memory" not in self.said
                         and "max search depth too small" not in self.said)
        first = re.search(r"^pan:\d+: (.*?)(?: \(at depth.*)?$", self.said, re.M)
        self.why = first.group(1) if first else ""

    def _number(self, pattern):
        found = re.search(pattern, self.said)
        if not found:
            raise Failed(self.said[-400:])
        return int(found.group(1))


def verify(model, macros, seconds):
    search = Search(model, macros, seconds, "-O2")
    if search.errors:
        raise Failed(search.why)
    if not search.complete:
        raise Failed(f"the search is not complete ({search.states} states)")
    return f"{search.states:>10} states {search.transitions:>10} transitions"


def refute(model, guard, number, seconds):
    macros = f"{WITHOUT[model][guard]} -DNO={number}"
    search = Search(model, macros, seconds, "-O1")
    if not search.errors:
        raise Failed(f"nothing is wrong without it ({search.states} states)")
    return f"{search.states:>10} states until: {search.why[:60]}"


def check_steps(model):
    """The steps of a model are probes of the code."""
    probes = {name for path in (HERE.parents[1] / "core").rglob("*.c")
              for name in re.findall(r'PROBE(?:_\w+)?\("([\w.]+)"', path.read_text())}
    text = (HERE / f"{model}.pml").read_text()
    steps = set(re.findall(r"\bSTEP(?:_IF|_MAYBE)?\((?:[^()]|\([^()]*\))*?\b([A-Z]\w+)\)", text))
    unknown = steps - {name.upper().replace(".", "_") for name in probes} - {"A_B_C"}
    if unknown or not steps:
        raise SystemExit(f"{model}: steps that are no probes: {sorted(unknown)}")


def jobs_of(model, seconds, heavy):
    def alone(*arguments):
        with heavy:
            return verify(*arguments)

    check_steps(model)
    guards = guards_of(model)
    if set(guards) != set(WITHOUT[model]):
        raise SystemExit(f"{model}: guards without a configuration, or the reverse: "
                         f"{sorted(set(guards) ^ set(WITHOUT[model]))}")
    for name, macros, kind in CONFIGURATIONS[model]:
        yield f"{model}: {name}", alone if kind else verify, (model, macros, seconds)
    for guard, number in guards.items():
        yield f"{model} without {guard}", refute, (model, guard, number, seconds)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", action="append", choices=sorted(CONFIGURATIONS))
    parser.add_argument("--skip", help="only say why not, and end as skipped")
    parser.add_argument("--only", default="", help="searches whose title contains this")
    parser.add_argument("--seconds", type=int, default=600, help="for one search")
    arguments = parser.parse_args()
    if arguments.skip:
        print(f"skipped: {arguments.skip}", file=sys.stderr)
        return 77
    for tool in ("spin", "cc"):
        if not shutil.which(tool):
            print(f"skipped: there is no {tool}", file=sys.stderr)
            return 77
    failed, begun, heavy = [], time.monotonic(), threading.Lock()

    def work(job):
        title, function, its_arguments = job
        since = time.monotonic()
        try:
            outcome = function(*its_arguments)
        except (Failed, subprocess.TimeoutExpired) as problem:
            failed.append(title)
            outcome = f"FAILED: {problem}"
        print(f"{title:<42} {outcome} ({time.monotonic() - since:.1f} s)", flush=True)

    jobs = [job for model in arguments.model or CONFIGURATIONS
            for job in jobs_of(model, arguments.seconds, heavy) if arguments.only in job[0]]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(work, jobs))
    print(f"{len(jobs)} searches in {time.monotonic() - begun:.0f} s, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
