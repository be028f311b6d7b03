"""Idempotency-Key: a request that is sent again is done once. Mail goes into maildirs, so what was delivered can be counted."""
import base64
import collections
import gzip
import http.client
import json
import re
import subprocess
import threading

import httpx
import pytest

from cirrus import Daemon, Maildir, Threads, policy, wait_for

INJECT = "/api/inject/v1"


def key_policy(where, queue="", **more):
    return policy(where, f"{queue} protocol = {{ maildir_path = '{where}/mail' }}, retry_interval = '1s'", **more)


def body_of(to=("r@example.org",), content="Subject: test\r\n\r\nhello\r\n", **more):
    return json.dumps({"envelope_sender": "s@example.com", "recipients": [{"email": t} for t in to], "content": content, **more}).encode()


def post(d, key, body, headers=(), port=None):
    """(status, body, is_replayed)."""
    c = http.client.HTTPConnection("127.0.0.1", port or d.port, timeout=60)
    try:
        c.request("POST", INJECT, body,
                  {"Content-Type": "application/json", **({"Idempotency-Key": key} if key is not None else {}), **dict(headers)})
        r = c.getresponse()
        data = r.read()
    finally:
        c.close()
    replayed = r.getheader("idempotent-replayed")
    assert replayed in (None, "true")
    return r.status, (gzip.decompress(data) if r.getheader("content-encoding") == "gzip" else data).decode(), replayed == "true"


def done(answer, is_replayed):
    status, text, replayed = answer
    assert status == 200 and replayed == is_replayed, answer
    return text


def mails(where):
    """Subjects delivered so far, with how often."""
    return collections.Counter(re.search(rb"^Subject: (.*?)\r$", m, re.M).group(1).decode() for m in Maildir(where / "mail").messages())


def wait_mails(where, **subjects):
    wait_for(f"mails {subjects}", lambda: mails(where) == subjects, saw=lambda: dict(mails(where)))


def wait_ended(d):
    """Until no message is in the spool: each has come to its end, and a kill cannot bring any of them back."""
    wait_for("an empty spool", lambda: re.search(r"^spool\n +messages +0$", d.request("GET", "/api/admin/memory/stats")[2].decode(), re.M))


def test_sent_again(where):
    """The same answer, byte for byte, and one mail: at once, after it was delivered, after a stop and after a kill."""
    body = body_of(("a@example.org", "not an address"), "Subject: once\r\n\r\nx\r\n")
    d = Daemon(where, key_policy(where))
    with d:
        first = done(post(d, "key-1", body), False)
        assert json.loads(first)["success_count"] == json.loads(first)["fail_count"] == 1
        assert done(post(d, "key-1", body), True) == first
        wait_mails(where, once=1)
        wait_ended(d)
        assert done(post(d, '"key-1"', body), True) == first
        assert d.metric("cirrus_idempotency_keys") == 1 and d.metric("cirrus_idempotency_replays_total") == 2
        assert d.metric('total_messages_received{service="http_listener"}') == 1
    d.start()
    assert done(post(d, "key-1", body), True) == first
    (where / "mail").rename(where / "kept")
    (where / "mail").write_text("a file where a directory should be: a message that a kill meets on its way might come twice")
    second = done(post(d, "key-2", body), False)
    d.kill()
    (where / "mail").unlink()
    (where / "kept").rename(where / "mail")
    with d:
        assert done(post(d, "key-1", body), True) == first
        assert done(post(d, "key-2", body), True) == second
        done(post(d, None, body), False)
        wait_mails(where, once=3)


def test_another_body(where):
    with Daemon(where, key_policy(where)) as d:
        done(post(d, "k", body_of(content="Subject: first\r\n\r\nx\r\n")), False)
        status, text, _ = post(d, "k", body_of(content="Subject: second\r\n\r\nx\r\n"))
        assert status == 409 and text == "Error: Idempotency-Key: a request with another body came under this key before"
        # Not a request at all, but another body first of all.
        assert post(d, "k", b"{")[0] == 409
        done(post(d, "k2", body_of(content="Subject: second\r\n\r\nx\r\n")), False)
        wait_mails(where, first=1, second=1)
        assert d.metric("cirrus_idempotency_conflicts_total") == 2


def test_what_is_an_error_leaves_the_key_free(where):
    with Daemon(where, key_policy(where)) as d:
        for body, status in ((b"{", 400), (body_of(nonsense=1), 422), (body_of(content="{% if %}"), 422)):
            assert [post(d, "k", body)[0] for _ in range(2)] == [status, status]
        assert post(d, "k", body_of(), {"Content-Type": "text/plain"})[0] == 415
        done(post(d, "k", body_of()), False)
        done(post(d, "k", body_of()), True)
        wait_mails(where, test=1)


@pytest.mark.parametrize("key", ['"', "", "a b", "x" * 256, '"a', 'a,b', '""'])
def test_no_key(where, key):
    with Daemon(where, key_policy(where)) as d:
        status, text, _ = post(d, key, body_of())
        assert status == 400 and text.startswith("Error: Idempotency-Key: "), text
        assert d.metric("cirrus_idempotency_keys") == 0


def test_however_it_comes(where):
    """Compressed, over HTTP/2: what counts is the body."""
    body = body_of(content="Subject: same\r\n\r\n" + "x" * 5000 + "\r\n")
    with Daemon(where, key_policy(where)) as d:
        first = done(post(d, "k", body), False)
        assert done(post(d, "k", gzip.compress(body), {"Content-Encoding": "gzip"}), True) == first
        with httpx.Client(http1=False, http2=True) as c:
            r = c.post(f"http://127.0.0.1:{d.port}{INJECT}", content=body, headers={"Content-Type": "application/json", "Idempotency-Key": "k"})
            assert r.http_version == "HTTP/2" and r.text == first and r.headers["idempotent-replayed"] == "true"
        # A long answer is compressed for who asks for it, the stored one too.
        many = body_of([f"bad {i}" for i in range(100)])
        first = done(post(d, "many", many), False)
        for coding in ("identity", "gzip"):
            status, text, replayed = post(d, "many", many, {"Accept-Encoding": coding})
            assert (status, text, replayed) == (200, first, True) and json.loads(text)["fail_count"] == 100
        wait_mails(where, same=1)


def test_nobody_accepted(where):
    """An answer of 200 that says that all failed is an answer: the policy is not asked again."""
    extra = """kumo.on('http_message_generated', function(msg)
  kumo.log_info('generated ' .. msg:recipient().user)
  if msg:recipient().user == 'no' then kumo.reject(550, 'not him') end
  if msg:recipient().user == 'null' then msg:set_meta('queue', 'null') end
end)"""
    with Daemon(where, key_policy(where, extra=extra)) as d:
        for user in ("no", "null"):
            body = body_of([f"{user}@example.org"])
            first = done(post(d, user, body), False)
            assert json.loads(first)["fail_count"] == (user == "no")
            assert done(post(d, user, body), True) == first
            assert d.stderr().count("generated " + user) == 1
        assert d.metric("cirrus_idempotency_keys") == 2
    assert not mails(where)


def test_deferred_spool_has_no_key(where):
    with Daemon(where, key_policy(where)) as d:
        status, text, _ = post(d, "k", body_of(deferred_spool=True))
        assert status == 422 and text == "Error: deferred_spool: what is kept in memory only cannot come under an Idempotency-Key"
        assert post(d, "k", body_of(deferred_spool=True, deferred_generation=True))[0] == 422
        done(post(d, None, body_of(deferred_spool=True)), False)
        done(post(d, "k", body_of()), False)
        wait_mails(where, test=2)


def test_deferred_generation(where):
    """The request is what is stored, and done, once; so the key is in one piece with that. Each message has a maildir of its own id: what
    was in the hands of a delivery at the kill comes again under the same."""
    body = body_of([f"r{i}@example.org" for i in range(100)], "Subject: {{ email }}\r\n\r\n" + "x\r\n" * 20000, deferred_generation=True)
    text = policy(where, f"protocol = {{ maildir_path = '{where}/mail/{{{{ meta.serial }}}}' }}",
                  extra="kumo.on('http_message_generated', function(msg) msg:set_meta('serial', tostring(msg:id())) end)")

    def delivered():
        return {p.name: {re.search(rb"^Subject: (.*?)\r$", m, re.M).group(1) for m in Maildir(p).messages()} for p in (where / "mail").glob("*")}
    d = Daemon(where, text)
    with d:
        first = done(post(d, "k", body), False)
        assert json.loads(first)["success_count"] == 0 and json.loads(first)["request_id"]
        assert done(post(d, "k", body), True) == first
        d.kill()
    with Daemon(where, text) as d:
        assert done(post(d, "k", body), True) == first
        wait_for("100 messages", lambda: len(set().union(*delivered().values())) == 100)
        wait_for("an empty spool", lambda: re.search(r"^spool\n +messages +0$", d.request("GET", "/api/admin/memory/stats")[2].decode(), re.M))
        assert len(delivered()) == 100


def test_too_large_for_a_key(where):
    """What does not fit into one commit is refused as a whole; without a key it is taken."""
    content = "Subject: {{ email }}\r\n\r\n" + ("x" * 98 + "\r\n") * 18000
    large, fitting = (body_of([f"r{i}@example.org" for i in range(n)], content) for n in (40, 30))
    many = body_of([f"r{i}@example.org" for i in range(20001)])
    with Daemon(where, key_policy(where)) as d:
        for body in (large, many):
            status, text, _ = post(d, "k", body)
            assert status == 422 and text == ("Error: the messages are too many or too large to be stored together, as they must be under an "
                                              "Idempotency-Key"), text
        assert d.metric("cirrus_idempotency_keys") == 0
        assert json.loads(done(post(d, "k", fitting), False))["success_count"] == 30
        assert json.loads(done(post(d, None, large), False))["success_count"] == 40
        wait_for("all mail", lambda: sum(mails(where).values()) == 70)


def test_at_once(where):
    """One request from many connections on all workers while the policy holds it up: one is done, the others wait for its answer."""
    extra = f"""kumo.on('http_message_generated', function(msg)
  kumo.log_info('generated')
  while not io.open('{where}/go') do kumo.sleep(0.02) end
end)"""
    answers, n = [], 24
    with Daemon(where, key_policy(where, extra=extra), env={"KUMO_AVAILABLE_PARALLELISM": "4"}) as d:
        body = body_of(content="Subject: one\r\n\r\nx\r\n")
        threads = Threads(n, lambda i: answers.append(post(d, "k", body)))
        wait_for("all in line", lambda: d.metric("cirrus_idempotency_waits_total") == n - 1)
        assert post(d, "k", body_of())[0] == 409  # another body has nothing to wait for
        (where / "go").touch()
        threads.join()
        assert [a[:2] for a in answers] == [answers[0][:2]] * n and answers[0][0] == 200
        assert sum(replayed for *_, replayed in answers) == n - 1
        assert d.stderr().count("generated") == 1
        wait_mails(where, one=1)


def test_the_first_is_refused(where):
    """Those that waited go on themselves when the first one fails. It fails here because the spool does."""
    if "no fault points" in Daemon(where / "probe", "", env={"CIRRUS_FAULTS": "accept=1"}).run_to_end()[1]:
        pytest.skip("this build has no fault points (Meson option `faults`)")
    extra = f"""kumo.on('http_message_generated', function(msg)
  while not io.open('{where}/go') do kumo.sleep(0.02) end
end)"""
    answers, n = [], 6
    d = Daemon(where, key_policy(where, extra=extra))
    d.start()
    d.stop()  # the spool is there: its first write from now on is that of a message
    d.env["CIRRUS_FAULTS"] = "spool_sync=2"  # the first is that of what was found at start
    with d:
        body = body_of(content="Subject: one\r\n\r\nx\r\n")
        threads = Threads(n, lambda i: answers.append(post(d, "k", body)))
        wait_for("all in line", lambda: d.metric("cirrus_idempotency_waits_total") == n - 1)
        (where / "go").touch()
        threads.join()
        assert sorted(a[0] for a in answers) == [200] * (n - 1) + [503], answers
        assert len({a[1] for a in answers if a[0] == 200}) == 1 and sum(a[2] for a in answers) == n - 2
        done(post(d, "k", body), True)
        wait_mails(where, one=1)
    del d.env["CIRRUS_FAULTS"]
    with d:
        done(post(d, "k", body), True)
        wait_ended(d)
    assert mails(where) == {"one": 1}


def wait_killed(d):
    """Until it has died at a fault point."""
    assert d.process.wait(60) == -9
    d.process = None


@pytest.mark.parametrize("fault", ["spool_sync=2", "spool_commit=1", "spool_write=1"])
def test_refused_then_killed(where, fault):
    """What was answered with 503 may have got to the disk all the same, and the process may die before it can make sure. Sent again under
    its key it is done once."""
    d = Daemon(where, key_policy(where))
    if "no fault points" in Daemon(where / "probe", "", env={"CIRRUS_FAULTS": "accept=1"}).run_to_end()[1]:
        pytest.skip("this build has no fault points (Meson option `faults`)")
    with d:
        pass
    body = body_of(["a@example.org", "b@example.org"], "Subject: one\r\n\r\nx\r\n")
    d.env["CIRRUS_FAULTS"] = fault + ",spool_rotate=kill:2"  # the first is that of the start; the next segment would make sure
    d.start()
    assert post(d, "k", body)[0] == 503
    if fault.startswith("spool_write"):
        d.kill()
    else:
        wait_killed(d)
    del d.env["CIRRUS_FAULTS"]
    with d:
        first = done(post(d, "k", body), not fault.startswith("spool_write"))
        assert done(post(d, "k", body), True) == first
        wait_ended(d)
    assert mails(where)["one"] == 2


@pytest.mark.parametrize("is_killed", [False, True], ids=["stopped", "killed"])
def test_refused_after_the_policy_saved_it(where, is_killed):
    """Messages that the policy has saved by itself go when the request fails, and none of them is found at the next start."""
    if "no fault points" in Daemon(where / "probe", "", env={"CIRRUS_FAULTS": "accept=1"}).run_to_end()[1]:
        pytest.skip("this build has no fault points (Meson option `faults`)")
    extra = "kumo.on('http_message_generated', function(msg) if msg:recipient().user == 'b' then msg:save() end end)"
    d = Daemon(where, key_policy(where, extra=extra))
    with d:
        pass
    body = body_of(["a@example.org", "b@example.org"], "Subject: one\r\n\r\nx\r\n")
    d.env["CIRRUS_FAULTS"] = "spool_sync=3"  # that of the start, of what is saved, of the put
    if is_killed:
        d.env["CIRRUS_FAULTS"] += ",spool_rotate=kill:2"  # before anything could be made sure of: it is found as a whole
    d.start()
    try:
        assert post(d, "k", body)[0] == 503
    except (OSError, http.client.HTTPException):
        assert is_killed
    if is_killed:
        wait_killed(d)
    else:
        assert d.stop() == 0
    del d.env["CIRRUS_FAULTS"]
    with d:
        first = done(post(d, "k", body), is_killed)
        assert done(post(d, "k", body), True) == first
        wait_ended(d)
    assert mails(where) == {"one": 2}


def test_too_large_after_the_policy_saved_it(where):
    """A request that does not fit under its key leaves nothing behind either."""
    extra = "kumo.on('http_message_generated', function(msg) if msg:recipient().user == 'r3' then msg:save() end end)"
    d = Daemon(where, key_policy(where, extra=extra))
    with d:
        assert post(d, "k", body_of([f"r{i}@example.org" for i in range(20001)]))[0] == 422
        wait_ended(d)
    with d:
        assert "0 messages recovered" in d.stderr()
    assert not mails(where)


def test_life(where):
    init = "kumo.start_http_listener { listen = '127.0.0.1:0', idempotency_ttl = '2s' }\nkumo.start_http_listener { listen = '127.0.0.1:0', idempotency_ttl = '0' }"
    d = Daemon(where, key_policy(where, init=init))
    with d:
        _, short, none = (int(p) for p in re.findall(r"http listener on \S+:(\d+)", d.stderr()))
        status, text, _ = post(d, "k", body_of(), port=none)
        assert status == 400 and text == "Error: Idempotency-Key: keys are switched off on this listener"
        done(post(d, None, body_of(), port=none), False)
        done(post(d, "short", body_of(content="Subject: short\r\n\r\nx\r\n"), port=short), False)
        done(post(d, "long", body_of(content="Subject: long\r\n\r\nx\r\n")), False)
        assert d.metric("cirrus_idempotency_keys") == 2
        # When its life is over the key is as good as new, for another body too, on whatever listener, and its place is given back.
        wait_for("the end of a life", lambda: d.metric("cirrus_idempotency_keys") == 1)
        done(post(d, "short", body_of(content="Subject: again\r\n\r\nx\r\n")), False)
        done(post(d, "short", body_of(content="Subject: again\r\n\r\nx\r\n")), True)
        wait_mails(where, test=1, short=1, long=1, again=1)
    with d:
        done(post(d, "short", body_of(content="Subject: again\r\n\r\nx\r\n")), True)
        done(post(d, "long", body_of(content="Subject: long\r\n\r\nx\r\n")), True)
        assert d.metric("cirrus_idempotency_keys") == 2


def test_whose_it_is(where):
    """A key belongs to the login; those without one share theirs."""
    init = "kumo.start_http_listener { listen = '127.0.0.1:0', trusted_hosts = { '192.0.2.1' } }"
    extra = "kumo.on('http_server_validate_auth_basic', function(user, password) return password == 'p' end)"

    def login(user):
        return {"Authorization": "Basic " + base64.b64encode(f"{user}:p".encode()).decode()}
    d = Daemon(where, key_policy(where, init=init, extra=extra))
    with d:
        _, far = (int(p) for p in re.findall(r"http listener on \S+:(\d+)", d.stderr()))
        assert post(d, "k", body_of(), port=far)[0] == 401
        for is_replayed in (False, True):
            done(post(d, "k", body_of(content="Subject: nobody\r\n\r\nx\r\n")), is_replayed)
            for user in ("ann", "bob"):
                body = body_of(content=f"Subject: {user}\r\n\r\nx\r\n")
                done(post(d, "k", body, login(user), far), is_replayed)
                done(post(d, "k", body, login(user)), True)  # from an address that would do without, it is hers all the same
        wait_mails(where, nobody=1, ann=1, bob=1)


def test_how_many(where):
    text = key_policy(where).replace("name = 'data',", "name = 'data', max_idempotency_keys = 3,")
    d = Daemon(where, text)
    with d:
        for key in "abc":
            done(post(d, key, body_of()), False)
        status, text, _ = post(d, "d", body_of())
        assert status == 503 and "it holds 3 keys, and may hold no more" in text
        done(post(d, None, body_of()), False)
        for key in "abc":
            done(post(d, key, body_of()), True)
        assert d.metric("cirrus_idempotency_keys") == 3
        wait_mails(where, test=4)
    status, text = Daemon(where / "bad", key_policy(where).replace("name = 'data',", "name = 'data', max_idempotency_keys = 0,")).run_to_end("--validate")
    assert status == 1 and "max_idempotency_keys" in text


def test_many(where):
    """Thousands of keys from all sides, each sent again from another side; all of them are there after a kill."""
    n, threads = 2000, 8
    first = {}

    def key(i):
        return f"key-{i}", body_of([f"r{i}@example.org", "bad"], f"Subject: {i}\r\n\r\nx\r\n")

    def run(d, begin, is_replayed):
        c = d.connect()
        for i in range(begin, n, threads):
            name, body = key(i)
            c.request("POST", INJECT, body, {"Content-Type": "application/json", "Idempotency-Key": name})
            r = c.getresponse()
            text = r.read()
            assert r.status == 200 and (r.getheader("idempotent-replayed") == "true") == is_replayed, (r.status, text)
            assert first.setdefault(i, text) == text
        c.close()
    d = Daemon(where, key_policy(where))
    d.start()
    Threads(threads, lambda t: run(d, t, False)).join()
    Threads(threads, lambda t: run(d, (t + 1) % threads, True)).join()
    assert d.metric("cirrus_idempotency_keys") == n
    wait_ended(d)
    d.kill()
    with d:
        Threads(threads, lambda t: run(d, (t + 2) % threads, True)).join()
        assert d.metric("cirrus_idempotency_keys") == n
        wait_for("all mail", lambda: len(mails(where)) == n)
        memory = d.request("GET", "/api/admin/memory/stats")[2].decode()
        assert re.search(rf"^ +idempotency keys +{n}$", memory, re.M)
    assert set(mails(where).values()) == {1}


def test_keys_outlive_their_segments(where):
    """90 MB of mail that comes and goes: the files it lay in are given back, and the keys that lay beside it are carried along."""
    n = 50
    content = "Subject: {}\r\n\r\n" + ("x" * 98 + "\r\n") * 18000

    def body(i):
        return body_of([f"r{i}@example.org"], content.format(i))
    d = Daemon(where, key_policy(where))
    with d:
        for i in range(n):
            done(post(d, f"k{i}", body(i)), False)
        wait_ended(d)
        first = where / "spool/data/0000000000000001.journal"
        wait_for("the end of the first segment", lambda: not first.exists())
        for i in range(n):
            done(post(d, f"k{i}", body(i)), True)
    used = int(subprocess.run(["du", "-sb", where / "spool/data"], capture_output=True, text=True).stdout.split()[0])
    assert used < 100 << 20
    with d:
        for i in range(n):
            done(post(d, f"k{i}", body(i)), True)
        assert d.metric("cirrus_idempotency_keys") == n
    assert set(mails(where).values()) == {1} and len(mails(where)) == n


def test_without_flush(where):
    """With flush = false it holds for the end of the process."""
    d = Daemon(where, key_policy(where).replace("name = 'data',", "name = 'data', flush = false,"))
    d.start()
    answers = [done(post(d, f"k{i}", body_of(content=f"Subject: {i}\r\n\r\nx\r\n")), False) for i in range(50)]
    d.kill()
    with d:
        for i, answer in enumerate(answers):
            assert done(post(d, f"k{i}", body_of(content=f"Subject: {i}\r\n\r\nx\r\n")), True) == answer
        wait_for("all mail", lambda: len(mails(where)) == 50)


def test_a_client_that_goes(where):
    """Closing the connection does not undo the request: whoever asks again finds its answer, or waits for it."""
    extra = f"""kumo.on('http_message_generated', function(msg)
  kumo.log_info('generated')
  while not io.open('{where}/go') do kumo.sleep(0.02) end
end)"""
    with Daemon(where, key_policy(where, extra=extra)) as d:
        body = body_of(content="Subject: one\r\n\r\nx\r\n")
        c = d.connect()
        c.request("POST", INJECT, body, {"Content-Type": "application/json", "Idempotency-Key": "k"})
        wait_for("the request", lambda: "generated" in d.stderr())
        c.close()
        answers = []
        t = threading.Thread(target=lambda: answers.append(post(d, "k", body)))
        t.start()
        wait_for("the second one", lambda: d.metric("cirrus_idempotency_waits_total") == 1)
        (where / "go").touch()
        t.join()
        done(answers[0], True)
        wait_mails(where, one=1)
