"""Postfix's test clients and servers (smtp-source, smtp-sink) without Postfix: takes the package of the system's distribution apart into a
directory, so that no mail service of the machine is touched. Where the package cannot be had, nothing is there, the tests that want it are
skipped, and the status is still 0. Usage: test_postfix.py DIRECTORY; the programs are then in DIRECTORY/bin."""
import pathlib
import shutil
import subprocess
import sys
import tempfile

PROGRAMS = ("smtp-source", "smtp-sink")
WRAPPER = """#!/bin/sh
LD_LIBRARY_PATH='{root}/usr/lib/postfix' exec '{root}/usr/sbin/{program}' "$@"
"""


def take_apart(directory):
    with tempfile.TemporaryDirectory() as where:
        if subprocess.run(["apt-get", "-q", "download", "postfix"], cwd=where, capture_output=True).returncode != 0:
            return False
        package = next(pathlib.Path(where).glob("postfix_*.deb"))
        subprocess.run(["dpkg-deb", "-x", package, directory], check=True)
    return True


def main():
    directory = pathlib.Path(sys.argv[1]).resolve()
    if all((directory / "bin" / p).exists() for p in PROGRAMS):
        return 0
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    directory.chmod(0o755)
    if shutil.which("apt-get") is None or not take_apart(directory):
        print("the package postfix could not be had: the tests with its clients are skipped")
        return 0
    (directory / "bin").mkdir(exist_ok=True)
    for program in PROGRAMS:
        path = directory / "bin" / program
        path.write_text(WRAPPER.format(root=directory, program=program))
        path.chmod(0o755)
        said = subprocess.run([path], capture_output=True, text=True).stderr
        if "usage:" not in said:
            print(f"{program} does not run, what it is wanted for is skipped: {said.strip()[:200]}")
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
