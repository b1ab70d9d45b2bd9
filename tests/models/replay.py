#!/usr/bin/env python3
"""Asks the model of retarget whether it can do what the torture test did.

    replay.py --torture PROGRAM [--seconds N] [--probes-of FOLDER] [--keep FILE]
    replay.py --trace FILE

The processes of a short torture note what they come to at each probe of a retarget, in one order
(core/object/retarget_probe.h). What they noted is taken apart leaf by leaf: each transition that locked
the leaf is an actor of the model (retarget.pml with -DTRACE), and the model is searched for a way to come
to the same probes in the same order, with the leaf in the same state. A trace for which there is no way
is refused, and fails this test. So the order of the steps is said once, in the model.

Then the traces are spoiled, each in one place (two steps of a transition swapped, one left out, a lock
taken while another has it, a state that is not), and each of these must be refused.

What is not in the model (moves, splits, promotions, pages that come with a morsel or go with it) divides
a leaf's trace, and is counted. Needs spin and a C compiler; exit 77 without.
"""

import argparse
import collections
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODEL = HERE / "retarget.pml"
TRACE_BYTES = 32 << 20
ACTORS = 4
LENGTH = 60  # steps of one trace, where it can be cut
TRACES = 1500  # different ones that are searched

EVICT, FILL, DIRTY = 1, 2, 3  # enum mrs_retarget_kind
HELD, NAMED = 1, 2  # flags of an entry
# The same step, at another place in the code.
ALIASES = {"fill.range.lifting": "fault.lifting", "retarget.aborted": "retarget.ending"}
BEGIN, LOCKING, LOCKED, SET, END = ("retarget.announced", "retarget.locking", "retarget.locked",
                                    "retarget.set", "retarget.ending")
REPAIRED, SPLIT, DIED = "retarget.repair.settled", "retarget.split.done", "died"


class Failed(Exception):
    pass


# ---- what was noted ----

Step = collections.namedtuple("Step", "at name mapped dirty other held named copied")


class Transition:
    """One of one process, with what it did at each leaf."""

    def __init__(self, pid, index, serial):
        self.pid, self.index, self.serial = pid, index, serial
        self.kind, self.record = 0, 0
        self.begin, self.end = None, None
        self.is_strange = False  # of a kind that the model has not
        self.steps = collections.defaultdict(list)  # by leaf


def entries(path):
    """(name, pid, words) of each entry, in the order in which they were begun."""
    data = Path(path).read_bytes()
    end = min(struct.unpack_from("<Q", data)[0] + 8, len(data))
    at = 8
    while at + 48 <= end:
        size, words, pid, _ = struct.unpack_from("<4I", data, at)
        if not size:
            break
        if words:  # else it died before it had noted all
            name = data[at + 16:at + 48].split(b"\0")[0].decode()
            yield name, pid, struct.unpack_from(f"<{words}Q", data, at + 48)
        at += size


def bits(words):
    number = sum(word << 64 * i for i, word in enumerate(words))
    while number:
        low = number & -number
        yield low.bit_length() - 1
        number ^= low


def read_trace(path):
    """All transitions, and how many entries there were."""
    transitions, count, owners = {}, 0, {}
    for at, (name, pid, word) in enumerate(entries(path)):
        count += 1
        index, kind, step = word[0] & 0xffff, word[0] >> 16 & 0xff, word[0] >> 24 & 0xff
        flags, masks = word[0] >> 40 & 0xff, word[0] >> 48
        name = ALIASES.get(name, name)
        if name == REPAIRED:  # noted by another process
            pid = owners.get((index, word[1]), pid)
        key = pid, index, word[1]
        one = transitions.get(key)
        if one is None:
            one = transitions[key] = Transition(*key)
            owners[index, word[1]] = pid
        one.record = one.record or word[2]
        one.kind = max(one.kind, kind)
        if name == BEGIN:
            one.begin = at
        elif name == END:
            one.end = at
        elif name == SPLIT:
            one.is_strange = True
        part = [word[4 + m * masks:4 + (m + 1) * masks] for m in range(4)]
        mapped, dirty, other = (set(bits(p)) for p in part[1:])
        for i in bits(part[0]):
            # A leaf in the record itself is no other morsel's.
            leaf = word[3] + i if word[3] >> 9 else (word[2], word[3] + i)
            one.steps[leaf].append(Step(at, name, i in mapped, i in dirty, i in other,
                                        bool(flags & HELD), bool(flags & NAMED), step != 0))
    for one in transitions.values():
        one.is_strange |= one.kind not in (EVICT, FILL, DIRTY)
    return list(transitions.values()), count


# ---- leaf by leaf ----

class Part:
    """What one transition did at one leaf."""

    def __init__(self, transition, steps):
        self.of, self.steps = transition, steps
        self.first, self.last = steps[0].at, steps[-1].at
        self.begin = transition.begin if transition.begin is not None else self.first
        self.end = transition.end
        self.found = steps[0] if steps[0].name == LOCKING else None
        ends = [s for s in steps if s.name in (SET, REPAIRED)]
        self.left = ends[-1] if ends else None


def parts_by_leaf(transitions):
    leaves = collections.defaultdict(list)
    for one in transitions:
        for leaf, steps in one.steps.items():
            leaves[leaf].append(Part(one, steps))
    for parts in leaves.values():
        parts.sort(key=lambda part: part.first)
    return leaves


def same(a, b):
    return a.mapped == b.mapped and a.dirty == b.dirty and a.other == b.other


def breaks(parts, counts):
    """Divides the parts of a leaf where something happens that the model does not know of."""
    run, before = [], None
    for part in parts:
        strange = part.of.is_strange or any(s.other for s in part.steps)
        if strange:
            counts["of other kinds"] += 1
        elif part.found is None and part.steps[0].name != REPAIRED:
            raise Failed(f"a leaf was not locked by who did {part.steps[0].name}")
        if run and not strange and before.left and part.found and not same(before.left, part.found):
            if part.of.record == before.of.record:
                counts["changed by others"] += 1
            else:
                counts["of another morsel"] += 1
            yield run
            run = []
        if strange:
            if run:
                yield run
            run = []
        else:
            run.append(part)
            before = part
    if run:
        yield run


def moves_of(run):
    """[(at, part, name, step)] of a run, with the beginnings and ends inside of it."""
    low = min(part.first for part in run) - 0.5
    high = max(part.last for part in run) + 0.5
    moves = []
    for part in run:
        moves.append((max(part.begin, low), part, BEGIN, None))
        copied = None
        for step in part.steps:
            # A batch of pages is copied in several pieces; a leaf of 512 pages is whole at the last.
            if step.name == "bring.copied":
                if copied is not None:
                    moves[copied] = None
                copied = len(moves)
            moves.append((step.at, part, step.name, step))
        if part.end is not None:
            moves.append((min(part.end, high), part, END, None))
    return sorted((m for m in moves if m), key=lambda move: move[0])


def with_actors(run):
    """Pieces of the run, each a list of (name, actor, step, kind), and how the leaf was found."""
    moves = moves_of(run)
    last = {id(part): i for i, (_, part, _, _) in enumerate(moves)}
    actor, free, steps, state, left, newest = {}, list(range(ACTORS)), [], None, None, 0
    for i, (_, part, name, step) in enumerate(moves):
        if id(part) not in actor:
            if not free:
                return  # more at once than the model has actors
            actor[id(part)] = free.pop(0)
        if state is None and step:
            state = (step.mapped, step.dirty)
        # It is noted after it was left: the next may have come in between, who noted that he had it.
        if name in (SET, REPAIRED) and part.first >= newest:
            newest, left = part.first, (step.mapped, step.dirty)
        steps.append((name, actor[id(part)], step, part.of.kind))
        if i == last[id(part)]:
            if name not in (END, REPAIRED):
                if i + 1 == len(moves):
                    break
                steps.append((DIED, actor[id(part)], None, part.of.kind))
                left = left if part.left else None  # what he left was not noted
            free.insert(0, actor.pop(id(part)))
            if not actor and len(steps) >= LENGTH / 2 and left:
                yield steps, state
                steps, state = [], left
        if len(steps) > 4 * LENGTH:
            return
    if steps and state:
        yield steps, state


def plain(steps, state):
    """The trace as bytes are: actors numbered as they come."""
    names, out = {}, []
    for name, actor, step, kind in steps:
        names.setdefault(actor, len(names))
        if name in (DIED, REPAIRED):
            flags = 0
            if step:
                flags = step.mapped << 1 | step.dirty << 2
        elif step is None or name == SET:
            flags = 0
        else:
            # What must be held and is not fits nothing: copied without being held is no state.
            flags = (1 | step.mapped << 1 | step.dirty << 2 | step.named << 3 |
                     (step.copied and kind == EVICT) << 4)
            if not step.held:
                name = "not.held"
        out.append((name, names[actor], flags | (kind == EVICT) << 5))
    return (tuple(out), state)


def traces_of(transitions, counts):
    """Counter of the different traces."""
    found = collections.Counter()
    for parts in parts_by_leaf(transitions).values():
        for run in breaks(parts, counts):
            for steps, state in with_actors(run):
                counts["steps"] += len(steps)
                found[plain(steps, state)] += 1
    return found


# ---- the model ----

def define(name):
    return name.upper().replace(".", "_")


def steps_of_model():
    return sorted(set(re.findall(r"\bSTEP(?:_IF|_MAYBE)?\((?:[^()]|\([^()]*\))*?(\w+)\)\s*;",
                                 MODEL.read_text())) - {"name"} | {"RETARGET_REPAIR_SETTLED", "DIED"})


def header(traces, numbers):
    lines = ["static const unsigned char steps[][3] = {"]
    firsts, at = [], 0
    for steps, _ in traces:
        firsts.append(at)
        for name, actor, flags in steps:
            lines.append(f"{{{numbers.get(define(name), 255)},{actor},{flags}}},")
        lines.append("{0,9,0},")
        at += len(steps) + 1
    lines.append("};\nstatic const struct {unsigned first; unsigned char mapped, dirty;} trace[] = {")
    lines += [f"{{{first},{int(state[0])},{int(state[1])}}}," for first, (_, state) in
              zip(firsts, traces)]
    lines.append("};\n#define TRACES %d\n"
                 "#define trace_at(which, at) steps[trace[which].first + (at)]\n" % len(traces))
    return "\n".join(lines)


def ask_model(traces, seconds=50):
    """How far the model can do each of the traces: None to its end, or the number of steps."""
    names = steps_of_model()
    numbers = {name: i + 1 for i, name in enumerate(names)}
    folder = Path(tempfile.mkdtemp(prefix="morsel-replay-"))
    try:
        (folder / "traces.h").write_text(header(traces, numbers))
        defines = [f"-D{name}={number}" for name, number in numbers.items()]
        for command in (["spin", "-a", "-DTRACE", *defines, str(MODEL)],
                        ["cc", "-O1", "-w", "-DSAFETY", "-DNOFAIR", "-DMEMLIM=1500", "-I.", "-o", "pan",
                         "pan.c"]):
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=seconds)
            if done.returncode:
                raise Failed(f"{command[0]}: {(done.stdout + done.stderr)[-600:]}")
        said = subprocess.run(["./pan", "-A", "-E", "-m100000", "-w22"], cwd=folder, text=True,
                              capture_output=True, timeout=seconds).stdout
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if "errors: 0" not in said or "out of memory" in said or "max search depth" in said:
        raise Failed(f"the search went wrong: {said[-600:]}")
    found = re.findall(r"^trace \d+: (\d+) (accepted|refused)$", said, re.M)
    if len(found) != len(traces):
        raise Failed(f"the search says nothing of some traces: {said[-600:]}")
    return [None if verdict == "accepted" else int(steps) for steps, verdict in found]


# ---- spoiled traces ----

def swapped(steps, i):
    return steps[:i] + (steps[i + 1], steps[i]) + steps[i + 2:]


def may_be_missing(steps, i):
    """A page that turns out to be clean is not saved, and a leaf may be given up after any step."""
    name, actor, _ = steps[i]
    after = [step[0] for step in steps[i + 1:] if step[1] == actor]
    return name in ("fault.lifting", "evict.kept") or after[:1] == [SET] != [name]


def spoil(trace):
    """Traces of which each has one thing wrong, with what it is."""
    steps, state = trace
    for i, (name, actor, flags) in enumerate(steps[:-1]):
        after, other, _ = steps[i + 1]
        if actor == other and name not in (DIED, REPAIRED) and after not in (DIED, REPAIRED):
            yield f"{after} before {name}", (swapped(steps, i), state)
        if (name not in (END, DIED, BEGIN, REPAIRED) and after not in (DIED, REPAIRED) and
                not may_be_missing(steps, i)):
            yield f"without {name}", (steps[:i] + steps[i + 1:], state)
        # A probe follows its step: between the two a leaf that is let go is another's already.
        if name == LOCKED and after != SET:
            yield "another locks it too", (steps[:i + 1] + ((BEGIN, 3, 0), (LOCKING, 3, flags)) +
                                           steps[i + 1:], state)
        if name == LOCKED:
            yield "another state", (steps[:i] + ((name, actor, flags ^ 2),) + steps[i + 1:], state)
            yield "an intent without the leaf", (steps[:i] + ((name, actor, flags ^ 8),) +
                                                 steps[i + 1:], state)


def spoiled(traces, wanted):
    """A few of every kind of them."""
    by_kind = collections.defaultdict(list)
    for trace in traces:
        if len(trace[0]) < LENGTH and not any(s[1] == 3 for s in trace[0]):
            for kind, wrong in spoil(trace):
                if len(by_kind[kind]) < wanted:
                    by_kind[kind].append(wrong)
    return [(kind, wrong) for kind, some in sorted(by_kind.items()) for wrong in some]


# ---- together ----

def torture(program, seconds, without, path):
    with open(path, "wb") as file:
        file.truncate(TRACE_BYTES)
    environment = {**os.environ, "MORSEL_PROBE_TRACE": str(path), "MORSEL_TORTURE_WITHOUT": without,
                   "MORSEL_TORTURE_SECONDS": str(seconds)}
    done = subprocess.run([program], env=environment, capture_output=True, text=True, timeout=240)
    return done.returncode, done.stdout + done.stderr


def show(trace, furthest=None):
    steps, state = trace
    lines = [f"  found {'mapped' if state[0] else 'evicted'}{' dirty' if state[1] else ''}"]
    for i, (name, actor, flags) in enumerate(steps):
        told = [word for bit, word in ((2, "mapped"), (4, "dirty"), (8, "named"), (16, "copied"),
                                       (32, "evict")) if flags & bit]
        lines.append(f"  {'->' if i == furthest else '  '} {actor} {name} {' '.join(told)}")
    return "\n".join(lines)


def check(path):
    """Refused traces of a file, after what it is about has been printed; and the accepted ones."""
    counts = collections.Counter()
    transitions, entry_count = read_trace(path)
    found = traces_of(transitions, counts)
    if not found:
        raise Failed("nothing was noted: was it built with MORSEL_PROBES?")
    chosen = [trace for trace, _ in found.most_common()]
    random.Random(int(os.environ.get("MORSEL_SEED", "1"))).shuffle(chosen)
    chosen = chosen[:TRACES]
    print(f"{entry_count} entries, {len(transitions)} transitions; {sum(found.values())} traces of "
          f"{counts.pop('steps')} steps, {len(found)} different, {len(chosen)} asked for; "
          + ", ".join(f"{n} {what}" for what, n in sorted(counts.items())), flush=True)
    asked = list(zip(chosen, ask_model(chosen)))
    refused = [(trace, furthest) for trace, furthest in asked if furthest is not None]
    return refused, [trace for trace, furthest in asked if furthest is None]


def check_spoiled(traces):
    wrong = spoiled(traces, 3)
    furthest = ask_model([trace for _, trace in wrong])
    accepted = {i for i, steps in enumerate(furthest) if steps is None}
    kinds = collections.Counter(kind for kind, _ in wrong)
    print(f"{len(wrong)} spoiled traces of {len(kinds)} kinds, {len(wrong) - len(accepted)} refused")
    for i in sorted(accepted):
        print(f"accepted although spoiled: {wrong[i][0]}\n{show(wrong[i][1])}")
    missing = {"retarget.locking before retarget.announced", "evict.punched before evict.copied",
               "evict.saved before evict.protected", "fault.lifting before retarget.dirty",
               "another locks it too", "an intent without the leaf"} - set(kinds)
    if missing:
        print("never seen, and so not spoiled:", ", ".join(sorted(missing)))
    return bool(accepted or missing)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--torture")
    parser.add_argument("--trace")
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--without", default="clone,splice,resize,compact")
    parser.add_argument("--keep")
    parser.add_argument("--skip", help="only say why not, and end as skipped")
    arguments = parser.parse_args()
    missing = [tool for tool in ("spin", "cc") if not shutil.which(tool)]
    if arguments.skip or missing:
        print(f"skipped: {arguments.skip or 'there is no ' + missing[0]}", file=sys.stderr)
        return 77
    begun = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="morsel-trace-"))
    path = Path(arguments.trace or arguments.keep or folder / "trace")
    ended, said = 0, ""
    try:
        if arguments.torture:
            ended, said = torture(arguments.torture, arguments.seconds, arguments.without, path)
        refused, accepted = check(path)
        for trace, furthest in sorted(refused, key=lambda pair: pair[1])[:5]:
            print(f"refused:\n{show(trace, furthest)}")
        print(f"{len(accepted)} accepted, {len(refused)} refused")
        bad = bool(refused) or check_spoiled(accepted)
    except Failed as problem:
        print(problem)
        bad = True
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if ended:
        print(said[-2000:])
    print(f"{time.monotonic() - begun:.0f} s")
    return 1 if bad or ended else 0


if __name__ == "__main__":
    sys.exit(main())
