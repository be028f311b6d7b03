"""The manual against the source: every parameter (with its default), function, metric, environment variable and endpoint of the source
must be named in docs/, and every relative link must lead somewhere. Usage: docs.py PROJECT_ROOT"""
import pathlib
import re
import sys

root = pathlib.Path(sys.argv[1])
docs = {p.name: p.read_text() for p in sorted((root / "docs").glob("*.md"))}
all_docs = "\n".join(docs.values())
# A call that spans lines is one string here.
sources = {p: re.sub(r"\s+", " ", p.read_text()) for p in sorted((root / "src").rglob("*.c"))}
problems = []
n_checked = 0


def expect(what, is_there):
    global n_checked
    n_checked += 1
    if not is_there:
        problems.append(what)


def rows_of(name):
    """The cells after the first (a type may come before the default) of the table rows whose first cell has `name`."""
    rows = [line.split("|") for line in all_docs.splitlines() if line.startswith("|")]
    return ["|".join(r[2:4]) for r in rows if len(r) > 3 and f"`{name}`" in r[1]]


for path, text in sources.items():
    where = path.relative_to(root)
    for kind, name, rest in re.findall(r"PARAM_(STR|BOOL|INT|BYTES|DUR|ENUM|CIDRS|STRS|IP|JSON|CUSTOM)\( ?\w+, (\w+)(.*?)\.doc", text):
        expect(f"{where}: the parameter `{name}` is not in docs/", f"`{name}`" in all_docs or re.search(rf"\b{name} =", all_docs))
        default = re.search(r'\.def = "((?:[^"\\]|\\.)*)"', rest)
        rows = rows_of(name)
        if default is None or default.group(1)[:1] in "{[" or not rows:
            continue
        parts = default.group(1).replace('\\"', "").split(",")
        expect(f"{where}: docs/ gives another default than `{default.group(1)}` for `{name}`",
               any(all(f"`{p}`" in cell for p in parts) for cell in rows))
    for name in re.findall(r"PARAM_UNSUPPORTED\((\w+)\)", text):
        if name != "n":
            expect(f"{where}: that `{name}` is refused is not in docs/", f"`{name}`" in all_docs)
    if "/bind/" in str(path):
        for name in re.findall(r'\{"([a-z]\w*)", \w+\}', text):
            expect(f"{where}: the function `{name}` is neither in docs/policy.md nor in docs/message.md or docs/mime.md",
                   re.search(rf"\b{name}\b", docs["policy.md"] + docs["message.md"] + docs["mime.md"]))
    for page in re.findall(r"\bdocs/([\w-]+\.md)", text):
        expect(f"{where}: there is no docs/{page}", page in docs)
    if path.name.startswith("template_"):
        names = re.findall(r'\{"([a-z_]+)", \w+, \w+(?:, \w+, \w+)?\}', text)
        for name in names:
            expect(f"{where}: the template's `{name}` is not in docs/templates.md", re.search(rf"(`|{{% ){name}[`( ]", docs["templates.md"]))
    if path.name == "handlebars_helper.c":
        for name in re.findall(r'\{"(\w+)", HH_', text):
            expect(f"{where}: the helper `{name}` is not in docs/templates.md",
                   re.search(rf"`({{{{#)?{name}[` ]", docs["templates.md"]))
    for name in re.findall(r'(?:metric_declare(?:_collected)?\(METRIC_\w+, |queue_metric_pair\(METRIC_\w+, |disk_series\()"(\w+)"', text):
        expect(f"{where}: the metric `{name}` is not in docs/operations.md", re.search(rf"`{name}[{{`]", docs["operations.md"]))
    for name in re.findall(r'getenv\("(\w+)"\)', text):
        expect(f"{where}: the variable `{name}` is not in docs/operations.md", f"`{name}`" in docs["operations.md"])
    for name in re.findall(r'\.path = "(/[^"]*)"', text):
        expect(f"{where}: the endpoint {name} is not in docs/http-api.md", name in docs["http-api.md"])

for page in [root / "README.md", *sorted((root / "docs").glob("*.md"))]:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            expect(f"{page.relative_to(root)}: the link to {target} leads nowhere", (page.parent / target).exists())

for p in problems:
    print(p)
print(f"{n_checked} facts looked up, {len(problems)} missing")
sys.exit(1 if problems or n_checked < 100 else 0)
