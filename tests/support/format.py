#!/usr/bin/env python3
"""Checks that the C files are as clang-format would write them: format.py PROJECT_ROOT. `format.py PROJECT_ROOT --fix` writes them so.

The version is Debian 12's, since others differ in details. Prints each offending line as file:line and exits 1 if there is any.
"""
import os
import pathlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

FOLDERS = ("src", "tests", "bench")
TOOL = "clang-format-14"
PER_CALL = 20


def main():
    if len(sys.argv) not in (2, 3) or sys.argv[2:] not in ([], ["--fix"]):
        sys.exit("usage: format.py PROJECT_ROOT [--fix]")
    root = pathlib.Path(sys.argv[1]).resolve()
    how = ["-i"] if sys.argv[2:] else ["--dry-run", "-Werror"]
    files = sorted(p for folder in FOLDERS for p in (root / folder).rglob("*.[ch]"))

    def run(part):
        return subprocess.run([TOOL, *how, *part], cwd=root, capture_output=True, text=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(run, (files[i:i + PER_CALL] for i in range(0, len(files), PER_CALL))))
    for r in results:
        sys.stdout.write(r.stderr)
    return any(r.returncode != 0 for r in results) or not files


if __name__ == "__main__":
    sys.exit(main())
