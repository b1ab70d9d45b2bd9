"""What is installed can be used: headers alone, exported names, pkg-config, the CMake package."""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import support

PROGRAM = """
#include <stdio.h>
#include <morsel/morsel.h>

int main(void)
{
	struct morsel_pool_opts opts = { sizeof(opts), MORSEL_POOL_CREATE };
	struct morsel_pool *pool;

	opts.bytes = 64 << 20;
	if (morsel_pool_open(NULL, &opts, &pool) < 0) {
		puts(morsel_errormsg());
		return 1;
	}
	morsel_pool_close(pool);
	printf("%s\\n", morsel_version());
	return 0;
}
"""

CMAKE = """
cmake_minimum_required(VERSION 3.16)
project(user LANGUAGES C)
find_package(morsel 0.1 REQUIRED)
add_executable(user user.c)
target_link_libraries(user PRIVATE morsel::morsel)
"""


def lib_dir():
    """Where the staged libmorsel.so is."""
    for folder, _, files in os.walk(support.PREFIX):
        if "libmorsel.so" in files:
            return folder
    raise FileNotFoundError("no libmorsel.so below " + support.PREFIX)


def headers():
    folder = os.path.join(support.PREFIX, "include", "morsel")
    return sorted(os.path.join(folder, name) for name in os.listdir(folder))


class Install(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="morsel-install-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.source = os.path.join(self.dir, "user.c")
        with open(self.source, "w") as file:
            file.write(PROGRAM)

    def must(self, *args, env=None):
        done = subprocess.run(args, capture_output=True, env=dict(os.environ, **(env or {})),
                              cwd=self.dir, check=False)
        self.assertEqual(done.returncode, 0, "%s\n%s%s" % (" ".join(args), done.stdout.decode(),
                                                           done.stderr.decode()))
        return done.stdout.decode()

    def version(self):
        with open(os.path.join(support.PREFIX, "include", "morsel", "morsel.h")) as file:
            return re.search(r'VERSION_STRING "(.*)"', file.read()).group(1)

    def test_every_header_alone(self):
        strict = ["-pedantic-errors", "-Wall", "-Wextra", "-Werror", "-fsyntax-only",
                  "-I", os.path.join(support.PREFIX, "include")]
        self.assertTrue(headers())
        for header in headers():
            name = "morsel/" + os.path.basename(header)
            for suffix, compiler in (("c", ["gcc", "-std=c11"]), ("cc", ["g++", "-std=c++17"])):
                path = os.path.join(self.dir, "alone." + suffix)
                with open(path, "w") as file:
                    file.write("#include <%s>\n#include <%s>\nint x;\n" % (name, name))
                self.must(*compiler, *strict, path)

    def test_exported_names_are_the_headers(self):
        script = os.path.join(support.SOURCE, "tools", "lib", "header_manual.py")
        declared = set(self.must(sys.executable, script, "--functions", *headers()).split())
        libraries = [name for name in os.listdir(lib_dir())
                     if re.fullmatch(r"libmorsel(-\w+)?\.so", name)]
        exported = set()
        for library in libraries:
            symbols = self.must("nm", "-D", "--defined-only", os.path.join(lib_dir(), library))
            for line in symbols.splitlines():
                kind, name = line.split()[-2:]
                if kind != "A":
                    exported.add(name.split("@")[0])
        self.assertGreater(len(declared), 25)
        self.assertEqual(exported, declared)

    def test_library_needs_libc_only(self):
        needed = self.must("readelf", "-d", os.path.join(lib_dir(), "libmorsel.so"))
        names = set(re.findall(r"\(NEEDED\).*\[(.*)\]", needed))
        if not support.CFLAGS:
            self.assertLessEqual(names, {"libc.so.6", "ld-linux-x86-64.so.2",
                                         "ld-linux-aarch64.so.1"})
        self.assertRegex(needed, r"\(SONAME\).*\[libmorsel\.so\.\d+\]")

    def test_pkg_config(self):
        env = {"PKG_CONFIG_PATH": os.path.join(lib_dir(), "pkgconfig"),
               "LD_LIBRARY_PATH": lib_dir()}
        flags = self.must("pkg-config", "--cflags", "--libs", "morsel", env=env).split()
        self.must("gcc", *support.CFLAGS, "user.c", "-o", "user", *flags)
        self.assertEqual(self.must("./user", env=env), self.version() + "\n")
        self.assertEqual(self.must("pkg-config", "--modversion", "morsel", env=env),
                         self.version() + "\n")

    def test_cmake_package(self):
        with open(os.path.join(self.dir, "CMakeLists.txt"), "w") as file:
            file.write(CMAKE)
        self.must("cmake", "-S", ".", "-B", "build", "-G", "Ninja",
                  "-DCMAKE_PREFIX_PATH=" + support.PREFIX,
                  "-DCMAKE_C_FLAGS=" + " ".join(support.CFLAGS))
        self.must("cmake", "--build", "build")
        self.assertEqual(self.must("build/user"), self.version() + "\n")

    def test_command_finds_its_library(self):
        out = self.must(os.path.join(support.PREFIX, "bin", "morsel"), "version",
                        env={"LD_LIBRARY_PATH": ""})
        self.assertEqual(out, "morsel %s, library %s\n" % (self.version(), self.version()))

    def test_manual_and_completion(self):
        share = os.path.join(support.PREFIX, "share")
        for path in ("man/man1/morsel.1", "man/man1/morsel-pool-create.1", "man/man7/morsel.7",
                     "man/man3/libmorsel.3", "bash-completion/completions/morsel"):
            self.assertTrue(os.path.exists(os.path.join(share, path)), path)


if __name__ == "__main__":
    unittest.main()
