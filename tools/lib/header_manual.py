#!/usr/bin/env python3
"""Makes libmorsel(3) from the public headers, which are the manual.

A header is read as a row of blocks: a comment and the declarations that follow it up to the next
blank line or comment. Comments become paragraphs, declarations stay as they are. The first comment
of a header is its introduction; a comment of dashes (---- pools ----) begins a section.

    header_manual.py --output libmorsel.3 HEADER...
    header_manual.py --library morsel-iommu --about "..." --output libmorsel-iommu.3 HEADER...
    header_manual.py --functions HEADER...      the names of all MORSEL_API functions
"""
import argparse
import os
import re
import sys

SECTION = re.compile(r"^-{2,}\s*(.*?)\s*-{2,}$", re.S)
API = re.compile(r"^MORSEL_API\b[^;{]*?\b(morsel_\w+)\s*\(", re.M | re.S)
SENTENCE = re.compile(r"(?<=[.!?]) +(?=[A-Z])")  # mdoc: a new sentence begins a new line
GUARD = re.compile(r"^\s*#\s*(ifndef \w+_H$|define \w+_H$|endif|if |else|ifdef|include)")


def functions(text):
    """Names of the functions that the header declares for everyone."""
    return API.findall(re.sub(r"/\*.*?\*/", "", text, flags=re.S))


def comment_text(raw):
    """The words of a comment, line by line, without its frame of stars."""
    inner = raw.strip()[2:-2]
    lines = [re.sub(r"^\s*\*( |$)", "", line) for line in inner.split("\n")]
    return "\n".join(line.rstrip() for line in lines).strip("\n").strip()


def strip_frame(text):
    """Drops what only the compiler wants: guards, extern "C", the definition of MORSEL_API."""
    text = re.sub(r"#ifdef __cplusplus.*?#endif\n?", "", text, flags=re.S)
    text = re.sub(r"#if defined\(__GNUC__\).*?#endif\n?", "", text, flags=re.S)
    return "\n".join(line for line in text.split("\n") if not GUARD.match(line))


def is_own_comment(text, start):
    """True for a comment that begins a line, not one that follows code."""
    return text.rfind("\n", 0, start) + 1 == len(text[:start].rstrip(" \t"))


def blocks(text):
    """Yields (comment, code); either may be empty."""
    comment, code, at, depth = "", "", 0, 0
    while at < len(text):
        if text.startswith("/*", at) and depth == 0 and is_own_comment(text, at):
            if comment or code.strip():
                yield comment, code
            end = text.index("*/", at) + 2
            comment, code, at = comment_text(text[at:end]), "", end
            continue
        if text.startswith("/*", at):
            end = text.index("*/", at) + 2
            code += text[at:end]
            at = end
            continue
        if text.startswith("\n\n", at) and depth == 0 and (code.strip() or comment):
            yield comment, code
            comment, code = "", ""
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        code += text[at]
        at += 1
    if comment or code.strip():
        yield comment, code


def escape(line):
    """A line of text or code as mdoc takes it literally."""
    line = line.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + line if line[:1] in (".", "'") else line


def words(comment):
    """A comment as paragraphs, lists (lines that begin with a dash) and drawings."""
    out = []
    for paragraph in re.split(r"\n\s*\n", comment):
        lines = paragraph.split("\n")
        if any(re.search(r"\S {3,}\S", line) or line.startswith("    ") for line in lines):
            out += [".Bd -literal"] + [escape(line) for line in lines] + [".Ed"]
            continue
        out.append(".Pp")
        in_list = False
        for line in lines:
            if re.match(r"\s*- ", line):
                out += ([] if in_list else [".Bl -dash -compact"]) + [".It"]
                in_list = True
                line = re.sub(r"^\s*- ", "", line)
            out += [escape(sentence) for sentence in SENTENCE.split(line.strip())]
        if in_list:
            out.append(".El")
    return out


def code_lines(code):
    """Declarations without what only the linker wants."""
    code = re.sub(r"\bMORSEL_API ", "", code.strip("\n"))
    return [".Bd -literal"] + [escape(line.expandtabs(8)) for line in code.split("\n")] + [".Ed"]


def header_page(path, text):
    out = [".Sh <MORSEL/%s>" % os.path.basename(path).upper()]
    for comment, code in blocks(strip_frame(text)):
        section = SECTION.match(comment)
        if section:
            out.append(".Ss " + escape(section.group(1)))
        elif comment:
            out += words(comment)
        if code.strip():
            out += code_lines(code)
    # a paragraph right after a heading is one break too many
    return [line for i, line in enumerate(out)
            if not (line == ".Pp" and out[i - 1].startswith((".Sh", ".Ss")))]


def order(path):
    """The overview first, then by name."""
    name = os.path.basename(path)
    return (name != "morsel.h", name)


def manual(paths, library, about):
    name = "lib" + library
    out = [".Dd November 22, 2026", ".Dt %s 3" % name.upper(), ".Os", ".Sh NAME", ".Nm " + name,
           ".Nd " + about, ".Sh SYNOPSIS"]
    for path in paths:
        out.append(".In morsel/" + os.path.basename(path))
    out += [".Pp", "cc `pkg-config \\-\\-cflags \\-\\-libs %s`" % library, ".Sh DESCRIPTION",
            "This page is made from the public headers.", "The words are explained in",
            ".Xr morsel 7 ."]
    for path in paths:
        with open(path, encoding="utf-8") as file:
            out += header_page(path, file.read())
    out += [".Sh SEE ALSO", ".Xr morsel 1 ,"]
    out += [".Xr libmorsel 3 ,"] if library != "morsel" else []
    out += [".Xr morsel 7"]
    return "\n".join(out) + "\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--output")
    parser.add_argument("--library", default="morsel")
    parser.add_argument("--about",
                        default="memory shared between processes and devices, as objects")
    parser.add_argument("--functions", action="store_true")
    parser.add_argument("header", nargs="+")
    args = parser.parse_args()
    paths = sorted(args.header, key=order)
    if args.functions:
        for path in paths:
            with open(path, encoding="utf-8") as file:
                for name in functions(file.read()):
                    print(name)
        return 0
    page = manual(paths, args.library, args.about)
    if args.output:
        with open(args.output, "w", encoding="utf-8") as file:
            file.write(page)
    else:
        sys.stdout.write(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
