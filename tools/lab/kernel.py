"""The lab kernel: Debian's newest kernel source with this folder's kernel.config, built once.

The build is kept by its configuration, so a change of kernel.config builds anew and nothing else
does. tested.tsv beside this file records the source versions with which the suite has passed; a
newer source builds as well, and it is said that it is not one of those.
"""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from store import Kernel
from words import LabError, say

HERE = Path(__file__).parent
CONFIG = HERE / "kernel.config"
TOOLS = {"make": "make", "gcc": "gcc", "flex": "flex", "bison": "bison", "bc": "bc",
         "ld": "binutils", "xz": "xz-utils"}
DISK_NEEDED = 4 << 30


def configuration_key():
    wanted = sorted(f"{name}={value}\n" for name, value in read_config(CONFIG).items())
    return hashlib.sha256("".join(wanted).encode()).hexdigest()[:12]


def read_config(path):
    lines = path.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line.startswith("CONFIG_"))


def lab_kernel(lab, jobs=None):
    """The kernel from the cache; built first if it is not there."""
    jobs = jobs or os.cpu_count() or 2
    folder = lab.once(f"kernel-{configuration_key()}", lambda folder: build(lab, folder, jobs))
    modules = next((folder / "lib/modules").glob("*"), None)
    return Kernel("lab", folder / "vmlinux", modules)


def built():
    """True if no build would be needed."""
    import store
    return (store.cache_folder() / f"kernel-{configuration_key()}").exists()


def check_tools(lab):
    missing = [package for program, package in TOOLS.items() if not shutil.which(program)]
    if not Path("/usr/include/libelf.h").exists():
        missing.append("libelf-dev")
    if missing:
        raise LabError("the lab kernel cannot be built without these packages: " + " ".join(missing)
                       + " (tools/setup lab installs them)")
    free = shutil.disk_usage(lab.cache).free
    if free < DISK_NEEDED:
        raise LabError(f"the lab kernel's build needs {DISK_NEEDED >> 30} GiB in {lab.cache}, and "
                       f"there are {free / (1 << 30):.1f}: free some, or set XDG_CACHE_HOME")


def newest_source(lab):
    """(package, version) of the newest kernel source."""
    names = lab.newest.names(r"linux-source-\d+\.\d+")
    if not names:
        raise LabError("the mirror has no package linux-source-*")
    newest = max(names, key=lambda name: [int(part) for part in name.rsplit("-", 1)[1].split(".")])
    return newest, lab.newest.version(newest)


def note_version(version):
    tested = [line.split("\t")[0] for line in (HERE / "tested.tsv").read_text().splitlines()
              if line and not line.startswith("#")]
    if version not in tested:
        say(f"linux-source {version} is none of those that the suite has passed with: "
            + ", ".join(tested))


def make(log, source, out, *arguments):
    command = ["make", "-s", "-C", source, f"O={out}", "KBUILD_BUILD_USER=morsel",
               "KBUILD_BUILD_HOST=lab", "KBUILD_BUILD_TIMESTAMP=2026-01-01", *arguments]
    with open(log, "ab") as output:
        code = subprocess.run(list(map(str, command)), stdout=output, stderr=output).returncode
    if code:
        last = Path(log).read_text(errors="replace").splitlines()[-12:]
        raise LabError(f"building the lab kernel failed ({log}):\n  " + "\n  ".join(last))


def unmet(config):
    """Options that kernel.config asks for and this source does not grant."""
    have, wanted = read_config(config), read_config(CONFIG)
    return [f"{name}={value}" for name, value in wanted.items() if have.get(name, "n") != value]


def build(lab, folder, jobs):
    check_tools(lab)
    package, version = newest_source(lab)
    note_version(version)
    work = folder.with_name(folder.name + ".build")
    shutil.rmtree(work, ignore_errors=True)
    lab.newest.unpack(work, [package])
    log = lab.cache / "kernel-build.log"
    log.unlink(missing_ok=True)
    try:
        say(f"building the lab kernel from {package} {version} with {jobs} jobs; log: {log}")
        packed = next(work.rglob("linux-source-*.tar.*"))
        (work / "source").mkdir()
        if subprocess.run(["tar", "-xf", packed, "-C", work / "source"]).returncode:
            raise LabError(f"{packed} cannot be unpacked")
        packed.unlink()
        source = next((work / "source").iterdir())
        out = work / "out"
        make(log, source, out, f"KCONFIG_ALLCONFIG={CONFIG}", "allnoconfig")
        for option in unmet(out / ".config"):
            say(f"this source does not grant {option}")
        make(log, source, out, f"-j{jobs}", "vmlinux", "modules")
        done = work / "done"
        done.mkdir()
        if (out / "modules.order").read_text().strip():
            make(log, source, out, f"INSTALL_MOD_PATH={done}", "DEPMOD=true", "modules_install")
        keep(done, out, version)
        done.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    say(f"the lab kernel is in {folder}")


def keep(done, out, version):
    """What a boot needs, and what it was made of."""
    for link in (done / "lib/modules").glob("*/build"):
        link.unlink()
    subprocess.run(["strip", "--strip-debug", "-o", done / "vmlinux", out / "vmlinux"], check=True)
    shutil.copy(out / ".config", done / "config")
    (done / "version").write_text(version + "\n")
