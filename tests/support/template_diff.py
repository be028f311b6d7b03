"""Checks the expected values of tests/unit/template_cases.json against the `minijinja` package in the environment that test_venv.py makes
(tools/check does). Exit 77, skipped, where it is not there. Usage: template_diff.py CASES_JSON VENV_DIRECTORY"""
import json
import os
import pathlib
import sys
from importlib import metadata

python = pathlib.Path(sys.argv[2]) / "bin/python3"
try:
    import minijinja
    version = metadata.version("minijinja")
except ImportError:
    if python.exists() and pathlib.Path(sys.prefix) != python.parent.parent:
        os.execv(python, [str(python), *sys.argv])
    print("skipped: the package minijinja is not installed (tests/support/test_venv.py installs it)")
    sys.exit(77)
if not version.startswith("2.21."):
    print(f"skipped: minijinja {version} is another dialect than 2.21's")
    sys.exit(77)


def literal(v):
    """A JSON value as an expression: values of the engine's own, not Python's objects."""
    if v is None or isinstance(v, bool):
        return {None: "none", True: "true", False: "false"}[v]
    if isinstance(v, list):
        return "[" + ", ".join(map(literal, v)) + "]"
    if isinstance(v, dict):
        return "{" + ", ".join(f"{literal(k)}: {literal(x)}" for k, x in v.items()) + "}"
    return json.dumps(v)


def render(case, context):
    env = minijinja.Environment(pycompat=False)
    env.auto_escape_callback = lambda name: case.get("escape", False)
    prefix = "".join(f"{{% set {k} = {literal(v)} %}}" for k, v in context.items())
    try:
        return {"out": env.render_str(prefix + case["source"])}
    except minijinja.TemplateError as e:
        return {"error": str(e).split("\n")[0].split(" (in <string>")[0]}


with open(sys.argv[1], encoding="utf-8") as f:
    doc = json.load(f)
n_bad = 0
for case in doc["cases"]:
    got = render(case, doc["contexts"][case["context"]])
    is_same = got.get("out") == case.get("out") and got.get("error", "").startswith(case.get("error", ""))
    if not is_same or ("error" in got) != ("error" in case):
        n_bad += 1
        print(json.dumps(case, ensure_ascii=False), "\n  the package says", json.dumps(got, ensure_ascii=False))
print(f"{len(doc['cases'])} cases, {n_bad} differ from minijinja {version}")
sys.exit(1 if n_bad else 0)
