"""Boots a machine, runs programs in it one after the other, and says honestly how each ended.

The guest's first serial line is the console, kept in console.log. On the second the programs write,
and the init program marks where each begins and ends with a key that only this run knows. A program
has ended only if its END mark arrived; whatever else happens (a panic, silence for longer than its
time-out permits, QEMU gone) makes it and all that come after it failures, with the last lines.
"""

import ctypes
import dataclasses
import os
import re
import secrets
import shlex
import signal
import subprocess
import time
from pathlib import Path

import initramfs
from qmp import Qmp
from words import LabError, progress, say

SKIP = 77
READY_SECONDS = 240     # until init is done, in emulation on a loaded machine
SLACK_SECONDS = 30      # after a program's own time-out, which the guest keeps
KVM_SECONDS = 12
PANIC = re.compile(rb"Kernel panic - not syncing[^\r\n]*")


@dataclasses.dataclass
class Program:
    name: str
    command: str            # for the guest's shell
    files: tuple = ()       # programs and files that it needs in the guest
    seconds: int = 120
    account: str = "root"


@dataclasses.dataclass
class Result:
    name: str
    outcome: str            # passed, failed, skipped
    why: str = ""
    code: int = -1
    seconds: float = 0
    output: str = ""


def end_with_parent():
    """A machine does not outlive the lab, however that ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Growing:
    """A file that somebody else appends to."""

    def __init__(self, path):
        self.path, self.data = path, bytearray()

    def read(self):
        if self.path.exists():
            with open(self.path, "rb") as file:
                file.seek(len(self.data))
                self.data += file.read()
        return self.data


class Guest:
    """One QEMU process and what it has said so far."""

    def __init__(self, lab, machine, kernel, folder, node=0, accelerator="tcg"):
        self.lab, self.machine, self.kernel, self.node = lab, machine, kernel, node
        self.folder, self.accelerator = Path(folder), accelerator
        self.key = secrets.token_hex(8)
        self.process = None
        self.results, self.console = (Growing(self.folder / f"{name}.log")
                                      for name in ("results", "console"))

    def prepare(self, programs, mode="run", keep_debug=False):
        """Makes the initramfs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in ("console.log", "results.log", "qmp.sock"):
            (self.folder / old).unlink(missing_ok=True)
        archive = initramfs.Cpio(self.folder / "initramfs.cpio")
        initramfs.add_base(archive, self.lab.busybox())
        archive.text("lab/settings", self.settings(mode), 0o600)
        lines = [f"{index}\t{one.seconds}\t{one.account}\t{one.name}\t{one.command}\n"
                 for index, one in enumerate(programs)]
        archive.text("lab/list", "".join(lines))
        files = {str(file) for program in programs for file in program.files}
        for file in sorted(files.union(self.machine.libraries())):
            if os.path.isdir(file):
                initramfs.add_tree(archive, file)
            else:
                initramfs.add_program(archive, file, keep_debug)
        if self.kernel.modules:
            initramfs.Modules(self.kernel.modules).add(archive, self.machine.modules())
        archive.close()

    def settings(self, mode):
        machine = self.machine
        values = {
            "LAB_KEY": self.key, "LAB_MODE": mode, "LAB_MODULES": " ".join(machine.modules()),
            "LAB_BIND": " ".join(machine.bound()), "LAB_PAGES": machine.pages or "",
            "LAB_ADDRESS": f"10.9.0.{self.node + 1}" if machine.nodes > 1 else "",
            "LAB_RDMA": "yes" if machine.rdma else "",
            "LAB_LIBRARIES": os.environ.get("LD_LIBRARY_PATH", ""),
            "LAB_SHARE": "yes" if machine.share else "", "LAB_NODE": self.node,
        }
        return "".join(f"{name}={shlex.quote(str(value))}\n" for name, value in values.items())

    def command(self, shell=False):
        qemu = self.lab.qemu(self.machine.iommu)
        accelerator = "kvm" if self.accelerator == "kvm" else "tcg,thread=multi"
        second = ["-chardev", "stdio,id=second,signal=off"] if shell else [
            "-chardev", "file,id=second,path=results.log"]
        return qemu.command + [
            "-accel", accelerator, "-display", "none", "-nodefaults", "-no-user-config",
            "-no-reboot",
            "-serial", "file:console.log", *second, "-serial", "chardev:second",
            "-qmp", "unix:qmp.sock,server=on,wait=off",
            "-kernel", str(self.kernel.image), "-initrd", "initramfs.cpio",
            "-append", self.machine.command_line(),
            *self.machine.qemu(self.folder.resolve(), self.node, qemu.major)]

    def start(self, shell=False):
        command = self.command(shell)
        (self.folder / "command").write_text(shlex.join(command) + "\n")
        with open(self.folder / "qemu.log", "wb") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdin=None if shell else subprocess.DEVNULL,
                stdout=None if shell else log, stderr=log, start_new_session=not shell,
                preexec_fn=end_with_parent,
                env=self.lab.qemu(self.machine.iommu).environment())

    def gone(self):
        return self.process.poll() is not None

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def last_words(self, count=12):
        lines = []
        for name in ("qemu.log", "results.log", "console.log"):
            path = self.folder / name
            text = path.read_bytes().decode(errors="replace") if path.exists() else ""
            found = [line.rstrip() for line in text.replace("\r", "").split("\n") if line.strip()]
            lines += [f"  {name}: {line.replace(self.key, '')[:160]}" for line in found[-count:]]
        return "\n".join(lines)


class Reader:
    """Follows what one guest says and turns it into results."""

    def __init__(self, guest, programs, slack=SLACK_SECONDS):
        self.guest, self.programs, self.slack = guest, programs, slack
        self.results = []
        self.taken = 0              # bytes of results.log that have been understood
        self.ready = self.done = False
        self.trouble = []
        self.running = None         # (index, since when, where its output begins, guest's time)
        self.last = time.monotonic()
        self.asked = []
        self.cut = False

    def read(self):
        """Takes all complete marks; the text between BEGIN and END is the program's output."""
        said = self.guest.results.read()
        key = self.guest.key.encode()
        while True:
            at = said.find(key, self.taken)
            end = said.find(b"\n", at)
            if at < 0 or end < 0:
                return
            self.mark(said, at, said[at + len(key):end].decode(errors="replace").split())
            self.taken = end + 1
            self.last = time.monotonic()

    def mark(self, said, at, words):
        verb, rest = words[0], words[1:]
        if verb == "READY":
            self.ready = True
            progress(f"the guest is ready after {rest[0]} s, kernel {rest[1]}")
        elif verb == "TROUBLE":
            self.trouble.append(" ".join(rest))
        elif verb == "BEGIN":
            output = said.find(b"\n", at) + 1
            self.running = (int(rest[0]), time.monotonic(), output, float(rest[1]))
        elif verb == "END":
            self.end(said[self.running[2]:at], int(rest[1]), float(rest[2]) - self.running[3])
        elif verb == "DONE":
            self.done = True
        elif verb == "ASK":
            self.asked.append(rest)

    def end(self, output, code, seconds):
        program = self.programs[self.running[0]]
        text = output.decode(errors="replace").replace("\r", "")
        text = re.sub(self.guest.key + " ASK[^\n]*\n", "", text)
        outcome, why = "failed", f"exit code {code}"
        if code == 0:
            outcome, why = "passed", ""
        elif code == SKIP:
            reasons = [line for line in text.splitlines() if "skip" in line.lower()]
            outcome, why = "skipped", reasons[-1].strip() if reasons else "no reason printed"
        elif code == 128 + signal.SIGKILL and seconds >= program.seconds - 1:
            why = f"no end within its {program.seconds} s"
        elif code > 128:
            why = f"killed by signal {code - 128}"
        self.results.append(Result(program.name, outcome, why, code, seconds, text))
        self.running = None

    def patience(self):
        """How long the guest may be silent now, in seconds."""
        if not self.ready:
            return READY_SECONDS if self.guest.accelerator != "kvm" else KVM_SECONDS
        if self.running:
            return self.programs[self.running[0]].seconds + self.slack
        return self.slack

    def why_over(self):
        """The reason why this guest will not say any more, or None."""
        panic = PANIC.search(self.guest.console.read())
        if panic:
            return panic.group().decode(errors="replace")
        if self.cut:
            return "the power was cut"
        if self.guest.gone():
            return f"QEMU ended with code {self.guest.process.returncode}"
        if time.monotonic() - self.last > self.patience():
            return f"no word from the guest for {self.patience()} s" + (
                "" if self.ready else ": it did not start")
        return None

    def give_up(self, why):
        """All that has no result yet failed for this reason; the first shows the last lines."""
        details = f"{why}\n{self.guest.last_words()}"
        output = ""
        if self.running:
            output = self.guest.results.read()[self.running[2]:].decode(errors="replace")
        for program in self.programs[len(self.results):]:
            self.results.append(Result(program.name, "failed", details, output=output))
            details, output = f"not run: {why}", ""


def answer(reader):
    """Does what the guest asked for: unplug a device, stop the processors, or cut the power."""
    asked, reader.asked = reader.asked, []
    for words in asked:
        if words[0] == "powercut":
            reader.cut = True
            reader.guest.kill()
            return
        qmp = Qmp(reader.guest.folder / "qmp.sock")
        try:
            if words[0] == "unplug":
                qmp.call("device_del", id=words[1])
            else:
                qmp.call("stop")
        except LabError as error:
            say(str(error))
        finally:
            qmp.close()


def follow(readers, powercut=None):
    """Waits until every guest is done or lost; False if one never became ready."""
    since_ready = None
    while True:
        for reader in readers:
            reader.read()
            answer(reader)
        open_ones = [reader for reader in readers if not reader.done]
        if not open_ones:
            break
        if all(reader.ready for reader in readers):
            since_ready = since_ready or time.monotonic()
            if powercut and time.monotonic() - since_ready >= powercut:
                for reader in readers:
                    reader.cut = True
                    reader.guest.kill()
        for reader in open_ones:
            why = reader.why_over()
            if why:
                reader.read()
                if reader.done:
                    continue
                for other in readers:
                    other.guest.kill()
                    other.give_up(why)
                return reader.ready
        time.sleep(0.05)
    for reader in readers:
        missing = len(reader.results) < len(reader.programs)
        if missing:
            reader.give_up("the guest is done, but this has no result")
        for trouble in reader.trouble:
            why = f"the guest could not do this: {trouble}"
            reader.results.append(Result("lab_prepare", "failed", why))
    return True


def stop(readers):
    """Lets the guests power off, for a moment."""
    until = time.monotonic() + 3
    for reader in readers:
        while not reader.guest.gone() and time.monotonic() < until:
            time.sleep(0.05)
        reader.guest.kill()


def kvm_verdict(lab, worked=None):
    """Whether KVM boots the lab on this machine: remembered until the machine restarts."""
    file = lab.cache / "kvm"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    if worked is not None:
        file.write_text(f"{boot} {'works' if worked else 'fails'}\n")
    known = file.read_text().split() if file.exists() else []
    return known[1] if len(known) == 2 and known[0] == boot else "unknown"


def accelerators(lab, wanted):
    if wanted:
        return [wanted]
    if not os.access("/dev/kvm", os.R_OK | os.W_OK) or kvm_verdict(lab) == "fails":
        return ["tcg"]
    return ["kvm", "tcg"] if kvm_verdict(lab) == "unknown" else ["kvm"]


def run(lab, machine, kernel, programs, folder, accelerator=None, powercut=None, keep_debug=False,
        slack=SLACK_SECONDS):
    """Boots machine (one guest, or two), runs programs in it: a list of results for each node."""
    machine.check(kernel)
    tried = accelerators(lab, accelerator)
    for choice in tried:
        readers = []
        try:
            for node in range(machine.nodes):
                guest = Guest(lab, machine, kernel, Path(folder) / f"node{node}", node, choice)
                guest.prepare(programs, keep_debug=keep_debug)
                readers.append(Reader(guest, programs, slack))
            (Path(folder) / "wire.sock").unlink(missing_ok=True)
            for reader in readers:
                reader.guest.start()
                reader.last = time.monotonic()
            began = follow(readers, powercut)
            stop(readers)
        finally:
            for reader in readers:
                reader.guest.kill()
        if choice == "kvm" and len(tried) > 1:
            kvm_verdict(lab, began)
            if not began:
                progress("KVM does not boot the lab here; emulating")
                continue
        return [reader.results for reader in readers]
    raise LabError("no accelerator")


def shell(guest):
    """A shell on the second line, which is this terminal; its end is the machine's."""
    import termios
    import tty
    terminal = os.isatty(0)
    before = termios.tcgetattr(0) if terminal else None
    try:
        if terminal:
            tty.setraw(0)
        guest.start(shell=True)
        return guest.process.wait()
    finally:
        guest.kill()
        if terminal:
            termios.tcsetattr(0, termios.TCSADRAIN, before)
