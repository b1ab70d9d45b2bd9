"""What the guest boots into: an uncompressed cpio (decompression is slow in emulation).

A file lies in the guest at the path that it has on the host, so what names a path finds it;
programs bring the libraries that ldd names. Kernel modules come unpacked, with all that they need.
"""

import lzma
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

from words import LabError

GUEST = Path(__file__).parent / "guest"
# Loaded by name at run time: the unwinder by pthread_exit(), the others by who swaps.
LOADED = ("libgcc_s.so.1", "libzstd.so.1", "liblz4.so.1", "liburing.so.2")


class Cpio:
    """An archive in the new ASCII format; folders that a path needs are made."""

    def __init__(self, path):
        self.file = open(path, "wb")
        self.seen = {"": 0o755}
        self.inode = 0

    def entry(self, name, mode, data=b""):
        name = os.path.normpath(str(name)).strip("/")
        if name in self.seen:
            return
        parent = os.path.dirname(name)
        if parent not in self.seen:
            self.entry(parent, stat.S_IFDIR | 0o755)
        self.seen[name] = mode
        self.write(name, mode, data)

    def write(self, name, mode, data):
        self.inode += 1
        encoded = name.encode() + b"\0"
        fields = (self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
        self.file.write(b"070701" + b"".join(b"%08x" % field for field in fields))
        self.pad(encoded, 110)
        self.pad(data, 0)

    def pad(self, data, before):
        self.file.write(data)
        self.file.write(b"\0" * (-(before + len(data)) % 4))

    def text(self, name, text, mode=0o644):
        self.entry(name, stat.S_IFREG | mode, text.encode())

    def folder(self, name, mode=0o755):
        self.entry(name, stat.S_IFDIR | mode)

    def link(self, name, target):
        self.entry(name, stat.S_IFLNK | 0o777, str(target).encode())

    def copy(self, source, name=None, strip=None):
        """A file of the host (what a link points to), at the same path in the guest."""
        source = Path(source)
        mode = stat.S_IFREG | (source.stat().st_mode & 0o755)
        data = source.read_bytes()
        if strip and data[:4] == b"\x7fELF" and len(data) > 100_000:
            data = strip(source) or data
        self.entry(name or source, mode, data)

    def close(self):
        self.write("TRAILER!!!", 0, b"")
        self.file.close()


def strip_debug(path):
    """An ELF file's bytes without what only a debugger reads, or None where there is no strip."""
    if not shutil.which("strip"):
        return None
    with tempfile.NamedTemporaryFile() as out:
        done = subprocess.run(["strip", "--strip-debug", "-o", out.name, path], capture_output=True)
        return Path(out.name).read_bytes() if done.returncode == 0 else None


def libraries(program):
    """Paths of the libraries that a program loads, its loader among them."""
    done = subprocess.run(["ldd", program], capture_output=True, text=True)
    found = []
    for line in done.stdout.splitlines():
        words = line.split()
        if "not found" in line:
            raise LabError(f"{program} needs {words[0]}, which is not here")
        path = words[2] if len(words) > 2 and words[1] == "=>" else words[0] if words else ""
        if path.startswith("/"):
            found.append(path)
    return found


def is_elf(path):
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def add_program(archive, path, keep_debug=False):
    """A program, or any file, and its libraries."""
    path = Path(path)
    archive.copy(path, strip=None if keep_debug else strip_debug)
    if not is_elf(path):
        return
    for library in libraries(path):
        archive.copy(library)
        if Path(library).name.startswith("libc.so"):
            add_loaded(archive, Path(library).parent)


def add_loaded(archive, beside):
    """Of the libraries that are loaded by name those that this system has, beside its C library."""
    for folder in (beside, Path("/usr") / beside.relative_to("/")):
        for name in LOADED:
            if (folder / name).exists():
                archive.copy(folder / name, beside / name)


def add_tree(archive, folder):
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            archive.copy(path)
        elif path.is_dir():
            archive.folder(path)


class Modules:
    """The modules of one kernel: lib/modules/VERSION of an unpacked package or of a build."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.release = self.folder.name
        self.paths = {}
        for path in self.folder.rglob("*.ko*"):
            self.paths[path.name.split(".ko")[0].replace("-", "_")] = path

    def read(self, name):
        path = self.paths[name]
        data = path.read_bytes()
        return lzma.decompress(data) if path.suffix == ".xz" else data

    def add(self, archive, wanted):
        """Adds the wanted modules that there are, and what they need."""
        done, waiting = set(), [name.replace("-", "_") for name in wanted]
        while waiting:
            name = waiting.pop()
            if name in done or name not in self.paths:
                continue
            done.add(name)
            data = self.read(name)
            path = f"lib/modules/{self.release}/kernel/{name}.ko"
            archive.entry(path, stat.S_IFREG | 0o644, data)
            waiting += needs(data)
        for name in ("modules.builtin", "modules.order"):
            if (self.folder / name).exists():
                archive.copy(self.folder / name, f"lib/modules/{self.release}/{name}")
        archive.folder(f"lib/modules/{self.release}")


def needs(module):
    """The names that a module's information lists as what it depends on."""
    found = []
    for word in module.split(b"\0"):
        if word.startswith(b"depends="):
            found += [name.replace("-", "_") for name in word[8:].decode().split(",") if name]
    return found


def add_base(archive, busybox):
    """Busybox under its many names, the init program, accounts and the folders that one expects."""
    archive.copy(busybox, "bin/busybox")
    names = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    for name in names.stdout.split():
        if name != "busybox":
            archive.link(f"bin/{name}", "busybox")
    archive.link("sbin/modprobe", "../bin/busybox")
    archive.link("usr/bin/env", "../../bin/busybox")
    if Path("/bin/bash").exists():
        add_program(archive, "/bin/bash")
    archive.copy(GUEST / "init", "init")
    archive.copy(GUEST / "lab", "bin/lab")
    for folder in ("proc", "sys", "dev", "run", "mnt", "root", "etc", "var/tmp", "share"):
        archive.folder(folder)
    archive.folder("tmp", 0o1777)
    archive.text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"
                 "nobody:x:65534:65534:nobody:/tmp:/bin/sh\n")
    archive.text("etc/group", "root:x:0:\nnogroup:x:65534:\n")
    archive.text("etc/hosts", "127.0.0.1 localhost\n10.9.0.1 one\n10.9.0.2 two\n")
