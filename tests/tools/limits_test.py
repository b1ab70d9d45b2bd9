"""docs/limits.md says the numbers that the sources say."""
import os
import re
import shutil
import unittest

import support


def constant(path, name):
    """The value of a #define in a header, evaluated: (1u << 20) and 4096 alike."""
    with open(os.path.join(support.SOURCE, path)) as file:
        found = re.search(r"^#define %s\s+(.+?)\s*(/\*.*)?$" % name, file.read(), re.M)
    words = re.sub(r"(?<=\d)(u|ull|U|ULL)\b", "", found.group(1))
    words = re.sub(r"\(uint\d+_t\)", "", words)
    if not re.fullmatch(r"[\d\s()<*+x-]+", words):
        raise ValueError("%s is %s" % (name, words))
    return eval(words)  # digits and operators only


class Limits(unittest.TestCase):
    def setUp(self):
        with open(os.path.join(support.SOURCE, "docs", "limits.md")) as file:
            self.rows = [line for line in file if line.startswith("| ")]

    def row(self, words):
        rows = [row for row in self.rows if row.startswith("| " + words)]
        self.assertEqual(len(rows), 1, words)
        return rows[0].split("|")[2]

    def test_numbers(self):
        pool, tensor = "core/pool/format.h", "core/include/morsel/tensor.h"
        for words, value, text in (
                ("processes attached", constant(pool, "MRS_SLOTS"), "%d slots"),
                ("transitions under way", constant(pool, "MRS_INTENTS_PER_SLOT"), "%d intents"),
                ("extents of a pool", constant(pool, "MRS_EXTENTS_MAX"), "%d"),
                ("name of a morsel", constant("core/include/morsel/morsel.h", "MORSEL_NAME_MAX"),
                 "1 to %d bytes"),
                ("name of a tensor", constant(tensor, "MORSEL_TENSOR_NAME_MAX"), "%d bytes"),
                ("dimensions of a tensor", constant(tensor, "MORSEL_TENSOR_RANK_MAX"), "%d"),
                ("tensors of a model", constant(tensor, "MORSEL_TENSORS_MAX"), "{:,}"),
                ("morsels in a pool", constant(pool, "MRS_CELL_BYTES"), "%d bytes")):
            expected = text.format(value) if "{" in text else text % value
            self.assertIn(expected, self.row(words))

    def test_frame_bits(self):
        with open(os.path.join(support.SOURCE, "core/pool/format.h")) as file:
            found = re.search(r"MRS_ENTRY_FRAME_MASK \(\(1ull << (\d+)\) - 1\)", file.read())
        self.assertIn("2^%s frames" % found.group(1), self.row("frame numbers"))

    def test_name_of_a_morsel(self):
        folder = support.scratch()
        self.addCleanup(shutil.rmtree, folder)
        pool = os.path.join(folder, "pool")
        self.assertEqual(support.morsel("pool", "create", pool)[0], 0)
        self.assertEqual(support.morsel("create", pool, "n" * 255, "4k")[0], 0)
        self.assertEqual(support.morsel("create", pool, "n" * 256, "4k")[0], 1)


if __name__ == "__main__":
    unittest.main()
