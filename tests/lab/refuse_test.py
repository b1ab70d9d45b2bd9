"""What the lab says when it cannot."""

import os
import subprocess
import sys
import unittest

import support


class Refuse(support.LabTest):
    def refuses(self, expected, *words, **environment):
        """Runs the command, which must fail in words that match."""
        lab = os.path.join(support.SOURCE, "tools", "lab", "lab.py")
        command = [sys.executable, "-B", lab, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120,
                              env=dict(os.environ, **environment))
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(done.stdout, "")
        self.assertRegex(done.stderr, expected)
        self.assertNotIn("Traceback", done.stderr)

    def test_mistakes(self):
        self.refuses("there is no program 'no-such-program'", "run", "no-such-program")
        self.refuses("which program", "run")
        self.refuses("there is no device 'warp'", "run", "--device", "warp", "true")
        self.refuses("no kernel 'no-such-kernel'", "run", "--kernel", "no-such-kernel", "true")
        self.refuses("not a folder that could be shared", "run", "--share", "/nonexistent", "true")
        self.refuses("/nonexistent/qemu", "run", "--qemu-binary", "/nonexistent/qemu", "true")
        self.refuses("6.1 has no driver for a virtio-iommu", "run", "--kernel", "6.1",
                     "--iommu", "virtio", "true")

    def test_no_network(self):
        cache = os.path.join(self.dir, "cache")
        proxy = "http://127.0.0.1:9"
        self.refuses("network", "fetch", XDG_CACHE_HOME=cache, MORSEL_CACHE="",
                     http_proxy=proxy, https_proxy=proxy, APT_CONFIG=self.proxy_file(proxy))

    def proxy_file(self, proxy):
        path = os.path.join(self.dir, "apt.conf")
        with open(path, "w") as file:
            file.write('Acquire::http::Proxy "%s"; Acquire::https::Proxy "%s";\n' % (proxy, proxy))
        return path

    def test_no_place(self):
        path = os.path.join(self.dir, "file")
        with open(path, "w"):
            pass
        self.refuses("cache .* cannot be made", "fetch", XDG_CACHE_HOME=path, MORSEL_CACHE="")


if __name__ == "__main__":
    unittest.main()
