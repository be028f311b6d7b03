"""What a policy does with messages: schedules them, changes their headers, makes and injects its own. Real times here are seconds; the
hours and restarts of schedules are tested with a clock of their own, in tests/fiber/test_scheduling.c."""
import datetime
import email
import email.policy
import json
import re
import time

from cirrus import Daemon, Threads, closed_port, policy, smtp_queue, wait_for
from sink import Sink

FAST = "retry_interval = '1s', max_retry_interval = '1s'"


def at(seconds):
    """That many seconds from now, as a schedule has it."""
    t = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
    return t.strftime("%Y-%m-%dT%H:%M:%S.") + f"{t.microsecond // 1000:03d}Z"


def scheduled(**fields):
    return f"X-Schedule: {json.dumps(fields)}\r\nSubject: scheduled\r\n\r\nhello\r\n"


GENERATED = "kumo.on('http_message_generated', function(msg, auth) {} end)"
SCHEDULES = GENERATED.format("msg:import_scheduling_header('X-Schedule', true)")


def test_first_attempt_waits_and_is_logged(where):
    with Sink() as sink:
        d = Daemon(where, policy(where, smtp_queue(sink.port), extra=SCHEDULES)).start()
        first = at(4)
        began = time.time()
        d.accept(scheduled(first_attempt=first))
        delayed, = d.wait_record("Delayed")
        assert re.fullmatch(r"Context: Received, ScheduledForLater\. Next due in [34]s at " + re.escape(first), delayed["response"]["content"])
        assert delayed["response"]["code"] == 400 and delayed["response"]["enhanced_code"] is None
        assert (delayed["queue"], delayed["site"], delayed["num_attempts"]) == ("example.org", "", 0)
        assert delayed["reception_protocol"] == "HTTP"
        received, = d.records("Reception")
        assert received["id"] == delayed["id"]
        assert d.stop() == 0  # it sleeps over a restart
        assert not sink.messages
        d.start()
        wait_for("the message", lambda: sink.messages)
        assert time.time() >= began + 3.9
        assert sink.messages[0].data == b"Subject: scheduled\r\n\r\nhello\r\n"
        r, = d.wait_record("Delivery")
        assert r["id"] == received["id"] and r["num_attempts"] == 0
        # What is due at once is not delayed.
        d.accept(scheduled(first_attempt=at(-60)))
        d.wait_record("Delivery", 2)
        assert len(d.records("Delayed")) == 1
        assert d.stop() == 0


def test_expires_at_reception(where):
    with Sink() as sink, Daemon(where, policy(where, smtp_queue(sink.port), extra=SCHEDULES)) as d:
        expires = "2020-01-01T10:00:00+02:00"
        d.accept(scheduled(expires=expires))
        r, = d.wait_record("Expiration")
        assert re.fullmatch(r"Next delivery time would be at \d{4}-\S+Z which exceeds the expiry time " + re.escape(expires) +
                            " configured via set_scheduling", r["response"]["content"])
        assert r["response"]["code"] == 551 and r["response"]["enhanced_code"] == {"class": 5, "subject": 4, "detail": 7}
        assert d.records("Reception")[0]["id"] == r["id"]
        d.wait_metric('scheduled_count_total', 0)
    assert not sink.messages and not d.records("Delayed")


def test_expires_at_a_retry(where):
    with Sink({"later": "450 4.2.1 try later"}) as sink:
        with Daemon(where, policy(where, smtp_queue(sink.port, FAST), extra=SCHEDULES)) as d:
            expires = at(2.5)
            d.accept(scheduled(expires=expires), to=["later@example.org"])
            r, = d.wait_record("Expiration")
            assert f"exceeds the expiry time {expires} configured via set_scheduling" in r["response"]["content"]
            n = len(d.records("TransientFailure"))
            assert 1 <= n <= 3 and r["num_attempts"] == n


def test_bad_schedules_refuse_the_recipient(where):
    with Sink() as sink, Daemon(where, policy(where, smtp_queue(sink.port), extra=SCHEDULES)) as d:
        for fields, text in (({"first_attempt": "tomorrow"}, "field `first_attempt`: invalid value"),
                             ({"dow": "Mon"}, "missing field `tz`"),
                             ({"when": "now"}, "unknown field `when`")):
            status, answer = d.inject(scheduled(**fields))
            assert status == 200 and answer["fail_count"] == 1
            assert "header `X-Schedule`: deserialize error: " in answer["errors"][0] and text in answer["errors"][0], answer
        status, answer = d.inject("X-Schedule: {\"dow\":\r\nSubject: x\r\n\r\nhello\r\n")
        assert answer["fail_count"] == 1 and "header `X-Schedule`" in answer["errors"][0]
    assert not sink.messages and not d.records("Reception")


def test_headers_arrive_as_they_were_meant(where):
    """Python's email package reads what was encoded."""
    words = "Grüße an alle, die diese ziemlich lange Zeile lesen 🎉 und noch viel mehr Wörter hinter der ersten Falte"
    code = f"""
      msg:remove_all_named_headers 'Subject'
      msg:append_header('Subject', '{words}', true)
      msg:append_header('X-Long', ('word '):rep(60) .. 'end', true)
      msg:prepend_header('X-Recipient', msg:recipient().email)
      msg:import_headers {{ {{ name = 'X-Campaign', remove = true, target = 'campaign' }} }}
    """
    with Sink() as sink, Daemon(where, policy(where, smtp_queue(sink.port), extra=GENERATED.format(code))) as d:
        d.accept("Subject: old\r\nX-Campaign: spring\r\nFrom: a@b.example\r\n\r\nhello\r\n", [f"u{i}@example.org" for i in range(20)])
        wait_for("all messages", lambda: len(sink.messages) == 20)
        for m in sink.messages:
            assert max(map(len, m.data.split(b"\r\n"))) <= 78
            parsed = email.message_from_bytes(m.data, policy=email.policy.SMTP)
            assert parsed["Subject"] == words and parsed["X-Long"] == "word " * 60 + "end"
            assert parsed["X-Recipient"] == m.recipients[0] and parsed["X-Campaign"] is None
            assert parsed.get_content() == "hello\r\n"
        assert {r["queue"] for r in d.wait_record("Delivery", 20)} == {"spring:@example.org"}


ARCHIVE = """
kumo.on('http_message_generated', function(msg, auth)
  local copy = kumo.make_message(msg:sender(), 'archive@archive.example', msg:get_data())
  copy:prepend_header('X-Original-Recipient', msg:recipient().email)
  copy:set_meta('reception_protocol', 'Policy')
  kumo.inject_message(copy)
end)
"""


def test_inject_message(where):
    n = 200
    with Sink() as sink, Daemon(where, policy(where, smtp_queue(sink.port), extra=ARCHIVE)) as d:
        Threads(4, lambda i: [d.accept(to=[f"u{i}.{k}@example.org"]) for k in range(n // 4)]).join()
        wait_for("all messages", lambda: len(sink.messages) == 2 * n)
        copies = [m for m in sink.messages if m.recipients == ["archive@archive.example"]]
        assert len(copies) == n and {m.sender for m in copies} == {"s@example.com"}
        want = {f"X-Original-Recipient: u{i}.{k}@example.org\r\nSubject: test\r\n\r\nhello\r\n".encode() for i in range(4) for k in range(n // 4)}
        assert {m.data for m in copies} == want
        received = d.wait_record("Reception", n, queue="archive.example")
        assert len(received) == n and len({r["id"] for r in received}) == n
        assert received[0]["reception_protocol"] == "Policy" and received[0]["peer_address"] is None
        assert received[0]["response"]["code"] == 250
        wait_for("the ends", lambda: len(d.records("Delivery")) == 2 * n)


def test_built_messages_are_injected(where):
    build = GENERATED.format("""
      local built = kumo.api.inject.build_v1 { envelope_sender = 'b@example.org', content = 'Subject: for {{ name }}\\n\\nbuilt\\n',
        recipients = { { email = 'x@example.org', name = 'X' }, { email = 'y@example.org', name = 'Y' } } }
      for _, m in ipairs(built) do
        m:append_header('X-Built', 'yes')
        kumo.inject_message(m)
      end
    """)
    with Sink() as sink, Daemon(where, policy(where, smtp_queue(sink.port), extra=build)) as d:
        d.accept(to=["r@example.org"])
        wait_for("all messages", lambda: len(sink.messages) == 3)
        assert {(m.sender, m.data) for m in sink.messages if m.recipients != ["r@example.org"]} == {
            ("b@example.org", f"Subject: for {name}\r\nX-Built: yes\r\n\r\nbuilt\r\n".encode()) for name in "XY"}
        assert len(d.wait_record("Reception", 3, reception_protocol="HTTP")) == 3


def test_injected_messages_survive_a_kill(where):
    port = closed_port()
    d = Daemon(where, policy(where, smtp_queue(port, FAST), extra=ARCHIVE)).start()
    for i in range(20):
        d.accept(to=[f"u{i}@example.org"])
    d.kill()
    sink = Sink()
    sink.port = port
    sink.start()
    try:
        with d:
            wait_for("all messages", lambda: len({(m.recipients[0], m.data) for m in sink.messages}) == 40)
    finally:
        sink.stop(no_assert=True)


def test_injection_needs_running_queues(where):
    d = Daemon(where, policy(where, init="kumo.inject_message(kumo.make_message('', 'a@example.org', 'Subject: x\\n\\nhello\\n'))"))
    for more in ((), ("--validate",)):
        status, text = d.run_to_end(*more)
        assert status == 1 and "kumo.inject_message: the message is not taken: the queues are not running yet" in text


def test_what_is_refused_after_a_save_is_gone(where):
    refuse = GENERATED.format("msg:save() msg:shrink() if msg:recipient().user == 'no' then kumo.reject(550, 'no') end")
    with Sink() as sink:
        with Daemon(where, policy(where, smtp_queue(sink.port, FAST), extra=refuse)) as d:
            status, answer = d.inject(to=["no@example.org", "yes@example.org"])
            assert status == 200 and (answer["success_count"], answer["fail_count"]) == (1, 1)
            wait_for("the other one", lambda: sink.messages)
        d.start()
        assert "0 messages recovered" in d.stderr()
        d.stop()
        assert [m.recipients for m in sink.messages] == [["yes@example.org"]]
        assert sink.messages[0].data == b"Subject: test\r\n\r\nhello\r\n"


def test_a_filter_may_only_look(where):
    init = f"""
      kumo.configure_local_logs {{ log_dir = '{where}/filtered', filter_event = 'look', max_segment_duration = '1s', min_free_space = '1%', min_free_inodes = '1%' }}
    """
    look = "kumo.on('look', function(msg) if msg:recipient().user == 'change' then msg:set_meta('tenant', 'x') end return true end)"
    with Sink() as sink, Daemon(where, policy(where, smtp_queue(sink.port), init=init, extra=look)) as d:
        d.accept(to=["change@example.org", "keep@example.org"])
        d.wait_record("Delivery", 2)
        wait_for("the filtered log", lambda: d.records("Delivery", log_dir=where / "filtered"))
        assert "the event `look` may look at the message but not change it" in d.stderr()
    assert {r["recipient"] for r in d.records(log_dir=where / "filtered")} == {"keep@example.org"}
