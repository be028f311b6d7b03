"""The SMTP service under stress: crowds, slow clients, endless envelopes, a spool that fails, and stopping in the middle of everything."""
import re
import resource
import signal
import socket
import threading
import time

import pytest

from cirrus import Threads, wait_for
from smtpraw import SIMPLE, Client, Smtp


LEAN = {"ASAN_OPTIONS": "quarantine_size_mb=1"}  # or the sanitizer keeps what was freed


def resident(d):
    return int(re.search(r"VmRSS:\s+(\d+) kB", open(f"/proc/{d.process.pid}/status").read()).group(1)) << 10


# --- crowds ---

def test_thousands_of_connections(where):
    """Idle connections cost little, and nobody waits for them."""
    n = 3000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < n + 500:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(n + 500, hard), hard))
    with Smtp(where, "", env=LEAN) as d:
        before = resident(d)
        clients = []
        try:
            for i in range(n):
                clients.append(socket.create_connection(("127.0.0.1", d.smtp_port), timeout=60))
            wait_for("all sessions", lambda: d.metric('connection_count{service="esmtp_listener"}') == n)
            for s in clients:
                assert s.recv(100) == b"220 mx.example KumoMTA\r\n"
            each = (resident(d) - before) / n
            assert each < 256 << 10, each  # with a sanitizer, where stacks are several times as large
            for s in clients[::30]:
                s.sendall(b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@maildir.example>\r\nDATA\r\n" + SIMPLE + b".\r\nQUIT\r\n")
            for s in clients[::30]:
                data = b""
                while b"221 " not in data:
                    data += s.recv(10000)
                assert b"250 OK ids=" in data
        finally:
            for s in clients:
                s.close()
        wait_for("the sessions' end", lambda: d.metric('connection_count{service="esmtp_listener"}') == 0)
        d.wait_record("Delivery", n // 30)


def test_many_clients_at_a_time(where):
    n, each = 40, 25
    with Smtp(where, "") as d:
        ids = []

        def run(i):
            with d.client() as c:
                c.hello(f"c{i}.example")
                for _ in range(each):
                    ids.extend(c.deliver(to=(f"r{i}@maildir.example",)).ids)
        Threads(n, run).join()
        assert len(set(ids)) == n * each
        d.wait_record("Delivery", n * each)
        d.wait_metric('total_messages_received{service="esmtp_listener"}', n * each)
    assert len(d.maildir.messages()) == n * each


def test_flood_of_recipients(where):
    """100,000 RCPTs, pipelined without reading: each is answered and logged, and they take no more memory than the log's buffer."""
    n = 100000
    with Smtp(where, "", env=LEAN) as d:
        with d.client() as c:
            c.hello()
            c.must("MAIL FROM:<a@example.com>")
            before = resident(d)
            text = b"".join(b"RCPT TO:<r%d@maildir.example>\r\n" % i for i in range(n))
            sender = threading.Thread(target=c.socket.sendall, args=(text,))
            sender.start()
            codes = [c.reply().code for _ in range(n)]
            sender.join()
            assert codes == [250] * 1024 + [452] * (n - 1024)
            assert resident(d) - before < 150 << 20
            c.must("RSET")
            c.must("NOOP")


def test_transactions_without_end(where):
    with Smtp(where, "", env=LEAN) as d:
        with d.client() as c:
            c.hello()
            for _ in range(20):
                c.send(b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@maildir.example>\r\nRSET\r\n" * 100)
                assert {c.reply().code for _ in range(300)} == {250}
            before = resident(d)
            for _ in range(60):
                c.send(b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@maildir.example>\r\nRSET\r\n" * 100)
                assert {c.reply().code for _ in range(300)} == {250}
            assert resident(d) - before < 16 << 20


# --- slow clients ---

def test_a_client_that_does_not_read(where):
    """Replies that nobody takes hold up this session only, and that only for a time."""
    with Smtp(where, "") as d:
        with d.client() as c:
            c.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            c.socket.settimeout(0.5)
            try:
                for _ in range(2000):
                    c.send(b"NOOP\r\n" * 1000)
            except TimeoutError:
                pass
            with d.client() as other:
                other.hello()
                other.deliver()


def test_memory_for_messages_is_bounded(where):
    """A sixth of the soft limit: what does not fit is read, and answered 452; when the others are done there is room again."""
    with Smtp(where, "", env=dict(LEAN, KUMOD_MEMORY_SOFT_LIMIT=str(144 << 20))) as d:  # 24 MiB for messages, whose buffers double
        line = b"y" * 998 + b"\r\n"
        with d.client() as holder:
            holder.begin()
            holder.must("DATA", 354)
            holder.send(line * 9000)
            wait_for("the memory to be taken", lambda: int(re.search(r"messages being received\s+(\d+)", stats(d)).group(1)) > 8000000)
            with d.client() as c:
                c.begin()
                assert c.data(line * 9000).lines[0].startswith("452 4.3.1")
                c.deliver()
            holder.send(b".\r\n")
            assert holder.reply().code == 250
        wait_for("the memory to be free", lambda: re.search(r"messages being received\s+0 ", stats(d)))
        with d.client() as c:
            c.deliver(content=line * 9000)


def stats(d):
    return d.request("GET", "/api/admin/memory/stats")[2].decode()


# --- no service ---

def test_over_the_soft_limit(where):
    """New connections are answered 421, new transactions 452; one that has begun is taken."""
    with Smtp(where, "") as d:
        text = d.policy_file.read_text()
        with d.client() as c, d.client() as idle:
            c.begin()
            d.set_policy(text.replace("local kumo = require 'kumo'\n", "local kumo = require 'kumo'\nkumo.set_memory_soft_limit(1048576)\n"))
            d.process.send_signal(signal.SIGHUP)
            wait_for("load shedding", lambda: d.request("GET", "/api/check-liveness/v1")[0] == 503)
            with Client(d.smtp_port, banner=False) as denied:
                assert denied.reply().lines == ["421 4.3.2 mx.example load shedding. Try later"] and denied.ended()
            assert idle.cmd("MAIL FROM:<a@example.com>").lines == ["452 4.3.1 load shedding. Try later"]
            assert c.data().code == 250
            assert c.cmd("MAIL FROM:<a@example.com>").code == 452
            d.set_policy(text.replace("local kumo = require 'kumo'\n", "local kumo = require 'kumo'\nkumo.set_memory_soft_limit(1 << 40)\n"))
            d.process.send_signal(signal.SIGHUP)
            wait_for("mail to be taken again", lambda: d.request("GET", "/api/check-liveness/v1")[0] == 200)
            idle.deliver()
        d.wait_metric('total_connections_denied{service="esmtp_listener"}', 1)
        assert not [r for r in d.records("Rejection") if r["response"]["code"] == 421]


def test_full_disk(where):
    init = f"kumo.configure_local_logs {{ log_dir = '{where}/more', min_free_space = '100%' }}"
    with Smtp(where, "", init=init) as d:
        with Client(d.smtp_port, banner=False) as c:
            assert c.reply().lines == ["421 4.3.2 mx.example disk is too full. Try later"] and c.ended()


@pytest.mark.parametrize("fault", ["spool_write=1", "spool_sync=1"])
def test_spool_error(where, fault):
    """A message that is not stored is not accepted, and not there after a restart; a later one is."""
    with Smtp(where, "", env={"CIRRUS_FAULTS": fault}) as d:
        with d.client() as c:
            c.hello()
            c.begin(to=("lost@one.example", "lost@two.example"))
            r = c.data()
            assert r.lines[0].startswith("451 4.3.0") or r.lines[0].startswith("452 4.3.1"), r
            assert not d.records("Reception")
        rejection = d.wait_record("Rejection")[0]
        assert rejection["response"]["command"] == "DATA" and rejection["response"]["code"] in (451, 452)
        d.kill()
    d.env.pop("CIRRUS_FAULTS")
    with d:
        assert "0 messages recovered" in d.stderr()
        with d.client() as c:
            c.deliver()


def test_a_store_that_takes_too_long_is_undone(where):
    """The client may have given up by then, and sends the message again: it has to be the only one. What was undone is told by
    a Reception and a Bounce record."""
    with Smtp(where, "data_processing_timeout = '3s'", env={"CIRRUS_FAULTS": "spool_sync=slow:1"}) as d:
        with d.client() as c:
            c.hello()
            c.begin(to=("a@one.example", "b@two.example"))
            assert c.data().lines == ["451 4.4.5 data_processing_timeout exceeded (spool)"]
            undone = d.wait_record("Bounce", n=2)
            assert [r["recipient"] for r in undone] == ["a@one.example", "b@two.example"]
            for bounce in undone:
                reception, = d.records("Reception", id=bounce["id"])
                assert (reception["queue"], reception["response"]["code"]) == (bounce["queue"], 250)
                assert reception["session_id"] and reception["peer_address"] == {"name": "client.example", "addr": "127.0.0.1"}
                assert bounce["response"] == {"code": 500, "enhanced_code": None, "command": None,
                                              "content": "reception is undone: data_processing_timeout exceeded (spool)"}
                assert (bounce["site"], bounce["delivery_protocol"], bounce["reception_protocol"]) == ("", None, "ESMTP")
            again = c.deliver(to=("a@one.example", "b@two.example")).ids
        assert sorted(r["id"] for r in d.wait_record("Delivery", n=2)) == sorted(again)
    d.env.pop("CIRRUS_FAULTS")
    with d:
        assert "0 messages recovered" in d.stderr()
        assert len(d.records("Delivery")) == 2


# --- stopping ---

def test_stop(where):
    """Who waits is told; what has been answered 250 is there after the restart; what was in the middle is not."""
    held = "protocol = { smtp = { mx_list = { '[127.0.0.1]:1' } } }"
    with Smtp(where, "", queue=held) as d:
        idle, busy, after = d.client(), d.client(), d.client()
        after.hello()
        after.deliver()
        busy.begin()
        busy.must("DATA", 354)
        busy.send(b"Subject: half\r\n")
        with socket.create_connection(("127.0.0.1", d.smtp_port)) as silent:
            assert silent.recv(100).startswith(b"220 ")
            begun = time.monotonic()
            assert d.stop() == 0
            assert time.monotonic() - begun < 40
            assert silent.recv(100) == b"421 4.3.2 mx.example shutting down\r\n"
        for c in (idle, busy, after):
            assert c.reply().lines == ["421 4.3.2 mx.example shutting down"]
            assert c.ended()
            c.socket.close()
    with d:
        assert "1 messages recovered" in d.stderr()
        assert not [r for r in d.records("Rejection")]


def test_stop_lets_a_message_in_hand_finish(where):
    extra = "kumo.on('smtp_server_message_received', function(msg) print('IN HAND') kumo.sleep(1) end)"
    with Smtp(where, "", extra=extra) as d:
        with d.client() as c:
            c.begin()
            c.must("DATA", 354)
            c.send(SIMPLE + b".\r\n")
            wait_for("the message in hand", lambda: "IN HAND" in d.stderr())
            assert d.stop() == 0
            assert c.reply().code == 250
            assert c.reply().code == 421
    with d:
        assert len(d.received()) == 1


def test_kill_under_load(where):
    """Whatever was answered 250 before a kill -9 is delivered after the restart."""
    with Smtp(where, "") as d:
        ids, lock = [], threading.Lock()

        def run(i):
            try:
                with d.client() as c:
                    for n in range(10000):
                        got = c.deliver(content=b"Subject: %d-%d\r\n\r\nx\r\n" % (i, n)).ids
                        with lock:
                            ids.extend(got)
            except (AssertionError, OSError):
                pass
        threads = Threads(8, run)
        wait_for("some messages", lambda: len(ids) > 300)
        d.kill()
        threads.join()
    with d:
        def missing():
            text = b"".join(m[:600] for m in d.maildir.messages())
            return [i for i in ids if i.encode() not in text]
        wait_for("every message", lambda: not missing())
