"""What the lab says about programs that pass, fail, skip, hang, or take the machine with them."""

import unittest

import support
from machine import Machine

PANIC = "echo c >/proc/sysrq-trigger"
STOP = "lab stop; sleep 1000"       # the host stops the machine's processors: silence


class Boot(support.LabTest):
    def test_results_and_a_panic(self):
        results, = self.boot(
            Machine(),
            ("passes", "echo out; echo err >&2; [ $(id -u) = 0 ]"), ("fails", "echo here; exit 3"),
            ("skips", "echo 'skipped: no such thing'; exit 77"), ("hangs", "sleep 1000"),
            ("no newline", "printf 'READY END 0 0'"), ("dies", "kill -SEGV $$"), ("panics", PANIC),
            ("comes after", "true"), seconds=5)
        self.assertEqual(self.outcomes(results), [
            ("passes", "passed"), ("fails", "failed"), ("skips", "skipped"), ("hangs", "failed"),
            ("no newline", "passed"), ("dies", "failed"), ("panics", "failed"),
            ("comes after", "failed")])
        self.assertEqual(results[0].output, "out\nerr\n")
        self.assertEqual((results[1].code, results[1].output), (3, "here\n"))
        self.assertIn("no such thing", results[2].why)
        self.assertIn("no end within its 5 s", results[3].why)
        self.assertEqual(results[4].output, "READY END 0 0")
        self.assertIn("signal 11", results[5].why)
        self.assertIn("Kernel panic", results[6].why)
        self.assertIn("console.log", results[6].why)
        self.assertIn("not run", results[7].why)

    def test_a_machine_that_goes_silent(self):
        results, = self.boot(Machine(), ("stops", STOP), seconds=2, slack=5)
        self.assertEqual(self.outcomes(results), [("stops", "failed")])
        self.assertIn("no word from the guest for 7 s", results[0].why)
        self.assertIn("results.log", results[0].why)

    def test_a_missing_result(self):
        results, = self.boot(Machine(), ("leaves", "poweroff -f; sleep 100"), ("late", "true"))
        self.assertEqual(self.outcomes(results), [("leaves", "failed"), ("late", "failed")])
        self.assertIn("QEMU ended", results[0].why)

    def test_a_program_that_eats_all_memory_is_a_failure(self):
        results, = self.boot(Machine(memory="512M"), ("eats", "tail /dev/zero"), ("lives", "true"),
                             seconds=60)
        self.assertEqual(self.outcomes(results), [("eats", "failed"), ("lives", "passed")])

    def test_two_nodes(self):
        ping = "sleep 2; ping -c 3 10.9.0.1 && ping -c 3 10.9.0.2"
        nodes = self.boot(Machine(nodes=2), ("ping", ping),
                          ("wait for the other", "sleep 4"), seconds=60)
        self.assertEqual([self.outcomes(results)[0] for results in nodes], [("ping", "passed")] * 2)

    def test_devices_behind_an_iommu_and_one_that_is_unplugged(self):
        results, = self.boot(
            Machine(iommu="intel", devices=("edu", "nvme")),
            ("bound", "lab devices | grep -c 'driver vfio-pci group [0-9]' | grep -x 2"),
            ("unplug", "lab unplug edu0; for i in 1 2 3 4 5 6 7 8 9; do sleep 1; "
                       "lab find 1234:11e8 | grep . || exit 0; done; exit 1"), seconds=30)
        self.assertEqual(self.outcomes(results), [("bound", "passed"), ("unplug", "passed")])

    def test_power_cut_and_what_stays(self):
        disk = self.dir + "/disk.img"
        with open(disk, "wb") as file:
            file.truncate(64 << 20)
        machine = Machine(devices=("disk:" + disk,))
        write = "echo stays | dd of=/dev/nvme0n1 bs=512 conv=sync,fsync && lab powercut; sleep 100"
        results, = self.boot(machine, ("writes", write), seconds=60)
        self.assertIn("power was cut", results[0].why)
        results, = self.boot(machine, ("reads", "head -c 5 /dev/nvme0n1"))
        self.assertEqual(results[0].output, "stays")


if __name__ == "__main__":
    unittest.main()
