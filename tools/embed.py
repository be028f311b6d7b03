"""Makes one HTML file of a page and the style sheets and scripts that it names, for a C array, with the Content-Security-Policy that
lets exactly these run. Usage: embed.py NAME PAGE.html OUTPUT.h (NAME is the array's; NAME_CSP, in capitals, the policy's)."""
import base64
import hashlib
import pathlib
import re
import sys

name, page, output = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
hashes = {"style": [], "script": []}


def inline(tag):
    """A function for re.sub that puts the named file in place of the reference to it."""
    def replace(match):
        text = (page.parent / match.group(1)).read_text()
        if f"</{tag}" in text:
            sys.exit(f"embed.py: {match.group(1)} has </{tag} in it")
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        hashes[tag].append(f"'sha256-{digest}'")
        return f"<{tag}>{text}</{tag}>"
    return replace


html = page.read_text()
html = re.sub(r'<link rel="stylesheet" href="([\w.-]+)">', inline("style"), html)
html = re.sub(r'<script src="([\w.-]+)"></script>', inline("script"), html)
if re.search(r"""(?:src|href)=["']?(?:https?:|//)""", html) or " style=" in html or re.search(r"\son\w+=", html):
    sys.exit("embed.py: the page reaches outside, or has style or script in an attribute")
policy = "; ".join([
    "default-src 'none'",
    "script-src " + (" ".join(hashes["script"]) or "'none'"),
    "style-src " + (" ".join(hashes["style"]) or "'none'"),
    "connect-src 'self'", "img-src data:", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
])
data = html.encode()
lines = [", ".join(f"0x{b:02x}" for b in data[i:i + 20]) for i in range(0, len(data), 20)]
output.write_text(
    f"/* Made by tools/embed.py from {page.name} when this was built. */\n#pragma once\n\n"
    f'#define {name.upper()}_CSP "{policy}"\n'
    f"static const unsigned char {name}[] = {{\n\t" + ",\n\t".join(lines) + ",\n};\n")
