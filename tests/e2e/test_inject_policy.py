"""Injection from a policy (kumo.api.inject), and the rate limit."""
import json
import time

import pytest

from cirrus import Daemon, Maildir, Threads, policy, wait_for

INJECT = "/api/inject/v1"


def run(where, lua, expect=()):
    """Runs `lua` as http_message_generated of a message, until those to `expect` have arrived: the answer, and what it prints as JSON."""
    extra = f"""
kumo.on('http_message_generated', function(msg, auth)
  if msg:recipient().email ~= 'trigger@example.org' then return end
  {lua}
end)"""
    with Daemon(where, policy(where, f"protocol = {{ maildir_path = '{where}/mail/{{{{ email }}}}' }}", extra=extra)) as d:
        status, answer = d.inject(to=["trigger@example.org"])
        assert status == 200, answer
        for address in expect:
            mail(where, address)
        return answer, [json.loads(line) for line in d.stderr().splitlines() if line.startswith(("{", "["))], d


def mail(where, address):
    return wait_for(address, Maildir(where / "mail" / address).messages)


def test_inject_v1(where):
    """As over HTTP: the answer, the event, the queue; with the identity of this system."""
    extra = """
kumo.on('http_message_generated', function(msg, auth)
  if msg:recipient().email == 'trigger@example.org' then
    print(kumo.json_encode(kumo.api.inject.inject_v1 {
      envelope_sender = msg:sender().email,
      content = { text_body = 'hi {{ name }}', subject = 's' },
      recipients = { { email = 'archive@example.org', name = 'Ann' }, { email = 'nobody' } },
    }))
  else
    local meta = {}
    for _, k in ipairs { 'http_auth', 'received_from', 'received_via', 'hostname', 'reception_protocol' } do meta[k] = msg:get_meta(k) end
    print(kumo.json_encode { meta = meta, auth = auth })
  end
end)"""
    with Daemon(where, policy(where, f"protocol = {{ maildir_path = '{where}/mail/{{{{ email }}}}' }}", extra=extra)) as d:
        d.accept(to=["trigger@example.org"])
        inner, answer = [json.loads(line) for line in d.stderr().splitlines() if line.startswith("{")]
        assert inner["meta"] == {"http_auth": "kumomta.internal", "received_from": "127.0.0.1", "reception_protocol": "HTTP"}
        assert inner["auth"] == {"peer_address": "127.0.0.1", "identities": [{"identity": "kumomta.internal", "context": "LocalSystem"}], "groups": []}
        assert (answer["success_count"], answer["fail_count"], answer["failed_recipients"], answer["durability"]) == (1, 1, ["nobody"], "fsync")
        m, = mail(where, "archive@example.org")
        assert b"\r\n\r\nhi Ann\r\n" in m and m.startswith(b"X-KumoRef: ")
        r, = d.wait_record("Reception", id=answer["messages"][0]["id"])
        assert r["peer_address"]["addr"] == "127.0.0.1"
        mail(where, "trigger@example.org")


def test_the_bytes_of_a_message_can_be_injected(where):
    """As the documentation has it; they need not be UTF-8."""
    lua = """
  kumo.api.inject.inject_v1 { envelope_sender = '', content = msg:get_data() .. '\\xe4\\xff', template_dialect = 'Static',
    recipients = { { email = 'archive@example.org' } }, trace_headers = { supplemental_header = false, include_meta_names = {} } }"""
    run(where, lua, ["archive@example.org"])
    m, = mail(where, "archive@example.org")
    assert m == b"Subject: test\r\n\r\nhello\r\n\xe4\xff"


@pytest.mark.parametrize("request_,words", [
    ("{}", "missing field `envelope_sender`"),
    ("{ envelope_sender = 's@example.com', recipients = { { email = 1 } }, content = 'x' }", "recipients[0].email: invalid type: integer `1`"),
    ("{ envelope_sender = 'x', recipients = {}, content = 'x' }", "inject_v1: envelope_sender: "),
    ("{ envelope_sender = '', recipients = {}, content = '{{' }", "inject_v1: failed parsing field 'content' as template: "),
    ("{ envelope_sender = '', recipients = {}, content = { attachments = {} , nope = 1 } }", "content.nope: unknown field"),
    ("{ envelope_sender = '', recipients = {}, content = 'x', f = print }", "at `f`"),
    ("'x'", "table expected"), ("nil", "table expected"),
    ("{ envelope_sender = '', recipients = {}, content = '\\xff', deferred_generation = true }", "not UTF-8"),
])
def test_bad_requests_raise(where, request_, words):
    answer, _, d = run(where, f"kumo.api.inject.inject_v1({request_})")
    error, = answer["errors"]
    assert words in error and "policy.lua" in error, error


def test_empty_tables_are_lists(where):
    _, (answer,), _ = run(where, """print(kumo.json_encode(kumo.api.inject.inject_v1 { envelope_sender = '', recipients = {},
      content = { text_body = 'x', attachments = {}, headers = {} }, trace_headers = { include_meta_names = {} } }))""")
    assert answer["success_count"] == 0 and answer["messages"] == []


def test_deferred_from_a_policy(where):
    _, (answer,), d = run(where, """print(kumo.json_encode(kumo.api.inject.inject_v1 { envelope_sender = '', deferred_generation = true,
      content = 'Subject: {{ n }}\\r\\n\\r\\nx', recipients = { { email = 'later@example.org', substitutions = { n = 5 } } } }))""", ["later@example.org"])
    assert answer["success_count"] == 0 and answer["request_id"]
    m, = mail(where, "later@example.org")
    assert b"Subject: 5\r\n" in m


def test_a_policy_that_injects_for_each_message_is_stopped(where):
    extra = """
kumo.on('http_message_generated', function(msg)
  local answer = kumo.api.inject.inject_v1 { envelope_sender = '', recipients = { { email = 'copy@example.org' } }, content = 'Subject: x\\r\\n\\r\\n' }
  if answer.fail_count > 0 then error(answer.errors[1]) end
end)"""
    with Daemon(where, policy(where, f"protocol = {{ maildir_path = '{where}/mail' }}", extra=extra)) as d:
        status, answer = d.inject()
        assert status == 200 and answer["fail_count"] == 1 and "nested 16 deep" in answer["errors"][0]
        assert d.inject(to=[])[0] == 200


def test_not_before_the_service_runs(where):
    text = policy(where, init="kumo.api.inject.inject_v1 { envelope_sender = '', recipients = {}, content = 'x' }")
    status, err = Daemon(where, text).run_to_end()
    assert status == 1 and "kumo.api.inject.inject_v1: the service is not started yet" in err
    status, err = Daemon(where, text).run_to_end("--validate")
    assert status == 1 and "the service is not started yet" in err


def test_build_v1(where):
    lua = """
  local list = kumo.api.inject.build_v1 { envelope_sender = 'x@example.com', content = { text_body = 'hi {{ name }}', subject = 's' },
    recipients = { { email = 'a@example.org', name = 'Ann', metadata = { n = 1 } }, { email = 'b@example.org' } }, trace_headers = { received_header = REC } }
  for _, m in ipairs(list) do
    print(kumo.json_encode { to = m:recipient().email, sender = m:sender().email, data = m:get_data(), auth = m:get_meta('http_auth'),
                             extra = m:get_meta('extra'), id = m:id() })
  end"""
    for received in ("false", "true"):
        _, built, d = run(where / received, lua.replace("REC", received), ["trigger@example.org"])
        assert [b["to"] for b in built] == ["a@example.org", "b@example.org"] and len({b["id"] for b in built}) == 2
        assert built[0]["sender"] == "x@example.com" and built[0]["auth"] == "kumomta.internal" and built[0]["extra"] == {"n": 1}
        assert "X-KumoRef" not in built[0]["data"] and built[0]["data"].startswith("Received: ") == (received == "true")
        assert "hi Ann" in built[0]["data"] and 'To: "Ann" <a@example.org>' in built[0]["data"]
        assert not (where / received / "mail" / "a@example.org").exists()  # neither queued nor logged
        assert {r["recipient"] for r in d.records()} == {"trigger@example.org"}


def test_build_v1_raises_what_is_wrong_with_a_recipient(where):
    answer, _, _ = run(where, """kumo.api.inject.build_v1 { envelope_sender = '', content = 'x',
      recipients = { { email = 'a@example.org' }, { email = 'nobody' } } }""")
    assert "kumo.api.inject.build_v1: nobody: recipient email: " in answer["errors"][0]


# --- the rate limit ---

def limited(where, spec, init=""):
    return policy(where, f"protocol = {{ maildir_path = '{where}/mail' }}", extra=f"""
kumo.on('pre_init', function() kumo.set_httpinject_recipient_rate_limit({spec}) end)""", init=init)


def test_over_the_limit_requests_wait(where):
    """30 recipients at 20 a second, 10 at once, take a second at least; all of them come in, each request whole."""
    with Daemon(where, limited(where, "'local:20/s,max_burst=10'")) as d:
        begun = time.monotonic()
        Threads(6, lambda i: d.accept(to=[f"r{i}-{k}@example.org" for k in range(5)])).join()
        assert time.monotonic() - begun >= 1.0 - 0.001
        wait_for("the messages", lambda: len(Maildir(where / "mail").messages()) == 30)


def test_more_than_the_burst_in_one_request(where):
    with Daemon(where, limited(where, "'1_000/s,max_burst=10'")) as d:
        d.accept(to=[f"r{k}@example.org" for k in range(500)])
        begun = time.monotonic()
        d.accept(to=["late@example.org"])
        assert time.monotonic() - begun < 30


def test_too_far_over_the_limit_is_429(where):
    with Daemon(where, limited(where, "'local:2/d'")) as d:
        d.accept(to=["a@example.org", "b@example.org"])
        status, headers, body = d.request("POST", INJECT, json.dumps({"envelope_sender": "", "recipients": [{"email": "c@example.org"}], "content": "x"}),
                                          {"Content-Type": "application/json"})
        assert status == 429 and body.startswith(b"Error: too many recipients: the rate limit would let these in after ")
        assert 40000 < int(headers["retry-after"]) <= 43200
        assert d.inject(to=[])[0] == 200  # nobody comes in with it
        assert d.inject(content="{{", to=[])[0] == 422
        assert d.request("POST", INJECT, json.dumps({"envelope_sender": "", "recipients": [{"email": "c@example.org"}], "content": "x", "deferred_generation": True}),
                         {"Content-Type": "application/json"})[0] == 429


def test_the_limit_can_be_cleared_and_does_not_hold_for_policies(where):
    extra = """
kumo.on('http_message_generated', function(msg)
  if msg:recipient().user == 'clear' then kumo.set_httpinject_recipient_rate_limit(nil) end
  if msg:recipient().user ~= 'inner' then
    kumo.api.inject.inject_v1 { envelope_sender = '', content = 'Subject: x\\r\\n\\r\\n', recipients = { { email = 'inner@example.org' }, { email = 'inner@example.org' } } }
  end
end)"""
    with Daemon(where, limited(where, "'2/d'") + extra) as d:
        d.accept(to=["a@example.org"])
        d.accept(to=["clear@example.org"])
        for _ in range(5):
            d.accept(to=["b@example.org"])
        wait_for("the messages", lambda: len(Maildir(where / "mail").messages()) == 21)


@pytest.mark.parametrize("spec,words", [("'10'", "throttle `10`: expected `[local:]QUANTITY/PERIOD"), ("'x/s'", "the quantity must be"), ("5", "string expected"),
                                        ("{}", "string expected"), ("'10/week'", "the period must be"), ("'10/s,burst=1'", "max_burst")])
def test_a_bad_limit(where, spec, words):
    status, err = Daemon(where, limited(where, spec)).run_to_end()
    assert status == 1 and words in err and "policy.lua" in err, err


@pytest.mark.parametrize("limits,words", [("{ deferred_message = 1 }", "unknown field `deferred_message`, expected one of `deferred_messages`"),
                                          ("{ deferred_messages = -1 }", "deferred_messages"), ("{ deferred_bytes = 'x' }", "deferred_bytes"), ("5", "deserialize error")])
def test_bad_limits(where, limits, words):
    status, err = Daemon(where, policy(where, init=f"kumo.set_httpinject_limits({limits})")).run_to_end()
    assert status == 1 and words in err and "policy.lua" in err, err
