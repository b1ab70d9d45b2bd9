"""The options of each command of the lab, from one table: reading them, and --help in the form that
every command of morsel has. Operands end the options of "run": what follows is the program's.
"""

import sys
from types import SimpleNamespace

from words import LabError

MACHINE = [  # name, value ("" for a flag), default, help
    ("kernel", "WHICH", "stock", "stock, 6.1, 6.12, lab, or the file of one (default: stock)"),
    ("modules", "FOLDER", "", "lib/modules/VERSION of a kernel that is a file"),
    ("iommu", "KIND", "none", "none, intel, intel-first, virtio or amd"),
    ("device", "LIST", "", "edu, nvme and disk, with commas; nvme:FILE keeps its content"),
    ("memory", "SIZE", "1G", "the machine's memory (default: 1G)"),
    ("cpus", "N", 2, "the machine's processors (default: 2)"),
    ("pages", "N", 0, "huge pages of 2 MiB that it reserves"),
    ("cxl", "KIND", "", "a CXL memory device: volatile or persistent"),
    ("pmem", "", False, "an NVDIMM and a virtio-pmem device"),
    ("rdma", "", False, "what soft-RoCE needs: its modules, and a network"),
    ("share", "FOLDER", "", "a folder of the host, which is /share in the machine"),
    ("file", "PATH", [], "give the machine this file, program or folder, too; may be repeated"),
    ("append", "WORDS", "", "more words for the kernel"),
    ("qemu-binary", "FILE", "", "another QEMU"),
    ("qemu-args", "WORDS", "", "more words for QEMU"),
    ("accel", "HOW", "", "kvm or tcg (default: KVM where it works)"),
    ("gdb", "", False, "let a debugger in, on port 1234"),
    ("log", "FOLDER", "", "keep the logs there"),
]
RUN = [
    ("nodes", "N", 1, "2: two machines that a network joins; the program runs on both"),
    ("user", "", False, "run the program as an ordinary user"),
    ("timeout", "SECONDS", 120, "how long the program may take (default: 120)"),
    ("powercut", "SECONDS", 0.0, "kill the machine so long after it is ready"),
]
COMMANDS = {
    "run": ("[--] PROGRAM [ARGUMENT...]", "Boot a machine and run one program in it.",
            [*MACHINE, *RUN]),
    "shell": ("", "Boot a machine and be in its shell.", MACHINE),
    "fetch": ("[PART...]", "Fetch kernels and QEMU into the cache: 6.1, 6.12, qemu, newest.", []),
    "kernel": ("", "Build the lab's own kernel into the cache, once.", [
        ("jobs", "N", 0, "how many compilers run at a time (default: one for each processor)")]),
    "test": ("", "Run the tests of the tree that belong in the lab.", [
        ("build", "FOLDER", "", "a build tree with tests"),
        ("machine", "NAME", [], "only this machine of tests/lab/machines.tsv; may be repeated"),
        ("only", "REGEX", "", "only tests whose names match"),
        ("full", "", False, "also what is marked + in the table"),
        ("log", "FOLDER", "", "where the logs go (default: lab in the build tree)"),
        ("qemu-binary", "FILE", "", "another QEMU")]),
}


class Usage(LabError):
    """A mistake in the words of the command."""


def help_text(command):
    operands, summary, options = COMMANDS[command]
    usage = f"Usage: morsel lab {command} [OPTION...] {operands}".rstrip()
    lines = [usage, summary, "", "Options:"]
    for name, value, _, text in options:
        lines.append(f"      {'--' + name + (' ' + value if value else ''):<22}{text}")
    lines.append(f"  -h, {'--help':<22}print this help")
    return "\n".join(lines)


def convert(name, kind, text):
    try:
        return type(kind)(text)
    except ValueError:
        raise Usage(f"--{name} takes a number, not '{text}'") from None


def read(command, words):
    """The values of the options, and what is left in .operands."""
    table = {name: (value, default) for name, value, default, _ in COMMANDS[command][2]}
    values = {name.replace("-", "_"): list(default) if isinstance(default, list) else default
              for name, (_, default) in table.items()}
    words = list(words)
    operands = []
    while words:
        word = words.pop(0)
        if word in ("-h", "--help"):
            print(help_text(command))
            sys.exit(0)
        if word == "--":
            operands += words
            break
        if not word.startswith("-"):
            operands.append(word)
            if command == "run":
                operands += words
                break
            continue
        name, equals, text = word[2:].partition("=")
        if not word.startswith("--") or name not in table:
            raise Usage(f"there is no option '{word}': see morsel lab {command} --help")
        value, default = table[name]
        key = name.replace("-", "_")
        if not value:
            values[key] = True
            continue
        if not equals:
            if not words:
                raise Usage(f"--{name} needs a value")
            text = words.pop(0)
        if isinstance(default, list):
            values[key].append(text)
        else:
            values[key] = convert(name, default, text)
    if operands and not COMMANDS[command][0]:
        raise Usage(f"'{operands[0]}': morsel lab {command} takes no operands")
    return SimpleNamespace(operands=operands, **values)
