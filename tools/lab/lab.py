#!/usr/bin/env python3
"""morsel lab: kernels, IOMMUs and devices that are emulated, without hardware and without root.

The commands, after their options have been read. Data goes to stdout, words to stderr. Exit code:
that of the program that was run; 77 it was skipped; 1 it failed, or the machine did; 2 wrong use.
"""

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
from options import Usage, read  # noqa: E402
from words import LabError, say  # noqa: E402


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
    if not options.operands:
        raise Usage("which program?")
    lab = store.Lab(options.qemu_binary)
    path = found_program(options.operands[0])
    kernel = lab.kernel(options.kernel, options.modules)
    program = boot.Program(Path(path).name, shlex.join([path, *options.operands[1:]]),
                           (path, *map(os.path.abspath, options.file)), options.timeout,
                           "nobody" if options.user else "root")
    folder = log_folder(options)
    announce_debugger(options, kernel)
    nodes = boot.run(lab, machines.from_options(options), kernel, [program], folder, options.accel,
                     options.powercut, keep_debug=options.gdb)
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
    machine = machines.from_options(options)
    machine.check(kernel)
    folder = log_folder(options)
    guest = boot.Guest(lab, machine, kernel, folder / "node0",
                       accelerator=options.accel or boot.accelerators(lab, None)[-1])
    files = [os.path.abspath(path) for path in options.file]
    guest.prepare([boot.Program("files", "", tuple(files))], mode="shell", keep_debug=options.gdb)
    announce_debugger(options, kernel)
    say(f"console log: {folder}/node0/console.log; 'exit' ends the machine")
    code = boot.shell(guest)
    if not code and not options.log:
        shutil.rmtree(folder, ignore_errors=True)
    return code


def command_fetch(options):
    known = ["qemu", "newest", *store.STOCK]
    for part in options.operands:
        if part not in known:
            raise Usage(f"there is no part '{part}': {', '.join(known)}")
    lab = store.Lab()
    lab.busybox()
    for part in options.operands or ["qemu", *store.STOCK]:
        if part in store.STOCK:
            print(f"kernel {lab.stock(part).modules.name}", flush=True)
        else:
            print(f"{part} {lab.qemu('amd' if part == 'newest' else 'none').version}", flush=True)
    return 0


def command_kernel(options):
    import kernel
    built = kernel.lab_kernel(store.Lab(), jobs=options.jobs)
    print(built.image)
    return 0


def command_test(options):
    import suite
    if not options.build:
        raise Usage("--build names the build tree")
    return suite.main(store.Lab(options.qemu_binary), options)


def main(words):
    commands = {"run": command_run, "shell": command_shell, "fetch": command_fetch,
                "kernel": command_kernel, "test": command_test}
    try:
        if not words or words[0] not in commands:
            raise Usage("which command? " + ", ".join(commands))
        return commands[words[0]](read(words[0], words[1:]))
    except Usage as error:
        say(str(error))
        return 2
    except LabError as error:
        say(str(error))
        return 1
    except OSError as error:  # a full disk, a folder that is not ours
        say(f"{error.filename or 'the lab'}: {error.strerror}")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
