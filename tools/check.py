"""The sections of tools/check. Each builds what it needs in its own directory below build/, runs its tests and counts them; what does
not build counts as a failure, and so does a section that finds no tests. The output of every command goes to build/logs/; of one that
fails the end is shown."""
import fcntl
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
LOGS = BUILD / "logs"
JOBS = os.cpu_count() or 1
TAIL_LINES = 60
FAILURE_LINES = 25
HANG_SECONDS = 300  # then the log has where a test is
FUZZ_SECONDS = 10

ENV = dict(
    os.environ,
    LC_ALL="C.UTF-8",
    UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1",  # Meson's builds only print, otherwise
)


class Failed(Exception):
    """A step of a section failed; what is to be seen was printed."""


class Section:
    def __init__(self, name):
        self.name = name
        self.passed = self.failed = self.skipped = 0

    def count(self, passed=0, failed=0, skipped=0):
        self.passed += passed
        self.failed += failed
        self.skipped += skipped


def show(text):
    print(text, flush=True)


def show_tail(path):
    lines = pathlib.Path(path).read_text(errors="replace").splitlines()
    if len(lines) > TAIL_LINES:
        show(f"    | ... ({path.relative_to(ROOT)} has all of it)")
    for line in lines[-TAIL_LINES:]:
        show("    | " + line)


def run(name, command, timeout=900, env=None):
    """Runs a command in its own process group, with its output in build/logs/NAME.log. Returns (exit status, the log's path); a
    command that does not end in time is killed with all that it started, and its status is None."""
    log = LOGS / f"{name}.log"
    with open(log, "wb") as out:
        child = subprocess.Popen([str(c) for c in command], stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                 cwd=ROOT, env=env or ENV, start_new_session=True)
        try:
            return child.wait(timeout), log
        except subprocess.TimeoutExpired:
            out.write(f"\nended by tools/check after {timeout} s\n".encode())
            return None, log
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def must(name, command, timeout=900, env=None):
    status, log = run(name, command, timeout, env)
    if status != 0:
        show(f"  FAILED: {name} (exit status {status})")
        show_tail(log)
        raise Failed


def setup(directory, *options, env=None):
    """Configures a build directory, or gives an existing one these options."""
    path = BUILD / directory
    if not (path / "build.ninja").exists():
        shutil.rmtree(path, ignore_errors=True)
        must(f"{directory}-setup", ["meson", "setup", path, *options], env=env)
    else:
        must(f"{directory}-setup", ["meson", "setup", "--reconfigure", path, *options], env=env)


def build(directory, *targets):
    must(f"{directory}-build", ["ninja", "-C", BUILD / directory, f"-j{JOBS}", *targets], timeout=1200)


def introspect(directory, what):
    text = subprocess.run(["meson", "introspect", "--" + what, BUILD / directory], capture_output=True, check=True, cwd=ROOT).stdout
    return json.loads(text)


def count_meson(section, directory, log):
    """Adds up the test log: a cmocka program counts by its test functions, another program as one."""
    results = BUILD / directory / "meson-logs" / "testlog.json"
    if not results.exists():
        show_tail(log)
        raise Failed
    for line in results.read_text().splitlines():
        test = json.loads(line)
        text = test.get("stdout", "") + test.get("stderr", "")
        passed = sum(map(int, re.findall(r"\[  PASSED  \] (\d+) test\(s\)", text)))
        failed = sum(map(int, re.findall(r"\[  FAILED  \] \w*:? ?(\d+) test\(s\)", text)))
        skipped = sum(map(int, re.findall(r"\[  SKIPPED \] \w*:? ?(\d+) test\(s\)", text)))
        if test["result"] in ("OK", "EXPECTEDFAIL"):
            section.count(max(passed, 1), failed, skipped)
        elif test["result"] == "SKIP":
            section.count(skipped=1)
        else:
            section.count(passed, max(failed, 1), skipped)
            show(f"  FAILED: {test['name']} ({test['result']})")
            for part in text.splitlines()[-TAIL_LINES:]:
                show("    | " + part)


def meson_test(section, directory, *suites, wrap=()):
    arguments = [a for s in suites for a in ("--suite", s)]
    results = BUILD / directory / "meson-logs" / "testlog.json"
    results.unlink(missing_ok=True)
    status, log = run(f"{directory}-test", [*wrap, "meson", "test", "-C", BUILD / directory, "--no-rebuild", f"--num-processes={JOBS}",
                                           *arguments], timeout=900)
    failed = section.failed
    count_meson(section, directory, log)
    if status != 0 and section.failed == failed:
        show(f"  FAILED: meson test (exit status {status})")
        show_tail(log)
        section.count(failed=1)


def show_failures(suite):
    """Each test that failed, by name, with the end of its traceback: what daemons said may fill the end of the log."""
    for case in suite.iter("testcase"):
        for bad in case.findall("failure") + case.findall("error"):
            show(f"  FAILED: {case.get('classname')}::{case.get('name')}")
            for line in (bad.text or "").splitlines()[-FAILURE_LINES:]:
                show("    | " + line)


def pytest(section, name, path, env, *more):
    report = LOGS / f"{name}.xml"
    report.unlink(missing_ok=True)
    status, log = run(name, ["python3", "-m", "pytest", "-q", "-ra", "--tb=short", "-p", "no:cacheprovider",
                             "-o", f"faulthandler_timeout={HANG_SECONDS}", f"--junitxml={report}",
                             *more, path], timeout=1200, env=env)
    failed = section.failed
    if report.exists():
        for suite in xml.etree.ElementTree.parse(report).getroot().iter("testsuite"):
            n = {k: int(suite.get(k, 0)) for k in ("tests", "failures", "errors", "skipped")}
            bad = n["failures"] + n["errors"]
            section.count(max(n["tests"] - bad - n["skipped"], 0), bad, n["skipped"])
            show_failures(suite)
    if status != 0:
        show(f"  FAILED: {name} (exit status {status})")
        show_tail(log)
        if section.failed == failed:
            section.count(failed=1)


def daemon_of(directory):
    """The daemon of a build, at the place that Meson gives it."""
    for target in introspect(directory, "targets"):
        if target["name"] == "cirrusd" and target["type"] == "executable":
            return target["filename"][0]
    show(f"  FAILED: the project has no target cirrusd ({directory})")
    raise Failed


# --- the sections ---

CHECK_OPTIONS = ("--buildtype=debugoptimized", "-Db_sanitize=address,undefined", "-Dfaults=true", "-Dtests=true")


def prepare_venv():
    """Packages for comparisons that Debian does not have."""
    must("test-venv", ["python3", "tests/support/test_venv.py", BUILD / "test-venv"])


def section_unit(section):
    """unit, fiber and crash tests of the modules, with ASan and UBSan"""
    setup("check", *CHECK_OPTIONS)
    build("check")
    prepare_venv()
    meson_test(section, "check")


def section_tsan(section):
    """fiber tests with TSan: all that crosses threads"""
    setup("tsan", "--buildtype=debugoptimized", "-Db_sanitize=thread", "-Dfaults=true", "-Dtests=true")
    tests = [t for t in introspect("tsan", "tests") if any(s.split(":")[-1] == "fiber" for s in t["suite"])]
    build("tsan", *sorted({os.path.relpath(t["cmd"][0], BUILD / "tsan") for t in tests}))
    # GCC 12's TSan cannot map its shadow where the kernel randomizes addresses too widely.
    fixed = ["setarch", "-R"]
    if subprocess.run([*fixed, "true"], capture_output=True).returncode != 0:
        fixed = []
    meson_test(section, "tsan", "fiber", wrap=fixed)


def section_release(section):
    """release build: hardening, and tools/run --once"""
    must("release-build", ["tools/run", "--build"], timeout=1200)
    for name, command in (("hardening", ["tests/support/check_hardening.sh", BUILD / "release/cirrusd"]),
                          ("run-once", ["tools/run", "--once"])):
        with_free_port = dict(ENV, CIRRUS_LISTEN="127.0.0.1:0", CIRRUS_DATA=str(BUILD / "run-check"))
        shutil.rmtree(BUILD / "run-check", ignore_errors=True)
        try:
            must(name, command, timeout=300, env=with_free_port)
            section.count(passed=1)
        except Failed:
            section.count(failed=1)


def daemon_env():
    setup("check", *CHECK_OPTIONS)
    build("check")
    return dict(ENV, CIRRUSD=daemon_of("check"))


def section_e2e(section):
    """the sanitized daemon against real clients and servers"""
    prepare_venv()
    must("test-postfix", ["python3", "tests/support/test_postfix.py", BUILD / "test-postfix"])
    env = daemon_env()
    env["PATH"] += f":{BUILD}/test-postfix/bin"
    # They wait more than they compute: more of them at a time than there are processors, a file's tests one after the other.
    pytest(section, "e2e", "tests/e2e", env, "-n", str(JOBS + 1), "--dist=loadfile")


def section_crash(section):
    """kill -9 under load and at the spool's fault points"""
    pytest(section, "crash", "tests/crash", daemon_env())


def fuzz_one(target):
    name, exe = target
    own = BUILD / "fuzz-corpus" / name
    own.mkdir(parents=True, exist_ok=True)
    seeds = [d for d in (ROOT / "tests/fuzz/corpus" / name, ROOT / "tests/fuzz/corpus" / name.removeprefix("fuzz_")) if d.is_dir()]
    return name, *run(name, [exe, f"-max_total_time={FUZZ_SECONDS}", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1",
                             f"-artifact_prefix={LOGS}/{name}-", own, *seeds], timeout=FUZZ_SECONDS + 110)


def section_fuzz(section):
    """each parser under libFuzzer for a moment, with ASan and UBSan"""
    clang = dict(ENV, CC="clang")
    setup("fuzz", "--buildtype=debugoptimized", "-Dfuzz=true", "-Dtests=true", "-Db_sanitize=address,undefined", "-Db_lundef=false",
          env=clang)
    targets = sorted((t["name"], t["filename"][0]) for t in introspect("fuzz", "targets")
                     if t["type"] == "executable" and t["name"].startswith("fuzz_"))
    if targets:
        build("fuzz", *(os.path.relpath(exe, BUILD / "fuzz") for _, exe in targets))
    with ThreadPoolExecutor(JOBS) as pool:
        for name, status, log in pool.map(fuzz_one, targets):
            if status == 0:
                section.count(passed=1)
                continue
            section.count(failed=1)
            show(f"  FAILED: {name} (exit status {status})")
            show_tail(log)


SECTIONS = {"unit": section_unit, "tsan": section_tsan, "release": section_release, "e2e": section_e2e, "crash": section_crash,
            "fuzz": section_fuzz}


def run_section(name):
    section = Section(name)
    start = time.monotonic()
    show(f"== {name}: {SECTIONS[name].__doc__}")
    try:
        SECTIONS[name](section)
        if section.passed + section.failed + section.skipped == 0:
            show("  FAILED: there are no tests here")
            section.count(failed=1)
    except Failed:
        section.count(failed=1)
    except Exception as e:  # one section's trouble must not take the others' results away
        show(f"  FAILED: {type(e).__name__}: {e}")
        section.count(failed=1)
    show(f"   {section.passed} passed, {section.failed} failed, {section.skipped} skipped in {time.monotonic() - start:.0f} s")
    return section


def main():
    names = sys.argv[1:] or list(SECTIONS)
    if names == ["--list"]:
        for name, section in SECTIONS.items():
            print(f"{name:8} {section.__doc__}")
        return 0
    unknown = [n for n in names if n not in SECTIONS]
    if unknown:
        print(f"tools/check: unknown section {unknown[0]}, expected one of {', '.join(SECTIONS)}", file=sys.stderr)
        return 2
    LOGS.mkdir(parents=True, exist_ok=True)
    with open(BUILD / ".check-lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("tools/check: another run is under way in this tree", file=sys.stderr)
            return 2
        done = [run_section(n) for n in names]
    passed, failed, skipped = (sum(getattr(s, k) for s in done) for k in ("passed", "failed", "skipped"))
    show(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 0 if failed == 0 and passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
