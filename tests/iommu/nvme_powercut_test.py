"""The power is cut while an NVMe controller takes files: the old one or the new one is there after.

    nvme_powercut_test.py PROGRAM       (iommu_nvme_lab_type1)

Killing QEMU proves recovery, not flushing: what the device was given, the host's memory has kept.
"""
import os
import random
import re
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))
import support  # noqa: E402
import boot  # noqa: E402
import store  # noqa: E402
from machine import Machine  # noqa: E402

PROGRAM = sys.argv.pop(1)
ROUNDS = 8 if os.environ.get("MORSEL_FULL") == "1" else 2
# Some exports later, at any instant of one.
CUT = ("{program} type1 keep {first} >/tmp/kept & while ! grep -q 'kept {until}' /tmp/kept; do sleep 0.1; done; "
       "sleep {fraction:.3f}; tail -n 1 /tmp/kept; lab powercut; sleep 1000")


class PowerCut(support.LabTest):
    def go(self, disk, text, seconds=120):
        lab = store.Lab()
        programs = [boot.Program("script", text, (PROGRAM,), seconds)]
        results, = boot.run(lab, Machine(iommu="intel", devices=(f"nvme:{disk}",)), lab.kernel("6.12"), programs, self.dir)
        return results[0]

    def test_old_or_new(self):
        disk = os.path.join(self.dir, "disk")
        with open(disk, "wb") as file:
            file.truncate(256 << 20)
        chance = random.Random(int(os.environ.get("MORSEL_SEED", "1")))
        last = 0
        for _ in range(ROUNDS):
            first = last + 1
            text = CUT.format(program=PROGRAM, first=first, until=first + chance.randint(0, 3),
                              fraction=chance.random())
            cut = self.go(disk, text)
            self.assertIn("the power was cut", cut.why)
            kept = re.findall(r"kept (\d+)", cut.output)
            self.assertTrue(kept, cut.output)
            after = self.go(disk, f"exec {PROGRAM} type1 kept")
            self.assertEqual(after.outcome, "passed", after.why + after.output)
            found = int(re.search(r"found (\d+)", after.output).group(1))
            print(f"told of {kept[-1]}, found {found}", flush=True)
            self.assertGreaterEqual(found, int(kept[-1]))
            self.assertLessEqual(found, int(kept[-1]) + 3)
            last = found


if __name__ == "__main__":
    unittest.main()
