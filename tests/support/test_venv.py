"""The Python packages that a test compares with and Debian does not have, in an environment of their own: makes it where it is missing, and
installs what is missing in it with pip, from wherever pip is set up to take packages. Without network nothing is installed, the test that
wanted it says so and is skipped, and the status is still 0. Usage: test_venv.py DIRECTORY"""
import pathlib
import shutil
import subprocess
import sys

# The dialect of reference is minijinja 2.21's: later versions print None and True, earlier ones lack a few filters.
PACKAGES = {"minijinja": "minijinja==2.21.*", "openapi_spec_validator": "openapi-spec-validator==0.7.*"}


def has(python, package):
    return python.exists() and subprocess.run([python, "-c", f"import {package}"], capture_output=True).returncode == 0


def main():
    directory = pathlib.Path(sys.argv[1])
    python = directory / "bin/python3"
    missing = [wanted for package, wanted in PACKAGES.items() if not has(python, package)]
    if not missing:
        return 0
    if not (directory / "bin/pip").exists():
        shutil.rmtree(directory, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:", "--retries=1", "--timeout=10"]
    if subprocess.run([*pip, *missing]).returncode != 0:
        print(f"{', '.join(missing)} could not be installed (no network?): what compares with it is skipped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
