"""tools/deps against the build: the package that owns each library which a meson.build asks for must be listed, or else a fresh machine
cannot build what this one can. Exit 77 (skipped) without dpkg. Usage: deps.py PROJECT_ROOT"""
import pathlib
import re
import shutil
import subprocess
import sys

root = pathlib.Path(sys.argv[1])
if shutil.which("dpkg-query") is None:
    sys.exit(77)

script = (root / "tools/deps").read_text()
listed = set(" ".join(re.findall(r"^(?:run|test)='([^']*)'", script, re.M)).split())
builds = [root / "meson.build", *(p for top in ("src", "tests", "bench") for p in sorted((root / top).rglob("meson.build")))]
n_bad = n_checked = 0


def owners(pattern):
    out = subprocess.run(["dpkg-query", "-S", pattern], capture_output=True, text=True).stdout
    names = {name.split(":")[0].strip() for line in out.splitlines() for name in line.rsplit(":", 1)[0].split(",")}
    return names | {re.sub(r"\d+\.\d+-dev$", "-dev", n) for n in names}  # libfoo1.2-dev is what libfoo-dev stands for


for build in builds:
    text = build.read_text()
    wanted = [(n, f"*/pkgconfig/{n}.pc") for n in re.findall(r"dependency\('([^']+)'", text) if n != "threads"]
    wanted += [(n, f"*/lib{n}.so") for n in re.findall(r"find_library\('([^']+)'", text)]
    for name, pattern in wanted:
        n_checked += 1
        found = owners(pattern)
        if not found & listed:
            n_bad += 1
            print(f"{build.relative_to(root)}: `{name}` comes with {' or '.join(sorted(found)) or 'no package'}, which tools/deps does not list")
print(f"{n_checked} libraries looked up, {n_bad} missing")
sys.exit(1 if n_bad or not n_checked else 0)
