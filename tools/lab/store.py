"""What the lab keeps in its cache, fetched or built when it is first asked for.

  $MORSEL_CACHE/lab, or morsel/lab in $XDG_CACHE_HOME or ~/.cache:
    apt/         the private state of the package manager
    qemu/        QEMU from the distribution's backports, unpacked
    qemu-newest/ QEMU from the newest suite with all its libraries (only amd-iommu asks for it)
    busybox/     a static busybox
    6.1/, 6.12/  stock kernels, unpacked, with the uncompressed image (it boots seconds faster)
    kernel-*/    the lab kernel, by configuration and source version
"""

import contextlib
import ctypes
import dataclasses
import fcntl
import lzma
import os
import re
import struct
import subprocess
from pathlib import Path

import packages
from words import LabError, say

STOCK = {"6.1": r"linux-image-6\.1\.\d+-(\d+)-amd64",
         "6.12": r"linux-image-6\.12\.(\d+)\+deb12-amd64"}
LIBRARIES = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")


@dataclasses.dataclass
class Kernel:
    name: str
    image: Path
    modules: Path = None        # a lib/modules/VERSION folder


@dataclasses.dataclass
class Qemu:
    command: list
    libraries: list
    version: str = ""

    @property
    def major(self):
        return int(self.version.split(".")[0])

    def environment(self):
        extra = {}
        if self.libraries:
            extra["LD_LIBRARY_PATH"] = ":".join(map(str, self.libraries))
            extra["QEMU_MODULE_DIR"] = str(self.libraries[0] / "qemu")
        return dict(os.environ, **extra)

    def ask_version(self):
        """Runs it: a QEMU that lacks a library is no QEMU."""
        command = [*self.command[:1], *self.loader_words(), "--version"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, env=self.environment())
        except OSError as error:
            raise LabError(f"{self.command[0]} does not run: {error.strerror}") from error
        found = re.search(r"version (\d+[.\d]*)", done.stdout)
        if not found:
            why = done.stderr.strip() or "no version"
            raise LabError(f"{self.command[0]} does not run: {why}")
        self.version = found.group(1)
        return self

    def loader_words(self):
        return self.command[1:self.command.index("-L")] if "-L" in self.command else []


def cache_folder():
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get("MORSEL_CACHE") or os.path.join(home, "morsel")) / "lab"


class Lab:
    """The cache, and what a run needs of it."""

    def __init__(self, qemu_binary=None, cache=None):
        self.cache = Path(cache or cache_folder())
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LabError(f"the cache {self.cache} cannot be made: {error.strerror}; "
                           "XDG_CACHE_HOME names another place") from error
        self.qemu_binary = qemu_binary
        self.stable = packages.State(self.cache, "stable", packages.STABLE)
        self.newest = packages.State(self.cache, "newest", packages.NEWEST)
        self.found = {}

    @contextlib.contextmanager
    def locked(self, name):
        """One process at a time makes a part of the cache; the others wait for it."""
        with open(self.cache / f"{name}.lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"waiting for another process that makes {name}")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def once(self, name, make):
        """The folder of this name in the cache, made if it is not there."""
        folder = self.cache / name
        if not folder.exists():
            with self.locked(name):
                if not folder.exists():
                    make(folder)
        return folder

    def busybox(self):
        def fetch(folder):
            self.stable.unpack(folder, ["busybox-static"])
        return self.once("busybox", fetch) / "bin/busybox"

    def qemu(self, iommu="none"):
        which = "newest" if iommu == "amd" and not self.qemu_binary else "stable"
        if which not in self.found:
            self.found[which] = self.find_qemu(which).ask_version()
        return self.found[which]

    def find_qemu(self, which):
        if self.qemu_binary:
            return Qemu([self.qemu_binary], [])
        if which == "newest":
            folder = self.once("qemu-newest", self.fetch_newest_qemu)
        else:
            folder = self.once("qemu", lambda folder: self.stable.unpack(
                folder, ["qemu-system-x86"], "bookworm-backports", dependencies=True))
        data = [word for part in ("usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu")
                for word in ("-L", str(folder / part))]
        program = str(folder / "usr/bin/qemu-system-x86_64")
        libraries = [folder / part for part in LIBRARIES]
        if which == "stable":
            return Qemu([program, *data], libraries)
        loader = str(folder / "usr/lib64/ld-linux-x86-64.so.2")
        path = ":".join(map(str, libraries))
        return Qemu([loader, "--library-path", path, program, *data], [])

    def fetch_newest_qemu(self, folder):
        """With every library, the C library among them: it is newer than this system's."""
        self.newest.update()
        (self.newest.folder / "status").write_bytes(b"")
        self.newest.unpack(folder, ["qemu-system-x86"], dependencies=True)

    def stock(self, version):
        def fetch(folder):
            names = self.stable.names(STOCK[version])
            if not names:
                raise LabError(f"the mirror has no kernel {version} (linux-image-{version}*-amd64)")
            newest = max(names, key=lambda name: int(re.fullmatch(STOCK[version], name).group(1)))
            self.stable.unpack(folder, [newest], finish=unpack_image)
        folder = self.once(version, fetch)
        modules = next(path for part in ("lib/modules", "usr/lib/modules")
                       for path in (folder / part).glob("*") if path.is_dir())
        return Kernel(version, folder / "vmlinux", modules)

    def kernel(self, name, modules=None):
        """6.1, 6.12, stock (the newer of them), lab, or the file of an own one."""
        if name == "stock":
            name = "6.12"
        if name in STOCK:
            return self.stock(name)
        if name == "lab":
            import kernel
            return kernel.lab_kernel(self)
        if not Path(name).is_file():
            raise LabError(f"there is no kernel '{name}': stock, {', '.join(STOCK)}, lab or "
                           "the file of one")
        return Kernel(name, Path(name).resolve(), Path(modules) if modules else None)


def unpack_image(folder):
    """The ELF image out of boot/vmlinuz: decompressing takes the emulated machine seconds."""
    packed = next((folder / "boot").glob("vmlinuz-*"))
    data = packed.read_bytes()
    setup = (data[0x1f1] or 4) + 1
    offset, length = struct.unpack_from("<II", data, 0x248)
    payload = data[setup * 512 + offset:][:length]
    if payload[:4] == b"\x28\xb5\x2f\xfd":
        image = unpack_zstd(payload)
    elif payload[:5] == b"\xfd7zXZ":
        image = lzma.LZMADecompressor().decompress(payload)
    else:
        image = data  # boots as well, only later
    (folder / "vmlinux").write_bytes(image)


def unpack_zstd(payload):
    """The kernel's build puts the size of the content behind it."""
    try:
        zstd = ctypes.CDLL("libzstd.so.1")
    except OSError as error:
        raise LabError("the kernel is packed with zstd, and there is no libzstd.so.1: install "
                       "libzstd1") from error
    size, = struct.unpack("<I", payload[-4:])
    content = ctypes.create_string_buffer(size)
    zstd.ZSTD_decompress.restype = ctypes.c_size_t
    written = zstd.ZSTD_decompress(content, ctypes.c_size_t(size), payload,
                                   ctypes.c_size_t(len(payload) - 4))
    if written != size:
        raise LabError("the kernel's image cannot be unpacked: libzstd says no")
    return content.raw
