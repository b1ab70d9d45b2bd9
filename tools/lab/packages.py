"""Debian packages by name, unpacked into a folder, never installed.

The private state: a folder of the cache with package lists, downloads and a copy of what dpkg says
is installed, so that only what is missing is fetched. It asks the mirror that the system's own
sources name, for the suites that the lab wants; the system's sources, lists and packages stay as
they are.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

from words import LabError, say

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
STABLE = ("bookworm", "bookworm-security", "bookworm-backports")
NEWEST = ("sid",)


def mirrors():
    """(mirror of Debian, mirror of its security suites), as the system's sources have them."""
    if not shutil.which("apt-get"):
        raise LabError("apt-get is not here: the lab takes kernels and QEMU from Debian's "
                       "packages; use --qemu-binary and --kernel FILE, or a Debian system")
    listing = subprocess.run(
        ["apt-get", "--no-release-info", "indextargets", "--format",
         "$(RELEASE) $(COMPONENT) $(REPO_URI)", "Created-By: Packages"],
        capture_output=True, text=True)
    return choose_mirrors([line.split(" ", 2) for line in listing.stdout.splitlines()], codename())


def codename():
    release = Path("/etc/os-release").read_text()
    found = re.search(r"^VERSION_CODENAME=(\w+)", release, re.M)
    return found.group(1) if found else STABLE[0]


def choose_mirrors(targets, suite):
    """
    Of what the sources have, [(release, component, URI)]: others than Debian have a component main
    and a release of this name, too, but not its updates.
    """
    places = {}
    for release, component, uri in targets:
        if component == "main" and not uri.startswith("cdrom:"):
            places.setdefault(release, []).append(uri)
    ours = places.get(suite, []) + places.get("stable", []) + places.get("oldstable", [])
    updates = [uri for name in places if name.endswith("-updates") for uri in places[name]]
    security = [uri for name in places if name.endswith("-security") for uri in places[name]]
    main = ([uri for uri in ours if uri in updates] or [uri for uri in ours if "/debian" in uri]
            or ours)
    if not main:
        raise LabError(f"the system's sources name no mirror of Debian's {suite}, component main: "
                       "see sources.list(5)")
    return main[0], security[0] if security else None


class State:
    """One private state of apt, for some suites."""

    def __init__(self, cache, name, suites):
        self.folder = cache / "apt" / name
        self.suites = suites
        self.fresh = False

    def options(self):
        settings = {
            "Dir::Etc::SourceList": self.folder / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::State": self.folder,
            "Dir::State::Lists": self.folder / "lists",
            "Dir::State::status": self.folder / "status",
            "Dir::State::extended_states": self.folder / "extended_states",
            "Dir::Cache": self.folder,
            "Dir::Cache::Archives": self.folder / "archives",
            "Dir::Log": self.folder / "log",
            "Acquire::Check-Valid-Until": "false",  # a mirror of sid may lag
            "Acquire::Languages": "none",
            "Acquire::Retries": "2",
            "Acquire::http::Timeout": "30",
            "APT::Sandbox::User": "",
            "APT::Architecture": "amd64",
            "APT::Update::Post-Invoke": "",
            "APT::Get::List-Cleanup": "false",
        }
        return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]

    def prepare(self):
        main, security = mirrors()
        for part in ("lists/partial", "archives/partial", "log"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        trust = f"[arch=amd64 signed-by={KEYRING}] " if KEYRING.exists() else "[arch=amd64] "
        lines = []
        for suite in self.suites:
            uri = security if suite.endswith("-security") else main
            if uri:
                lines.append(f"deb {trust}{uri} {suite} main\n")
        (self.folder / "sources.list").write_text("".join(lines))
        status = Path("/var/lib/dpkg/status")
        (self.folder / "status").write_bytes(status.read_bytes() if status.exists() else b"")

    def update(self):
        """Brings the package lists up to date, once per run."""
        if self.fresh:
            return
        self.prepare()
        say(f"asking the mirror for the packages of {', '.join(self.suites)}")
        self.apt_get("update", "-q")
        self.fresh = True

    def apt_get(self, *arguments, folder=None):
        command = ["apt-get", *self.options(), *map(str, arguments)]
        environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive", LC_ALL="C")
        done = subprocess.run(command, cwd=folder or self.folder, capture_output=True, text=True,
                              env=environment)
        # To apt an update that reached nothing is a warning, and old lists would serve instead.
        trouble = [line for line in done.stderr.splitlines()
                   if line.startswith("E:") or "Failed to fetch" in line]
        if done.returncode or trouble:
            raise LabError(f"apt-get {arguments[0]} failed: " + explain(trouble or [done.stderr]))
        return done.stdout

    def names(self, pattern):
        """Names of packages that match a regular expression."""
        self.update()
        command = ["apt-cache", *self.options(), "pkgnames"]
        listing = subprocess.run(command, capture_output=True, text=True, check=True)
        return sorted(name for name in listing.stdout.split() if re.fullmatch(pattern, name))

    def version(self, name, suite=None):
        """The version that would be taken of a package, or None."""
        self.update()
        command = ["apt-cache", *self.options(), "madison", name]
        listing = subprocess.run(command, capture_output=True, text=True, check=True)
        for line in listing.stdout.splitlines():
            fields = [field.strip() for field in line.split("|")]
            if len(fields) == 3 and fields[0] == name and (not suite or f" {suite}/" in fields[2]):
                return fields[1]
        return None

    def unpack(self, folder, names, suite=None, dependencies=False, finish=None):
        """
        Fetches packages and unpacks them into folder, which appears complete or not at all. With
        dependencies, also those that are not installed on this system. finish() completes it.
        """
        self.update()
        archives = self.folder / "archives"
        for old in archives.glob("*.deb"):
            old.unlink()
        target = ["-t", suite] if suite else []
        say("fetching " + " ".join(names))
        if dependencies:
            self.apt_get("install", "-q", "-y", "--download-only", "--no-install-recommends",
                         *target, *names)
        else:
            self.apt_get("download", "-q", *target, *names, folder=archives)
        work = folder.with_name(f"{folder.name}.{os.getpid()}")
        shutil.rmtree(work, ignore_errors=True)
        try:
            work.mkdir(parents=True)
            for package in sorted(archives.glob("*.deb")):
                done = subprocess.run(["dpkg-deb", "-x", package, work], capture_output=True,
                                      text=True)
                if done.returncode:
                    raise LabError(f"cannot unpack {package.name}: " + explain([done.stderr]))
                package.unlink()
            if finish:
                finish(work)
            shutil.rmtree(folder, ignore_errors=True)
            work.rename(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def explain(lines):
    """What apt or dpkg said, and what to do about it, in few words."""
    text = "; ".join(line.strip() for line in lines if line.strip())[:600]
    full = "the disk is full: free some, or set XDG_CACHE_HOME"
    offline = "no network? it is needed once, then the cache serves"
    for sign, remedy in (("No space left", full), ("enough free space", full),
                         ("resolv", offline), ("onnect", offline),
                         ("Unable to locate", "the mirror does not have it")):
        if sign in text:
            return f"{text} ({remedy})"
    return text or "it gave no reason"
