"""Checks the expected values of tests/unit/template_cases.json against the `minijinja` package, where it is importable. The dialect of
reference is that of its 2.21 (later versions print None and True, earlier ones lack a few filters): exit 77, skipped, with any other.
Usage: template_diff.py CASES_JSON"""
import json
import sys
from importlib import metadata

try:
    import minijinja
    version = metadata.version("minijinja")
except ImportError:
    sys.exit(77)
if not version.startswith("2.21."):
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
