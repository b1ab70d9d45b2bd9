"""The parts of the lab that need no machine: archive, modules, QEMU's words, the table."""

import os
import subprocess
import tempfile
import unittest

import support
import initramfs
import packages
import suite
from machine import Machine
from words import LabError


class Archive(support.LabTest):
    def test_entries(self):
        path = os.path.join(self.dir, "a.cpio")
        archive = initramfs.Cpio(path)
        archive.text("one/two/file", "content", 0o600)
        archive.text("one/two/file", "again: the first stays")
        archive.link("link", "one")
        archive.folder("tmp", 0o1777)
        archive.close()
        entries = read_cpio(path)
        self.assertEqual([name for name, _, _ in entries],
                         ["one", "one/two", "one/two/file", "link", "tmp", "TRAILER!!!"])
        self.assertEqual(entries[2][1:], (0o100600, b"content"))
        self.assertEqual(entries[3][1:], (0o120777, b"one"))
        self.assertEqual(entries[4][1], 0o41777)

    def test_a_program_brings_its_libraries(self):
        path = os.path.join(self.dir, "a.cpio")
        archive = initramfs.Cpio(path)
        initramfs.add_program(archive, "/bin/sh")
        archive.close()
        names = [name for name, _, _ in read_cpio(path)]
        self.assertTrue(any("libc.so.6" in name for name in names), names)
        self.assertTrue(any("libgcc_s" in name for name in names) or not os.path.exists(
            "/lib/x86_64-linux-gnu/libgcc_s.so.1"), names)

    def test_needs_of_a_module(self):
        self.assertEqual(initramfs.needs(b"x\0depends=vfio-pci-core,irq_bypass\0y=1\0"),
                         ["vfio_pci_core", "irq_bypass"])
        self.assertEqual(initramfs.needs(b"depends=\0"), [])


def read_cpio(path):
    """A second reader of the format, by its documentation: [(name, mode, content)]."""
    with open(path, "rb") as file:
        data = file.read()
    entries, at = [], 0
    while at < len(data):
        assert data[at:at + 6] == b"070701", at
        fields = [int(data[at + 6 + i * 8:at + 14 + i * 8], 16) for i in range(13)]
        name = data[at + 110:at + 110 + fields[11] - 1].decode()
        start = (at + 110 + fields[11] + 3) & ~3
        entries.append((name, fields[1], data[start:start + fields[6]]))
        at = (start + fields[6] + 3) & ~3
    return entries


class Words(support.LabTest):
    def words(self, **options):
        return " ".join(Machine(**options).qemu(self.dir, 0, 10))

    def test_a_plain_machine(self):
        self.assertEqual(self.words(), "-M q35 -cpu max -smp 2 -m 1G")

    def test_every_device_has_a_port_and_an_id(self):
        words = self.words(iommu="intel", devices=("edu", "nvme", "nvme"))
        self.assertIn("q35,kernel-irqchip=split", words)
        self.assertLess(words.index("intel-iommu"), words.index("edu"))
        for part in ("edu,id=edu0,bus=port1", "nvme,id=nvme0,bus=port2", "nvme,id=nvme1,bus=port3"):
            self.assertIn(part, words)

    def test_what_is_bound(self):
        self.assertEqual(Machine(iommu="intel", devices=("edu", "nvme", "edu")).bound(),
                         ["1234:11e8", "1b36:0010"])
        self.assertEqual(Machine(iommu="none", devices=("edu",)).bound(), [])
        self.assertEqual(Machine(iommu="intel", devices=("disk",)).bound(), [])

    def test_refusals(self):
        for options in ({"iommu": "none of these"}, {"devices": ("warp",)}, {"nodes": 3},
                        {"cxl": "odd"}):
            with self.assertRaises(LabError):
                Machine(**options).check(support.store.Kernel("6.12", None))


class Mirrors(support.LabTest):
    def test_debian_is_told_from_others(self):
        targets = [("nodistro", "main", "u:other/"), ("bookworm", "main", "u:third/"),
                   ("bookworm", "main", "u:debian/"), ("bookworm", "contrib", "u:debian/"),
                   ("bookworm-updates", "main", "u:debian/"), ("bookworm-security", "main", "u:sec/")]
        self.assertEqual(packages.choose_mirrors(targets, "bookworm"), ("u:debian/", "u:sec/"))
        self.assertEqual(packages.choose_mirrors(targets[:2], "bookworm"), ("u:third/", None))
        with self.assertRaisesRegex(LabError, "name no mirror"):
            packages.choose_mirrors(targets[:1], "bookworm")


class Table(support.LabTest):
    def test_marks(self):
        with tempfile.NamedTemporaryFile("w+") as file:
            file.write("# comment\na\t\nb\tany\t6.1 intel?\nc\t\tamd+ 6.1?+\n")
            file.flush()
            places = suite.read_places(support.boot.Path(file.name))
        self.assertEqual(places, {"6.1": {"b": (False, False), "c": (True, True)},
                                  "intel": {"b": (True, False)}, "amd": {"c": (False, True)}})

    def test_every_place_is_a_machine(self):
        self.assertEqual(set(suite.read_places()) - set(suite.read_machines()), set())

    def test_kernel_configuration_is_in_order(self):
        config = os.path.join(support.SOURCE, "tools", "lab", "kernel.config")
        with open(config) as file:
            names = [line.split("=")[0] for line in file if line.startswith("CONFIG_")]
        self.assertEqual(len(names), len(set(names)), "an option stands there twice")


if __name__ == "__main__":
    unittest.main()
