"""POST /api/inject/v1, field by field and error by error; the messages that come out are read by Python's email package."""
import base64
import email
import email.header
import email.headerregistry
import email.policy
import email.utils
import hashlib
import json
import re

import pytest

from cirrus import Daemon, Maildir, policy, wait_for

INJECT = "/api/inject/v1"
SHAPE = "Failed to deserialize the JSON body into the target type: "
GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
NUMBER = iter(range(10**9))


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    """A maildir for each recipient."""
    where = tmp_path_factory.mktemp("inject")
    extra = """
kumo.on('http_message_generated', function(msg)
  local user = msg:recipient().user
  if user:find('^reject') then kumo.reject(550, '5.7.1 no thanks') end
  if user:find('^broken') then error('a mistake of the policy') end
  if user:find('^tenant') then msg:set_meta('tenant', 'acme') end
  if user:find('^void') then msg:set_meta('queue', 'null') end
  if user:find('^empty') then msg:set_data '' end
end)"""
    text = policy(where, f"protocol = {{ maildir_path = '{where}/mail/{{{{ email }}}}' }}", extra=extra)
    text = text.replace("listen = '127.0.0.1:0'", "listen = '127.0.0.1:0', request_body_limit = 100000000")
    with Daemon(where, text) as d:
        yield d


def post(d, body, timeout=60):
    status, headers, text = d.request("POST", INJECT, body if isinstance(body, bytes) else json.dumps(body), {"Content-Type": "application/json"},
                                      timeout=timeout)
    return status, json.loads(text) if headers.get("content-type") == "application/json" else text.decode()


def request(content="Subject: x\r\n\r\nhi\r\n", to=None, **fields):
    to = to or [{"email": f"r{next(NUMBER)}@example.org"}]
    return {"envelope_sender": "s@example.com", "recipients": to, "content": content, **fields}


def raw(d, address):
    m, = wait_for(f"the message to {address}", Maildir(d.dir / "mail" / address).messages)
    return m


def parse(data):
    return email.message_from_bytes(data, policy=email.policy.default)


def text_of(part):
    """With the line ends that it was sent with; on the wire they are CRLF."""
    return part.get_content().replace("\r\n", "\n")


def mailbox_of(m, field):
    """Name and address. Not by the package's own parser of addresses: that puts blanks between the encoded words of a name."""
    raw = {k: v for k, v in m.raw_items()}[field]
    name, address = email.utils.parseaddr("".join(raw.splitlines()))
    return str(email.header.make_header(email.header.decode_header(name))), address


def texts_of(m):
    return [text_of(p) for p in m.iter_parts()]


def send(d, content, recipient=None, **fields):
    """Injects for one recipient; its message as bytes."""
    r = {"email": f"r{next(NUMBER)}@example.org", **(recipient or {})}
    status, answer = post(d, request(content, [r], **fields))
    assert status == 200 and answer["fail_count"] == 0, answer
    return raw(d, r["email"])


def build(d, recipient=None, **content):
    """The same with content as a table; parsed."""
    return parse(send(d, content, recipient))


def refused(d, **fields):
    status, text = post(d, request(**fields))
    assert status == 422 and isinstance(text, str), (status, text)
    return text


def failed(d, recipient=None, **fields):
    """Of one recipient, the error."""
    r = {"email": f"f{next(NUMBER)}@example.org", **(recipient or {})}
    status, answer = post(d, request(to=[r], **fields))
    assert status == 200 and (answer["success_count"], answer["fail_count"], answer["messages"]) == (0, 1, []), answer
    assert answer["failed_recipients"] == [r["email"]]
    error, = answer["errors"]
    assert error.startswith(r["email"] + ": ")
    return error[len(r["email"]) + 2:]


# --- the message from its parts ---

def test_text_only(daemon):
    m = build(daemon, text_body="hello\n", subject="S", **{"from": {"email": "from@example.com", "name": "From, Me"}})
    assert m.get_content_type() == "text/plain" and text_of(m) == "hello\n"
    assert m["Subject"] == "S" and m["From"] == '"From, Me" <from@example.com>' and m["MIME-Version"] == "1.0"
    assert m["From"].addresses[0].display_name == "From, Me"
    assert m["Date"].datetime is not None and not m.defects


def test_html_only(daemon):
    m = build(daemon, html_body="<p>hello</p>")
    assert m.get_content_type() == "text/html" and text_of(m) == "<p>hello</p>\n"


def test_text_and_html(daemon):
    m = build(daemon, text_body="plain", html_body="<b>html</b>", amp_html_body="<html amp>")
    assert m.get_content_type() == "multipart/alternative"
    assert [p.get_content_type() for p in m.iter_parts()] == ["text/plain", "text/x-amp-html", "text/html"]
    assert texts_of(m) == ["plain", "<html amp>", "<b>html</b>"]


def test_inline_image(daemon):
    m = build(daemon, html_body='<img src="cid:i1">', text_body="see",
              attachments=[{"data": base64.b64encode(GIF).decode(), "base64": True, "content_type": "image/gif", "content_id": "i1"}])
    text, related = m.iter_parts()
    html, image = related.iter_parts()
    assert related.get_content_type() == "multipart/related" and text.get_content() == "see" and html.get_content() == '<img src="cid:i1">'
    assert image["Content-ID"] == "<i1>" and image.get_content_disposition() == "inline" and image.get_content() == GIF


def test_attachments(daemon):
    m = build(daemon, text_body="x", attachments=[
        {"data": "some text\n", "content_type": "text/plain", "file_name": "größe.txt"},
        {"data": base64.encodebytes(bytes(range(256)) * 10).decode(), "base64": True, "content_type": "application/octet-stream", "file_name": "a b.bin"},
        {"data": base64.b64encode(GIF).decode(), "base64": True, "content_type": "image/gif"}])
    assert m.get_content_type() == "multipart/mixed"
    body, text, binary, image = m.iter_parts()
    assert body.get_content() == "x"
    assert text.get_filename() == "größe.txt" and text_of(text) == "some text\n" and text.get_content_disposition() == "attachment"
    assert binary.get_filename() == "a b.bin" and binary.get_content() == bytes(range(256)) * 10
    assert image.get_filename() is None and image.get_content() == GIF


def test_attached_text_says_its_charset(daemon):
    """Data without base64 are UTF-8, so that is what the part says; what comes in base64 has the charset that the caller gave it."""
    latin1 = base64.b64encode("größe".encode("latin-1")).decode()
    m = build(daemon, text_body="x", attachments=[
        {"data": "größe", "content_type": "text/plain", "file_name": "1.txt"},
        {"data": "größe", "content_type": 'text/csv; charset="iso-8859-1"; header=present', "file_name": "ü.csv"},
        {"data": "size", "content_type": "text/plain; charset=us-ascii"},
        {"data": latin1, "base64": True, "content_type": "text/plain; charset=iso-8859-1"},
        {"data": "größe", "content_type": "application/json"}])
    plain, csv, ascii_, given, json_ = list(m.iter_parts())[1:]
    assert plain.get_content() == csv.get_content() == given.get_content() == "größe" and ascii_.get_content() == "size"
    assert plain["Content-Type"].params == {"charset": "utf-8", "name": "1.txt"}
    assert csv.get_content_charset() == "utf-8" and csv["Content-Type"].params["header"] == "present" and csv.get_filename() == "ü.csv"
    assert ascii_.get_content_charset() == "us-ascii" and given.get_content_charset() == "iso-8859-1"
    assert json_["Content-Type"].params == {} and json_.get_content() == "größe".encode()


def test_everything_at_once(daemon):
    m = build(daemon, {"name": "Ann"}, text_body="t", html_body="h", subject="s", reply_to={"email": "r@example.com"}, headers={"X-Tag": "abc"},
              attachments=[{"data": "a", "content_type": "text/plain"},
                           {"data": base64.b64encode(GIF).decode(), "base64": True, "content_type": "image/gif", "content_id": "<i>"}],
              **{"from": {"email": "f@example.com"}})
    alternative, attachment = m.iter_parts()
    text, related = alternative.iter_parts()
    html, image = related.iter_parts()
    assert (text.get_content(), html.get_content(), image.get_content(), attachment.get_content()) == ("t", "h", GIF, "a")
    assert m["Reply-To"] == "<r@example.com>" or m["Reply-To"] == "r@example.com"
    assert m["X-Tag"] == "abc"


@pytest.mark.parametrize("name", [None, "Ann Lee", "Lee, Ann", 'An"n\\', "Zoë", "Ann 😀", "مريم", "a" * 300, ""], ids=range(9))
def test_to_is_the_recipient(daemon, name):
    r = {"email": f"To.{next(NUMBER)}@example.org", "name": name}
    m = build(daemon, r, text_body="x")
    assert mailbox_of(m, "To") == (name or "", r["email"]) and len(m["To"].addresses) == 1


def test_message_id_is_the_id(daemon):
    r = {"email": f"r{next(NUMBER)}@example.org"}
    _, answer = post(daemon, request({"text_body": "x", "from": {"email": "f@bücher.example"}}, [r]))
    m = parse(raw(daemon, r["email"]))
    assert m["Message-ID"] == f"<{answer['messages'][0]['id']}@xn--bcher-kva.example>"


def test_headers_of_the_caller_replace_ours(daemon):
    m = build(daemon, {"name": "Ann"}, text_body="x", headers={"to": "everybody: ;", "Date": "Thu, 1 Jan 2026 00:00:00 +0000", "message-id": "<mine@x>"})
    assert m.get_all("To") == ["everybody:;"] and m["Message-ID"] == "<mine@x>" and len(m.get_all("Date")) == 1
    assert m["Date"].datetime.year == 2026


TEXTS = {
    "8-bit": "Grüße\n", "emoji": "😀 and 👩‍👩‍👧\n", "right to left": "مرحبا بالعالم\nשלום\n", "long line": "z" * 5000 + "\n", "998 bytes": "a" * 998 + "\n",
    "999 bytes": "a" * 999 + "\n", "998 bytes of umlauts": "ä" * 499 + "\n", "dots": ".\n..\n.x\n", "from line": "From here\n>From there\n", "blanks at the end": "a  \nb\t\n",
    "empty": "", "only lines": "\n\n\n", "no line at the end": "x", "boundary": "--\n--=_a\n--=_aAAAA--\n", "equals": "a=b=3D\n", "controls": "a\x01b\x7f\n",
    "1 MB": "The quick brown fox.\n" * 50000,
}


@pytest.mark.parametrize("case", TEXTS)
def test_text_round_trip(daemon, case):
    text = TEXTS[case]
    m = build(daemon, text_body=text, html_body="<p>" + text, attachments=[{"data": text, "content_type": "text/plain"}])
    alternative, attachment = m.iter_parts()
    same = [a == b for a, b in zip(texts_of(alternative), (text, "<p>" + text), strict=True)]
    assert same == [True, True]
    is_same = attachment.get_payload(decode=True).decode() == text  # not a line end is changed
    assert is_same
    is_same = text_of(build(daemon, text_body=text)) == (text if text.endswith("\n") or text == "" else text + "\n")
    assert is_same


@pytest.mark.parametrize("text", ["Grüße ✉", "😀😀 two", "مرحبا", "long " * 60, "x" * 990, "=?UTF-8?q?a?=", "  blanks  inside ", "é" * 200, "a,b;c:d<e>"], ids=range(9))
def test_subject_and_name_round_trip(daemon, text):
    m = build(daemon, {"name": text.strip()}, text_body="x", subject=text, headers={"X-Text": text}, **{"from": {"email": "f@example.com", "name": text.strip()}})
    plain = "a" if text.startswith("=?") else text.strip()
    assert m["Subject"] == plain and m["X-Text"] == plain
    if not text.startswith("=?"):
        assert mailbox_of(m, "From") == (plain, "f@example.com") and mailbox_of(m, "To")[0] == plain
    assert not m.defects


def test_lines_are_short_enough(daemon):
    data = send(daemon, {"text_body": "ü" * 3000 + "x" * 3000, "subject": "w" * 2000 + " é", "headers": {"X-Long": "word " * 400},
                         "attachments": [{"data": "y" * 5000, "content_type": "text/plain", "file_name": "n" * 900}]})
    assert max(len(line) for line in data.split(b"\r\n")) <= 998
    assert b"\n" not in data.replace(b"\r\n", b"") and b"\r" not in data.replace(b"\r\n", b"")


def test_attachment_of_20_mb(daemon):
    data = hashlib.shake_128(b"x").digest(20 << 20)
    m = build(daemon, text_body="here it is", attachments=[{"data": base64.b64encode(data).decode(), "base64": True,
                                                            "content_type": "application/octet-stream", "file_name": "big.bin"}])
    text, attachment = m.iter_parts()
    is_same = attachment.get_content() == data
    assert text.get_content() == "here it is" and is_same


def test_content_of_only_headers(daemon):
    m = build(daemon, subject="nothing to say")
    assert m["Subject"] == "nothing to say" and m.get_content().strip() == ""


def test_international_addresses(daemon):
    r = {"email": f"r{next(NUMBER)}@bücher.example", "name": "B"}
    _, answer = post(daemon, request({"text_body": "x", "from": {"email": "f@bücher.example"}}, [r]))
    assert answer["success_count"] == 1, answer
    data = raw(daemon, r["email"])
    assert b"xn--bcher-kva" in data and b"\xc3" not in data


# --- errors of the request ---

def content(**fields):
    return {"content": {"text_body": "x", **fields}}


def attachment(**fields):
    return content(attachments=[{"data": "x", "content_type": "text/plain"}, {"data": "x", "content_type": "text/plain", **fields}])


SHAPE_ERRORS = [
    (content(nope=1), "content.nope: unknown field `nope`, expected one of `text_body`"),
    (content(text_body=5), "content.text_body: invalid type: integer `5`, expected a string"),
    (content(html_body=[]), "content.html_body: invalid type: sequence, expected a string"),
    (content(amp_html_body={}), "content.amp_html_body: invalid type: map"),
    (content(subject=True), "content.subject: invalid type: boolean `true`"),
    (content(**{"from": "a@example.com"}), 'content.from: invalid type: string "a@example.com", expected struct FromHeader'),
    (content(**{"from": {}}), "content.from: missing field `email`"),
    (content(**{"from": {"email": 1}}), "content.from.email: invalid type: integer"),
    (content(**{"from": {"email": "a@example.com", "nam": "x"}}), "content.from.nam: unknown field `nam`"),
    (content(reply_to={"name": "x"}), "content.reply_to: missing field `email`"),
    (content(headers=[]), "content.headers: invalid type: sequence, expected a map"),
    (content(headers={"X": 1}), "content.headers.X: invalid type: integer `1`, expected a string"),
    (content(headers={"X": None}), "content.headers.X: invalid type: null"),
    (content(attachments={}), "content.attachments: invalid type: map, expected a sequence"),
    (content(attachments=["x"]), 'content.attachments[0]: invalid type: string "x", expected struct Attachment'),
    (content(attachments=[{"data": "x"}]), "content.attachments[0]: missing field `content_type`"),
    (content(attachments=[{"content_type": "x"}]), "content.attachments[0]: missing field `data`"),
    (attachment(data=1), "content.attachments[1].data: invalid type"),
    (attachment(base64="yes"), "content.attachments[1].base64: invalid type"),
    (attachment(file_name=1), "content.attachments[1].file_name: invalid type"),
    (attachment(content_id=[]), "content.attachments[1].content_id: invalid type"),
    (attachment(nope=1), "content.attachments[1].nope: unknown field"),
    ({"content": 5}, "content: invalid type: integer `5`, expected a string or struct Content"),
    ({"content": None}, "content: invalid type: null"),
    ({"trace_headers": {"x": 1}}, "trace_headers.x: unknown field"),
    ({"trace_headers": {"received_header": "yes"}}, "trace_headers.received_header: invalid type"),
    ({"trace_headers": {"supplemental_header": 1}}, "trace_headers.supplemental_header: invalid type"),
    ({"trace_headers": {"header_name": 1}}, "trace_headers.header_name: invalid type"),
    ({"trace_headers": {"include_meta_names": "tenant"}}, "trace_headers.include_meta_names: invalid type"),
    ({"trace_headers": {"include_meta_names": ["tenant", 1]}}, "trace_headers.include_meta_names[1]: invalid type"),
    ({"trace_headers": []}, "trace_headers: invalid type"),
    ({"to": [{"email": "a@example.org"}] * 3 + [{"email": 1}]}, "recipients[3].email: invalid type"),
    ({"to": [{"email": "a@example.org", "subst": {}}]}, "recipients[0].subst: unknown field"),
    ({"to": [{"email": "a@example.org", "substitutions": []}]}, "recipients[0].substitutions: invalid type"),
    ({"to": [{"email": "a@example.org", "metadata": "x"}]}, "recipients[0].metadata: invalid type"),
    ({"to": [{"email": "a@example.org", "name": 1}]}, "recipients[0].name: invalid type"),
    ({"template_dialect": "jinja"}, "template_dialect: unknown variant `jinja`, expected one of `Jinja`, `Static`, `Handlebars`"),
]


@pytest.mark.parametrize("fields,error", SHAPE_ERRORS, ids=[e[:50] for _, e in SHAPE_ERRORS])
def test_shape(daemon, fields, error):
    assert refused(daemon, **fields).startswith(SHAPE + error)


@pytest.mark.parametrize("text,where", [
    ('{"envelope_sender": "a@example.com", "envelope_sender": "b@example.com", "recipients": [], "content": "x"}', "envelope_sender"),
    ('{"envelope_sender": "a@example.com", "recipients": [], "content": {"headers": {"X-A": "1", "X-A": "2"}}}', "X-A"),
])
def test_no_field_twice(daemon, text, where):
    status, _, body = daemon.request("POST", "/api/inject/v1", text, {"Content-Type": "application/json"})
    assert status == 422 and body.decode().startswith(SHAPE + "duplicate object key near") and where in body.decode()


FIELD_ERRORS = [
    ({"content": {}}, "content: the message is empty"),
    ({"content": ""}, "content: the message is empty"),
    ({"content": {"text_body": None, "from": None}}, "content: the message is empty"),
    (attachment(content_type=""), "content.attachments[1].content_type: expected type/subtype"),
    ({"trace_headers": {"header_name": ""}}, "trace_headers.header_name: "),
    ({"trace_headers": {"header_name": "X Y"}}, "trace_headers.header_name: "),
    ({"trace_headers": {"header_name": "X:\r\nY"}}, "trace_headers.header_name: "),
    (attachment(base64=True, data="x"), "content.attachments[1].data: not base64"),
    (attachment(base64=True, data="=AAA"), "content.attachments[1].data: not base64"),
    (attachment(base64=True, data="AAA=AAAA"), "content.attachments[1].data: not base64"),
    (attachment(base64=True, data="AA-_"), "content.attachments[1].data: not base64"),
    (attachment(base64=True, data="AAA"), "content.attachments[1].data: not base64"),
    (attachment(content_type="text"), "content.attachments[1].content_type: "),
    (attachment(content_type="multipart/mixed"), "content.attachments[1].content_type: "),
    (attachment(content_id=""), "content.attachments[1].content_id: "),
    (attachment(content_id="a b"), "content.attachments[1].content_id: "),
    (content(**{"from": {"email": "nobody"}}), "content.from.email: "),
    (content(**{"from": {"email": ""}}), "content.from.email: "),
    (content(reply_to={"email": "a b@example.com"}), "content.reply_to.email: "),
    (content(headers={"X Y": "1"}), "content.headers[X Y]: "),
    (content(headers={"": "1"}), "content.headers[]: "),
    (content(headers={"X:Y": "1"}), "content.headers[X:Y]: "),
    (content(headers={"Content-Type": "text/html"}), "content.headers[Content-Type]: "),
    (content(headers={"mime-version": "1.0"}), "content.headers[mime-version]: "),
    (content(subject="a", headers={"subject": "b"}), "content.headers[subject]: "),
    (content(headers={"From": "a@example.com", "from": "b@example.com"}), "content.headers[from]: "),
    (content(headers={"FROM": "a@example.com"}, **{"from": {"email": "a@example.com"}}), "content.headers[FROM]: "),
    (content(headers={"Date": "größe"}), "content.headers[Date]: "),
    (content(text_body="{{ unclosed"), "failed parsing field 'content.text_body' as template: syntax error: "),
    (content(html_body="{% if %}"), "failed parsing field 'content.html_body' as template: syntax error: "),
    (content(amp_html_body="{% nope %}"), "failed parsing field 'content.amp_html_body' as template: syntax error: "),
    (content(subject="{{ 1 + }}"), "failed parsing field 'content.subject' as template: syntax error: "),
    (content(headers={"X-A": "{{ }}"}), "failed parsing field 'content.headers[X-A]' as template: syntax error: "),
    (content(**{"from": {"email": "{{@example.com"}}), "failed parsing field 'content.from.email' as template: syntax error: "),
    (content(reply_to={"email": "a@example.com", "name": "{{"}), "failed parsing field 'content.reply_to.name' as template: syntax error: "),
]


@pytest.mark.parametrize("fields,error", FIELD_ERRORS, ids=[f"{i}-{e[:40]}" for i, (_, e) in enumerate(FIELD_ERRORS)])
def test_field(daemon, fields, error):
    text = refused(daemon, **fields)
    assert text.startswith("Error: " + error), text


def test_template_error_says_where(daemon):
    text = refused(daemon, **content(text_body="first\n{{ good }}\n  {{ bad bad }}\nlast"))
    assert text.startswith("Error: failed parsing field 'content.text_body' as template: syntax error: ")
    assert text.endswith("(in template 'text_body.txt' line 3: '  {{ bad bad }}'), column 10")


# --- what would end a header ---

BREAKS = {"CR": "\r", "LF": "\n", "CRLF": "\r\n", "NUL": "\0"}
PLACES = {
    "header name": (lambda v: content(headers={f"X{v}Y": "1"}), "content.headers[X"),
    "header value": (lambda v: content(headers={"X-A": f"a{v}Bcc: evil@example.org"}), "content.headers[X-A]: the "),
    "subject": (lambda v: content(subject=f"a{v}Bcc: evil@example.org"), "content.subject: the "),
    "from name": (lambda v: content(**{"from": {"email": "a@example.com", "name": f"a{v}b"}}), "content.from.name: the "),
    "from address": (lambda v: content(**{"from": {"email": f"a{v}@example.com"}}), "content.from.email: "),
    "reply_to name": (lambda v: content(reply_to={"email": "a@example.com", "name": f"{v}b"}), "content.reply_to.name: the "),
    "reply_to address": (lambda v: content(reply_to={"email": f"a@example.com{v}"}), "content.reply_to.email: "),
    "file name": (lambda v: attachment(file_name=f"a{v}b"), "content.attachments[1].file_name: the "),
    "content id": (lambda v: attachment(content_id=f"a{v}b"), "content.attachments[1].content_id: the "),
    "content type": (lambda v: attachment(content_type=f"text/plain;{v} x=1"), "content.attachments[1].content_type: the "),
    "trace header": (lambda v: {"trace_headers": {"header_name": f"X-A{v}"}}, "trace_headers.header_name: "),
}


@pytest.mark.parametrize("what", BREAKS)
@pytest.mark.parametrize("place", PLACES)
def test_nothing_ends_a_header(daemon, place, what):
    fields, error = PLACES[place]
    if place == "header name" and what == "NUL":  # no key of JSON may have it here
        assert post(daemon, request(**fields(BREAKS[what])))[0] == 400
        return
    text = refused(daemon, **fields(BREAKS[what]))
    assert text.startswith("Error: " + error), text


EXPANDED = {
    "header value": (content(headers={"X-A": "a {{ v }}"}), "content.headers[X-A]: the "),
    "subject": (content(subject="{{ v }}"), "content.subject: the "),
    "subject in a loop": (content(subject="{% for c in v %}{{ c }}{% endfor %}"), "content.subject: the "),
    "from name": (content(**{"from": {"email": "a@example.com", "name": "{{ v }}"}}), "content.from.name: the "),
    "from address": (content(**{"from": {"email": "a{{ v }}@example.com"}}), "content.from.email: "),
    "reply_to name": (content(reply_to={"email": "a@example.com", "name": "x{{ v }}"}), "content.reply_to.name: the "),
    "reply_to address": (content(reply_to={"email": "{{ v }}a@example.com"}), "content.reply_to.email: "),
}


@pytest.mark.parametrize("what", BREAKS)
@pytest.mark.parametrize("place", EXPANDED)
def test_no_substitution_ends_a_header(daemon, place, what):
    fields, error = EXPANDED[place]
    text = failed(daemon, {"substitutions": {"v": f"a{BREAKS[what]}Bcc: evil@example.org"}}, **fields)
    assert text.startswith(error), text
    text = failed(daemon, substitutions={"v": f"a{BREAKS[what]}b"}, **fields)
    assert text.startswith(error), text


@pytest.mark.parametrize("what", BREAKS)
def test_no_name_of_a_recipient_ends_a_header(daemon, what):
    bad = {"email": f"f{next(NUMBER)}@example.org", "name": f"a{BREAKS[what]}b"}
    good = {"email": f"r{next(NUMBER)}@example.org"}
    status, answer = post(daemon, request({"text_body": "x"}, [good, bad]))
    assert status == 200 and answer["failed_recipients"] == [bad["email"]]
    assert answer["errors"][0].startswith(f"{bad['email']}: recipients[1].name: the "), answer
    raw(daemon, good["email"])


def test_line_breaks_are_good_in_bodies(daemon):
    m = build(daemon, {"substitutions": {"v": "one\ntwo\r\nthree"}}, text_body="{{ v }}\n", html_body="<pre>{{ v }}</pre>")
    assert texts_of(m) == ["one\ntwo\nthree", "<pre>one\ntwo\nthree</pre>"]


# --- templates ---

def test_every_text_is_a_template(daemon):
    m = build(daemon, {"name": "Ann Lee", "substitutions": {"v": "own", "d": "example.net"}}, text_body="{{ v }} {{ name }} {{ email }}", html_body="<p>{{ v }}",
              amp_html_body="<html amp>{{ v }}", subject="to {{ name }}", headers={"X-A": "a {{ v }}", "X-B": "no template"},
              reply_to={"email": "{{ v }}@{{ d }}", "name": "{{ name }}!"}, **{"from": {"email": "f@{{ d }}", "name": "{{ v | upper }}"}})
    assert texts_of(m) == [f"own Ann Lee {m['To'].addresses[0].addr_spec}", "<html amp>own", "<p>own"]
    assert m["Subject"] == "to Ann Lee" and m["X-A"] == "a own" and m["X-B"] == "no template"
    assert m["From"].addresses[0] == email.headerregistry.Address("OWN", "f", "example.net")
    assert m["Reply-To"].addresses[0] == email.headerregistry.Address("Ann Lee!", "own", "example.net")
    assert m["Message-ID"].endswith("@example.net>")


def test_html_is_escaped(daemon):
    m = build(daemon, {"substitutions": {"v": "<b>&\"'"}}, text_body="{{ v }}", html_body="{{ v }}|{{ v | safe }}", amp_html_body="{{ v }}", subject="{{ v }}")
    text, amp, html = texts_of(m)
    assert text == "<b>&\"'" and m["Subject"] == text
    assert amp == "&lt;b&gt;&amp;&quot;&#x27;" and html == amp + "|<b>&\"'"


def test_attachments_are_no_templates(daemon):
    m = build(daemon, text_body="{{ name }}", attachments=[{"data": "{{ name }}", "content_type": "text/plain", "file_name": "{{ name }}"}])
    text, a = m.iter_parts()
    assert text.get_content() == "" and a.get_content() == "{{ name }}" and a.get_filename() == "{{ name }}"


def test_static_is_no_template(daemon):
    data = send(daemon, {"text_body": "{{ name }} {% x %}", "subject": "{{"}, template_dialect="Static")
    assert text_of(parse(data)) == "{{ name }} {% x %}\n" and parse(data)["Subject"] == "{{"
    assert send(daemon, "Subject: {{\r\n\r\n{% x %}\r\n", template_dialect="Static").endswith(b"Subject: {{\r\n\r\n{% x %}\r\n")


def test_handlebars(daemon):
    r = {"name": "Ann", "substitutions": {"items": [{"t": "<1>"}, {"t": "2"}], "yes": True}}
    text = "{{#if yes}}Hi {{name}}: {{#each items}}{{@index}}={{t}};{{/each}}{{/if}}"
    data = send(daemon, {"text_body": text, "html_body": text, "subject": "{{#with name}}to {{this}}{{/with}}", "headers": {"X-A": "{{{name}}}"}}, r,
                template_dialect="Handlebars")
    m = parse(data)
    assert texts_of(m) == ["Hi Ann: 0=<1>;1=2;", "Hi Ann: 0=&lt;1&gt;;1=2;"] and m["Subject"] == "to Ann" and m["X-A"] == "Ann"
    assert send(daemon, "Subject: {{name}}\r\n\r\n{% raw %}\r\n", r, template_dialect="Handlebars").endswith(b"Subject: Ann\r\n\r\n{% raw %}\r\n")
    text = refused(daemon, template_dialect="Handlebars", **content(text_body="one\n{{#if x}}"))
    assert text.startswith("Error: failed parsing field 'content.text_body' as template: ") and "line 2" in text, text
    for value in BREAKS.values():
        text = failed(daemon, {"substitutions": {"v": f"a{value}b"}}, template_dialect="Handlebars", **content(subject="{{v}}"))
        assert text.startswith("content.subject: the "), text
        text = failed(daemon, {"substitutions": {"v": f"a{value}b"}}, template_dialect="Handlebars", content="Subject: {{v}}\r\n\r\n")
        assert text.startswith("content: a substitution would put CR, LF or NUL into the header"), text


def test_which_values_come_first(daemon):
    text = "{{ a }},{{ b }},{{ name }},{{ email }}"
    common = {"a": "common", "b": "common", "name": "common", "email": "common"}
    addresses = [f"v{next(NUMBER)}@example.org" for _ in range(3)]
    status, answer = post(daemon, request({"text_body": text}, [
        {"email": addresses[0]}, {"email": addresses[1], "name": "Bob", "substitutions": {"a": "own"}},
        {"email": addresses[2], "name": "Cid", "substitutions": {"name": "own", "email": "own"}}], substitutions=common))
    assert answer["success_count"] == 3
    got = [parse(raw(daemon, a)).get_content().strip() for a in addresses]
    assert got == [f"common,common,common,{addresses[0]}", f"own,common,Bob,{addresses[1]}", "common,common,own,own"]


@pytest.mark.parametrize("name,expected", [("John Smith", '"John Smith" <{}>'), (None, "<{}>"), ("Jürgen", "=?UTF-8?q?J=C3=BCrgen?= <{}>"),
                                           ("long name " * 30 + "x", None), ("ü" * 100, None)], ids=range(5))
def test_to_header_is_predefined(daemon, name, expected):
    r = {"email": f"t{next(NUMBER)}@example.org", "name": name}
    data = send(daemon, "To: {{ to_header }}\r\nSubject: x\r\n\r\n{{ to_header }}\r\n", r)
    m = parse(data)
    if expected:
        assert expected.format(r["email"]).encode() in data
    assert mailbox_of(m, "To") == (name or "", r["email"]) and len(m["To"].addresses) == 1


def test_values_of_any_type(daemon):
    m = build(daemon, {"substitutions": {"n": 1.5, "l": [1, {"x": "y"}], "b": True, "z": None}},
              text_body="{{ n }} {{ l[1].x }} {{ b }} {{ z }} {{ l | length }}{% for i in l %}.{% endfor %}")
    assert m.get_content().strip() == "1.5 y true none 2.."


RUNTIME_ERRORS = [
    (content(text_body="{{ v.x.y }}"), "content.text_body: "),
    (content(html_body="{{ v() }}"), "content.html_body: "),
    (content(subject="{{ v | int + [] }}"), "content.subject: "),
    (content(headers={"X-A": "{{ v.a.b }}"}), "content.headers[X-A]: "),
    (content(**{"from": {"email": "{{ v }}"}}), "content.from.email: "),
    ({"content": "Subject: {{ v.x.y }}\r\n\r\n"}, ""),
    ({"content": "{{ v }}"}, "content: the message is empty after template expansion"),
    (content(text_body="{% for i in range(100000) %}{% for k in range(100000) %}x{% endfor %}{% endfor %}"), "content.text_body: template limit"),
]


@pytest.mark.parametrize("fields,error", RUNTIME_ERRORS, ids=[str(i) for i in range(len(RUNTIME_ERRORS))])
def test_what_goes_wrong_in_an_expansion_fails_the_recipient(daemon, fields, error):
    text = failed(daemon, {"substitutions": {"v": ""}}, **fields)
    assert text.startswith(error), text


def test_one_recipient_s_expansion_fails_it_alone(daemon):
    to = [{"email": f"e{next(NUMBER)}@example.org", "substitutions": {"x": x}} for x in (1, "a", 3)]
    status, answer = post(daemon, request({"text_body": "{{ x + 1 }}"}, to))
    assert status == 200 and answer["failed_recipients"] == [to[1]["email"]], answer
    assert answer["errors"][0].startswith(f"{to[1]['email']}: content.text_body: ")
    assert [text_of(parse(raw(daemon, t["email"]))) for t in (to[0], to[2])] == ["2\n", "4\n"]
    assert [m["recipient"] for m in answer["messages"]] == [to[0]["email"], to[2]["email"]]


def test_division_by_zero_is_no_error(daemon):
    """As the template engine of the documentation has it: a number, not a failure."""
    assert build(daemon, text_body="{{ 1 / 0 }}").get_content().strip() == "inf"


# --- trace headers ---

def decode(value):
    return json.loads(base64.b64decode("".join(value.split())))


def test_the_supplemental_header_is_there_by_default(daemon):
    r = {"email": f"x{next(NUMBER)}@example.org"}
    data = send(daemon, "Subject: x\r\n\r\nhi\r\n", r)
    assert data.startswith(b"X-KumoRef: ") and data.split(b"\r\n", 1)[1] == b"Subject: x\r\n\r\nhi\r\n"
    assert decode(parse(data)["X-KumoRef"]) == {"_@_": "\\_/", "recipient": r["email"]}


def test_no_names_of_metadata_as_documented(daemon):
    """The page of the endpoint has the default as `"include_meta_names": {}`."""
    data = send(daemon, "Subject: x\r\n\r\nhi\r\n", trace_headers={"include_meta_names": {}})
    assert data.startswith(b"X-KumoRef: ")
    assert refused(daemon, trace_headers={"include_meta_names": {"a": 1}}).startswith(
        SHAPE + "trace_headers.include_meta_names: invalid type: map, expected a sequence")


def test_no_trace_headers(daemon):
    assert send(daemon, "Subject: x\r\n\r\nhi\r\n", trace_headers={"supplemental_header": False}) == b"Subject: x\r\n\r\nhi\r\n"


def test_all_trace_headers(daemon):
    r = {"email": f"tenant{next(NUMBER)}@example.org"}
    data = send(daemon, "Subject: x\r\n\r\nhi\r\n", r,
                trace_headers={"received_header": True, "header_name": "X-Trace", "include_meta_names": ["tenant", "received_from", "unset"]})
    m = parse(data)
    assert list(m)[:3] == ["X-Trace", "Received", "Subject"]
    assert decode(m["X-Trace"]) == {"_@_": "\\_/", "recipient": r["email"], "tenant": "acme", "received_from": "127.0.0.1", "unset": None}
    assert max(len(line) for line in data.split(b"\r\n")) <= 86
    assert re.fullmatch(r"from example\.com \(127\.0\.0\.1\) by \S+ \(Cirrus\) with HTTP id [0-9a-f]{32} for <" + re.escape(r["email"]) + r">; .* \+0000",
                        " ".join(m["Received"].split()))


def test_trace_headers_come_before_what_is_made(daemon):
    data = send(daemon, {"text_body": "x", "subject": "s"}, trace_headers={"received_header": True})
    assert list(parse(data)) == ["X-KumoRef", "Received", "To", "Message-ID", "Subject", "Date", "MIME-Version", "Content-Type"]


# --- the policy ---

def test_the_policy_decides_for_each(daemon):
    to = [f"{u}{next(NUMBER)}@example.org" for u in ("ok", "reject", "broken", "void", "empty")]
    status, answer = post(daemon, request(to=[{"email": t} for t in to]))
    assert status == 200 and (answer["success_count"], answer["fail_count"]) == (2, 3)
    assert answer["failed_recipients"] == [to[1], to[2], to[4]]
    assert answer["errors"][0].startswith(f"{to[1]}: 550 5.7.1 no thanks") and "a mistake of the policy" in answer["errors"][1]
    assert "has left no data" in answer["errors"][2]
    assert [m["recipient"] for m in answer["messages"]] == [to[0], to[3]]
    raw(daemon, to[0])
    assert not (daemon.dir / "mail" / to[3]).exists()


def test_ids_and_metadata(daemon):
    to = [{"email": f"m{next(NUMBER)}@example.org", "metadata": {"order": "A-7", "n": [1, 2]}}, {"email": f"m{next(NUMBER)}@example.org", "metadata": {}}]
    status, answer = post(daemon, request(to=to))
    for m in answer["messages"]:
        r, = daemon.wait_record("Reception", id=m["id"])
        assert r["recipient"] == m["recipient"] and r["reception_protocol"] == "HTTP" and r["peer_address"]["addr"] == "127.0.0.1"
        daemon.wait_record("Delivery", id=m["id"])
    assert answer["durability"] == "fsync" and set(answer) == {"success_count", "fail_count", "failed_recipients", "errors", "messages", "durability"}


def test_what_the_handler_sees(where):
    extra = """
kumo.on('http_message_generated', function(msg, auth)
  local meta = {}
  for _, k in ipairs { 'http_auth', 'received_from', 'received_via', 'hostname', 'reception_protocol', 'extra' } do meta[k] = msg:get_meta(k) end
  print(kumo.json_encode { meta = meta, auth = auth, data = msg:get_data(), to = msg:recipient().email })
end)"""
    text = policy(where, "protocol = { maildir_path = '%s/mail' }" % where, extra=extra).replace(
        "listen = '127.0.0.1:0'", "listen = '127.0.0.1:0', hostname = 'api.example.com'")
    with Daemon(where, text) as d:
        post(d, request({"text_body": "hi"}, [{"email": "a@example.org", "metadata": {"order": 7}}], trace_headers={"received_header": True}))
        seen = json.loads(wait_for("the handler", lambda: [line for line in d.stderr().splitlines() if line.startswith("{")])[0])
        m, = wait_for("the message", Maildir(where / "mail").messages)
    assert seen["meta"] == {"http_auth": "127.0.0.1", "received_from": "127.0.0.1", "received_via": "127.0.0.1", "hostname": "api.example.com",
                            "reception_protocol": "HTTP", "extra": {"order": 7}}
    assert seen["auth"]["peer_address"] == "127.0.0.1" and seen["to"] == "a@example.org"
    # Received is there already, the supplemental header not yet.
    assert seen["data"].startswith("Received: from example.com (127.0.0.1)\r\n") and m.endswith(seen["data"].encode()) and m.startswith(b"X-KumoRef: ")


# --- batches ---

def test_ten_thousand_recipients_are_one_commit(where):
    n = 10000
    queue = "protocol = { smtp = { mx_list = { { name = 'nobody', addr = '127.0.0.1:1' } } } }, retry_interval = '1d'"
    with Daemon(where, policy(where, queue)) as d:
        name = 'cirrus_spool_commits_total{name="data"}'
        before = d.metric(name)
        to = [{"email": f"r{i}@example.org", "name": f"R {i}", "substitutions": {"n": i}} for i in range(n)]
        status, answer = post(d, request({"text_body": "{{ n }}", "subject": "for {{ name }}"}, to))
        assert status == 200 and answer["success_count"] == n and len({m["id"] for m in answer["messages"]}) == n
        # What fails there afterwards is an update, not a commit that somebody waits for.
        assert d.metric(name) - before == 1
        assert [m["recipient"] for m in answer["messages"]] == [t["email"] for t in to]


def test_large_messages_are_several_commits(where):
    """Over the budget of memory, with each recipient's own body; all arrive."""
    with Daemon(where, policy(where, "protocol = { maildir_path = '%s/mail' }" % where)) as d:
        name = 'cirrus_spool_commits_total{name="data"}'
        before = d.metric(name)
        to = [{"email": f"r{i}@example.org"} for i in range(100)]
        status, answer = post(d, request("Subject: {{ email }}\r\n\r\n" + ("x" * 98 + "\r\n") * 10000, to))
        assert status == 200 and answer["success_count"] == 100
        assert 2 <= d.metric(name) - before <= 10
        messages = wait_for("all", lambda: (lambda m: m if len(m) == 100 else None)(Maildir(where / "mail").messages()))
        assert len({re.search(rb"Subject: (\S+)", m).group(1) for m in messages}) == 100 and all(len(m) > 1000000 for m in messages)


def test_a_later_commit_that_fails(where):
    """What was stored before is taken and delivered; the others are named, and nothing of them is."""
    with Daemon(where, policy(where, "protocol = { maildir_path = '%s/mail' }" % where), env={"CIRRUS_FAULTS": "spool_commit=2"}) as d:
        to = [f"r{i}@example.org" for i in range(100)]
        status, answer = post(d, request("Subject: {{ email }}\r\n\r\n" + ("x" * 98 + "\r\n") * 10000, [{"email": t} for t in to]))
        n = answer["success_count"]
        assert status == 200 and 1 <= n < 100 and answer["fail_count"] == 100 - n
        assert [m["recipient"] for m in answer["messages"]] == to[:n] and answer["failed_recipients"] == to[n:]
        assert all(e.startswith(f"{t}: spool data: ") for e, t in zip(answer["errors"], to[n:], strict=True)), answer["errors"][0]
        wait_for("the others", lambda: len(Maildir(where / "mail").messages()) == n)
        assert post(d, request())[0] == 200
        wait_for("the next", lambda: len(Maildir(where / "mail").messages()) == n + 1)


def test_a_batch_shares_its_body(where):
    """10,000 recipients of a large message without templates: the spool has its body once."""
    with Daemon(where, policy(where, "protocol = { smtp = { mx_list = { { name = 'n', addr = '127.0.0.1:1' } } } }, retry_interval = '1d'")) as d:
        status, answer = post(d, request({"text_body": "x" * 500000, "subject": "s"}, [{"email": f"r{i}@example.org", "name": "R"} for i in range(2000)]))
        assert status == 200 and answer["success_count"] == 2000
        size = sum(f.stat().st_blocks * 512 for f in (where / "spool/data").glob("*.journal"))
        assert size < 80 << 20, size  # 1 GB if it were stored for each


def test_the_openapi_document_takes_what_is_taken(daemon):
    jsonschema = pytest.importorskip("jsonschema")
    spec = json.loads(daemon.request("GET", "/api-docs/openapi.json")[2])
    check = jsonschema.Draft202012Validator({"$ref": "#/components/schemas/InjectV1Request", "components": spec["components"]})
    good = [request(), request({"text_body": "x", "html_body": None, "attachments": [{"data": "x", "content_type": "text/plain", "base64": False, "file_name": None}],
                                "headers": {"X": "y"}, "from": {"email": "a@example.com", "name": None}, "reply_to": None}, deferred_spool=None,
                               trace_headers={"include_meta_names": ["a"]}, template_dialect="Static")]
    for g in good:
        assert check.is_valid(g) and post(daemon, g)[0] == 200
    for fields, _ in SHAPE_ERRORS:
        assert not check.is_valid(request(**fields)), fields
    status, answer = post(daemon, request())
    jsonschema.Draft202012Validator({"$ref": "#/components/schemas/InjectV1Response", "components": spec["components"]}).validate(answer)
