"""The examples of the manual are run as they stand. What they name outside of themselves (directories, ports, certificates) is put in
its place: below the test's directory, or at port 0."""
import json
import re
import subprocess

import pytest

from cirrus import ROOT, Daemon, Maildir, policy, wait_for
from test_https import make_certificate

PAGES = sorted((ROOT / "docs").glob("*.md"))


def blocks(language):
    """(page:line, text) of each fenced block of that language."""
    out = []
    for page in PAGES:
        text = page.read_text()
        for m in re.finditer(rf"^```{language}\n(.*?)^```", text, re.S | re.M):
            out.append((f"{page.name}:{text.count(chr(10), 0, m.start()) + 1}", m.group(1)))
    return out


def toml(page):
    text, = (text for name, text in blocks("toml") if name.startswith(page))
    return text


def is_whole(lua):
    return re.search(r"^kumo\.on\(", lua, re.M) is not None


def params(of):
    return [pytest.param(text, id=name) for name, text in of]


def in_place(where, lua):
    lua = re.sub(r"/(var/lib|var/log|etc|opt)/(cirrus|kumomta)", f"{where}/\\2", lua)
    head = "" if "require 'kumo'" in lua else "local kumo = require 'kumo'\n"
    return head + re.sub(r"((?:127\.0\.0\.1|0\.0\.0\.0)):(8000|8443|25)'", r"\1:0'", lua)


def prepare(where):
    """The files that examples name."""
    tls = where / "cirrus" / "tls"
    tls.mkdir(parents=True)
    cert, key = (p.read_text() for p in make_certificate(where))
    (tls / "chain.pem").write_text(cert)
    (tls / "key.pem").write_text(key)
    for name in ("one.pem", "two.pem"):
        (tls / name).write_text(cert + key)
    (where / "cirrus" / "listener_domains.toml").write_text(toml("smtp-listener.md"))
    (where / "cirrus" / "logo.png").write_bytes(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize("lua", params(b for b in blocks("lua") if is_whole(b[1])))
def test_policy(where, lua):
    prepare(where)
    status, stderr = Daemon(where, in_place(where, lua)).run_to_end("--validate")
    assert status == 0, stderr


@pytest.mark.parametrize("lua", params(b for b in blocks("lua") if not is_whole(b[1]) or "http_message_generated" in b[1]))
def test_code_about_a_message(where, lua):
    prepare(where)
    if not is_whole(lua):
        lua = f"kumo.on('http_message_generated', function(msg, auth_info)\n{lua}\nend)"
    with Daemon(where, policy(where, "protocol = { maildir_path = '" + str(where / "maildir") + "' }", extra=in_place(where, lua))) as d:
        assert d.accept("From: a@example.com\r\nX-Campaign: c\r\nSubject: x\r\n\r\nhello\r\n")["success_count"] == 1


def test_first_policy(where):
    """The one in policy.md is started, and each of its handlers is asked: the address of its sources is not ours, which the record
    tells. The mail is for an address literal, so that no name is looked up."""
    text = next(text for name, text in blocks("lua") if name.startswith("policy.md:"))
    text = text.replace("kind = 'Journal'", "kind = 'Journal', min_free_space = '1%', min_free_inodes = '1%'")
    text = text.replace("make_egress_path {", "make_egress_path { prohibited_hosts = {}, smtp_port = 9,")
    text = text.replace("log_dir = '/var/log/cirrus'", f"log_dir = '{where}/logs', min_free_space = '1%', min_free_inodes = '1%'")
    with Daemon(where, in_place(where, text)) as d:
        d.accept(to=["r@[127.0.0.1]"])
        record = d.wait_record("TransientFailure")[0]
        assert record["egress_pool"] == "both" and record["egress_source"] in ("a", "b")
        assert record["source_address"] is None or record["source_address"]["address"].startswith("192.0.2.")
        d.stop()


def test_injection(where):
    request = next(text for name, text in blocks("json") if name.startswith("http-api.md:") and "envelope_sender" in text)
    with Daemon(where, policy(where, "protocol = { maildir_path = '" + str(where / "maildir") + "' }")) as d:
        status, _, body = d.request("POST", "/api/inject/v1", request, {"Content-Type": "application/json"})
        answer = json.loads(body)
        assert status == 200 and answer["success_count"] == 2, answer


@pytest.mark.parametrize("source", params(b for b in blocks("") if "{{#" in b[1] or "{% for" in b[1]))
def test_template(where, source):
    dialect = "Handlebars" if "{{#" in source else "Jinja"
    values = {"name": "Ann", "currency": "$", "items": [{"title": "Tea", "price": 2.5}, {"title": "Pot", "price": 30}]}
    with Daemon(where, policy(where, "protocol = { maildir_path = '" + str(where / "maildir") + "' }")) as d:
        d.accept("Subject: x\r\n\r\n" + source, template_dialect=dialect, substitutions=values)
        text = wait_for("the message", Maildir(where / "maildir").messages)[0].decode()
        assert "Tea" in text and "Pot" in text and "{" not in text


def test_answers_are_json():
    for name, text in blocks("json"):
        assert json.loads(text), name


def test_command_of_the_readme(where):
    command = re.search(r"^    (curl .*?\}')$", (ROOT / "README.md").read_text(), re.S | re.M).group(1)
    with Daemon(where, policy(where, "protocol = { maildir_path = '" + str(where / "maildir") + "' }")) as d:
        out = subprocess.run(["sh", "-c", command.replace("127.0.0.1:8000", f"127.0.0.1:{d.port}") + " -sS"],
                             capture_output=True, text=True, check=True).stdout
        answer = json.loads(out)
        assert answer["success_count"] == 1 and answer["durability"] == "fsync"


def test_access_control_map(where):
    text = toml("access-control.md")
    lua = f"""
kumo.on('validate_config', function()
  local map = kumo.aaa.load_acl_map {{ key_data = [==[{text}]==] }}
  assert(#map:get 'http_listener/*/metrics' == 2)
end)"""
    status, stderr = Daemon(where, in_place(where, lua)).run_to_end("--validate")
    assert status == 0, stderr
