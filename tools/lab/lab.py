#!/usr/bin/env python3
"""morsel lab: kernels, IOMMUs and devices that are emulated, without hardware and without root.

  morsel lab run [MACHINE] [--] PROGRAM [ARG...]   run one program in the lab
  morsel lab shell [MACHINE]                       a shell in the lab
  morsel lab fetch [6.1|6.12|qemu|newest]...       fill the cache (needs the network)
  morsel lab kernel [--jobs N]                     build the lab kernel, once
  morsel lab test --build FOLDER [--machine NAME]  run the suite's programs that belong in the lab

Exit code: that of the program; 77 skipped; 1 it failed or the machine did; 2 wrong use.
"""

import argparse
import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import boot  # noqa: E402
import machine as machines  # noqa: E402
import store  # noqa: E402
from words import LabError, say  # noqa: E402


def machine_options(parser):
    group = parser.add_argument_group("machine")
    group.add_argument("--kernel", default="stock", help="stock, 6.1, 6.12, lab, or the file of one")
    group.add_argument("--modules", help="lib/modules/VERSION of a --kernel FILE")
    group.add_argument("--iommu", default="none", choices=machines.IOMMUS)
    group.add_argument("--device", default="", metavar="WORDS",
                       help="edu, nvme, disk (an NVMe that stays with the kernel's driver), with commas; "
                       "nvme:FILE keeps its content")
    group.add_argument("--memory", default="1G", metavar="SIZE")
    group.add_argument("--cpus", type=int, default=2, metavar="N")
    group.add_argument("--pages", type=int, default=0, metavar="N", help="reserve N huge pages of 2 MiB")
    group.add_argument("--cxl", nargs="?", const="volatile", default="", choices=("volatile", "persistent"))
    group.add_argument("--pmem", action="store_true", help="an NVDIMM and a virtio-pmem device")
    group.add_argument("--nodes", type=int, default=1, choices=(1, 2), help="two guests joined by a network")
    group.add_argument("--share", default="", metavar="FOLDER", help="a folder of the host, at /share")
    group.add_argument("--user", action="store_true", help="run as an ordinary user of the guest")
    group.add_argument("--timeout", type=int, default=120, metavar="SECONDS", help="for each program")
    group.add_argument("--qemu-binary", metavar="FILE", help="another QEMU")
    group.add_argument("--qemu-args", default="", metavar="WORDS", help="more words for QEMU")
    group.add_argument("--append", default="", metavar="WORDS", help="more words for the kernel")
    group.add_argument("--accel", choices=("kvm", "tcg"), help="by default KVM where it works")
    group.add_argument("--gdb", action="store_true", help="QEMU listens for a debugger on port 1234")
    group.add_argument("--file", action="append", default=[], metavar="PATH",
                       help="a file, program or folder that the guest gets, too, at the same path")
    group.add_argument("--log", metavar="FOLDER", help="where the console's log stays")
    group.add_argument("--powercut", type=float, metavar="SECONDS",
                       help="kill the machine so long after it was ready")


def machine_of(options):
    return machines.Machine(
        memory=options.memory, cpus=options.cpus, iommu=options.iommu,
        devices=tuple(word for word in options.device.split(",") if word), cxl=options.cxl, pmem=options.pmem,
        pages=options.pages, nodes=options.nodes, share=options.share and str(Path(options.share).resolve()),
        gdb=options.gdb, arguments=tuple(shlex.split(options.qemu_args)), append=options.append)


def log_folder(options):
    if options.log:
        return Path(options.log)
    return Path(tempfile.mkdtemp(prefix="morsel-lab-"))


def found_program(name):
    path = shutil.which(name)
    if not path:
        raise LabError(f"there is no program '{name}' that the guest could be given")
    return os.path.abspath(path)


def announce_debugger(options, kernel):
    if options.gdb:
        say(f"a debugger may come: gdb {kernel.image} -ex 'target remote :1234'")


def command_run(options):
    if not options.program:
        raise LabError("which program?")
    lab = store.Lab(options.qemu_binary)
    path = found_program(options.program[0])
    kernel = lab.kernel(options.kernel, options.modules)
    program = boot.Program(Path(path).name, shlex.join([path, *options.program[1:]]), (path, *options.file),
                           options.timeout, "nobody" if options.user else "root")
    folder = log_folder(options)
    announce_debugger(options, kernel)
    nodes = boot.run(lab, machine_of(options), kernel, [program], folder, options.accel, options.powercut,
                     keep_debug=options.gdb)
    code = 0
    for results in nodes:
        for result in results:
            sys.stdout.write(result.output)
            sys.stdout.flush()
            if result.outcome == "failed":
                say(f"{result.name} failed: {result.why}")
            code = code or (result.code if result.code > 0 else result.outcome == "failed")
    if code and code != boot.SKIP:
        say(f"the logs are in {folder}")
    elif not options.log:
        shutil.rmtree(folder, ignore_errors=True)
    return int(code)


def command_shell(options):
    lab = store.Lab(options.qemu_binary)
    kernel = lab.kernel(options.kernel, options.modules)
    machine = machine_of(options)
    machine.check(kernel)
    if machine.nodes > 1:
        raise LabError("a shell has one node; --nodes 2 belongs to 'morsel lab run'")
    folder = log_folder(options)
    guest = boot.Guest(lab, machine, kernel, folder / "node0",
                       accelerator=options.accel or boot.accelerators(lab, None)[-1])
    files = [os.path.abspath(path) for path in options.file]
    guest.prepare([boot.Program("files", "", tuple(files))], mode="shell", keep_debug=options.gdb)
    announce_debugger(options, kernel)
    say(f"console log: {folder}/node0/console.log; 'exit' ends the machine")
    return boot.shell(guest)


def command_fetch(options):
    lab = store.Lab()
    wanted = options.part or ["qemu", "6.1", "6.12"]
    lab.busybox()
    for part in wanted:
        if part == "qemu":
            print("qemu", lab.qemu().version)
        elif part == "newest":
            print("newest qemu", lab.qemu("amd").version)
        else:
            print("kernel", lab.stock(part).modules.name)
    return 0


def command_kernel(options):
    import kernel
    built = kernel.lab_kernel(store.Lab(), jobs=options.jobs)
    print(built.image)
    return 0


def command_test(options):
    import suite
    return suite.main(store.Lab(options.qemu_binary), options)


def parse(arguments):
    parser = argparse.ArgumentParser(prog="morsel lab", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run one program in the lab")
    machine_options(run)
    run.add_argument("program", nargs=argparse.REMAINDER, metavar="PROGRAM [ARG...]")
    shell = commands.add_parser("shell", help="a shell in the lab")
    machine_options(shell)
    fetch = commands.add_parser("fetch", help="fill the cache")
    fetch.add_argument("part", nargs="*", choices=["qemu", "newest", *store.STOCK, []])
    build = commands.add_parser("kernel", help="build the lab kernel")
    build.add_argument("--jobs", type=int, default=os.cpu_count() or 2)
    test = commands.add_parser("test", help="run the suite's programs that belong in the lab")
    test.add_argument("--build", required=True, metavar="FOLDER", help="a build tree with tests")
    test.add_argument("--machine", action="append", metavar="NAME", help="only this machine of machines.tsv")
    test.add_argument("--only", metavar="REGEX", help="only tests whose names match")
    test.add_argument("--full", action="store_true", help="also what is marked + in the table")
    test.add_argument("--log", metavar="FOLDER", help="where logs stay (default: BUILD/lab)")
    test.add_argument("--qemu-binary", metavar="FILE")
    options = parser.parse_args(arguments)
    if options.command == "run" and options.program[:1] == ["--"]:
        options.program = options.program[1:]
    return options


def main():
    options = parse(sys.argv[1:])
    commands = {"run": command_run, "shell": command_shell, "fetch": command_fetch, "kernel": command_kernel,
                "test": command_test}
    try:
        return commands[options.command](options)
    except LabError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
