"""Bad input, a case each: whoever made the mistake is told what and where, and nothing is lost."""
import contextlib
import json
import os
import re
import socket
import subprocess
import time

import pytest

from cirrus import SANITIZER, Daemon, Maildir, Threads, policy, smtp_queue, wait_for
from sink import Sink

BODY_LIMIT = 2097152
INJECT = "/api/inject/v1"
SHAPE = "Failed to deserialize the JSON body into the target type: "
GOOD = {"envelope_sender": "s@example.com", "recipients": [{"email": "r@example.org"}], "content": "Subject: x\r\n\r\nhi\r\n",
        "trace_headers": {"supplemental_header": False}}


# --- requests ---

@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    """Its mail goes to a maildir, so that a test can see what was taken."""
    where = tmp_path_factory.mktemp("bad")
    with Daemon(where, policy(where, f"protocol = {{ maildir_path = '{where}/mail' }}")) as d:
        yield d
        # After everything that was thrown at it: alive, and the only mail is what was accepted.
        d.accept("X-Case: last\r\n\r\nx\r\n")
        wait_for("the message", lambda: delivered(d, b"X-Case: last\r\n"))
        assert all(b"\0" not in m and b"evil@" not in m for m in Maildir(where / "mail").messages())


def delivered(d, words):
    """The messages in the maildir that have these words; other tests' may come in late."""
    return [m for m in Maildir(d.dir / "mail").messages() if words in m]


def post(daemon, body, content_type="application/json"):
    status, headers, text = daemon.request("POST", INJECT, body, {"Content-Type": content_type})
    return status, headers["content-type"], text.decode()


def post_json(daemon, value):
    return post(daemon, json.dumps(value).encode())


def changed(**fields):
    """GOOD with other fields; a field that is None is left out."""
    return {k: v for k, v in {**GOOD, **fields}.items() if v is not None}


def recipient(**fields):
    return changed(recipients=[{"email": "ok@example.org"}, {k: v for k, v in {"email": "r@example.org", **fields}.items() if v is not None}])


NOT_JSON = {
    "nothing": b"", "blanks": b"  \n", "half an object": b'{"envelope_sender": "s@example.com"', "brace": b"{", "words": b"hello",
    "two values": b"{} {}", "comma at the end": b'{"a": 1,}', "single quotes": b"{'a': 1}", "comment": b"{} // x",
    "not UTF-8": b'{"content": "\xff\xfe"}', "overlong UTF-8": b'{"content": "\xc0\x80"}', "raw control character": b'{"content": "a\nb"}',
    "lone surrogate": rb'{"content": "\ud800"}', "bad escape": rb'{"content": "\x41"}', "NaN": b'{"content": NaN}',
    "huge number": b'{"content": 1e999}', "nested": b"[" * 5000 + b"]" * 5000, "nested objects": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "unclosed string": b'{"content": "', "NUL outside of a string": b"{}\0", "BOM": b"\xef\xbb\xbf{}",
}


@pytest.mark.parametrize("case", NOT_JSON)
def test_not_json(daemon, case):
    status, content_type, text = post(daemon, NOT_JSON[case])
    assert (status, content_type) == (400, "text/plain; charset=utf-8")
    assert text.startswith("Failed to parse the request body as JSON: ")
    assert re.search(r"line \d+ column \d+$", text), text


@pytest.mark.parametrize("value,shown", [(None, "null"), ([], "sequence"), ("x", 'string "x"'), (5, "integer `5`"), (True, "boolean `true`")])
def test_not_an_object(daemon, value, shown):
    status, _, text = post_json(daemon, value)
    assert status == 422 and text == SHAPE + f"invalid type: {shown}, expected struct InjectV1Request"


@pytest.mark.parametrize("field", ["envelope_sender", "recipients", "content"])
def test_missing_field(daemon, field):
    status, _, text = post_json(daemon, changed(**{field: None}))
    assert (status, text) == (422, SHAPE + f"missing field `{field}`")


def test_missing_email(daemon):
    status, _, text = post_json(daemon, recipient(email=None))
    assert (status, text) == (422, SHAPE + "recipients[1]: missing field `email`")


WRONG_TYPE = [
    ("envelope_sender", {"envelope_sender": 5}), ("envelope_sender", {"envelope_sender": ["s@example.com"]}),
    ("recipients", {"recipients": "r@example.org"}), ("recipients", {"recipients": {"email": "r@example.org"}}),
    ("recipients", {"recipients": 1}), ("recipients[0]", {"recipients": ["r@example.org"]}),
    ("recipients[1]", {"recipients": [{"email": "r@example.org"}, 7]}), ("content", {"content": 5}), ("content", {"content": ["x"]}),
    ("content", {"content": True}), ("substitutions", {"substitutions": "x"}), ("substitutions", {"substitutions": [1]}),
    ("deferred_spool", {"deferred_spool": "yes"}), ("deferred_spool", {"deferred_spool": 1}),
    ("deferred_generation", {"deferred_generation": "no"}), ("template_dialect", {"template_dialect": 1}),
    ("trace_headers", {"trace_headers": 1}),
]


@pytest.mark.parametrize("path,fields", WRONG_TYPE, ids=[f"{p}-{i}" for i, (p, _) in enumerate(WRONG_TYPE)])
def test_wrong_type(daemon, path, fields):
    status, content_type, text = post_json(daemon, changed(**fields))
    assert (status, content_type) == (422, "text/plain; charset=utf-8")
    assert text.startswith(SHAPE + path + ": "), text


@pytest.mark.parametrize("field,value", [("email", 5), ("email", {}), ("name", 5), ("substitutions", "x"), ("metadata", [1, 2])])
def test_wrong_type_in_a_recipient(daemon, field, value):
    status, _, text = post_json(daemon, recipient(**{field: value}))
    assert status == 422 and text.startswith(SHAPE + f"recipients[1].{field}: invalid type: "), text


def test_null_email(daemon):
    status, _, text = post(daemon, json.dumps(changed(recipients=[{"email": None}])).encode())
    assert status == 422 and text.startswith(SHAPE + "recipients[0].email: invalid type: null"), text


@pytest.mark.parametrize("path,value", [("sender", changed(sender="x")), ("Content", changed(Content="x")),
                                        ("recipients[1].mail", recipient(mail="x")), ("content_", changed(content_="x"))])
def test_unknown_field(daemon, path, value):
    status, _, text = post_json(daemon, value)
    name = path.split(".")[-1]
    assert status == 422 and text.startswith(SHAPE + f"{path}: unknown field `{name}`, expected one of `"), text


def test_unknown_dialect(daemon):
    status, _, text = post_json(daemon, changed(template_dialect="Perl"))
    assert status == 422
    assert text == SHAPE + "template_dialect: unknown variant `Perl`, expected one of `Jinja`, `Static`, `Handlebars`"


def test_no_recipient(daemon):
    status, content_type, text = post_json(daemon, changed(recipients=[]))
    assert (status, content_type) == (200, "application/json")
    assert text == '{"success_count":0,"fail_count":0,"failed_recipients":[],"errors":[],"messages":[],"durability":"fsync"}'


BAD_ADDRESSES = [
    "not an address", "", "@", "a@", "@example.org", "a", "a@b@c", "a b@example.org", "a@exa mple.org", "a@.example.org", "a@example..org",
    "a@-example.org", "a@example-.org", ".a@example.org", "a.@example.org", "a..b@example.org", '"a@example.org', 'a"@example.org',
    '"a"b@example.org', '"a\\', "<a@example.org", "a@example.org>", "a@example.org ", " a@example.org", "Ann <a@example.org>",
    "a@example.org, b@example.org", "a@example.org\r\nRCPT TO:<evil@example.org>", "a\r@example.org", "a\n@example.org", "a@example.org\n",
    "a\0@example.org", "a@example.org\0", "\0", '"a\r\nb"@example.org', '"a\0"@example.org', '"a\tb"@example.org', "a\t@example.org",
    "a\x7f@example.org", "a\u0085@example.org", "a@[1.2.3]", "a@[300.1.1.1]", "a@[", "a@[]", "a@[IPv6:1]", "a@[[::1]]", "<>", "<<a@example.org>>",
    "a" * 600 + "@example.org", "a@" + "b" * 64 + ".org", "a@" + "b." * 130 + "org", "a;b,c", "(a)b@example.org", "a@example.org(c)",
    "a@exa_mple!.org", "a@example.org/x", "\\@example.org",
]


@pytest.mark.parametrize("address", BAD_ADDRESSES, ids=[ascii(a)[:40] for a in BAD_ADDRESSES])
def test_bad_recipient(daemon, address):
    """Only that recipient fails, and the answer says which and why."""
    status, _, text = post_json(daemon, changed(recipients=[{"email": address}]))
    answer = json.loads(text)
    assert status == 200
    assert (answer["success_count"], answer["fail_count"], answer["failed_recipients"]) == (0, 1, [address])
    error, = answer["errors"]
    assert error.startswith(f"{address}: recipient email: ")
    assert len(error) > len(f"{address}: recipient email: ")


def test_one_bad_recipient_of_three(daemon):
    status, _, text = post_json(daemon, changed(content="X-Case: two of three\r\n\r\nx\r\n",
                                                recipients=[{"email": a} for a in ("a@example.org", "bad address", "b@example.org")]))
    answer = json.loads(text)
    assert status == 200 and (answer["success_count"], answer["fail_count"]) == (2, 1)
    assert answer["failed_recipients"] == ["bad address"] and len(answer["errors"]) == 1
    wait_for("the others", lambda: len(delivered(daemon, b"X-Case: two of three\r\n")) == 2)


@pytest.mark.parametrize("address", ['"quoted local"@example.org', "<r@example.org>", "r@[127.0.0.1]", "r@[IPv6:::1]", "r+tag@example.org",
                                     "jürgen@bücher.example", "postmaster", '"a\\"b"@example.org', "o'hara@example.org", "r@EXAMPLE.org",
                                     "_dmarc@_x.example.org"])
def test_unusual_addresses_that_are_good(daemon, address):
    status, _, text = post_json(daemon, changed(envelope_sender=address))
    assert status == 200 and json.loads(text)["success_count"] == 1, text


@pytest.mark.parametrize("address", ["not an address", "@", "a@", "a\r\nDATA@example.org", "a\0@example.org", '"a@example.org', "a b@example.org"])
def test_bad_sender(daemon, address):
    status, content_type, text = post_json(daemon, changed(envelope_sender=address))
    assert (status, content_type) == (422, "text/plain; charset=utf-8") and text.startswith("Error: envelope_sender: "), text


def test_null_sender(daemon):
    for sender in ("", "<>"):
        status, _, text = post_json(daemon, changed(envelope_sender=sender))
        assert status == 200 and json.loads(text)["success_count"] == 1


@pytest.mark.parametrize("content", ["\0", "Subject: a\0b\r\n\r\nx\r\n", "Subject: a\r\n\r\nx\0\r\n"])
def test_nul_in_the_content(daemon, content):
    status, _, text = post_json(daemon, changed(content=content))
    assert (status, text) == (422, f"Error: content: NUL byte at offset {content.index(chr(0))}")


@pytest.mark.parametrize("content,header", [("Subject: a\rBcc: evil@example.org\r\n\r\nx\r\n", "Subject"),
                                            ("X-A: 1\r\nX-B: 2\r\r\n\r\nx\r\n", "X-B"), ("Subject: a\r", "Subject"),
                                            ("Subject: a\n\rX: 1\n\nx", None)])
def test_bare_carriage_return_in_a_header(daemon, content, header):
    status, _, text = post_json(daemon, changed(content=content))
    assert status == 422 and text.startswith("Error: content: CR without LF in the header"), text
    assert header is None or f"`{header}`" in text


def test_empty_content(daemon):
    status, _, text = post_json(daemon, changed(content=""))
    assert (status, text) == (422, "Error: content: the message is empty")


@pytest.mark.parametrize("content", ["Subject: {{ unclosed", "{% if %}", "{% for x in %}", "Subject: {{ 1 + }}\r\n\r\n", "{% nonsense %}"])
def test_template_that_does_not_parse(daemon, content):
    status, _, text = post_json(daemon, changed(content=content))
    assert status == 422 and text.startswith("Error: failed parsing field 'content' as template"), text


@pytest.mark.parametrize("content, error", [
    ("Subject: {{#if name}}\r\n", "the block `if` is not closed (in template 'content' line 1: 'Subject: {{#if name}}'), column 10"),
    ("Subject: x\r\n\r\nä {{nope 1}}", "unknown helper: there is no helper `nope` (in template 'content' line 3: 'ä {{nope 1}}'), column 5"),
])
def test_handlebars_that_does_not_parse(daemon, content, error):
    status, _, text = post_json(daemon, changed(content=content, template_dialect="Handlebars"))
    assert (status, text) == (422, "Error: failed parsing field 'content' as template: syntax error: " + error)


def test_error_in_a_template_has_the_observed_shape(daemon):
    status, _, text = post_json(daemon, changed(content={"text_body": "{{ unclosed", "subject": "s", "from": {"email": "f@example.com"}}))
    assert status == 422 and text.startswith(
        "Error: failed parsing field 'content.text_body' as template: syntax error: unexpected end of input, expected end of variable block "
        "(in template 'text_body.txt' line 1: '{{ unclosed')"), text
    assert text.endswith(", column 12")


HEADER_VALUES = ["a\r\nBcc: evil@example.org", "a\nb", "a\rb", "a\0b", "\n", "a\r\n\r\nbody", ["a\nb"], {"x": "a\nb"}]


@pytest.mark.parametrize("whose", ["recipient", "common", "name"])
@pytest.mark.parametrize("value", HEADER_VALUES, ids=[ascii(v) for v in HEADER_VALUES])
def test_substitution_cannot_make_a_header(daemon, whose, value):
    """CR, LF and NUL in what is put into a header must not reach it, by whatever way the value comes."""
    if whose == "name" and not isinstance(value, str):
        pytest.skip("a name is a string")
    r, common = {"email": "r@example.org"}, {}
    if whose == "recipient":
        r["substitutions"] = {"name": value}
    elif whose == "name":
        r["name"] = value
    else:
        common["substitutions"] = {"v": value}
    for markup in ("{{ name }}", "{{ name | upper }}", "{% set x = name %}{{ x }}", "{% for c in name %}{{ c }}{% endfor %}"):
        if isinstance(value, dict):
            markup = markup.replace("{{ c }}", "{{ name[c] }}")
        if not isinstance(value, str) and "for" not in markup:
            markup = "{{ name.x }}" if isinstance(value, dict) else "{{ name[0] }}"
        content = f"X-Case: header value\r\nSubject: {markup}\r\nFrom: a@example.com\r\n\r\nhi\r\n"
        if whose == "common":
            content = content.replace("name", "v")
        status, _, text = post_json(daemon, changed(content=content, recipients=[r], **common))
        answer = json.loads(text)
        assert status == 200 and answer["fail_count"] == 1, (markup, text)
        assert answer["errors"][0].startswith("r@example.org: content: "), answer
    assert delivered(daemon, b"X-Case: header value\r\n") == []


def test_line_breaks_in_values_are_good_in_the_body(daemon):
    status, _, text = post_json(daemon, changed(
        content="Subject: {{ title }}\r\nTo: {{ name }} <{{ email }}>\r\n\r\n{{ address }}\r\n{% if address %}yes{% endif %}\r\n",
        substitutions={"title": "common", "address": "nowhere"},
        recipients=[{"email": "r@example.org", "name": "Ann Lee", "substitutions": {"address": "1 Street\nTown\r\n\r\nCountry"}}]))
    assert status == 200 and json.loads(text)["success_count"] == 1, text
    message, = wait_for("the message", lambda: delivered(daemon, b"Ann Lee"))
    assert message.startswith(b"Subject: common\r\nTo: Ann Lee <r@example.org>\r\n\r\n1 Street\r\nTown\r\n\r\nCountry\r\nyes")


def test_name_and_email_are_variables(daemon):
    """A recipient's own substitutions come before name and email, those before the common ones."""
    status, _, text = post_json(daemon, changed(
        content="X-Case: names\r\nTo: {{ name }} <{{ email }}>\r\n\r\nx\r\n", substitutions={"name": "common", "email": "common"},
        recipients=[{"email": "a@names.example"}, {"email": "b@names.example", "name": "Bob"},
                    {"email": "c@names.example", "name": "Cid", "substitutions": {"name": "own"}}]))
    assert status == 200 and json.loads(text)["success_count"] == 3, text
    wait_for("the messages", lambda: {re.search(rb"^To: (.*)\r$", m, re.M).group(1) for m in Maildir(daemon.dir / "mail").messages()
                                      if m.startswith(b"X-Case: names")}
             == {b"common <a@names.example>", b"Bob <b@names.example>", b"own <c@names.example>"})


def test_body_over_the_limit(daemon):
    status, _, text = post_json(daemon, changed(content="Subject: x\r\n\r\n" + "y" * BODY_LIMIT))
    assert (status, text) == (413, "Failed to buffer the request body: length limit exceeded")
    status, _, text = post_json(daemon, changed(content="Subject: x\r\n\r\n" + "y" * (BODY_LIMIT - 1000)))
    assert status == 200 and json.loads(text)["success_count"] == 1


def test_many_bad_requests_at_once(daemon):
    values = list(NOT_JSON.values()) + [json.dumps(changed(**f)).encode() for _, f in WRONG_TYPE]

    def one(i):
        c = daemon.connect()
        for k in range(len(values)):
            c.request("POST", INJECT, values[(i + k) % len(values)], {"Content-Type": "application/json"})
            r = c.getresponse()
            assert r.status in (400, 422) and r.read()
        c.close()
    Threads(16, one).join()


# --- policies ---

def refused(where, text, args=(), env=None):
    """The stderr of a daemon that must not start."""
    d = Daemon(where, text, env=env, args=args)
    began = time.monotonic()
    status, err = d.run_to_end(timeout=30)
    assert status == 1, err
    assert time.monotonic() - began < 20
    assert "initialization complete" not in err
    assert not SANITIZER.search(err), err
    assert err.splitlines()[-1] and any(line.startswith("Error: ") for line in err.splitlines()), err
    return err


def at(text, marker="-- HERE"):
    """policy.lua:LINE of the line with the marker."""
    line, = (i for i, l in enumerate(text.splitlines(), 1) if marker in l)
    return f"policy.lua:{line}:"


def init_with(where, line):
    return policy(where, init=f"{line} -- HERE")


def test_syntax_error(where):
    text = policy(where) + "\nkumo.on('x', function( end -- HERE\n"
    err = refused(where, text)
    assert "syntax error" in err and at(text) in err and "Error evaluating policy file" in err


def test_runtime_error_in_the_file(where):
    text = policy(where) + "\nerror('boom') -- HERE\n"
    err = refused(where, text)
    assert "boom" in err and at(text) in err


@pytest.mark.parametrize("line,words", [
    ("error('boom')", "boom"), ("kumo.nothing {}", "attempt to call a nil value (field 'nothing')"), ("local x = nil + 1", "arithmetic on a nil value"),
    ("error({})", "table"), ("require 'no-such-module'", "module 'no-such-module' not found"),
    ("kumo.reject(451, '4.3.0 not today')", "call init callback: 451 4.3.0 not today"), ("kumo.on('x', function() end)", "kumo.on"), ("setmetatable(_G, { __newindex = function() error('strict') end }); y = 1", "strict")])
def test_runtime_error_in_init(where, line, words):
    text = init_with(where, line)
    err = refused(where, text)
    assert words in err and "init" in err
    if "error({})" not in line and "reject" not in line:
        assert at(text) in err and "stack traceback" in err


def test_endless_init_can_be_stopped(where):
    d = Daemon(where, init_with(where, "while true do end"))
    with pytest.raises(AssertionError, match="waited in vain"):
        d.start(timeout=2)
    assert d.stop() != 0


PARAMETERS = [
    # line, words of the error
    ("kumo.start_http_listener { lisen = '127.0.0.1:0' }",
     ["unknown field `lisen`", "expected one of `hostname`, `listen`", "(did you mean `listen`?)", 'while processing {"lisen":"127.0.0.1:0"}']),
    ("kumo.start_http_listener { request_body_limit = 'many' }", ['string "many"', "request_body_limit"]),
    ("kumo.start_http_listener { request_body_limit = -1 }", ["request_body_limit"]),
    ("kumo.start_http_listener { request_body_limit = 1.5 }", ["request_body_limit"]),
    ("kumo.start_http_listener { listen = 25 }", ["listen", "25"]),
    ("kumo.start_http_listener { listen = 'nowhere' }", ['"nowhere"', "IP:PORT"]),
    ("kumo.start_http_listener { listen = '127.0.0.1:70000' }", ["70000"]),
    ("kumo.start_http_listener { listen = '127.0.0.1' }", ["127.0.0.1"]),
    ("kumo.start_http_listener { trusted_hosts = { '300.1.1.1' } }", ["300.1.1.1 is not a valid CIDR"]),
    ("kumo.start_http_listener { trusted_hosts = { '10.0.0.0/33' } }", ["10.0.0.0/33"]),
    ("kumo.start_http_listener { trusted_hosts = '127.0.0.1' }", ["trusted_hosts", "a sequence"]),
    ("kumo.start_http_listener { trusted_hosts = { 5 } }", ["trusted_hosts"]),
    ("kumo.start_http_listener { use_tls = 'maybe' }", ['invalid type: string "maybe", expected a boolean']),
    ("kumo.start_http_listener 'x'", ["invalid type: string, expected table"]),
    ("kumo.start_http_listener()", ["expected table"]),
    ("kumo.start_http_listener { [1] = 'x', listen = 'y' }", ["start_http_listener"]),
    ("kumo.configure_local_logs { log_dir = '{dir}/l', max_segment_duration = 'x' }", ['string "x", expected a duration']),
    ("kumo.configure_local_logs { log_dir = '{dir}/l', max_segment_duration = -5 }", ["expected a duration"]),
    ("kumo.configure_local_logs { log_dir = '{dir}/l', compression_level = 99 }", ["compression_level", "22"]),
    ("kumo.configure_local_logs { log_dir = '{dir}/l', per_record = { Delivry = {} } }", ["`Delivry`", "`Delivery`"]),
    ("kumo.configure_local_logs { log_dir = '{dir}/l', per_record = { Delivery = { nope = 1 } } }", ["per_record.Delivery", "unknown field `nope`"]),
    ("kumo.configure_local_logs { log_dir = '{dir}/l', per_record = { Delivery = { template = '{{ x' } } }", ["per_record.Delivery"]),
    ("kumo.configure_local_logs { log_dir = '{dir}/l', min_free_space = 'lots' }", ["lots"]),
    ("kumo.configure_local_logs { dir = '{dir}/l' }", ["unknown field `dir`", "`log_dir`"]),
    ("kumo.configure_local_logs {}", ["missing field `log_dir`"]),
    ("kumo.define_spool { name = 'data', path = '{dir}/x', kind = 'Journal' }", ["spool `data` has already been defined"]),
    ("kumo.define_spool { name = 'other', path = '{dir}/x', kind = 'Journal' }", ["`other`", "`data`, `meta`"]),
    ("kumo.define_spool { name = 'data', kind = 'Journal' }", ["missing field `path`"]),
    ("kumo.define_spool { path = '{dir}/x', kind = 'Journal' }", ["missing field `name`"]),
    ("kumo.define_spool { name = 'data', path = '{dir}/x', kind = 'Jornal' }", ["unknown variant `Jornal`", "`Journal`"]),
    ("kumo.define_spool { name = 'data', path = '{dir}/x', kind = 'Journal', flsh = true }", ["unknown field `flsh`", "did you mean `flush`?"]),
    # known to the policy language, not to this version: refused by name
    ("kumo.define_spool { name = 'data', path = '{dir}/x', kind = 'RocksDB' }", ["kind", "`RocksDB` is not supported", "`Journal`"]),
    ("kumo.define_spool { name = 'data', path = '{dir}/x', kind = 'Journal', rocks_params = {} }", ["`rocks_params` is not supported"]),
    ("kumo.start_http_listener { listen = '127.0.0.1:0', use_tls = true, tls_certificate = '/x' }", ["/x", "No such file"]),
    ("kumo.start_http_listener { tls_certificate = 5 }", ["a KeySource is the path of a file or a table"]),
    ("kumo.make_queue_config { max_message_rate = '1/s' }", ["`max_message_rate` is not supported"]),
    ("kumo.make_queue_config { strategy = 'TimerWheel' }", ["`strategy` is not supported"]),
    ("kumo.make_queue_config { protocol = { custom_lua = { constructor = 'x' } } }", ["`protocol.custom_lua` is not supported"]),
    ("kumo.make_egress_path { enable_tls = 'Opportunistic' }", ["enable_tls", "`Opportunistic` is not supported", "`Disabled`"]),
    ("kumo.make_egress_path { max_connection_rate = '1/s' }", ["`max_connection_rate` is not supported"]),
    ("kumo.make_egress_path { smtp_auth_plain_username = 'x' }", ["`smtp_auth_plain_username` is not supported"]),
    ("kumo.make_egress_source { name = 'x', socks5_proxy_server = '127.0.0.1:1' }", ["`socks5_proxy_server` is not supported"]),
    # mistakes in the tables of queues
    ("kumo.make_queue_config { retry_intervall = '1m' }", ["unknown field `retry_intervall`", "(did you mean `retry_interval`?)"]),
    ("kumo.make_queue_config { retry_interval = 'soon' }", ['string "soon", expected a duration']),
    ("kumo.make_queue_config { retry_interval = 0 }", ["retry_interval"]),
    ("kumo.make_queue_config { max_age = true }", ["expected a duration"]),
    ("kumo.make_queue_config { refresh_strategy = 'Never' }", ["unknown variant `Never`, expected one of `Ttl`, `Epoch`"]),
    ("kumo.make_queue_config { protocol = { smtpp = {} } }", ["`smtpp`", "`smtp`, `maildir_path`"]),
    ("kumo.make_queue_config { protocol = { smtp = { mx_lst = {} } } }", ["unknown field `mx_lst`"]),
    ("kumo.make_queue_config { protocol = { smtp = { mx_list = { 'a:b:c]' } } } }", ["mx_list"]),
    ("kumo.make_queue_config { protocol = { smtp = { mx_list = { { name = 'x', addr = 'y' } } } } }", ["mx_list", "`y`"]),
    ("kumo.make_queue_config { protocol = { smtp = {}, maildir_path = 'x' } }", ["protocol", "`smtp`", "`maildir_path`"]),
    ("kumo.make_queue_config { protocol = { maildir_path = '/m/{{ domain' } }", ["protocol.maildir_path", "{{ domain"]),
    ("kumo.make_egress_path { ehlo_domain = '' }", ["ehlo_domain", "expected a host name"]),
    ("kumo.make_egress_path { ehlo_domain = 'a.example\\r\\nMAIL FROM:<x@example.com>' }", ["ehlo_domain", "expected a host name"]),
    ("kumo.make_egress_source { name = 'x', ehlo_domain = 'a b' }", ["ehlo_domain", "expected a host name"]),
    ("kumo.make_egress_path { enable_tls = 'Sometimes' }", ["unknown variant `Sometimes`, expected one of `Opportunistic`"]),
    ("kumo.make_egress_path { connection_limit = -1 }", ["connection_limit"]),
    ("kumo.make_egress_path { smtp_port = 65536 }", ["an integer between 1 and 65535"]),
    ("kumo.make_egress_path { max_ready = 'x' }", ['string "x", expected an integer']),
    ("kumo.make_egress_path { prohibited_hosts = { 'x/y' } }", ["x/y"]),
    ("kumo.make_egress_source { name = 'x', source_address = 'y' }", ['"y" is not an IP address']),
    ("kumo.make_egress_source {}", ["missing field `name`"]),
    ("kumo.make_egress_pool { name = 'x', entries = { { weight = 1 } } }", ["entries[0]: missing field `name`"]),
    ("kumo.make_egress_pool { name = 'x', entries = { { name = 'a', weight = -1 } } }", ["entries[0].weight"]),
    ("kumo.dns.configure_test_resolver { '$ORIGIN example.org.\\n@ 60 IN NONSENSE x' }", ["configure_test_resolver"]),
]


@pytest.mark.parametrize("line,words", PARAMETERS, ids=[p[0][5:65] for p in PARAMETERS])
def test_parameter(where, line, words):
    text = init_with(where, line.replace("{dir}", str(where)))
    err = refused(where, text)
    for word in words:
        assert word in err, err
    assert at(text) in err and "stack traceback" in err
    assert "problem initializing: " in err
    if any("unknown field" in word or "unknown variant" in word for word in words):
        assert "problem initializing: call init callback: deserialize error: " in err and "while processing" in err
        assert "Error: Initialization raised an error: call init callback: deserialize error: " in err


@pytest.mark.parametrize("call,name", [("kumo.start_http_listener {}", "kumo.start_http_listener"),
                                       ("kumo.define_spool { name = 'data', path = '/nonexistent', kind = 'Journal' }", "kumo.define_spool"),
                                       ("kumo.configure_local_logs { log_dir = '/nonexistent' }", "kumo.configure_local_logs")])
def test_function_of_init_called_elsewhere(where, call, name):
    """In the file itself, and in an event of a running daemon."""
    text = policy(where / "a") + f"\n{call} -- HERE\n"
    err = refused(where / "a", text)
    assert f"{name} must be called from the `init` event" in err and at(text) in err
    text = policy(where / "b", extra=f"kumo.on('http_message_generated', function(msg)\n  {call} -- HERE\nend)")
    with Daemon(where / "b", text) as d:
        status, answer = d.inject()
        assert status == 200 and answer["success_count"] == 0 and answer["failed_recipients"] == ["r@example.org"]
        assert f"{name} must be called from the `init` event (called from `http_message_generated`)" in answer["errors"][0]
        assert at(text) in answer["errors"][0]


def test_second_handler_of_a_single_handler_event(where):
    text = policy(where) + "kumo.on('http_message_generated', function(msg) end) -- FIRST\n" \
        "kumo.on('http_message_generated', function(msg) end) -- HERE\n"
    err = refused(where, text)
    assert "http_message_generated event already has a handler" in err
    assert at(text) in err and at(text, "-- FIRST").rstrip(":") in err


def test_second_init(where):
    text = policy(where) + "kumo.on('init', function() end) -- HERE\n"
    err = refused(where, text)
    assert "init event already has a handler" in err and at(text) in err


def test_no_spool(where):
    err = refused(where, "local kumo = require 'kumo'\nkumo.on('init', function() kumo.start_http_listener { listen = '127.0.0.1:0' } end)\n")
    assert "No spools have been defined" in err and "kumo.define_spool" in err


@pytest.mark.parametrize("call,words", [
    ("kumo.make_queue_config { max_message_rate = '1/s' }", "`max_message_rate` is not supported"),
    ("kumo.make_queue_config { retry_intervall = '1m' }", "did you mean `retry_interval`?"),
    ("error('boom')", "boom"), ("'a string'", "get_queue_config"), ("kumo.make_egress_path {}", "get_queue_config")])
def test_mistake_in_get_queue_config(where, call, words):
    """The recipient fails and the log tells the operator; a queue that is not to blame works on."""
    extra = f"""kumo.on('get_queue_config', function(domain)
  if domain == 'bad.example' then
    return {call} -- HERE
  end
  return kumo.make_queue_config {{ protocol = {{ maildir_path = '{where}/mail' }} }}
end)"""
    text = policy(where).replace("kumo.on('get_queue_config'", "kumo.on('unused'") + extra
    with Daemon(where, text) as d:
        status, answer = d.inject(to=["r@bad.example", "r@good.example"])
        assert status == 200 and answer["success_count"] == 1 and answer["failed_recipients"] == ["r@bad.example"]
        assert words in answer["errors"][0]
        if "make_egress_path" not in call and "a string" not in call:
            assert at(text) in answer["errors"][0]
        wait_for("the log line", lambda: any("bad.example" in line and "ERROR" in line for line in d.stderr().splitlines()))
        assert words in d.stderr()
        wait_for("the other message", lambda: len(Maildir(where / "mail").messages()) == 1)


@pytest.mark.parametrize("event,call", [("get_egress_path_config", "kumo.make_egress_path { enable_tls = 'Opportunistic' }"),
                                        ("get_egress_path_config", "error('enable_tls')"),
                                        ("get_egress_pool", "kumo.make_egress_pool { name = 'enable_tls' }")])
def test_mistake_on_the_way_out_is_retried(where, event, call):
    """What was accepted is kept, the record and the log say what is wrong, and a mended policy delivers it."""
    def text(answer, port):
        queue = smtp_queue(port, "retry_interval = '1s', max_retry_interval = '1s', refresh_interval = '1s', egress_pool = 'pool'")
        t = policy(where, queue).replace("kumo.on('get_egress_path_config'", "kumo.on('unused'")
        handlers = {"get_egress_path_config": "kumo.make_egress_path { prohibited_hosts = {} }",
                    "get_egress_pool": "kumo.make_egress_pool { name = 'pool', entries = { { name = 'source' } } }",
                    "get_egress_source": "kumo.make_egress_source { name = 'source' }"}
        handlers[event] = answer or handlers[event]
        return t + "".join(f"kumo.on('{e}', function() return {a} end)\n" for e, a in handlers.items())
    with Sink() as sink, Daemon(where, text(call, sink.port)) as d:
        d.accept()
        r = d.wait_record("TransientFailure", 2)[0]
        assert r["response"]["code"] == 451 and "example.org" in r["response"]["content"]
        wait_for("the log line", lambda: "enable_tls" in d.stderr() or "entries" in d.stderr())
        d.set_policy(text(None, sink.port))
        d.process.send_signal(1)
        wait_for("the message", lambda: len(sink.messages) == 1)


# --- the machine ---

def test_port_in_use(where):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        text = init_with(where, f"kumo.start_http_listener {{ listen = '127.0.0.1:{port}' }}")
        err = refused(where, text)
    assert f"127.0.0.1:{port}" in err and "Address already in use" in err and at(text) in err


def test_address_that_is_not_ours(where):
    text = init_with(where, "kumo.start_http_listener { listen = '192.0.2.1:0' }")
    err = refused(where, text)
    assert "192.0.2.1:0" in err and "Cannot assign requested address" in err and at(text) in err


def test_missing_policy_file(where):
    d = Daemon(where, "")
    os.unlink(d.policy_file)
    status, err = d.run_to_end()
    assert status == 1 and str(d.policy_file) in err and "No such file or directory" in err
    os.mkdir(d.policy_file)
    status, err = d.run_to_end()
    assert status == 1 and str(d.policy_file) in err and "Is a directory" in err


def test_policy_that_is_not_text(where):
    d = Daemon(where, "")
    d.policy_file.write_bytes(b"\x1bLua" + bytes(range(256)) * 10)
    status, err = d.run_to_end()
    assert status == 1 and "policy.lua" in err


@pytest.mark.parametrize("which", ["data", "meta"])
def test_spool_below_a_file(where, which):
    (where / "file").write_text("")
    text = policy(where).replace(f"{where}/spool/{which}", f"{where}/file/{which}")
    err = refused(where, text)
    assert f"spool `{which}`" in err and f"{where}/file" in err and "Not a directory" in err


def test_spool_that_is_a_file(where):
    (where / "spool").mkdir()
    (where / "spool/data").write_text("")
    err = refused(where, policy(where))
    assert "spool `data`" in err and f"{where}/spool/data" in err


def test_log_dir_below_a_file(where):
    (where / "file").write_text("")
    text = init_with(where, f"kumo.configure_local_logs {{ log_dir = '{where}/file/logs' }}")
    err = refused(where, text)
    assert f"{where}/file" in err and "Not a directory" in err and at(text) in err


@contextlib.contextmanager
def mounted(path, *options):
    """A tmpfs of our own, or the test is skipped."""
    path.mkdir(parents=True, exist_ok=True)
    p = subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(("mode=0777", *options)), "cirrus-test", str(path)], capture_output=True)
    if p.returncode != 0:
        pytest.skip("mounting is not permitted here")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.parametrize("which", ["spool/data", "spool/meta", "logs"])
def test_read_only_file_system(where, which):
    with mounted(where / "ro") as ro:
        subprocess.run(["mount", "-o", "remount,ro", str(ro)], check=True)
        text = policy(where).replace(f"{where}/{which}", f"{ro}/x")
        err = refused(where, text)
        assert f"{ro}/x" in err and "Read-only file system" in err


def test_read_only_spool_that_exists(where):
    with mounted(where / "ro") as ro:
        text = policy(where).replace(f"{where}/spool", f"{ro}/spool")
        with Daemon(where, text):
            pass
        subprocess.run(["mount", "-o", "remount,ro", str(ro)], check=True)
        err = refused(where, text)
        assert f"{ro}/spool" in err and "Read-only file system" in err


def test_two_daemons_on_one_spool(where):
    with Daemon(where, policy(where)) as first:
        text = policy(where / "second").replace(f"{where}/second/spool", f"{where}/spool")
        err = refused(where / "second", text)
        assert f"{where}/spool/data" in err and f"is locked by process {first.process.pid}" in err
        first.accept()
        assert first.metric("total_messages_received{service=\"http_listener\"}") == 1


def test_node_id_that_is_none(where):
    (where / "nodeid").write_text("hello\n")
    err = refused(where, policy(where))
    assert f"{where}/nodeid" in err and "UUID" in err
    err = refused(where, policy(where), env={"KUMO_NODE_ID": "hello"})
    assert "KUMO_NODE_ID" in err


def test_unknown_user(where):
    err = refused(where, policy(where), args=["--user", "no-such-user"])
    assert "--user no-such-user" in err


def test_bad_log_filter(where):
    err = refused(where, policy(where), env={"CIRRUS_LOG": "kumod=loud"})
    assert "kumod=loud" in err


@pytest.mark.parametrize("value", ["zero", "0", "-1", "257", "100000", ""])
def test_number_of_workers_that_is_none(where, value):
    err = refused(where, policy(where), env={"KUMO_AVAILABLE_PARALLELISM": value})
    assert f"KUMO_AVAILABLE_PARALLELISM is `{value}`" in err and "from 1 to 256" in err


@pytest.mark.parametrize("args", [["--polcy", "x"], ["--policy"], ["extra"], ["--user"]])
def test_bad_command_line(where, args):
    d = Daemon(where, policy(where))
    p = subprocess.run([d.command()[0], *args], capture_output=True, text=True, env=d.env, timeout=20)
    assert p.returncode == 2 and "Usage: cirrusd" in p.stderr and p.stdout == ""
    assert args[0].lstrip("-") in p.stderr


# --- a full disk ---

def fill(path):
    """Takes all the space there is; the file is the ballast to be removed later."""
    ballast = path / "ballast"
    with open(ballast, "wb", buffering=0) as f:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while f.write(b"\0" * size):
                    pass
    return ballast


def inject_numbered(d, token, size=0):
    return d.request("POST", INJECT, json.dumps({
        "envelope_sender": "s@example.com", "recipients": [{"email": f"{token}@example.org"}],
        "content": f"Subject: {token}\r\n\r\n" + ("x" * 70 + "\r\n") * (size // 72)}), {"Content-Type": "application/json"})


def full_disk(where, spool, free, queue, sink, restart):
    """Injects until the disk is full, and on for a while; frees it; checks that what was accepted, and only that, arrives."""
    text = policy(where, queue).replace(f"{where}/spool", f"{spool}/spool")
    text = re.sub(r"(define_spool .*)min_free_space = '1%', min_free_inodes = '1%'", rf"\1min_free_space = '{free}', min_free_inodes = '{free}'", text)
    d = Daemon(where, text)
    accepted, n = [], 0

    def inject(size=0):
        nonlocal n
        token, n = f"m{n}", n + 1
        status, headers, body = inject_numbered(d, token, size)
        if status == 200:
            assert json.loads(body)["success_count"] == 1
            accepted.append(token)
        else:
            assert status == 503 and body.startswith(b"Error: ") and int(headers["retry-after"]) >= 0, (status, body)
        return status
    with d:
        for _ in range(20):
            assert inject(1000) == 200
        ballast = fill(spool)
        deadline = time.monotonic() + 60
        refusals = 0
        while refusals < 50 and time.monotonic() < deadline:
            refusals = refusals + 1 if inject(1000) == 503 else 0
        assert refusals == 50
        # It lives, it says why, and the diagnostic log has it.
        status, _, why = d.request("GET", "/api/check-liveness/v1")
        assert status == 503 and why
        assert re.search(r"ERROR .*(no space left|too little room)", d.stderr())
        os.unlink(ballast)
        wait_for("the first that is taken again", lambda: inject(1000) == 200)
        for _ in range(20):
            assert inject(1000) == 200
        wait_for("liveness", lambda: d.request("GET", "/api/check-liveness/v1")[0] == 200)
        if not restart:
            wait_for("all that was accepted", lambda: len(sink.messages) >= len(accepted))
    if restart:
        d.set_policy(text.replace(queue, smtp_queue(sink.port)))
        with d:
            assert f"{len(accepted)} messages recovered" in d.stderr()
            wait_for("all that was accepted", lambda: len(sink.messages) >= len(accepted))
    seen = [m.recipients[0].split("@")[0] for m in sink.messages]
    assert sorted(seen) == sorted(accepted)
    d.set_policy(text)
    with d:
        assert "0 messages recovered" in d.stderr()
    assert sorted(m.recipients[0].split("@")[0] for m in sink.messages) == sorted(accepted)


def test_full_disk_nothing_accepted_is_lost(where):
    """Nothing leaves the queue meanwhile: every accepted message is in the spool when the disk is full."""
    with Sink() as sink, mounted(where / "small", "size=24m") as small:
        with socket.socket() as s:  # a peer that takes connections and says nothing
            s.bind(("127.0.0.1", 0))
            s.listen()
            full_disk(where, small, "0%", smtp_queue(s.getsockname()[1]), sink, restart=True)


def test_full_disk_while_delivering(where):
    with Sink() as sink, mounted(where / "small", "size=24m") as small:
        full_disk(where, small, "0%", smtp_queue(sink.port), sink, restart=False)


def test_disk_below_its_limit(where):
    with Sink() as sink, mounted(where / "small", "size=24m") as small:
        full_disk(where, small, "25%", smtp_queue(sink.port), sink, restart=False)


def test_full_disk_for_logs_does_not_stop_mail(where):
    with Sink() as sink, mounted(where / "small", "size=1m") as small:
        text = policy(where, smtp_queue(sink.port)).replace(f"log_dir = '{where}/logs'", f"log_dir = '{small}/logs'")
        text = re.sub(r"(max_segment_duration = '1s', )min_free_space = '1%', min_free_inodes = '1%'", r"\1min_free_space = '0%', min_free_inodes = '0%'", text)
        with Daemon(where, text) as d:
            d.accept(to=["before@example.org"])
            wait_for("the first message", lambda: len(sink.messages) == 1)
            ballast = fill(small)
            for i in range(200):
                d.accept(to=[f"r{i}@example.org"])
            wait_for("the messages", lambda: len(sink.messages) == 201)
            assert d.request("GET", "/api/check-liveness/v1")[0] == 200
            wait_for("a complaint", lambda: "No space left on device" in d.stderr())
            os.unlink(ballast)
            wait_for("the end of the complaint", lambda: "works again" in d.stderr())
            # Nothing was thrown away meanwhile.
            wait_for("all records", lambda: len({r["id"] for r in d.records("Delivery", log_dir=small / "logs")}) == 201)
