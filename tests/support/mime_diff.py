"""Builds messages with our builder and reads them with Python's email package, as they are and once more after our parser has read and
rebuilt them: what was meant must come back, and every line must be one that SMTP can carry. Usage: mime_diff.py MIME_JSON_PROGRAM"""
import base64
import email
import email.header
import email.policy
import email.utils
import json
import random
import subprocess
import sys
import traceback

program = subprocess.Popen([sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
problems = []
n_cases = 0


def build(spec):
    program.stdin.write(json.dumps(spec).encode() + b"\n")
    program.stdin.flush()
    head = program.stdout.readline().decode()
    if head.startswith("error "):
        sys.exit(f"{spec!r:.300}: {head}")
    return program.stdout.read(int(head))


def lines_are_smtp(raw, spec):
    assert b"\r" not in raw.replace(b"\r\n", b""), "a bare CR"
    assert b"\n" not in raw.replace(b"\r\n", b""), "a bare LF"
    assert raw.endswith(b"\r\n")
    assert b"\0" not in raw
    lines = raw.split(b"\r\n")
    assert all(len(line) <= 998 for line in lines), "a line of over 998"
    head = raw[:raw.index(b"\r\n\r\n")].split(b"\r\n")
    if "no_fold" not in spec:
        assert all(len(line) <= 78 for line in head), f"not folded: {max(head, key=len)}"
    assert all(line.strip() for line in head), "a line of blanks in the header"
    assert spec.get("is_8bit") or raw.isascii(), "8-bit bytes"


def text_of(part):
    return part.get_payload(decode=True).decode(part.get_content_charset()).replace("\r\n", "\n")


def ended(text, part, is_top):
    """A single part ends its last line; others, and base64, come back as they were."""
    text = text.replace("\r\n", "\n")
    is_added = is_top and text and not text.endswith("\n") and part["Content-Transfer-Encoding"] != "base64"
    return text + "\n" if is_added else text


def structure(part):
    if part.is_multipart() and part.get_content_maintype() == "multipart":
        return [part.get_content_subtype(), *map(structure, part.get_payload())]
    return part.get_content_type()


def expected_structure(spec):
    files = [(f["content_type"], "content_id" in f) for f in spec.get("attachments", [])]
    related = [t for t, is_inline in files if is_inline and "html_body" in spec]
    html = "text/html"
    if related:
        html = ["related", "text/html", *related]
    texts = [t for t, key in (("text/plain", "text_body"), ("text/x-amp-html", "amp_html_body")) if key in spec]
    texts += [html] if "html_body" in spec else []
    top = ["alternative", *texts] if len(texts) > 1 else texts[0] if texts else None
    others = [t for t, is_inline in files if not (is_inline and related)]
    if others:
        return ["mixed", *([top] if top else []), *others]
    return top or "text/plain"


def name_of(field):
    """By the older interface: the newer one of Python before 3.13 puts blanks between encoded words of a name."""
    name = email.utils.parseaddr("".join(str(field).splitlines()))[0]
    return str(email.header.make_header(email.header.decode_header(name)))


def check(spec):
    raw = build(spec)
    lines_are_smtp(raw, spec)
    msg = email.message_from_bytes(raw, policy=email.policy.default)
    parts = list(msg.walk())
    old = email.message_from_bytes(raw)
    defects = [d for p in parts for d in p.defects]
    assert not defects, defects
    assert structure(msg) == expected_structure(spec), structure(msg)
    for key, kind in (("text_body", "text/plain"), ("html_body", "text/html"), ("amp_html_body", "text/x-amp-html")):
        if key in spec:
            part = next(p for p in parts if p.get_content_type() == kind and not p.get_filename() and not p["Content-Disposition"])
            assert text_of(part) == ended(spec[key], part, not msg.is_multipart()), key
    files = [p for p in parts if p["Content-Disposition"]]
    wanted = spec.get("attachments", [])
    if any("content_id" in f for f in wanted):  # the related ones come first
        wanted = sorted(wanted, key=lambda f: not ("content_id" in f and "html_body" in spec))
    for part, f in zip(files, wanted, strict=True):
        if part.get_content_maintype() == "message" and "is_8bit" in spec and "rebuild" in spec:
            assert part.get_payload(0).get_content().strip() == "ü"
        elif part.get_content_maintype() == "message":
            assert part.get_payload(0).as_bytes(policy=email.policy.SMTP) == base64.b64decode(f["data"])
        else:
            assert part.get_payload(decode=True) == base64.b64decode(f["data"]), "attachment"
        assert part.get_filename() == f.get("file_name"), part.get_filename()
        if "content_id" in f:
            assert part["Content-ID"] == f"<{f['content_id']}>"
        assert part.get_content_disposition() == ("inline" if "content_id" in f else "attachment")
    if "subject" in spec:
        assert msg["Subject"] == spec["subject"].strip(), msg["Subject"]
        assert not msg["Subject"].defects
    for key, name in (("from", "From"), ("reply_to", "Reply-To"), ("to", "To")):
        if key in spec:
            got = msg[name].addresses
            assert not msg[name].defects and len(got) == 1, msg[name]
            assert got[0].addr_spec == spec[key].get("want", spec[key]["email"]), got[0].addr_spec
            assert name_of(old[name]) == spec[key].get("name", ""), name_of(old[name])
    for name, value in spec.get("headers", []):
        assert value.strip() in [str(v) for v in msg.get_all(name)], (name, msg.get_all(name))
    assert msg["Date"].datetime and not msg["Date"].defects
    assert len(msg.get_all("Date")) == len(msg.get_all("Message-ID")) == len(msg.get_all("MIME-Version")) == 1
    return raw


def case(spec):
    global n_cases
    n_cases += 1
    base = {"from": {"email": "from@example.com", "name": "From, Me"}, "subject": "S", "to": {"email": "to@example.org"}}
    try:
        check(base | spec | {"rebuild": True})
        return check(base | spec)
    except (AssertionError, StopIteration) as e:
        where = traceback.extract_tb(e.__traceback__)[-1].line
        problems.append(f"{str(spec)[:300]}: {where}: {e!r:.600}")
    return b""


def blob(data, **rest):
    return {"data": base64.b64encode(data).decode(), "content_type": "application/octet-stream"} | rest


png = blob(bytes(range(256)) * 5, content_type="image/png", content_id="i1@x", file_name="i.png")
rtl = "שלום עולם — مرحبا بالعالم"
emoji = "🎉 Grüße 👩‍👩‍👧‍👦 ✉ 日本語のテキスト"
case({"text_body": "hello"})
case({"text_body": ""})
case({})
case({"text_body": "a\nb\r\nc\rd"} | {"text_body": "a\nb\r\nc\n\n"})
case({"html_body": "<p>x = y</p>\n"})
case({"text_body": "t", "html_body": "<b>h</b>"})
case({"text_body": "t\n", "html_body": "h", "amp_html_body": "<html amp4email>"})
case({"amp_html_body": "a"})
case({"html_body": "<img src='cid:i1@x'>", "attachments": [png]})
case({"text_body": "t", "html_body": "h", "attachments": [png, blob(b"\0\1\2", file_name="größe.bin")]})
case({"text_body": "t", "attachments": [blob(b""), png]})
case({"attachments": [blob(b"x" * 100)]})
case({"text_body": "x", "attachments": [blob(b"text", content_type="text/plain", file_name="größe.txt")]})
case({"text_body": "x", "attachments": [blob(b"text", content_type="text/plain", file_name="a\"b\\c;d.txt")]})
for n in (10, 30, 50, 60, 70, 80, 100, 200, 250):
    case({"text_body": "x", "attachments": [blob(b"1", file_name="f" * n + ".txt"), blob(b"2", file_name="ü" * n + ".txt"),
                                            blob(b"3", file_name="☃ 日" * (n // 2)), blob(b"4", file_name="a b" * n)]})
case({"text_body": "x", "attachments": [blob(b"Subject: s\r\n\r\nbody\r\n--=_m\r\n", content_type="message/rfc822")]})
case({"text_body": "x", "is_8bit": True,
      "attachments": [blob("Subject: s\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
                           "Content-Transfer-Encoding: 8bit\r\n\r\nü\r\n".encode(), content_type="message/rfc822")]})
for text in (emoji, rtl, "ü" * 5000, "日本" * 3000, emoji * 100, "a" * 998, "a" * 999, "a" * 998 + "\n" + "b" * 998, "ä" + "a" * 996, "x" * 100000,
             "NUL \0 and \x01\x7f", "-- \n--=_a\n--", " trailing \t\nblank ", "=\n=20\n.", "From me\n.\n..\n", "\n\n\n", "\ttab\t", "ü \n\tü\t\n",
             "\u2028\ufeff\x85", "é" + " " * 200, "a " * 700, "=" * 400 + "ü"):
    for key in ("text_body", "html_body"):
        case({key: text})
        case({"text_body": "t", "amp_html_body": "amp", key: text})
for text in (emoji, rtl, "🎉" * 300, "ü" * 500, "plain " * 100, "a" * 600, "a" * 5000, "x ü y", "ü", " ü", "ü x ü  y   ü", "two  blanks", "ü  ü",
             "=?", "a=?b", "=?x", "tab\there", "a\tü", "100% \"quoted\" (x) <y>", "?=", "_", "a_ü b", "日本語" * 60, "e\u0301" * 100,
             "abc " * 18 + "ü", "word " + "日" * 100 + " word", "-" * 70, "ü " * 80):
    no_fold = {"no_fold": True} if max(map(len, text.split(" "))) > 60 else {}
    case({"subject": text} | no_fold)
    case({"headers": [["X-Custom", text]]} | no_fold)
for name in (emoji, rtl, "Zoë", "Ann Lee", "From, Me", "a\"b\\c", "(c) <x>", "🎉" * 100, "ü" * 300, "long " * 40 + "x", "n" * 70, "n" * 300, "@", ".", "a.b",
             "=?", "日本 太郎", "O'Neil", "Müller, Ä."):
    no_fold = {"no_fold": True} if name[0] == "n" else {}
    for key in ("from", "reply_to", "to"):
        case({key: {"email": "a@example.com", "name": name}} | no_fold)
        case({key: {"email": "a" * 60 + "@" + "d" * 50 + "." + "e" * 50 + ".example", "name": name}, "no_fold": True})
case({"to": {"email": "info@bücher.example", "want": "info@xn--bcher-kva.example"}})
case({"to": {"email": "\"a b\"@example.com"}})
assert 'To: =?UTF-8?q?Jos=C3=A9?= <josé@bücher.example>\r\n'.encode() in build({"to": {"email": "josé@bücher.example", "name": "José"}})
case({"headers": [["X-A", "1"], ["X-a", "2"], ["X-Long-" + "n" * 60, "v " * 60], ["List-Unsubscribe", "<https://example.com/?" + "u" * 600 + ">"]],
      "no_fold": True})
assert b"\r\nTo: x@y.example\r\n" in case({"headers": [["To", "x@y.example"], ["Date", "Mon, 23 Nov 2026 02:33:32 +0000"], ["message-id", "<a@b>"]],
                                           "to": {"email": "x@y.example"}})
twenty = random.Random(1).randbytes(20 << 20)
case({"text_body": "big", "attachments": [blob(twenty, file_name="big.bin")]})

alphabet = ["a", "b", "Z", " ", " ", "ü", "日", "🎉", "=", "?", "_", ".", "-", "(", ")", "<", ">", "@", ",", ";", ":", "\\", "\"", "'", "ש", "e\u0301", "%", "*"]
rng = random.Random(20261123)
for i in range(400):
    text = "".join(rng.choices(alphabet, k=rng.randrange(1, 120))).strip() or "x"
    words = " ".join(text.split())
    body = "".join(rng.choices(alphabet + ["\n", "\t", "--"], k=rng.randrange(0, 400)))
    case({"subject": text, "text_body": body, "html_body": body[::-1], "no_fold": True, "from": {"email": "a@b.example", "name": words},
          "attachments": [blob(body.encode(), file_name=f"n{words}")]})  # the package strips quotes around one

program.stdin.close()
program.wait()
for p in problems:
    print(p)
print(f"{n_cases} messages, {len(problems)} not read back")
sys.exit(1 if problems or program.returncode != 0 else 0)
