#!/usr/bin/env python3
"""Checks that no folder of src includes one above it: layers.py <src folder>.

The folders are layers, lowest first. A file may include headers of its own folder and of those before it; `http` may
in addition not know mail at all. Prints each offending line as file:line and exits 1 if there is any.
"""
import pathlib
import re
import sys

LAYERS = "base fiber net mime mail template spool policy record aaa queue smtp http api bind app".split()
HIDDEN = {"http": "mime mail template spool policy record aaa queue smtp".split()}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"/]+)/[^"]+"')


def objection(folder, included):
    """Why a file of `folder` must not include a header of `included`, or None."""
    if included not in LAYERS:
        return f"{included} is no layer"
    if LAYERS.index(included) > LAYERS.index(folder):
        return f"{included} is above {folder}"
    if included in HIDDEN.get(folder, ()):
        return f"{folder} knows nothing of {included}"
    return None


def offences(src):
    for folder in sorted(p for p in src.iterdir() if p.is_dir()):
        if folder.name not in LAYERS:
            yield f"{folder}:0: not in the list of layers"
            continue
        for path in sorted(folder.glob("**/*.[ch]")):
            for no, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                m = INCLUDE.match(line)
                why = m and objection(folder.name, m.group(1))
                if why:
                    yield f"{path}:{no}: {line.strip()} ({why})"


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: layers.py <src folder>")
    src = pathlib.Path(sys.argv[1])
    if not any(src.glob("base/*.h")):
        sys.exit(f"{src}: no sources there")
    found = list(offences(src))
    for line in found:
        print(line)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
