"""deferred_spool and deferred_generation: what they promise, through crashes, stops and full queues."""
import collections
import contextlib
import json
import random
import socket
import threading
import time

import pytest

from cirrus import Daemon, Maildir, Threads, policy, smtp_queue, wait_for
from sink import Sink

INJECT = "/api/inject/v1"
COMMITS = 'cirrus_spool_commits_total{name="data"}'
GENERATOR = "generator.kumomta.internal"


def post(d, to, connection=None, **fields):
    body = {"envelope_sender": "s@example.com", "recipients": [{"email": t} for t in to], "content": "Subject: x\r\n\r\nhi\r\n",
            "trace_headers": {"supplemental_header": False}, **fields}
    c = connection or d.connect()
    c.request("POST", INJECT, json.dumps(body), {"Content-Type": "application/json"})
    r = c.getresponse()
    text = r.read()
    if connection is None:
        c.close()
    return r.status, json.loads(text) if r.getheader("content-type") == "application/json" else text.decode(), r.getheader("retry-after")


def spool_only(d, to, **fields):
    status, answer, _ = post(d, to, deferred_spool=True, **fields)
    assert status == 200 and answer["success_count"] == len(to) and answer["durability"] == "memory", answer
    return answer


@contextlib.contextmanager
def silent_peer():
    """Takes connections and says nothing: what is sent there stays in the hands of the sessions, and behind them."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen(500)
        yield s.getsockname()[1]


def recovered(d):
    """How many messages the spool had at the start."""
    return int(d.stderr().split(" messages recovered from the spool")[0].rsplit(" ", 1)[1])


@pytest.fixture
def start(where):
    """Starts a daemon that is killed in the end, whatever becomes of the test; for those that kill and restart theirs."""
    started = []

    def start(text):
        started.append(Daemon(where, text))
        return started[-1].start()
    yield start
    for d in started:
        if d.process is not None:
            d.kill()


# --- deferred_spool ---

def test_what_is_delivered_at_once_is_never_stored(where):
    with Sink() as sink, Daemon(where, policy(where, smtp_queue(sink.port))) as d:
        ids = [m["id"] for m in spool_only(d, [f"r{i}@example.org" for i in range(50)])["messages"]]
        wait_for("the messages", lambda: len(sink.messages) == 50)
        for kind in ("Reception", "Delivery"):
            d.wait_record(kind, 50)
            assert sorted(r["id"] for r in d.records(kind)) == sorted(ids)
        assert d.metric(COMMITS) == 0
    with Daemon(where, policy(where)) as d:
        assert recovered(d) == 0


def test_the_first_transient_failure_stores_it(where, start):
    with Sink({"later": "450 later"}) as sink:
        d = start(policy(where, smtp_queue(sink.port, "retry_interval = '2s', max_retry_interval = '2s'")))
        spool_only(d, ["later@example.org", "now@example.org"])
        d.wait_record("TransientFailure")
        wait_for("a commit", lambda: d.metric(COMMITS) == 1)
        wait_for("the other one", lambda: len(sink.messages) == 1)
        d.kill()
        sink.handler.rules.clear()
        with d:
            assert recovered(d) == 1
            wait_for("both", lambda: sorted(m.recipients[0] for m in sink.messages) == ["later@example.org", "now@example.org"])


def test_a_crash_loses_what_was_not_stored(where, start):
    """As documented: so a test that finds it elsewhere has not found it by chance."""
    with silent_peer() as port:
        d = start(policy(where, smtp_queue(port), path="connection_limit = 1"))
        spool_only(d, [f"r{i}@example.org" for i in range(20)])
        d.kill()
        with d:
            assert recovered(d) == 0


def test_a_stop_stores_what_waits(where, start):
    """In the ready queue, parked behind a policy that is asked for a route, and in the hands of sessions that do not end by themselves."""
    extra = "kumo.on('http_message_generated', function(msg) msg:set_meta('tenant', msg:recipient().user:sub(1, 1)) end)"
    with silent_peer() as port, Sink() as sink:
        text = policy(where, smtp_queue(port, "egress_pool = tenant == 'p' and 'slow' or nil"), path="connection_limit = 4, max_ready = 10", extra=extra)
        text += """
kumo.on('get_egress_pool', function(name) kumo.sleep(3600) end)
"""
        d = start(text)
        to = [f"{'p' if i % 2 else 'r'}{i}@example.org" for i in range(200)]
        spool_only(d, to)
        wait_for("a session", lambda: d.metric('connection_count{service="smtp_client"}') >= 1)
        assert d.stop(timeout=90) == 0
        assert "messages that were taken with deferred_spool are stored now" in "".join(f.read_text() for f in where.glob("stderr.*"))
        d.set_policy(policy(where, smtp_queue(sink.port)))
        with d:
            assert recovered(d) == 200
            wait_for("all", lambda: sorted(m.recipients[0] for m in sink.messages) == sorted(to))


def limited(where, port, limits, path="connection_limit = 1000", **more):
    return policy(where, smtp_queue(port), path=path, init="kumo.set_httpinject_limits { %s }" % limits, **more)


def hold(d, n, **fields):
    """n messages in the hands of sessions, where nobody stores them."""
    for i in range(n):
        spool_only(d, [f"held{i}@example.org"], **fields)
        wait_for("a session", lambda: d.metric('connection_count{service="smtp_client"}') == i + 1)


def test_too_many_are_refused(where, start):
    """What sessions have in hand cannot be stored meanwhile; more than may be is 503, and nothing of it is kept."""
    with silent_peer() as port:
        d = start(limited(where, port, "deferred_messages = 16"))
        hold(d, 8)
        status, text, retry_after = post(d, [f"late{i}@example.org" for i in range(9)], deferred_spool=True)
        assert status == 503 and text == "Error: too many messages are in memory without being stored" and int(retry_after) >= 1
        assert d.metric(COMMITS) == 0 and not_stored(d) == 8
        status, answer, _ = post(d, ["stored@example.org"])
        assert status == 200 and answer["durability"] == "fsync"
        # More than could ever be in memory is stored at once.
        status, answer, _ = post(d, [f"many{i}@example.org" for i in range(17)], deferred_spool=True)
        assert status == 200 and answer["success_count"] == 17 and d.metric(COMMITS) == 2
        d.kill()
        with d:
            assert recovered(d) == 18
            d.kill()


def test_bytes_are_limited_too(where, start):
    with silent_peer() as port:
        d = start(limited(where, port, "deferred_bytes = 2000000"))
        hold(d, 3, content="Subject: x\r\n\r\n" + "x" * 300000)
        status, text, _ = post(d, ["late@example.org"], deferred_spool=True, content="Subject: x\r\n\r\n" + "x" * 1200000)
        assert status == 503 and "without being stored" in text
        # A body that many share counts once.
        spool_only(d, [f"s{i}@example.org" for i in range(50)], content="Subject: x\r\n\r\n" + "x" * 50000)
        d.kill()


def test_under_pressure_what_waits_is_stored(where, start):
    with silent_peer() as port:
        d = start(limited(where, port, "deferred_messages = 100", path="connection_limit = 1"))
        n = 0
        for _ in range(10):  # far more than may be in memory, a few at a time
            status, _, _ = post(d, [f"r{n + i}@example.org" for i in range(40)], deferred_spool=True)
            n += 40 if status == 200 else 0
            wait_for("what waits to be stored", lambda: not_stored(d) <= 60)
        assert n == 400 and not_stored(d) <= 60
        d.kill()
        with d:
            assert recovered(d) >= 340
            d.kill()


def not_stored(d):
    line, = [line for line in d.request("GET", "/api/admin/memory/stats")[2].decode().splitlines() if "messages not stored" in line]
    return int(line.split()[-1])


def test_a_spool_that_takes_nothing_keeps_them_in_memory(where):
    """A transient failure while the spool fails: the message stays in memory, is tried again, and is delivered."""
    with Sink({"later": "450 later"}) as sink:
        d = Daemon(where, policy(where, smtp_queue(sink.port, "retry_interval = '1s', max_retry_interval = '1s'")), env={"CIRRUS_FAULTS": "spool_write=*"})
        with d:
            spool_only(d, ["later@example.org"])
            d.wait_record("TransientFailure")
            wait_for("the complaint", lambda: "could not be stored, and stay in memory" in d.stderr())
            sink.handler.rules.clear()
            wait_for("the message", lambda: len(sink.messages) == 1)
            d.wait_record("Delivery")
            assert not_stored(d) == 0


# --- deferred_generation ---

def test_generation(where):
    extra = """
kumo.on('http_message_generated', function(msg, auth)
  if msg:recipient().user == 'reject' then kumo.reject(550, 'no thanks') end
  local meta = {}
  for _, k in ipairs { 'http_auth', 'received_from', 'received_via', 'hostname', 'reception_protocol', 'extra', 'auth_info', 'queue', 'generated' } do meta[k] = msg:get_meta(k) end
  print(kumo.json_encode { meta = meta, auth = auth, sender = msg:sender().email })
end)"""
    with Daemon(where, policy(where, "protocol = { maildir_path = '%s/mail' }" % where, extra=extra)) as d:
        status, answer, _ = post(d, [], recipients=[{"email": "ann@example.org", "name": "Ann", "metadata": {"n": 1}}, {"email": "nobody"},
                                                    {"email": "reject@example.org"}, {"email": "bob@example.org"}],
                                 content={"text_body": "hi {{ name }}", "subject": "s"}, deferred_generation=True)
        assert status == 200
        assert {k: v for k, v in answer.items() if k != "request_id"} == {
            "success_count": 0, "fail_count": 0, "failed_recipients": [], "errors": [], "messages": [], "durability": "fsync"}
        done, = d.wait_record("Delivery", id=answer["request_id"])
        assert done["response"]["code"] == 250 and done["response"]["content"] == "ok, but 2 of 4 recipients failed"
        assert done["queue"] == GENERATOR and done["delivery_protocol"] == "HttpInjectionGenerator" and done["recipient"] == "" and done["sender"] == "s@example.com"
        assert done["site"] == f"unspecified->{GENERATOR}@httpinject:generator"
        bounces = {r["recipient"]: r["response"] for r in d.wait_record("Bounce", 2, id=answer["request_id"])}
        assert set(bounces) == {"nobody", "reject@example.org"} and bounces["nobody"]["code"] == 500 and bounces["reject@example.org"]["code"] == 550
        assert "no thanks" in bounces["reject@example.org"]["content"] and bounces["nobody"]["content"].startswith("recipient email: ")
        d.wait_record("Delivery", 2, delivery_protocol="Maildir")
        assert len(Maildir(where / "mail").messages()) == 2 and any(b"hi Ann\r\n" in m for m in Maildir(where / "mail").messages())
        seen = [json.loads(line) for line in d.stderr().splitlines() if line.startswith("{")]
        assert seen[0]["meta"] == {"http_auth": "127.0.0.1", "received_from": "127.0.0.1", "reception_protocol": "HTTP", "extra": {"n": 1}}
        assert seen[0]["auth"]["peer_address"] == "127.0.0.1" and seen[0]["sender"] == "s@example.com"
        d.wait_metric('total_messages_delivered{service="httpinject"}', 1)
        d.wait_metric('total_messages_received{service="http_listener"}', 2)
        # What is wrong with the request is told before it is taken.
        assert post(d, ["a@example.org"], content="{{", deferred_generation=True)[0] == 422
        assert post(d, ["a@example.org"], envelope_sender="x", deferred_generation=True)[0] == 422


def test_mail_to_the_generator_is_no_request(where):
    """Whoever may send mail could else have any made, past the policy."""
    request = json.dumps({"envelope_sender": "", "recipients": [{"email": "victim@example.org"}], "content": "Subject: x\r\n\r\nx"})
    extra = "kumo.on('http_message_generated', function(msg) if msg:recipient().user == 'meta' then msg:set_meta('queue', '%s') end end)" % GENERATOR
    with Daemon(where, policy(where, "protocol = { maildir_path = '%s/mail' }" % where, extra=extra)) as d:
        for to in (f"x@{GENERATOR}", "meta@example.org"):
            post(d, [to], content=request, template_dialect="Static")
            r, = d.wait_record("Bounce", recipient=to)
            assert r["response"]["code"] == 500 and "is reserved" in r["response"]["content"]
        assert d.records("Reception", recipient="victim@example.org") == [] and Maildir(where / "mail").messages() == []


def test_how_many_are_worked_on_at_a_time(where):
    """The policy shapes the generator's queue as any other."""
    extra = """
kumo.on('http_message_generated', function(msg)
  print('begin')
  kumo.sleep(0.02)
  print('end')
end)"""
    text = policy(where, "protocol = { maildir_path = '%s/mail' }" % where, path="connection_limit = domain == '%s' and 1 or 32" % GENERATOR, extra=extra)
    with Daemon(where, text) as d:
        ids = {post(d, [f"a{i}@example.org", f"b{i}@example.org"], deferred_generation=True)[1]["request_id"] for i in range(5)}
        wait_for("the requests", lambda: {r["id"] for r in d.records("Delivery", queue=GENERATOR)} == ids)
        lines = [line for line in d.stderr().splitlines() if line in ("begin", "end")]
        assert lines == ["begin", "end"] * 10


def test_generation_queue_is_bounded(where, start):
    extra = "kumo.on('http_message_generated', function(msg) kumo.sleep(3600) end)"
    text = policy(where, "protocol = { maildir_path = '%s/mail' }" % where, init="kumo.set_httpinject_limits { deferred_requests = 5 }", extra=extra)
    d = start(text)
    for i in range(5):
        assert post(d, [f"r{i}@example.org"], deferred_generation=True)[0] == 200
    status, answer, retry_after = post(d, ["late@example.org"], deferred_generation=True)
    assert status == 503 and answer == "Error: too many requests wait for their messages to be generated" and int(retry_after) >= 1
    # The stop does not wait for them, and nothing is lost or charged.
    d.process.terminate()
    assert d.process.wait(60) == 0
    d.process = None
    d.set_policy(policy(where, "protocol = { maildir_path = '%s/mail' }" % where))
    with d:
        assert recovered(d) == 5
        wait_for("the messages", lambda: len(Maildir(where / "mail").messages()) == 5)
        assert len(d.wait_record("Delivery", 5, queue=GENERATOR)) == 5 and d.records("Bounce") == []


def test_a_stop_in_the_middle_of_a_request(where, start):
    """It goes on where it was, and no recipient gets two."""
    extra = "kumo.on('http_message_generated', function(msg) kumo.sleep(0.1) print('made') end)"
    text = policy(where, "protocol = { maildir_path = '%s/mail' }" % where, extra=extra)
    to = [f"r{i}@example.org" for i in range(60)]
    d = start(text)
    post(d, to, content={"text_body": "x", "subject": "{{ email }}"}, deferred_generation=True)
    wait_for("some", lambda: d.stderr().count("made\n") > 5)
    assert d.stop() == 0
    n = d.stderr().count("made\n")
    assert 5 < n < 60
    with d:
        d.wait_record("Delivery", queue=GENERATOR)
        assert d.stderr().count("made\n") == 60 - n
        wait_for("the messages", lambda: len(Maildir(where / "mail").messages()) == 60)
    assert collections.Counter(r["recipient"] for r in d.records("Reception") if r["recipient"]) == {t: 1 for t in to}


@pytest.mark.parametrize("seed", range(3))
def test_generation_survives_kills_exactly_once(where, start, seed):
    """Requests are answered, the process is killed again and again while it makes their messages: each recipient has one message in the end."""
    rng = random.Random(seed)
    accepted, stop = [], threading.Event()
    with silent_peer() as port, Sink() as sink:
        d = start(policy(where, smtp_queue(port), path="banner_timeout = '300s', connection_limit = domain == '%s' and 8 or 1" % GENERATOR))

        def work(k):
            for i in range(1000):
                to = [f"t{k}-{i}-{r}@example.org" for r in range(rng.choice((1, 10, 300)))]
                try:
                    status, answer, _ = post(d, to, content={"text_body": "{{ email }}", "subject": "s"}, deferred_generation=True)
                except OSError:
                    if stop.is_set():
                        return
                    time.sleep(0.01)
                    continue
                if status == 200:
                    accepted.extend(to)
                if stop.is_set():
                    return
        threads = Threads(4, work)
        for _ in range(3):
            n = len(accepted)
            wait_for("requests", lambda: len(accepted) > n + 500)
            d.kill()
            d.start()
        stop.set()
        threads.join()
        d.kill()
        d.start()  # what is left is generated now
        wait_for("the end of the requests", lambda: d.metric('ready_count{service="httpinject"}') == 0
                 and d.metric('connection_count{service="httpinject"}') == 0 and d.metric(f'scheduled_count{{queue="{GENERATOR}"}}') == 0)
        d.kill()
        d.set_policy(policy(where, smtp_queue(sink.port)))
        with d:
            n = recovered(d)
            wait_for("all", lambda: len(sink.messages) >= n, 120)
        counts = collections.Counter(m.recipients[0] for m in sink.messages)
        assert [t for t in accepted if counts[t] != 1] == []
        assert [t for t, c in counts.items() if c != 1] == []


def test_both_deferred(where):
    with Sink() as sink, Daemon(where, policy(where, smtp_queue(sink.port))) as d:
        status, answer, _ = post(d, [f"r{i}@example.org" for i in range(20)], deferred_generation=True, deferred_spool=True)
        assert status == 200 and answer["durability"] == "memory" and answer["request_id"]
        wait_for("the messages", lambda: len(sink.messages) == 20)
        d.wait_record("Delivery", id=answer["request_id"])
        assert d.metric(COMMITS) == 0


def test_spool_without_flush_says_memory(where):
    text = policy(where, "protocol = { maildir_path = '%s/mail' }" % where).replace("kind = 'Journal'", "kind = 'Journal', flush = false")
    with Daemon(where, text) as d:
        for fields in ({}, {"deferred_generation": True}):
            assert post(d, ["a@example.org"], **fields)[1]["durability"] == "memory"


def test_a_large_request_is_generated_in_parts(where):
    """8 MB at a time; the request's progress goes with each part."""
    with Daemon(where, policy(where, "protocol = { maildir_path = '%s/mail' }" % where)) as d:
        to = [f"r{i}@example.org" for i in range(60)]
        before = d.metric(COMMITS)
        status, answer, _ = post(d, to, content="Subject: {{ email }}\r\n\r\n" + ("x" * 98 + "\r\n") * 5000, deferred_generation=True)
        d.wait_record("Delivery", id=answer["request_id"], timeout=120)
        assert d.metric(COMMITS) - before >= 4
        wait_for("all", lambda: len(Maildir(where / "mail").messages()) == 60)
        assert sorted(r["recipient"] for r in d.wait_record("Reception", 61) if r["recipient"]) == sorted(to)
