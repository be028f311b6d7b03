"""kill -9 at random moments and at the fault points of the spool, under load, again and again on the same spool. The contract: what was
answered with 200 is delivered, however often the daemon dies; and only mail whose final answer was in flight at that moment may be
delivered twice.

A round starts the daemon, lets clients inject, kills it; the queue grows from round to round as the load allows. Each message has a
token as its recipient. CIRRUS_SEED repeats a run's choices; the clocks of the processes involved are not repeated by it."""
import collections
import http.client
import json
import os
import random
import subprocess
import threading
import time

import pytest

from cirrus import SANITIZER, Daemon, policy, smtp_queue, wait_for
from sink import Sink

SEED = int(os.environ.get("CIRRUS_SEED", time.time_ns() % 1000000))
ROUNDS = 20
CLIENTS = 4
CONNECTIONS = 8
# From the moment that the sink takes a message to the moment that the daemon has put that down, on a busy machine.
IN_FLIGHT_S = 2.0


class CountingSink(Sink):
    """Notes which token was taken when and from which round's daemon, which is told by its EHLO. later: the share of messages that are put off with 450, at RCPT or after the data."""

    def __init__(self, later=0.0, seed=0):
        super().__init__()
        self.taken = []  # (time, token, round), in order
        self.n_later = 0
        self.later, self.random = later, random.Random(seed)
        self.handler.handle_RCPT = self.on_rcpt
        self.handler.handle_DATA = self.on_data

    def is_later(self):
        if self.random.random() >= self.later / 2:
            return False
        self.n_later += 1
        return True

    async def on_rcpt(self, server, session, envelope, address, options):
        if self.is_later():
            return "450 4.2.1 later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def on_data(self, server, session, envelope):
        if self.is_later():
            return "451 4.3.0 later"
        token, = (r.split("@")[0] for r in envelope.rcpt_tos)
        body = envelope.original_content
        assert body.startswith(b"Subject: batch\r\n\r\n") and body.endswith(b"x.\r\n"), "the body is not what was injected"
        self.taken.append((time.monotonic(), token, int(session.host_name.split(".")[0])))
        return "250 2.0.0 OK"

    def tokens(self):
        return {token for _, token, _ in list(self.taken)}


class Load:
    """Clients that inject all the time, to whatever port the daemon has now."""

    def __init__(self, seed):
        self.accepted = set()   # answered with 200
        self.refused = 0        # answered with 503
        self.surprises = []
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.port = None
        self.is_over = False
        self.threads = [threading.Thread(target=self.run, args=(i, random.Random(seed * 1000 + i))) for i in range(CLIENTS)]
        for t in self.threads:
            t.start()

    def set_port(self, port):
        with self.changed:
            self.port = port
            self.changed.notify_all()

    def finish(self):
        with self.changed:
            self.is_over = True
            self.changed.notify_all()
        for t in self.threads:
            t.join()

    def run(self, i, rng):
        try:
            k = 0
            while True:
                with self.changed:
                    self.changed.wait_for(lambda: self.port is not None or self.is_over)
                    if self.is_over:
                        return
                    port = self.port
                k = self.inject_until_the_end(i, k, rng, port)
                with self.changed:  # the connection broke: wait for the next daemon
                    self.changed.wait_for(lambda: self.port != port or self.is_over)
        except Exception as e:
            self.surprises.append(e)

    def inject_until_the_end(self, i, k, rng, port):
        c = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            while not self.is_over and self.port == port:
                tokens = [f"t{i}-{k}-{r}" for r in range(rng.choice((1, 1, 1, 2, 5)))]
                k += 1
                body = json.dumps({"envelope_sender": "s@example.com", "recipients": [{"email": f"{t}@example.org"} for t in tokens],
                                   "content": "Subject: batch\r\n\r\n" + "0123456789abcdef\r\n" * rng.choice((0, 1, 10, 100, 2000)) + "x.\r\n",
                                   "trace_headers": {"supplemental_header": False}})
                c.request("POST", "/api/inject/v1", body, {"Content-Type": "application/json"})
                r = c.getresponse()
                answer = r.read()
                if r.status == 200:
                    assert json.loads(answer)["success_count"] == len(tokens)
                    with self.lock:
                        self.accepted.update(tokens)
                elif r.status == 503:
                    self.refused += 1
                    time.sleep(0.01)
                else:
                    raise AssertionError(f"{r.status} {answer}")
        except (OSError, http.client.HTTPException):
            pass  # killed: whether what was under way is kept is open
        finally:
            c.close()
        return k


def kill_policy(where, port, n_round=0):
    return policy(where, smtp_queue(port, "retry_interval = '1s', max_retry_interval = '1s'"),
                  f"connection_limit = {CONNECTIONS}, consecutive_connection_failures_before_delay = 1000000, "
                  f"ehlo_domain = '{n_round}.example.com'")


def has_faults(where):
    """Whether this build has fault points."""
    d = Daemon(where / "probe", "", env={"CIRRUS_FAULTS": "accept=1"})
    return "no fault points" not in d.run_to_end()[1]


def try_start(d, **env):
    """Starts; False when it was killed at a fault point meanwhile."""
    before, d.env = d.env, dict(d.env, **env)
    try:
        d.start()
        return True
    except AssertionError:
        if d.process is None or d.process.poll() != -9:
            raise
        return False
    finally:
        d.env = before


def check_log(d):
    """A process that was killed leaves nothing that looks like damage."""
    text = d.stderr()
    assert not SANITIZER.search(text), text[-6000:]
    assert "damage" not in text.lower() and "corrupt" not in text.lower(), text[-6000:]


def drain(d, load, sink):
    """The last start: everything is delivered, and nothing is left behind it."""
    n = 0
    with d:
        n = len(load.accepted - sink.tokens())
        wait_for("all that was accepted", lambda: load.accepted <= sink.tokens(), 120)

        def is_empty():
            return d.metric("scheduled_count_total") == 0 and sum(
                float(line.rpartition(" ")[2]) for line in d.request("GET", "/metrics?prefix=ready_count")[2].decode().splitlines()
                if line.startswith("ready_count{")) == 0
        wait_for("empty queues", is_empty, 60)
        check_log(d)
    assert load.accepted <= sink.tokens()
    n_taken = len(sink.taken)
    with d:
        assert "0 messages recovered" in d.stderr(), d.stderr()
    assert len(sink.taken) == n_taken
    return n


def check_duplicates(sink, kills):
    """kills: when the daemon of each round died. What was delivered again was so by a later round, and the delivery before had just been
    answered when its daemon died. (The sink may note a delivery even later: it reads what a dead daemon has left in the socket.)"""
    by_token = collections.defaultdict(list)
    for t, token, n_round in sink.taken:
        by_token[token].append((t, n_round))
    by_kill = collections.Counter()
    for token, deliveries in by_token.items():
        for (first, n_round), (_, later_round) in zip(deliveries, deliveries[1:]):
            assert later_round > n_round, f"{token} was delivered twice by one process"
            assert kills[n_round] - first <= IN_FLIGHT_S, f"{token} had been delivered {kills[n_round] - first:.3f} s before the kill"
            by_kill[n_round] += 1
    # A kill hits what is in the hands of the connections, and nothing else: a removal is noted before the next message is taken.
    assert all(n <= CONNECTIONS for n in by_kill.values()), f"duplicates by kill: {sorted(by_kill.values())}"
    return by_kill


def report(title, load, sink, kills, by_kill, n_left):
    print(f"{title}: seed {SEED}, {len(kills)} kills, {len(load.accepted)} messages accepted, {len(sink.taken)} deliveries, "
          f"{sum(by_kill.values())} again (at most {max(by_kill.values(), default=0)} by one kill), {sink.n_later} put off, "
          f"{load.refused} requests refused, {n_left} delivered after the last kill")


@pytest.mark.parametrize("later", [0.0, 0.3], ids=["plain", "with 450"])
def test_kill_at_random_moments(where, later):
    rng = random.Random(SEED)
    kills = []
    with CountingSink(later, SEED) as sink:
        d = Daemon(where, kill_policy(where, sink.port))
        load = Load(SEED)
        try:
            for n_round in range(ROUNDS):
                d.set_policy(kill_policy(where, sink.port, n_round))
                d.start()
                load.set_port(d.port)
                time.sleep(rng.choice((0.05, 0.3, 1.0, 1.5)) * rng.random())
                load.set_port(None)  # some clients are still at it: the kill hits them
                d.process.kill()
                kills.append(time.monotonic())
                d.process.wait()
                d.process = None
                check_log(d)
        finally:
            load.finish()
            if d.process is not None:
                d.kill()
        assert not load.surprises, load.surprises[0]
        d.set_policy(kill_policy(where, sink.port, len(kills)))
        n_left = drain(d, load, sink)
        by_kill = check_duplicates(sink, kills)
        report("random", load, sink, kills, by_kill, n_left)
        assert len(load.accepted) >= 100, "hardly any load"
        assert later == 0 or sink.n_later > 0


# Passes after which to die: the first ones, where a file begins, and some under load.
POINTS = [("spool_write", (1, 2, 7, 60)), ("spool_sync", (1, 2, 25)), ("spool_commit", (1, 5, 40)), ("spool_alloc", (1, 2)),
          ("spool_rotate", (1,)), ("spool_open", (1,)), ("spool_remove", (1, 3)), ("log_write", (1, 4))]


def test_kill_at_fault_points(where):
    if not has_faults(where):
        pytest.skip("this build has no fault points (Meson option `faults`)")
    kills, reached = [], set()
    with CountingSink(0.2, SEED) as sink:
        d = Daemon(where, kill_policy(where, sink.port))
        load = Load(SEED)
        try:
            for point, passes in POINTS:
                for n in passes:
                    d.set_policy(kill_policy(where, sink.port, len(kills)))
                    if try_start(d, CIRRUS_FAULTS=f"{point}=kill:{n}"):
                        load.set_port(d.port)
                        try:
                            d.process.wait(3)
                        except subprocess.TimeoutExpired:
                            d.process.kill()
                        load.set_port(None)
                        if d.process.wait() == -9 and point not in reached:
                            reached.add(point)
                    else:
                        reached.add(point)
                    kills.append(time.monotonic())
                    d.process = None
                    check_log(d)
        finally:
            load.finish()
            if d.process is not None:
                d.kill()
        assert not load.surprises, load.surprises[0]
        d.set_policy(kill_policy(where, sink.port, len(kills)))
        n_left = drain(d, load, sink)
        by_kill = check_duplicates(sink, kills)
        report("fault points", load, sink, kills, by_kill, n_left)
        assert len(load.accepted) >= 50, "hardly any load"


@pytest.mark.parametrize("faults", ["spool_write=5", "spool_sync=4", "spool_commit=6", "spool_alloc=1", "spool_write=*", "spool_sync=*",
                                    "log_write=3", "log_write=*"])
def test_error_at_a_fault_point(where, faults):
    """A step that fails without the process dying: refused is what cannot be kept, and what was accepted before and after arrives once."""
    if not has_faults(where):
        pytest.skip("this build has no fault points (Meson option `faults`)")
    with CountingSink() as sink:
        d = Daemon(where, kill_policy(where, sink.port))
        if faults == "spool_write=*":
            with d:  # the segment is there: what fails is the writing of messages
                pass
        load = Load(SEED)
        try:
            d.env["CIRRUS_FAULTS"] = faults
            with d:
                load.set_port(d.port)
                wait_for("load", lambda: len(load.accepted) >= 200 or load.refused >= 50 or load.surprises)
                load.set_port(None)
                load.finish()
                assert not load.surprises, load.surprises[0]
                if faults.startswith("log_write") or not faults.endswith("*"):
                    wait_for("what was accepted", lambda: load.accepted <= sink.tokens())
                else:
                    assert not load.accepted and load.refused, "answered with 200, and nothing could be stored"
                    assert d.request("GET", "/api/check-liveness/v1")[0] == 503
        finally:
            load.finish()
            if d.process is not None:
                d.kill()
        del d.env["CIRRUS_FAULTS"]
        drain(d, load, sink)
        assert len(sink.taken) == len(sink.tokens()), "nothing is delivered twice without a crash"
