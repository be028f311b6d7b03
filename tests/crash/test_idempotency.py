"""1,000 requests, each under an Idempotency-Key and sent again until it is answered, while the daemon is killed again and again: each
is done exactly once.

What is counted is messages by their id, which the policy puts into the path of the maildir that each is delivered to: a request that
was done twice leaves two ids for its token. Mail is held back until the last kill in one run, so that nothing is in the hands of a
delivery at a kill and exactly one file for each token is what must be there. In the other run mail flows meanwhile; then a message
whose delivery was done and not yet put down at a kill is delivered again by the next process, under the same id.

Clients are not patient: some close the connection as soon as they have sent the request, and come again at once, so that a request
often meets itself. CIRRUS_SEED repeats a run's choices."""
import collections
import http.client
import json
import os
import random
import re
import threading
import time
import uuid

import pytest

from cirrus import Daemon, policy, wait_for
from test_kill import check_log, has_faults, try_start

SEED = int(os.environ.get("CIRRUS_SEED", time.time_ns() % 1000000))
REQUESTS = 1000
CLIENTS = 6
FEWEST_KILLS = 20
POINTS = ["spool_write", "spool_sync", "spool_commit", "spool_alloc", "spool_rotate", "spool_open", "spool_remove"]


def maildir_policy(where):
    return policy(where, f"protocol = {{ maildir_path = '{where}/mail/{{{{ local_part }}}}/{{{{ meta.serial }}}}' }}, "
                         "retry_interval = '1s', max_retry_interval = '1s'",
                  extra="kumo.on('http_message_generated', function(msg) msg:set_meta('serial', tostring(msg:id())) end)")


class Request:
    def __init__(self, i, rng):
        self.key = str(uuid.UUID(int=rng.getrandbits(128)))
        self.tokens = [f"t{i}-{r}" for r in range(rng.choice((1, 1, 1, 2, 5)))]
        lines = rng.choice((0, 1, 10, 100, 2000))
        self.is_deferred = rng.random() < 0.1  # its messages are made after its answer
        self.body = json.dumps({"envelope_sender": "s@example.com", "recipients": [{"email": f"{t}@example.org"} for t in self.tokens],
                                "content": f"Subject: {i}\r\n\r\n" + "0123456789abcdef\r\n" * lines + "x.\r\n",
                                "deferred_generation": self.is_deferred}).encode()
        self.answer = None

    def send(self, c):
        c.request("POST", "/api/inject/v1", self.body, {"Content-Type": "application/json", "Idempotency-Key": self.key})


class Load:
    """Clients that take one request after the other and send each until it is answered, to whatever port the daemon has now."""

    def __init__(self, requests, seed):
        self.todo = collections.deque(requests)
        self.seen = collections.Counter()
        self.surprises = []
        self.changed = threading.Condition()
        self.port = None
        self.is_over = False
        self.threads = [threading.Thread(target=self.run, args=(random.Random(seed * 1000 + i),)) for i in range(CLIENTS)]
        for t in self.threads:
            t.start()

    def set_port(self, port):
        with self.changed:
            self.port = port
            self.changed.notify_all()

    def n_answered(self):
        return self.seen["done"] + self.seen["replayed"]

    def is_done(self):
        return self.surprises or not any(t.is_alive() for t in self.threads)

    def finish(self):
        with self.changed:
            self.is_over = True
            self.changed.notify_all()
        for t in self.threads:
            t.join()

    def run(self, rng):
        try:
            while True:
                try:
                    request = self.todo.popleft()
                except IndexError:
                    return
                while not self.is_over and not self.attempt(request, rng):
                    pass
                if self.is_over:
                    return
        except Exception as e:
            self.surprises.append(e)

    def attempt(self, request, rng):
        with self.changed:
            self.changed.wait_for(lambda: self.port is not None or self.is_over)
            port = self.port
        if port is None:
            return False
        c = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            request.send(c)
            if rng.random() < 0.2:
                self.seen["given up"] += 1
                return False
            r = c.getresponse()
            text = r.read()
        except (OSError, http.client.HTTPException):  # killed: whether it was done is open
            self.seen["broken"] += 1
            with self.changed:
                self.changed.wait_for(lambda: self.port != port or self.is_over, 0.05)
            return False
        finally:
            c.close()
        if r.status == 503:
            self.seen["503"] += 1
            time.sleep(0.01)
            return False
        expected = 0 if request.is_deferred else len(request.tokens)
        assert r.status == 200 and json.loads(text)["success_count"] == expected, (r.status, text)
        self.seen["replayed" if r.getheader("idempotent-replayed") else "done"] += 1
        request.answer = text
        return True


def delivered(where):
    """token -> id -> the files, by the process that wrote each."""
    found = collections.defaultdict(lambda: collections.defaultdict(list))
    for token in (where / "mail").iterdir():
        for serial in token.iterdir():
            for path in (serial / "new").iterdir():
                found[token.name][serial.name].append(int(re.search(r"P(\d+)V", path.name).group(1)))
                assert path.read_bytes().endswith(b"x.\r\n")
    return found


def one_life(d, load, rng, faults):
    """Starts the daemon and has it killed: by itself at a fault point, or by us in the middle of the work, after some answers or
    some time."""
    if faults is None:
        d.start()
    elif not try_start(d, CIRRUS_FAULTS=faults):
        return
    enough, until = load.n_answered() + rng.choice((1, 10, 40, 60)), time.monotonic() + rng.choice((0.03, 0.2, 1.0)) * rng.random()
    load.set_port(d.port)
    while d.process.poll() is None and load.n_answered() < enough and time.monotonic() < until:
        time.sleep(0.001)
    d.process.kill()
    load.set_port(None)
    d.process.wait()


@pytest.mark.parametrize("is_held", [True, False], ids=["held back", "flowing"])
def test_exactly_once(where, is_held):
    rng = random.Random(SEED)
    requests = [Request(i, rng) for i in range(REQUESTS)]
    expected = {t for r in requests for t in r.tokens}
    faults = POINTS if has_faults(where) else []
    if is_held:
        (where / "mail").write_text("a file where a directory should be")
    d = Daemon(where, maildir_policy(where))
    load = Load(requests, SEED)
    n_kills = 0
    try:
        while not load.is_done() or n_kills < FEWEST_KILLS:
            spec = f"{rng.choice(faults)}=kill:{rng.choice((1, 2, 5, 20))}" if faults and rng.random() < 0.4 else None
            one_life(d, load, rng, spec)
            n_kills += 1
            check_log(d)
            d.process = None
            assert n_kills < 1000, load.seen
    finally:
        load.finish()
        if d.process is not None and d.process.poll() is None:
            d.kill()
    assert not load.surprises, load.surprises[0]
    assert all(r.answer is not None for r in requests)
    assert load.seen["replayed"] > 0 and load.seen["broken"] > 0 and load.seen["given up"] > 0, load.seen

    if is_held:
        (where / "mail").unlink()
    with d:
        wait_for("empty queues", lambda: d.metric("scheduled_count_total") == 0, 120)
        found = delivered(where)
        # Whoever comes again now gets the same answer, or is told that it is another request; and nothing more is sent.
        c = d.connect()
        for r in requests:
            r.send(c)
            a = c.getresponse()
            assert (a.status, a.getheader("idempotent-replayed"), a.read()) == (200, "true", r.answer)
        c.request("POST", "/api/inject/v1", b"{}", {"Content-Type": "application/json", "Idempotency-Key": requests[0].key})
        assert c.getresponse().status == 409
        c.close()
        assert d.metric("scheduled_count_total") == 0 and d.metric("cirrus_idempotency_keys") == REQUESTS
        check_log(d)
    lost, twice = expected - set(found), {t for t, ids in found.items() if len(ids) != 1}
    assert not lost and not twice, f"{len(lost)} were lost, {len(twice)} done more than once: {sorted(lost | twice)[:10]}"
    n_again = 0
    for token, ids in found.items():
        (by,) = ids.values()
        assert len(by) == len(set(by)), f"{token} was delivered twice by one process"
        assert not is_held or len(by) == 1, f"{token} was delivered {len(by)} times"
        n_again += len(by) - 1
    print(f"seed {SEED}, {n_kills} kills, {len(expected)} messages of {REQUESTS} requests, {n_again} delivered again; {dict(load.seen)}")
