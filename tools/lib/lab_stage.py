"""The stage of tools/check that boots machines: the lab's own tests, then the suite's in the lab.

Kernels and QEMU are fetched from the start of tools/check on. The lab kernel, which takes longer to build
than all the rest, is for the full check: it is built in what the other stages leave idle.
"""

import atexit
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
LAB = TREE / "tools/lab/lab.py"
BUILD_PATIENCE = 3600
NOTHING = 75  # exit code of begin(): the mirror gives no QEMU or no kernel

sys.path.insert(0, str(LAB.parent))
import store  # noqa: E402
import suite  # noqa: E402
from words import LabError  # noqa: E402


def begin(full):
    """Starts fetching, and building, in the background; answers what finish() wants."""
    log = open(TREE / "build/lab-kernel.log", "wb")
    build = ("chrt --idle 0 true 2>/dev/null && idle='chrt --idle 0'; "
             f"exec $idle nice -n 19 python3 -B {LAB} kernel")
    script = (f"python3 -B {LAB} fetch qemu {'newest ' if full else ''}6.1 6.12 || exit {NOTHING}; "
              + (build if full else "exit 0"))
    background = subprocess.Popen(["sh", "-c", script], stdout=log, stderr=log,
                                  start_new_session=True)
    atexit.register(end, background)
    return background


def end(background):
    """An interrupted check leaves no build behind."""
    if background.poll() is None:
        os.killpg(background.pid, signal.SIGTERM)


def finish(background):
    """
    Waits for the lab kernel: (outcome, why) for the tally, or None where all is there. Without a mirror
    that gives QEMU and the stock kernels this environment has no lab, and its tests are skipped; a
    kernel that does not build is a failure.
    """
    log = TREE / "build/lab-kernel.log"
    try:
        code = background.wait(BUILD_PATIENCE)
    except subprocess.TimeoutExpired:
        return "failed", f"not built after {BUILD_PATIENCE} s; see {log}"
    if not code:
        return None
    why = "\n".join(log.read_text(errors="replace").splitlines()[-6:])
    return "skipped" if code == NOTHING else "failed", why


def outcome_of(machine, result, may_skip):
    if result.outcome == "skipped" and not may_skip:
        return "failed", f"skipped, but must run on machine '{machine}': {result.why}"
    return result.outcome, result.why


def once_more(lab, full, machine, test):
    """What becomes of it in a machine of its own: emulated ones lose their timers under load at times."""
    print(f"  second run lab/{machine}/{test}: the first failed, see build/dev/lab/{machine}", flush=True)
    only = f"^{re.escape(test.split('@')[0])}$"
    for _, again, result, may_skip in suite.run(lab, TREE / "build/dev", full, only, [machine],
                                                TREE / "build/dev/lab-again"):
        if again == test:
            return result, outcome_of(machine, result, may_skip)
    return None, ("failed", "not run again")


def run(tally, full):
    """Every machine of tests/lab/machines.tsv, and what ran on it; what fails once more, as elsewhere."""
    try:
        lab = store.Lab()
        for machine, test, result, may_skip in suite.run(lab, TREE / "build/dev", full):
            outcome, why = outcome_of(machine, result, may_skip)
            if outcome == "failed":
                print("\n".join(result.output.splitlines()[-40:]), flush=True)
                again, (outcome, why) = once_more(lab, full, machine, test)
                result = again or result
            if outcome != "failed":
                print(f"  {outcome} lab/{machine}/{test} {result.seconds:.1f} s", flush=True)
            tally.add("lab", f"{machine}/{test}", outcome, why)
    except LabError as error:
        tally.add("lab", "lab", "failed", str(error))
