"""HTTP in, SMTP out: every message once, every kind of answer, and what the logs say of it."""
import collections
import json

import pytest

from cirrus import Daemon, Threads, closed_port, policy, smtp_queue, wait_for
from sink import Sink

FAST = "retry_interval = '1s', max_retry_interval = '2s'"


def short_timeouts(more=""):
    return "connect_timeout = '2s', banner_timeout = '2s', ehlo_timeout = '2s', mail_from_timeout = '2s', " \
           f"rcpt_to_timeout = '2s', data_timeout = '2s', data_dot_timeout = '2s', {more}"


def test_ten_thousand_messages_arrive_once_each(where):
    n, n_connections = 10000, 32
    with Sink() as sink, Daemon(where, policy(where, smtp_queue(sink.port))) as d:
        def post(i):
            c = d.connect()
            for k in range(i, n, n_connections):
                body = json.dumps({"envelope_sender": "s@example.com", "recipients": [{"email": f"u{k}@example.org"}],
                                   "content": f"Subject: number {k}\r\n\r\nbody of {k}\r\n",
                                   "trace_headers": {"supplemental_header": False}})
                c.request("POST", "/api/inject/v1", body, {"Content-Type": "application/json"})
                r = c.getresponse()
                assert r.status == 200 and json.loads(r.read())["success_count"] == 1
            c.close()
        Threads(n_connections, post).join()
        wait_for("all messages", lambda: len(sink.messages) >= n, 180)
        seen = collections.Counter(m.recipients[0] for m in sink.messages)
        assert len(seen) == n and set(seen.values()) == {1}
        for m in sink.messages[:100]:
            k = m.recipients[0][1:].split("@")[0]
            assert m.data == f"Subject: number {k}\r\n\r\nbody of {k}\r\n".encode()
        d.wait_metric('total_messages_delivered{service="smtp_client"}', n)
        assert d.metric('total_messages_received{service="http_listener"}') == n
        # Sessions run side by side, and each carries many messages.
        assert 1 < sink.handler.connections <= 200
    assert len(d.records("Delivery")) == n
    assert len(d.records("Reception")) == n


def test_a_delivery_is_logged_with_every_field(where):
    with Sink() as sink, Daemon(where, policy(where, smtp_queue(sink.port))) as d:
        d.accept("Subject: =?utf-8?q?h=C3=A9?=\r\nX-A: 1\r\n\r\nhi\r\n", ["r@Example.ORG"])
        r, = d.wait_record("Delivery")
        first, = d.records("Reception")
    site = f"unspecified->mx_list:127.0.0.1:{sink.port}@smtp_client"
    assert r["queue"] == "example.org" and r["site"] == site
    assert r["sender"] == "s@example.com" and r["recipient"] == "r@Example.ORG"
    assert r["response"] == {"code": 250, "enhanced_code": {"class": 2, "subject": 0, "detail": 0}, "content": "OK queued",
                             "command": ".\r\n"}
    assert r["peer_address"] == {"name": "sink", "addr": f"127.0.0.1:{sink.port}"}
    assert r["source_address"]["address"].startswith("127.0.0.1:")
    assert (r["egress_pool"], r["egress_source"]) == ("unspecified", "unspecified")
    assert (r["delivery_protocol"], r["reception_protocol"]) == ("ESMTP", "HTTP")
    assert r["num_attempts"] == 0 and r["bounce_classification"] == "Uncategorized" and r["feedback_report"] is None
    assert r["size"] == len("Subject: =?utf-8?q?h=C3=A9?=\r\nX-A: 1\r\n\r\nhi\r\n")
    assert r["headers"] == {"Subject": "hé"} and r["meta"] == {}
    assert len(r["id"]) == 32 and r["id"] == first["id"] and r["session_id"]
    assert r["created"] == int(r["created"]) and r["event_time"].endswith("Z") and r["nodeid"] == first["nodeid"]
    assert first["peer_address"] == {"name": "", "addr": "127.0.0.1"} and first["site"] == ""
    assert first["response"] == {"code": 250, "enhanced_code": None, "content": "", "command": None}


def test_answers_end_as_they_should(where):
    rules = {"later": "450 4.2.1 try later", "closing": "421 4.3.2 going down", "never": "550 5.1.1 unknown",
             "big": "data:552 5.3.4 too big", "busy": "data:451 4.3.0 busy", "drop": "drop", "stall": "stall"}
    with Sink(rules) as sink:
        with Daemon(where, policy(where, smtp_queue(sink.port, FAST), short_timeouts("connection_limit = 3"))) as d:
            for name in [*rules, "fine"]:
                d.accept(to=[f"{name}@example.org"])
            fine, = d.wait_record("Delivery")
            assert fine["recipient"] == "fine@example.org"
            never, = d.wait_record("Bounce", recipient="never@example.org")
            assert never["response"] == {"code": 550, "enhanced_code": {"class": 5, "subject": 1, "detail": 1},
                                         "content": "unknown", "command": "RCPT TO:<never@example.org>\r\n"}
            big, = d.wait_record("Bounce", recipient="big@example.org")
            assert big["response"]["code"] == 552 and big["response"]["command"] == ".\r\n"
            for name, code in (("later", 450), ("closing", 421), ("busy", 451)):
                again = d.wait_record("TransientFailure", 2, recipient=f"{name}@example.org")
                assert [r["num_attempts"] for r in again[:2]] == [0, 1]
                assert {r["response"]["code"] for r in again} == {code}
            drop = d.wait_record("TransientFailure", 2, recipient="drop@example.org")[0]
            assert drop["response"]["code"] == 400 and "closed by peer" in drop["response"]["content"].lower()
            stall = d.wait_record("TransientFailure", 1, recipient="stall@example.org")[0]
            assert stall["response"]["code"] == 421 and "Timed Out waiting 2s for response to ." in stall["response"]["content"]
        assert sink.attempts.count("never@example.org") == 1
    by_end = collections.Counter(r["recipient"] for r in d.records() if r["type"] in ("Delivery", "Bounce"))
    assert by_end == {"fine@example.org": 1, "never@example.org": 1, "big@example.org": 1}


def test_refused_port_is_retried_until_it_answers(where):
    port = closed_port()
    with Daemon(where, policy(where, smtp_queue(port, FAST))) as d:
        d.accept()
        failed = d.wait_record("TransientFailure", 2)[0]
        assert failed["response"]["code"] == 400
        assert "failed to connect to any candidate hosts" in failed["response"]["content"]
        assert "refused" in failed["response"]["content"] and f"127.0.0.1:{port}" in failed["response"]["content"]
        assert failed["peer_address"] is None
        sink = Sink()
        sink.port = port
        sink.start()
        try:
            r, = d.wait_record("Delivery")
            assert r["num_attempts"] >= 2
        finally:
            sink.stop(no_assert=True)


def test_expires_when_the_next_attempt_would_be_too_late(where):
    with Daemon(where, policy(where, smtp_queue(closed_port(), "retry_interval = '1s', max_age = '2s'"))) as d:
        d.accept()
        r, = d.wait_record("Expiration")
        assert r["response"]["code"] == 551 and r["response"]["enhanced_code"] == {"class": 5, "subject": 4, "detail": 7}
        assert "exceeds max_age=2s" in r["response"]["content"] and r["num_attempts"] >= 1
        d.wait_metric("scheduled_count_total", 0)


def test_restart_keeps_attempts_and_due_time(where):
    d = Daemon(where, policy(where, smtp_queue(closed_port(), "retry_interval = '2s'")))
    with d:
        d.accept(to=["a@example.org"])
        d.wait_record("TransientFailure", 2)
    with Sink() as sink:
        d.set_policy(policy(where, smtp_queue(sink.port, "retry_interval = '2s'")))
        with d:
            r, = d.wait_record("Delivery")
            assert r["num_attempts"] >= 2
            assert len(sink.messages) == 1
    with d:  # and it is gone from the spool
        assert "0 messages recovered" in d.stderr()


def test_connection_is_reused_up_to_the_limit(where):
    with Sink() as sink:
        path = "connection_limit = 1, max_deliveries_per_connection = 10"
        with Daemon(where, policy(where, smtp_queue(sink.port), path)) as d:
            d.accept(to=[f"r{i}@example.org" for i in range(100)])
            wait_for("the messages", lambda: len(sink.messages) == 100)
        sessions = collections.Counter(r["session_id"] for r in d.records("Delivery"))
        assert len(sessions) == 10 and set(sessions.values()) == {10}


def test_more_than_max_ready_waits_in_order_and_arrives(where):
    with Sink() as sink:
        with Daemon(where, policy(where, smtp_queue(sink.port), "connection_limit = 1, max_ready = 5")) as d:
            d.accept(to=[f"r{i}@example.org" for i in range(200)])
            wait_for("the messages", lambda: len(sink.messages) == 200)
            assert [m.recipients[0] for m in sink.messages] == [f"r{i}@example.org" for i in range(200)]
            assert d.metric(f'ready_full{{service="smtp_client:unspecified->mx_list:127.0.0.1:{sink.port}@smtp_client"}}') > 0


@pytest.mark.parametrize("content", [
    ".\r\n..\r\n.a\r\n",
    "Subject: x\r\n\r\n.\r\n\r\n..\r\nend.\r\n",
    "Subject: x\r\n\r\nno end of line",
    "Subject: ü\r\n\r\nsnø ☃\r\n",
    "Subject: long\r\n\r\n" + "y" * 997 + "\r\n",
    "Subject: x\n\nbare line feeds\n.\n",
])
def test_content_arrives_byte_for_byte(where, content):
    with Sink() as sink, Daemon(where, policy(where, smtp_queue(sink.port))) as d:
        d.accept(content)
        m, = wait_for("the message", lambda: sink.messages)
        expected = content.replace("\r\n", "\n").replace("\n", "\r\n")
        if not expected.endswith("\r\n"):
            expected += "\r\n"
        assert m.data == expected.encode()
        assert ("BODY=8BITMIME" in m.options) == any(ord(c) > 127 for c in content)


def test_a_large_message(where):
    content = "Subject: large\r\n\r\n" + ("0123456789" * 7 + "\r\n") * 20000
    with Sink() as sink, Daemon(where, policy(where, smtp_queue(sink.port))) as d:
        d.accept(content)
        m, = wait_for("the message", lambda: sink.messages)
        assert m.data == content.encode()


def test_without_8bitmime_8bit_data_bounces(where):
    class Plain:
        async def handle_EHLO(self, server, session, envelope, hostname, responses):
            session.host_name = hostname
            return [r for r in responses if "8BITMIME" not in r and "SMTPUTF8" not in r]
    with Sink() as sink:
        sink.handler.handle_EHLO = Plain().handle_EHLO
        with Daemon(where, policy(where, smtp_queue(sink.port))) as d:
            d.accept("Subject: x\r\n\r\nü\r\n")
            r, = d.wait_record("Bounce")
            assert r["response"]["code"] == 554 and r["response"]["enhanced_code"]["subject"] == 6
            d.accept(to=["jürgen@example.org"])
            r = d.wait_record("Bounce", 2)[1]
            assert r["response"]["enhanced_code"] == {"class": 5, "subject": 6, "detail": 7}
            assert sink.messages == []


def test_utf8_address_over_smtputf8(where):
    with Sink() as sink, Daemon(where, policy(where, smtp_queue(sink.port))) as d:
        d.accept(to=["jürgen@example.org"])
        m, = wait_for("the message", lambda: sink.messages)
        assert m.recipients == ["jürgen@example.org"] and "SMTPUTF8" in m.options


def without(*keywords):
    """A handler of EHLO that does not offer these."""
    async def answer(server, session, envelope, hostname, responses):
        session.host_name = hostname
        return [r for r in responses if not any(k in r for k in keywords)]
    return answer


BUILT = {"text_body": "x", "subject": "x", "from": {"email": "jürgen@example.com"}}


def test_a_domain_goes_out_in_ascii(where):
    """Without a UTF-8 local part nothing asks for SMTPUTF8, and both forms of the name are one queue (RFC 5891)."""
    with Sink() as sink:
        sink.handler.handle_EHLO = without("SMTPUTF8")
        with Daemon(where, policy(where, smtp_queue(sink.port))) as d:
            d.accept(to=["r@bücher.example", "r@xn--bcher-kva.example"], sender="s@bücher.example")
            first, second = d.wait_record("Delivery", 2)
            for m in wait_for("both", lambda: len(sink.messages) == 2 and sink.messages):
                assert m.recipients == ["r@xn--bcher-kva.example"] and m.sender == "s@xn--bcher-kva.example"
                assert "SMTPUTF8" not in m.options
            assert first["queue"] == second["queue"] == "xn--bcher-kva.example"
            assert {first["recipient"], second["recipient"]} == {"r@bücher.example", "r@xn--bcher-kva.example"}


def test_utf8_in_a_header_is_announced(where):
    with Sink() as sink, Daemon(where, policy(where, smtp_queue(sink.port))) as d:
        d.accept(BUILT)
        m, = wait_for("what was built", lambda: sink.messages)
        assert "SMTPUTF8" in m.options and "BODY=8BITMIME" in m.options
        d.accept("Subject: grün\r\n\r\nx\r\n")
        m = wait_for("what was given", lambda: len(sink.messages) == 2 and sink.messages[1])
        assert "SMTPUTF8" in m.options and "BODY=8BITMIME" in m.options
        d.accept("Subject: x\r\n\r\ngrün\r\n")
        m = wait_for("8-bit text", lambda: len(sink.messages) == 3 and sink.messages[2])
        assert "SMTPUTF8" not in m.options and "BODY=8BITMIME" in m.options


def test_utf8_in_an_address_of_a_header_needs_smtputf8(where):
    """RFC 6531 section 3.2. UTF-8 in its text goes by 8BITMIME, as it always has."""
    with Sink() as sink:
        sink.handler.handle_EHLO = without("SMTPUTF8")
        with Daemon(where, policy(where, smtp_queue(sink.port))) as d:
            d.accept("Subject: grün\r\nFrom: Jürgen <j@example.com>\r\n\r\nx\r\n")
            d.wait_record("Delivery")
            d.accept(BUILT)
            r, = d.wait_record("Bounce")
            assert r["response"]["code"] == 554 and r["response"]["enhanced_code"] == {"class": 5, "subject": 6, "detail": 7}
            assert "an address in the header" in r["response"]["content"]
            assert len(sink.messages) == 1


def test_8bit_checks_are_ignored_when_asked(where):
    with Sink() as sink:
        sink.handler.handle_EHLO = without("SMTPUTF8", "8BITMIME")
        with Daemon(where, policy(where, smtp_queue(sink.port), "ignore_8bit_checks = true")) as d:
            d.accept(BUILT)
            d.accept("Subject: x\r\n\r\ngrün\r\n")
            d.wait_record("Delivery", 2)
            assert [m.options for m in sink.messages] == [[o for o in m.options if o.startswith("SIZE")] for m in sink.messages]


def test_ehlo_refused_falls_back_to_helo_and_no_pipelining(where):
    async def refuse(server, session, envelope, hostname, responses):
        return ["502 5.5.1 what is EHLO"]
    with Sink() as sink:
        sink.handler.handle_EHLO = refuse
        with Daemon(where, policy(where, smtp_queue(sink.port), "ehlo_domain = 'mail.example.com'")) as d:
            d.accept()
            m, = wait_for("the message", lambda: sink.messages)
            assert m.helo == "mail.example.com"


ZONE = """[[
$ORIGIN example.org.
@ 60 IN MX 20 second
@ 60 IN MX 10 first
first 60 IN A 127.0.0.2
second 60 IN A 127.0.0.1
plain 60 IN A 127.0.0.1
nomail 60 IN MX 0 .
txt 60 IN TXT "there but without address"
]]"""


def dns_policy(where, port, path="", queue=FAST):
    return policy(where, queue, f"smtp_port = {port}, {path}", init=f"kumo.dns.configure_test_resolver {{ {ZONE} }}")


def test_mx_order_implicit_mx_null_mx_and_nxdomain(where):
    with Sink() as sink, Daemon(where, dns_policy(where, sink.port)) as d:
        d.accept(to=["a@example.org", "b@plain.example.org", "c@nomail.example.org", "d@missing.example.org"])
        delivered = d.wait_record("Delivery", 2)
        a = next(r for r in delivered if r["recipient"].startswith("a@"))
        # 127.0.0.2 refuses (nobody listens there): the second exchanger takes it.
        assert a["peer_address"] == {"name": "second.example.org.", "addr": f"127.0.0.1:{sink.port}"}
        assert a["site"] == "unspecified->(first|second).example.org@smtp_client"
        b = next(r for r in delivered if r["recipient"].startswith("b@"))
        assert b["peer_address"]["name"] == "plain.example.org."
        c, = d.wait_record("Bounce")
        assert c["recipient"].startswith("c@") and c["response"]["code"] == 556
        assert c["response"]["enhanced_code"] == {"class": 5, "subject": 1, "detail": 10}
        missing = d.wait_record("TransientFailure", 1, recipient="d@missing.example.org")[0]
        assert missing["response"]["code"] == 451 and "failed to resolve queue missing.example.org" in missing["response"]["content"]


def test_prohibited_and_skipped_hosts(where):
    text = dns_policy(where, 25).replace("prohibited_hosts = {}", "prohibited_hosts = { '127.0.0.0/8' }")
    with Daemon(where / "a", text.replace(str(where), str(where / "a"))) as d:
        d.accept(to=["b@plain.example.org"])
        r, = d.wait_record("Bounce")
        assert r["response"]["code"] == 550 and "127.0.0.1 is on the list of prohibited_hosts" in r["response"]["content"]
    w = where / "b"
    with Daemon(w, dns_policy(w, 25, "skip_hosts = { '127.0.0.1' }")) as d:
        d.accept(to=["b@plain.example.org"])
        r = d.wait_record("TransientFailure")[0]
        assert r["response"]["code"] == 451 and "skip_hosts" in r["response"]["content"]


def test_default_prohibits_loopback(where):
    text = dns_policy(where, 25).replace("prohibited_hosts = {}, ", "")
    with Daemon(where, text) as d:
        d.accept(to=["b@plain.example.org"])
        assert d.wait_record("Bounce")[0]["response"]["code"] == 550


def test_too_many_failed_plans_delay_the_whole_site(where):
    path = "connection_limit = 1, consecutive_connection_failures_before_delay = 2"
    with Daemon(where, policy(where, smtp_queue(closed_port(), "retry_interval = '1h'"), path)) as d:
        d.accept(to=[f"r{i}@example.org" for i in range(50)])
        failed = d.wait_record("TransientFailure", 50)
        bulk = [r for r in failed if r["response"]["code"] == 451]
        assert len(bulk) >= 40 and all("too many successive connection failures" in r["response"]["content"] for r in bulk)
        d.wait_metric("scheduled_count_total", 50)


def test_ipv6(where):
    with Sink(hostname="::1") as sink:
        queue = f"protocol = {{ smtp = {{ mx_list = {{ '[::1]:{sink.port}' }} }} }}"
        with Daemon(where, policy(where, queue)) as d:
            d.accept()
            r, = d.wait_record("Delivery")
            assert r["peer_address"]["addr"] == f"[::1]:{sink.port}"


def test_sources_take_turns_by_weight(where):
    extra = """
kumo.on('get_egress_pool', function(name)
  return kumo.make_egress_pool { name = name, entries = { { name = 'one', weight = 3 }, { name = 'two' }, { name = 'off', weight = 0 } } }
end)
kumo.on('get_egress_source', function(name)
  return kumo.make_egress_source { name = name, source_address = name == 'one' and '127.0.0.1' or '127.0.0.2', ehlo_domain = name .. '.example.com' }
end)
"""
    with Sink() as sink, Daemon(where, policy(where, smtp_queue(sink.port, "egress_pool = 'pool'"), extra=extra)) as d:
        for i in range(40):
            d.accept(to=[f"r{i}@example.org"])
        wait_for("the messages", lambda: len(sink.messages) == 40)
        assert collections.Counter(m.helo for m in sink.messages) == {"one.example.com": 30, "two.example.com": 10}
        assert {m.helo: m.peer[0] for m in sink.messages} == {"one.example.com": "127.0.0.1", "two.example.com": "127.0.0.2"}
        r = d.wait_record("Delivery")[0]
        assert r["egress_pool"] == "pool" and r["egress_source"] in ("one", "two")


def test_policy_event_sets_the_queue_and_rejects(where):
    extra = """
kumo.on('http_message_generated', function(msg)
  if msg:recipient().user == 'no' then kumo.reject(550, '5.7.1 not wanted') end
  msg:set_meta('tenant', 'acme')
  msg:set_meta('campaign', 'spring')
end)
"""
    with Sink() as sink, Daemon(where, policy(where, smtp_queue(sink.port), extra=extra)) as d:
        status, answer = d.inject(to=["yes@example.org", "no@example.org"])
        assert status == 200 and answer["success_count"] == 1 and answer["failed_recipients"] == ["no@example.org"]
        assert "550 5.7.1 not wanted" in answer["errors"][0]
        r, = d.wait_record("Delivery")
        assert r["queue"] == "spring:acme@example.org" and r["meta"] == {"tenant": "acme", "campaign": "spring"}


def test_what_waits_is_counted_by_domain_tenant_and_campaign(where):
    extra = """
kumo.on('http_message_generated', function(msg)
  local tenant, campaign = msg:recipient().user:match '^(%a*)%-(%a*)$'
  if tenant ~= '' then msg:set_meta('tenant', tenant) end
  if campaign ~= '' then msg:set_meta('campaign', campaign) end
end)
"""
    # What waits is what failed: nobody listens at this port.
    with Daemon(where, policy(where, smtp_queue(1, "retry_interval = '1h'"), extra=extra)) as d:
        d.accept(to=["acme-spring@example.org", "acme-spring@example.net", "acme-fall@example.org", "acme-@example.org", "beta-spring@example.org"])
        d.wait_record("TransientFailure", 5)
        wait_for("five that wait", lambda: d.metric("scheduled_count_total") == 5)
        assert d.metric('scheduled_count{queue="spring:acme@example.org"}') == 1
        assert [d.metric(f'scheduled_by_domain{{domain="example.{t}"}}') for t in ("org", "net")] == [4, 1]
        assert [d.metric(f'scheduled_by_tenant{{tenant="{t}"}}') for t in ("acme", "beta")] == [4, 1]
        both = d.request("GET", "/metrics")[2].decode()
        assert 'scheduled_by_tenant_campaign{tenant="acme", campaign="spring"} 2\n' in both
        assert 'scheduled_by_tenant_campaign{tenant="acme", campaign="fall"} 1\n' in both
        assert d.metric("scheduled_queue_count") == 5


def test_null_queue_swallows(where):
    extra = "kumo.on('http_message_generated', function(msg) msg:set_meta('queue', 'null') end)"
    with Daemon(where, policy(where, extra=extra)) as d:
        d.accept()
        assert d.metric("scheduled_count_total") == 0
    assert d.records() == []
