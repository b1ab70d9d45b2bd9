"""The library can be loaded by a program that runs already, as every binding of a language does it.

MORSEL_LIBRARY is libmorsel.so as it was built. Variables of a thread must fit into the little room that
the loader keeps for those who come late, whoever else came late before.
"""
import ctypes
import os
import re
import threading
import unittest

import support

LIBRARY = os.environ["MORSEL_LIBRARY"]
THREAD_BYTES_MAX = 256


class Load(unittest.TestCase):
    def setUp(self):
        if "address" in " ".join(support.CFLAGS) or "thread" in " ".join(support.CFLAGS):
            self.skipTest("a sanitized library has to be loaded first")
        self.library = ctypes.CDLL(LIBRARY)
        self.library.morsel_version.restype = ctypes.c_char_p
        self.library.morsel_errormsg.restype = ctypes.c_char_p

    def test_version(self):
        self.assertRegex(self.library.morsel_version().decode(), r"^\d+\.\d+")

    def refused(self, path, words):
        pool = ctypes.c_void_p()
        code = self.library.morsel_pool_open(path, None, ctypes.byref(pool))
        words.append((code, self.library.morsel_errormsg().decode()))

    def test_each_thread_has_its_words(self):
        words = []
        self.refused(b"/nonexistent/one", words)
        other = threading.Thread(target=self.refused, args=(b"/nonexistent/two", words))
        other.start()
        other.join()
        self.assertLess(max(code for code, _ in words), 0)
        self.assertIn("one", words[0][1])
        self.assertIn("two", words[1][1])
        self.assertIn("one", self.library.morsel_errormsg().decode())

    def test_thread_variables_are_small(self):
        _, out, _ = support.run("readelf", "-lW", LIBRARY)
        segment = re.search(rb"^ +TLS +\S+ \S+ \S+ \S+ (0x[0-9a-f]+)", out, re.M)
        self.assertIsNotNone(segment)
        self.assertLessEqual(int(segment[1], 16), THREAD_BYTES_MAX)


if __name__ == "__main__":
    unittest.main()
