"""The benchmark programs measure what they say, a case that did not run fails, and pictures are right."""
import json
import os
import subprocess
import sys
import unittest
from xml.etree import ElementTree

sys.path.insert(0, os.path.join(os.environ["MORSEL_SOURCE"], "tools", "lib"))
import bench_chart  # noqa: E402

PROGRAMS = os.environ["MORSEL_BENCHMARKS"]
SMALL = ["--bytes", "64M", "--pairs", "7"]


def run(program, *arguments, **options):
    done = subprocess.run([os.path.join(PROGRAMS, program), *arguments], capture_output=True,
                          text=True, check=False, timeout=250, **options)
    return done.returncode, done.stdout, done.stderr


class Programs(unittest.TestCase):
    def result(self, *arguments):
        code, out, err = run("bench_map", *SMALL, *arguments)
        self.assertEqual(code, 0, err)
        return {case["case"]: case for case in json.loads(out)["cases"]}

    def test_mapping(self):
        cases = self.result("--only", "pooled-6.82g-attached")
        for name in ("pooled-6.82g-attached", "pooled-6.82g-new-process", "unmap-6.82g",
                     "pooled-read-all", "page-table-kb-per-process"):
            case = cases[name]
            self.assertNotIn("failed", case)
            self.assertGreaterEqual(len(case["ours"]), 7)
            self.assertEqual(len(case["ours"]), len(case["theirs"]))
            self.assertGreater(min(case["ours"]), 0)
            self.assertIs(case["emulated"], False)
            self.assertIn("0.06 GiB", case["note"])
        # 64 MiB in 4 KiB pages takes 32 page tables of 4 KiB; huge pages take none.
        self.assertGreaterEqual(min(cases["page-table-kb-per-process"]["theirs"]), 128)

    def test_stitched(self):
        case = self.result("--only", "stitched")["stitched-2m-6.82g"]
        self.assertIn("runs.", case["note"])

    def test_a_case_that_cannot_run_fails(self):
        code, out, err = run("bench_map", *SMALL, "--only", "end-to-end", "--dir", "/nonexistent")
        self.assertEqual(code, 1, err)
        self.assertIn("/nonexistent", json.loads(out)["cases"][0]["failed"])
        code, out, err = run("bench_map", *SMALL, "--only", "no-such-case")
        self.assertEqual(code, 1, err)
        self.assertEqual(json.loads(out)["cases"], [])

    def test_wrong_use(self):
        for arguments in (["--pairs", "6"], ["--bytes", "1X"], ["--bytes"], ["--what", "1"]):
            self.assertEqual(run("bench_map", *arguments)[0], 2, arguments)


def case(name, unit, ours, theirs, **more):
    return {"case": name, "unit": unit, "ours": ours, "theirs": theirs, "baseline_name": "b<&>",
            "note": "", **more}


class Picture(unittest.TestCase):
    def bars(self, *cases):
        text = bench_chart.draw({"bench": "test", "machine": {}, "cases": list(cases)})
        colors = (bench_chart.OURS, bench_chart.THEIRS)
        rects = [rect for rect in ElementTree.fromstring(text) if rect.get("fill") in colors]
        return [float(rect.get("width")) for rect in rects[2:]], text  # without the legend's

    def test_linear(self):
        (ours, theirs), text = self.bars(case("x", "ms", [1, 2, 3], [4, 4, 4]))
        self.assertAlmostEqual(theirs / ours, 2, delta=0.01)
        self.assertNotIn("logarithmic", text)

    def test_logarithmic(self):
        widths, text = self.bars(case("x", "ns", [1], [10]), case("y", "ns", [100], [1000]))
        steps = [b - a for a, b in zip(widths, widths[1:])]
        self.assertAlmostEqual(min(steps), max(steps), delta=0.5)
        self.assertIn("logarithmic", text)

    def test_edges(self):
        _, text = self.bars(case("zero", "count", [0, 0], [0, 5]), case("none", "s", [], []),
                            case("bad", "s", [], [], failed="no <memory>"))
        self.assertIn("no &lt;memory&gt;", text)

    def test_numbers(self):
        for value, text in ((0, "0"), (2.0, "2"), (1234.5, "1,234"), (0.0123456, "0.0123"),
                            (12.345, "12.3")):
            self.assertEqual(bench_chart.number(value), text)


if __name__ == "__main__":
    unittest.main()
