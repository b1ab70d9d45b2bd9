"""The man pages as mandoc or man-db's groff see them: no warning at all."""
import os
import shutil
import subprocess
import sys

import support


def lint_with_mandoc(page):
    done = subprocess.run(["mandoc", "-Tlint", "-Wwarning", page], capture_output=True, check=False)
    return done.stdout


def lint_with_man(page):
    done = subprocess.run(["man", "--warnings=w", "-E", "UTF-8", "-l", page],
                          capture_output=True, check=False,
                          env=dict(os.environ, LC_ALL="C.UTF-8", MANWIDTH="100"))
    return done.stderr + (b"" if len(done.stdout) > 200 else b"nothing was formatted\n")


def main():
    if shutil.which("mandoc"):
        lint = lint_with_mandoc
    elif shutil.which("man") and shutil.which("groff"):
        lint = lint_with_man
    else:
        support.skip("neither mandoc nor man and groff are here")
    folder = os.path.join(support.SOURCE, "docs", "man")
    pages = sorted(os.path.join(folder, name) for name in os.listdir(folder)
                   if name != "morsel-mv.1")
    bad = 0
    for page in pages + sys.argv[1:]:
        words = lint(page)
        if words:
            bad += 1
            sys.stdout.write("%s:\n%s\n" % (page, words.decode(errors="replace")))
    print("%d pages, %d with warnings" % (len(pages) + len(sys.argv[1:]), bad))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
