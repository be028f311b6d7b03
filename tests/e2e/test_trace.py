"""GET /api/admin/trace-smtp-server/v1: what happens in SMTP sessions, on a websocket."""
import base64
import hashlib
import json
import re
import smtplib
import socket
import struct
import threading

import pytest
import websocket

from cirrus import Threads, wait_for
from smtpraw import SIMPLE, Client, Smtp
from test_smtp_reports import FAILED, arf, dsn

PATH = "/api/admin/trace-smtp-server/v1"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": KEY}
POLICY = """
kumo.on('smtp_server_ehlo', function(domain, conn) return nil end)
kumo.on('get_listener_domain', function(domain, listener, conn)
  if domain == 'ours.example' then return kumo.make_listener_domain { relay_to = true } end
  if domain == 'reports.example' then return kumo.make_listener_domain { log_oob = 'LogThenDrop', log_arf = 'LogThenRelay' } end
end)
kumo.on('smtp_server_auth_plain', function(authz, authc, password, conn) return password == 'open sesame' end)
kumo.on('smtp_server_rcpt_to', function(rcpt, conn)
  conn:set_meta('seen', rcpt.email)
  if rcpt.user == 'broken' then error('out of order') end
end)
"""


class Tracer:
    """A client of the endpoint. Without `request` it sends none."""

    def __init__(self, d, request={}, sockopt=(), host="127.0.0.1"):
        self.ws = websocket.create_connection(f"ws://{host}:{d.port}{PATH}", timeout=60, sockopt=sockopt, suppress_origin=True)
        if request is not None:
            self.ws.send(json.dumps(request))
            self.settle()

    def settle(self):
        """Waits until everything sent before has been dealt with: a pong comes after it."""
        self.ws.ping("settled")
        self.early = []
        while True:
            opcode, data = self.ws.recv_data(control_frame=True)
            if opcode == websocket.ABNF.OPCODE_PONG:
                assert data == b"settled"
                return
            self.early.append(json.loads(data))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.ws.close()

    def event(self):
        if self.early:
            return self.early.pop(0)
        opcode, data = self.ws.recv_data()
        assert opcode == websocket.ABNF.OPCODE_TEXT, (opcode, data)
        e = json.loads(data)
        assert set(e) == {"conn_meta", "payload", "when"} and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", e["when"]), e
        return e

    def until(self, payload, n=1):
        """The events up to the n-th of that payload."""
        events = []
        while n > 0:
            events.append(self.event())
            n -= events[-1]["payload"] == payload
        return events

    def closed(self):
        """The code and the reason that the service closes with."""
        while True:
            opcode, data = self.ws.recv_data(control_frame=True)
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                return (struct.unpack("!H", data[:2])[0], data[2:].decode()) if data else (None, "")


def payloads(events, kind=None):
    """All payloads, or those of a kind, bare."""
    all_ = [e["payload"] for e in events]
    return all_ if kind is None else [p[kind] for p in all_ if isinstance(p, dict) and kind in p]


def session(d, to=("b@ours.example",), content=SIMPLE):
    with d.client() as c:
        c.hello()
        c.begin(to)
        r = c.data(content)
        c.must("QUIT", 221)
        return r


# --- what is shown ---

def test_a_session_from_end_to_end(where):
    with Smtp(where, "relay_hosts = {}", extra=POLICY) as d, Tracer(d) as t:
        with smtplib.SMTP("127.0.0.1", d.smtp_port, local_hostname="client.example") as c:
            c.sendmail("a@example.com", ["b@ours.example"], "Subject: x\r\n\r\nhello\r\n")
            peer = "127.0.0.1:%d" % c.sock.getsockname()[1]
        events = t.until("Closed")
        p = payloads(events)
        assert p[0] == "Connected" and p[-1] == "Closed"
        assert {"Write": "220 mx.example KumoMTA\r\n"} == p[1]
        reads = payloads(events, "Read")
        assert [r for r in reads if "\n" not in r[:-1]] == ["ehlo client.example\r\n", next(r for r in reads if r.startswith("mail FROM:")),
                                                          "rcpt TO:<b@ours.example>\r\n", "data\r\n", "QUIT\r\n"]
        assert "".join(reads[4:-1]) in ("Subject: x\r\n\r\nhello\r\n.\r\n", "Subject: x\r\n\r\nhello\r\n")
        writes = payloads(events, "Write")
        assert all(w.endswith("\r\n") and w.count("\n") == 1 for w in writes)
        assert "250-PIPELINING\r\n" in writes and "354 " in " ".join(writes) and writes[-1].startswith("221 ")
        assert payloads(events, "Callback") == [
            {"name": "smtp_server_ehlo", "result": None, "error": None},
            {"name": "get_listener_domain domain=example.com", "result": None, "error": None},
            {"name": "get_listener_domain domain=ours.example", "result": payloads(events, "Callback")[2]["result"], "error": None},
            {"name": "smtp_server_rcpt_to", "result": None, "error": None}]
        assert payloads(events, "Callback")[2]["result"]["relay_to"] is True
        first, last = events[0]["conn_meta"], events[-1]["conn_meta"]
        assert first == {"reception_protocol": "ESMTP", "received_from": peer, "received_via": f"127.0.0.1:{d.smtp_port}", "hostname": "mx.example"}
        assert last == dict(first, ehlo_domain="client.example", seen="b@ours.example")
        [m] = payloads(events, "MessageDisposition")
        received = d.wait_record("Reception")[0]
        meta = m.pop("meta")
        assert m == {"relay": True, "log_arf": "Ignore", "log_oob": "Ignore", "queue": "ours.example", "sender": "a@example.com",
                     "recipient": "b@ours.example", "id": received["id"], "was_arf_or_oob": None, "will_enqueue": True}
        assert meta["received_from"] == peer and meta["seen"] == "b@ours.example"


def test_dispositions(where):
    with Smtp(where, "relay_hosts = {}, batch_handling = 'BatchByDomain'", extra=POLICY) as d, Tracer(d) as t:
        session(d, ["a@ours.example", "b@ours.example"])
        [m] = payloads(t.until("Closed"), "MessageDisposition")
        assert m["recipient"] == ["a@ours.example", "b@ours.example"] and m["will_enqueue"] is True
        session(d, ["x@reports.example"])
        [m] = payloads(t.until("Closed"), "MessageDisposition")
        assert (m["relay"], m["log_oob"], m["log_arf"], m["will_enqueue"]) == (False, "LogThenDrop", "LogThenRelay", False)
        assert m["was_arf_or_oob"] is False  # it was looked at
        for text, will_enqueue in ((dsn(FAILED), False), (arf(), True)):
            session(d, ["x@reports.example"], text.replace("\n", "\r\n").encode())
            [m] = payloads(t.until("Closed"), "MessageDisposition")
            assert (m["relay"], m["was_arf_or_oob"], m["will_enqueue"]) == (False, True, will_enqueue)


def test_a_handler_that_fails_and_a_handshake_that_fails(where):
    with Smtp(where, "", extra=POLICY) as d, Tracer(d) as t:
        with d.client() as c:
            c.hello()
            c.must("MAIL FROM:<a@example.com>")
            c.must("RCPT TO:<broken@ours.example>", 421)
        [call] = [p for p in payloads(t.until("Closed"), "Callback") if p["name"] == "smtp_server_rcpt_to"]
        assert call["result"] is None and "out of order" in call["error"]
        with d.client() as c:
            c.hello()
            c.must("STARTTLS", 220)
            c.send(b"\x16\x03\x01\x00\x05hello")
            c.socket.recv(1000)
        [what] = payloads(t.until("Closed"), "Diagnostic")
        assert what["level"] == "ERROR" and "127.0.0.1" in what["message"]


def test_no_credentials(where):
    plain = base64.b64encode(b"\0user\0open sesame").decode()
    secrets = [plain, base64.b64encode(b"open sesame").decode(), "sesame"]
    with Smtp(where, "", extra=POLICY) as d, Tracer(d) as t:
        for dialogue in (
            [f"AUTH PLAIN {plain}"], ["AUTH PLAIN", plain], ["AUTH LOGIN", base64.b64encode(b"user").decode(), secrets[1]],
            [f"AUTH LOGIN {base64.b64encode(b'user').decode()}", secrets[1]], [f"auth plain\t{plain}"], [f" AUTH PLAIN {plain}"], [f"AUTH {plain}"],
            [f"AUTH\t{plain}"], [f"AUTH CRAM-MD5 {plain}"], [f"AUTH  PLAIN   {plain}"], [f"AUTH PLAIN {plain}\n"],
        ):
            with d.client() as c:
                c.hello()
                c.starttls()
                c.hello()
                for line in dialogue:
                    r = c.cmd(line)
                if len(dialogue) > 1 or line == f"AUTH PLAIN {plain}":
                    assert r.code == 235, (dialogue, r)
            events = t.until("Closed")
            text = json.dumps(payloads(events, "Read"))
            assert not any(s in text for s in secrets), text
            assert "***" in text, (dialogue, text)
            if dialogue == [f"AUTH PLAIN {plain}"]:
                assert "AUTH PLAIN ***\r\n" in payloads(events, "Read")
                assert events[-1]["conn_meta"]["authn_id"] == "user" and events[-1]["conn_meta"]["tls_protocol_version"].startswith("TLS")
        # In the clear AUTH is refused; what a client sends all the same is as secret.
        with d.client() as c:
            c.hello()
            c.must(f"AUTH PLAIN {plain}", 524)
        assert "AUTH PLAIN ***\r\n" in payloads(t.until("Closed"), "Read")


def test_bytes_that_are_no_text(where):
    with Smtp(where, "", extra=POLICY) as d, Tracer(d) as t:
        session(d, content=b"Subject: \xff\xfe\r\n\r\n\x01 \"quoted\" \\ \xe2\x82\xac\r\n")
        whole = "".join(payloads(t.until("Closed"), "Read"))
        assert 'Subject: \ufffd\ufffd\r\n\r\n\x01 "quoted" \\ \u20ac\r\n' in whole


# --- what is asked for ---

def test_filter_by_address(where):
    listener = "listen = '127.0.0.1:0', hostname = 'mx.example'", "listen = '[::1]:0', hostname = 'mx.example'"
    with Smtp(where, list(listener), extra=POLICY) as d:
        with Tracer(d, {"source_addr": ["127.0.0.2", "::1/128"]}) as some, Tracer(d, {"source_addr": []}) as all_, Tracer(d, {"source_addr": None}) as also:
            for source in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
                with d.client(source=(source, 0)) as c:
                    c.must("QUIT", 221)
            with d.client(1, host="::1") as c:
                c.must("QUIT", 221)
            hosts = [e["conn_meta"]["received_from"].rsplit(":", 1)[0] for e in some.until("Closed", 2)]
            assert set(hosts) == {"127.0.0.2", "[::1]"} and len(hosts) == 10
            for t in (all_, also):
                assert len(t.until("Closed", 4)) == 20


def test_terse(where):
    content = b"Subject: " + b"x" * 300 + b"\r\n\r\n" + b"hello\r\n" * 100
    with Smtp(where, "", extra=POLICY) as d, Tracer(d, {"terse": True}) as terse, Tracer(d, {"terse": False}) as whole:
        with d.client() as c:
            c.hello()
            c.begin()
            c.must("DATA", 354)
            c.send(content + b".\r\nQUIT\r\n")
            c.reply()
            c.reply()
        short, long = terse.until("Closed"), whole.until("Closed")
        cut = payloads(short, "AbbreviatedRead")
        assert cut and cut[0]["snippet"] == "Subject: " + "x" * 247
        assert payloads(long, "AbbreviatedRead") == []
        pieces = [r for r in payloads(long, "Read") if r.count("\n") > 1]
        assert [len(r) for r in pieces] == [r["len"] for r in cut] and "".join(pieces).startswith(content.decode()[:400])
        assert [p for p in payloads(short) if "AbbreviatedRead" not in p] == [p for p in payloads(long) if p not in [{"Read": r} for r in pieces]]


def test_two_tracers_see_the_same(where):
    with Smtp(where, "", extra=POLICY) as d, Tracer(d) as one, Tracer(d) as two:
        session(d)
        assert one.until("Closed") == two.until("Closed")


def test_events_count_from_the_upgrade_on(where):
    """What happens before the request is shown, as far as the request asks for it."""
    with Smtp(where, "", extra=POLICY) as d, Tracer(d, None) as t:
        for source in ("127.0.0.1", "127.0.0.2"):
            with d.client(source=(source, 0)) as c:
                c.must("QUIT", 221)
        wait_for("their end", lambda: d.metric('connection_count{service="esmtp_listener"}') == 0)
        t.ws.send('{"source_addr": ["127.0.0.2"]}')
        t.early = []
        events = t.until("Closed")
        assert payloads(events)[0] == "Connected" and {e["conn_meta"]["received_from"].split(":")[0] for e in events} == {"127.0.0.2"}


def test_a_slow_reader_is_told_what_it_has_missed(where):
    with Smtp(where, "", extra=POLICY) as d:
        t = Tracer(d, sockopt=((socket.SOL_SOCKET, socket.SO_RCVBUF, 4096),))
        other = Tracer(d, {"source_addr": ["127.0.0.9"]})  # is not held up, and misses nothing
        with d.client() as c:
            c.hello()
            for _ in range(300):
                c.send(b"NOOP\r\n" * 100)
                for _ in range(100):
                    assert c.reply().code == 250
            c.must("QUIT", 221)
        with d.client(source=("127.0.0.9", 0)) as c:
            c.must("QUIT", 221)
        assert payloads(other.until("Closed"))[0] == "Connected"
        events, lag, last = [], None, None
        while last != "Closed" or events[-1]["conn_meta"]["received_from"].startswith("127.0.0.9") is False:
            e = t.event()
            if e["conn_meta"] is None:
                assert set(e["payload"]) == {"Diagnostic"} and e["payload"]["Diagnostic"]["level"] == "ERROR"
                lag = (lag or 0) + int(re.fullmatch(r"Tracer Lagged behind and missed (\d+) events", e["payload"]["Diagnostic"]["message"]).group(1))
                continue
            events.append(e)
            last = e["payload"]
        # Every event is either shown or counted.
        assert lag and lag + len(events) == 2 + 1 + (1 + 1 + 9) + 60000 + 2 + 4, (lag, len(events))
        t.ws.close()
        other.ws.close()


def test_a_thousand_sessions(where):
    """Nothing is missing, for a tracer that reads: it may be as far behind as 200 sessions, which its queue holds."""
    n = 1000
    ahead = threading.Semaphore(200)
    with Smtp(where, "", extra=POLICY) as d, Tracer(d) as t:
        def run(i):
            for _ in range(n // 20):
                assert ahead.acquire(timeout=60)
                assert session(d).code == 250
        seen = []

        def read():
            for _ in range(n):
                seen.extend(t.until("Closed"))
                ahead.release()
        reader = threading.Thread(target=read)
        reader.start()
        Threads(20, run).join()
        reader.join()
        lost = [e for e in seen if e["conn_meta"] is None]
        assert not lost, lost
        assert len(payloads(seen, "MessageDisposition")) == n
        by_peer = {}
        for e in seen:
            by_peer.setdefault(e["conn_meta"]["received_from"], []).append(e["payload"])
        for p in by_peer.values():  # each in its order
            assert p[0] == "Connected" and p[-1] == "Closed" and {"Read": "QUIT\r\n"} in p


# --- the websocket ---

@pytest.mark.parametrize("send, code, reason", [
    (lambda ws: ws.send("nonsense"), 1007, "Failed to parse the request body as JSON"),
    (lambda ws: ws.send("[]"), 1007, "expected struct TraceSmtpServerV1Request"),
    (lambda ws: ws.send(""), 1007, "JSON"),
    (lambda ws: ws.send('{"source": []}'), 1007, "unknown field `source`, expected one of `source_addr`, `terse`"),
    (lambda ws: ws.send('{"source_addr": "127.0.0.1"}'), 1007, "source_addr: invalid type"),
    (lambda ws: ws.send('{"source_addr": ["127.0.0.1", "10.0.0.0/33"]}'), 1007, "source_addr[1]: 10.0.0.0/33"),
    (lambda ws: ws.send('{"terse": "yes"}'), 1007, "terse: invalid type"),
    (lambda ws: ws.send_binary(b"{}"), 1003, "the request must be text"),
    (lambda ws: ws.send('{"source_addr": [%s]}' % ",".join(['"127.0.0.1"'] * 6000)), 1009, ""),
    (lambda ws: (ws.send("{}"), ws.send("{}")), 1008, "after the request nothing more is expected"),
    (lambda ws: (ws.send("{}"), ws.send_binary(b"x")), 1008, "after the request nothing more is expected"),
    (lambda ws: ws.sock.sendall(b"\x81\x02{}"), 1002, ""),                      # not masked
    (lambda ws: ws.sock.sendall(b"\xc1\x82\0\0\0\0{}"), 1002, ""),              # a reserved bit
    (lambda ws: ws.sock.sendall(b"\x80\x82\0\0\0\0{}"), 1002, ""),              # continues nothing
    (lambda ws: ws.sock.sendall(b"\x81\x82\0\0\0\0\xc3\x28"), 1007, ""),        # no UTF-8
    (lambda ws: ws.sock.sendall(b"\x81\xff\x7f" + b"\xff" * 7 + b"\0\0\0\0{"), 1009, ""),
    (lambda ws: ws.sock.sendall(b"\x89\xfe\x00\x7e\0\0\0\0" + b"x" * 126), None, ""),  # a ping that is too long
    (lambda ws: ws.sock.sendall(b"\x01\x80\0\0\0\0" + b"\x00\x80\0\0\0\0" * 5000), 1008, "a message in too many fragments"),
])
def test_bad_frames(where, send, code, reason):
    with Smtp(where, "", extra=POLICY) as d:
        t = Tracer(d, None)
        send(t.ws)
        got = t.closed()
        assert got[0] == code and reason in got[1] and len(got[1].encode()) <= 123, got
        assert t.ws.sock.recv(1) == b""
        with Tracer(d) as again:
            session(d)
            again.until("Closed")


def test_fragments_pings_and_close(where):
    with Smtp(where, "", extra=POLICY) as d, Tracer(d, None) as t:
        for fin, opcode, text in ((0, 1, '{"ter'), (0, 0, ''), (1, 0, 'se": true}')):
            t.ws.send_frame(websocket.ABNF(fin, 0, 0, 0, opcode, 1, text.encode()))
            t.settle()  # between fragments, too
        session(d)
        t.until("Closed")
        t.ws.send_close(1000, b"enough")
        assert t.closed() == (1000, "enough")
        assert t.ws.sock.recv(1) == b""
        wait_for("the end of tracing", lambda: "trace" not in d.request("GET", "/api/admin/task-dump")[2].decode())


def test_one_byte_at_a_time(where):
    with Smtp(where, "", extra=POLICY) as d:
        head = "".join(f"{k}: {v}\r\n" for k, v in UPGRADE.items())
        with socket.create_connection(("127.0.0.1", d.port), timeout=60) as s:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # The first frame comes right behind the request.
            for b in f"GET {PATH} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode() + b"\x81\x82\1\2\3\4" + bytes((0x7b ^ 1, 0x7d ^ 2)) + b"\x89\x80\0\0\0\0":
                s.sendall(bytes((b,)))
            got = b""
            while not got.endswith(b"\x8a\x00"):
                data = s.recv(1000)
                assert data, got
                got += data
        accept = base64.b64encode(hashlib.sha1((KEY + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
        assert got.startswith(b"HTTP/1.1 101 Switching Protocols\r\n") and f"sec-websocket-accept: {accept}\r\n".encode() in got


@pytest.mark.parametrize("change, status, text", [
    ({"Connection": None}, 400, "Connection"),
    ({"Connection": "keep-alive"}, 400, "Connection"),
    ({"Upgrade": None}, 400, "Upgrade"),
    ({"Upgrade": "h2c"}, 400, "Upgrade"),
    ({"Sec-WebSocket-Version": None}, 400, "Sec-WebSocket-Version"),
    ({"Sec-WebSocket-Version": "12"}, 426, "13"),
    ({"Sec-WebSocket-Key": None}, 400, "Sec-WebSocket-Key"),
    ({"Sec-WebSocket-Key": "c2hvcnQ="}, 400, "Sec-WebSocket-Key"),
    ({"Sec-WebSocket-Key": "!"}, 400, "Sec-WebSocket-Key"),
    ({"Content-Length": "1"}, 400, "body"),
    ({"Origin": "http://evil.example"}, 403, "origin"),
    ({"Origin": "null"}, 403, "origin"),
])
def test_not_an_upgrade(where, change, status, text):
    with Smtp(where, "") as d:
        headers = {k: v for k, v in dict(UPGRADE, **change).items() if v is not None}
        got = d.request("GET", PATH, headers=headers)
        assert got[0] == status and text in got[2].decode(), got
        if status == 426:
            assert got[1]["sec-websocket-version"] == "13" and got[1]["upgrade"] == "websocket"


def test_other_ways_of_asking(where):
    with Smtp(where, "") as d:
        assert d.request("HEAD", PATH, headers=UPGRADE)[0] == 400
        assert d.request("POST", PATH, headers=UPGRADE)[0] == 405
        head = "".join(f"{k}: {v}\r\n" for k, v in UPGRADE.items())
        with socket.create_connection(("127.0.0.1", d.port), timeout=60) as s:
            s.sendall(f"GET {PATH} HTTP/1.0\r\n{head}\r\n".encode())
            assert s.recv(1000).startswith(b"HTTP/1.1 400 ")
        import httpx
        with httpx.Client(http1=False, http2=True) as c:
            r = c.get(f"http://127.0.0.1:{d.port}{PATH}")
            assert r.http_version == "HTTP/2" and r.status_code == 400 and "HTTP/1.1" in r.text
        # An Origin that is this service, a list of options, and another case.
        s = websocket.create_connection(f"ws://127.0.0.1:{d.port}{PATH}", timeout=60, origin=f"http://127.0.0.1:{d.port}",
                                        header={"Connection": "keep-alive, UPGRADE", "Upgrade": "WebSocket"})
        s.close()
        counted = d.request("GET", "/metrics")[2].decode()
        assert re.search(rf'^cirrus_http_requests_total{{(?=.*route="{PATH}")(?=.*status="1xx").*}} 1$', counted, re.M), counted
        assert PATH in json.loads(d.request("GET", "/api-docs/openapi.json")[2])["paths"]


def test_only_who_may(where):
    init = "kumo.start_http_listener { listen = '127.0.0.2:0', trusted_hosts = {} }"
    extra = POLICY + "kumo.on('http_server_validate_auth_basic', function(user, password) return password == 'secret' end)"
    with Smtp(where, "", init=init, extra=extra) as d:
        port = int(re.search(r"http listener on 127.0.0.2:(\d+)", d.stderr()).group(1))
        for headers in ({}, {"Authorization": "Basic " + base64.b64encode(b"u:secret").decode()}, {"Authorization": "Basic " + base64.b64encode(b"u:no").decode()}):
            with pytest.raises(websocket.WebSocketBadStatusException) as e:
                websocket.create_connection(f"ws://127.0.0.2:{port}{PATH}", timeout=60, header=headers, suppress_origin=True)
            assert e.value.status_code in (401, 403) and (e.value.status_code == 401 or "secret" in base64.b64decode(headers["Authorization"][6:]).decode())


def test_many_tracers(where):
    with Smtp(where, "", extra=POLICY) as d:
        tracers = [Tracer(d) for _ in range(32)]
        with pytest.raises(websocket.WebSocketBadStatusException) as e:
            Tracer(d)
        assert e.value.status_code == 503
        session(d)
        first = tracers[0].until("Closed")
        for t in tracers[1:]:
            assert t.until("Closed") == first
        for t in tracers[::2]:
            t.ws.close()
        for t in tracers[1::2]:
            t.ws.sock.close()  # without a word

        def again():
            try:
                return Tracer(d)
            except websocket.WebSocketBadStatusException:
                return None
        wait_for("room", again).ws.close()


def test_a_peer_that_is_silent_is_asked_and_then_lost(where):
    init = "kumo.start_http_listener { listen = '127.0.0.2:0', trusted_hosts = {'127.0.0.0/8'}, idle_timeout = '200ms' }"
    with Smtp(where, "", init=init, extra=POLICY) as d:
        port = int(re.search(r"http listener on 127.0.0.2:(\d+)", d.stderr()).group(1))
        ws = websocket.create_connection(f"ws://127.0.0.2:{port}{PATH}", timeout=60, suppress_origin=True)
        ws.send("{}")
        for _ in range(3):
            assert ws.recv_data_frame(control_frame=True)[0] == websocket.ABNF.OPCODE_PING  # and it is answered by the library
        assert ws.sock.recv(2) == b"\x89\x00"  # this one is not
        rest = b""
        while data := ws.sock.recv(100):
            rest += data
        assert rest[:1] == b"\x88"
        ws.sock.close()


@pytest.mark.parametrize("is_busy", [False, True])
def test_shutdown(where, is_busy):
    d = Smtp(where, "", extra=POLICY).start()
    try:
        with_request, without = Tracer(d), Tracer(d, None)
        c = d.client()
        c.hello()
        if is_busy:
            for _ in range(50):
                c.send(b"NOOP\r\n" * 20)
                for _ in range(20):
                    c.reply()
        d.process.terminate()
        assert with_request.closed()[0] == 1001
        assert without.closed()[0] == 1001
        c.socket.close()
    finally:
        assert d.stop() == 0


def test_tls(where):
    with Smtp(where, "", init="kumo.start_http_listener { listen = '127.0.0.3:0', use_tls = true, trusted_hosts = {'127.0.0.0/8'} }", extra=POLICY) as d:
        port = int(re.search(r"https listener on 127.0.0.3:(\d+)", d.stderr()).group(1))
        ws = websocket.create_connection(f"wss://127.0.0.3:{port}{PATH}", timeout=60, suppress_origin=True, sslopt={"cert_reqs": 0, "check_hostname": False})
        ws.send("{}")
        ws.ping("x")
        assert ws.recv_data(control_frame=True) == (websocket.ABNF.OPCODE_PONG, b"x")
        session(d)
        while json.loads(ws.recv())["payload"] != "Closed":
            pass
        ws.close()
