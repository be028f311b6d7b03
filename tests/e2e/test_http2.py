"""HTTP/2 against real clients (curl, nghttp, h2load, httpx, python3-h2), frame by frame where RFC 9113 is broken, and under attack."""
import gzip
import json
import re
import signal
import socket
import struct
import subprocess
import threading
import time

import h2.config
import h2.connection
import h2.events
import httpx
import pytest

import h2raw
from cirrus import Daemon, Threads, policy, wait_for
from h2raw import H2, frame

BODY_LIMIT = 2097152
TOO_LARGE = b"Failed to buffer the request body: length limit exceeded"
LIVENESS = "/api/check-liveness/v1"
INJECT = "/api/inject/v1"
JSON = ("content-type", "application/json")
NOBODY = json.dumps({"envelope_sender": "s@example.com", "recipients": [], "content": "Subject: x\r\n\r\nhi\r\n"}).encode()
NOBODY_ANSWER = {"success_count": 0, "fail_count": 0, "failed_recipients": [], "errors": [], "messages": [], "durability": "fsync"}
SLOW = json.dumps({"envelope_sender": "s@example.com", "recipients": [{"email": "slow@example.org"}],
                   "content": "Subject: x\r\n\r\nhi\r\n"}).encode()
EXTRA = """
kumo.on('http_message_generated', function(msg)
  if msg:recipient().user == 'slow' then kumo.sleep(1.5) end
  if msg:recipient().user == 'held' then
    kumo.log_info('a message is held')
    while not io.open('HELD') do kumo.sleep(0.02) end
  end
  msg:set_meta('queue', 'null')
end)
"""


def listener(where, **params):
    """A policy whose listener has these parameters, as Lua text."""
    more = "".join(f", {k} = {v}" for k, v in params.items())
    return policy(where, extra=EXTRA).replace("listen = '127.0.0.1:0'", f"listen = '127.0.0.1:0'{more}")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    where = tmp_path_factory.mktemp("http2")
    # A second listener with TLS, where HTTP/2 is agreed upon by ALPN.
    text = listener(where).replace("kumo.start_http_listener",
                                   "kumo.start_http_listener { listen = '127.0.0.1:0', use_tls = true }\n  kumo.start_http_listener", 1)
    with Daemon(where, text) as d:
        d.tls_port = int(re.search(r"https listener on \S+:(\d+)", d.stderr()).group(1))
        d.port = int(re.search(r"http listener on \S+:(\d+)", d.stderr()).group(1))
        yield d


def run(*args, data=None, timeout=60):
    p = subprocess.run(args, input=data, capture_output=True, timeout=timeout)
    assert p.returncode == 0, (args, p.stdout[-2000:], p.stderr[-2000:])
    return p.stdout, p.stderr.decode()


def curl(daemon, path, *args, data=None):
    """(status, trace, body), over HTTP/2."""
    out, trace = run("curl", "-sSv", "--http2-prior-knowledge", "--max-time", "50", "-w", "\n%{http_version} %{http_code}", *args,
                     f"http://127.0.0.1:{daemon.port}{path}", data=data)
    body, _, last = out.rpartition(b"\n")
    version, status = last.decode().split()
    assert version == "2"
    return int(status), trace, body


def message(n):
    return json.dumps({"envelope_sender": "s@example.com", "recipients": [{"email": "r@example.org"}],
                       "content": "Subject: x\r\n\r\n" + "0123456789\r\n" * (n // 12)}).encode()


class Probe:
    """A client that asks for liveness all the time, over a connection of its own, and notes how long answers took."""

    def __init__(self, daemon):
        self.daemon, self.took, self.stop = daemon, [], threading.Event()

    def __enter__(self):
        def ask():
            c = self.daemon.connect()
            while not self.stop.is_set():
                begun = time.monotonic()
                c.request("GET", LIVENESS)
                assert c.getresponse().read() == b"OK"
                self.took.append(time.monotonic() - begun)
                time.sleep(0.002)
            c.close()
        self.threads = Threads(1, lambda i: ask())
        return self

    def __exit__(self, kind, value, trace):
        self.stop.set()
        self.threads.join()
        self.took.sort()
        if kind is None:
            assert self.took and self.took[-1] < 10, f"an answer took {self.took[-1]:.3f} s"

    def __str__(self):
        n = len(self.took)
        return f"{n} probes, median {self.took[n // 2] * 1e3:.1f} ms, worst {self.took[-1] * 1e3:.1f} ms"


# --- real clients ---

def test_curl(daemon):
    status, trace, body = curl(daemon, LIVENESS)
    assert (status, body) == (200, b"OK") and "< HTTP/2 200" in trace and "< content-length: 2" in trace
    status, trace, body = curl(daemon, "/nope")
    assert (status, body) == (404, b"")
    status, trace, body = curl(daemon, INJECT)
    assert status == 405 and "< allow: POST" in trace
    for size in (100, 20000, 1 << 20):
        status, _, body = curl(daemon, INJECT, "-H", "Content-Type: application/json", "--data-binary", "@-", data=message(size))
        assert status == 200 and json.loads(body)["success_count"] == 1
    status, _, body = curl(daemon, INJECT, "-H", "Content-Type: application/json", "--data-binary", "@-", data=b"x" * (BODY_LIMIT + 1))
    assert (status, body) == (413, TOO_LARGE)
    status, trace, _ = curl(daemon, LIVENESS, "--head")
    assert status == 200 and "< content-length: 2" in trace


def test_curl_expects_100_continue(daemon):
    status, trace, body = curl(daemon, INJECT, "-H", "Content-Type: application/json", "-H", "Expect: 100-continue",
                               "--expect100-timeout", "20", "--data-binary", "@-", data=message(1 << 20))
    assert status == 200 and json.loads(body)["success_count"] == 1


def test_by_alpn(daemon):
    """Many at once, which curl 7.88 does over TLS only; and a client that has nothing but HTTP/1.1."""
    url = f"https://127.0.0.1:{daemon.tls_port}{LIVENESS}"
    out, _ = run("curl", "-sSk", "--parallel", "--parallel-max", "50", "-w", "%{http_version}:%{http_code} ", "-o", "/dev/null", url + "?[1-200]")
    assert out.decode().split() == ["2:200"] * 200
    out, _ = run("curl", "-sSk", "--http1.1", "-w", "%{http_version}:%{http_code}", "-o", "/dev/null", url)
    assert out == b"1.1:200"
    out, _ = run("h2load", "-n", "2000", "-c", "5", "-m", "20", url, timeout=120)
    assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in out.decode() and "h2" in out.decode()
    out, _ = run("curl", "-sSk", "-w", "\n%{http_version}", "-H", "Content-Type: application/json", "--data-binary", "@-",
                 f"https://127.0.0.1:{daemon.tls_port}{INJECT}", data=message(1 << 20))
    assert out.endswith(b"\n2") and json.loads(out[:-2])["success_count"] == 1


def test_nghttp(daemon):
    out, _ = run("nghttp", "-v", "-m", "20", f"http://127.0.0.1:{daemon.port}{LIVENESS}", f"http://127.0.0.1:{daemon.port}/metrics")
    text = re.sub(r"\x1b\[[0-9;]*m", "", out.decode())
    assert text.count(":status: 200") >= 21
    assert "[SETTINGS_MAX_CONCURRENT_STREAMS(0x03):100]" in text and "[SETTINGS_MAX_HEADER_LIST_SIZE(0x06):32768]" in text


def test_httpx(daemon):
    with httpx.Client(http1=False, http2=True, base_url=f"http://127.0.0.1:{daemon.port}", timeout=30) as c:
        for i in range(50):
            r = c.get(LIVENESS)
            assert (r.status_code, r.text, r.http_version) == (200, "OK", "HTTP/2")
            r = c.post(INJECT, content=NOBODY, headers=dict([JSON]))
            assert r.status_code == 200 and r.json() == NOBODY_ANSWER
        r = c.get("/api-docs/openapi.json")
        assert r.headers["content-encoding"] in ("gzip", "deflate") and r.json()["openapi"].startswith("3.")
        assert r.headers["vary"] == "accept-encoding"


@pytest.mark.parametrize("path", [LIVENESS, "/metrics"])
def test_h2load(daemon, path):
    out, _ = run("h2load", "-n", "5000", "-c", "10", "-m", "50", f"http://127.0.0.1:{daemon.port}{path}", timeout=120)
    assert "5000 succeeded, 0 failed, 0 errored, 0 timeout" in out.decode(), out.decode()


def test_100_000_requests_on_one_connection(daemon):
    with Probe(daemon) as probe:
        out, _ = run("h2load", "-n", "100000", "-c", "1", "-m", "100", f"http://127.0.0.1:{daemon.port}{LIVENESS}", timeout=300)
    assert "100000 succeeded, 0 failed, 0 errored, 0 timeout" in out.decode(), out.decode()
    print(probe, re.search(r"finished in .*", out.decode()).group())


def h2_client(port, **local):
    """python3-h2 with a socket: (connection, socket)."""
    s = socket.create_connection(("127.0.0.1", port), timeout=20)
    c = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    c.initiate_connection()
    if local:
        c.update_settings(local)
    s.sendall(c.data_to_send())
    return c, s


def h2_post(c, s, body, headers=()):
    """Posts within the service's windows; (status, body)."""
    stream = c.get_next_available_stream_id()
    c.send_headers(stream, [(":method", "POST"), (":scheme", "http"), (":path", INJECT), (":authority", "x"), JSON, *headers])
    status, got, ended = None, b"", False
    while not ended:
        while body and c.local_flow_control_window(stream) > 0:
            n = min(len(body), c.local_flow_control_window(stream), c.max_outbound_frame_size)
            c.send_data(stream, body[:n], end_stream=n == len(body))
            body = body[n:]
        s.sendall(c.data_to_send())
        data = s.recv(65536)
        assert data
        for e in c.receive_data(data):
            if isinstance(e, h2.events.ResponseReceived):
                status = int(dict(e.headers)[":status"])
            elif isinstance(e, h2.events.DataReceived):
                got += e.data
                c.acknowledge_received_data(e.flow_controlled_length, e.stream_id)
            elif isinstance(e, (h2.events.StreamEnded, h2.events.StreamReset)):
                ended = ended or e.stream_id == stream
    return status, got


def test_upload_is_paced_by_our_windows(daemon):
    c, s = h2_client(daemon.port)
    for size in (65535, 65536, 300000, 1500000):
        status, body = h2_post(c, s, message(size))
        assert status == 200 and json.loads(body)["success_count"] == 1
    s.close()


@pytest.mark.parametrize("window", [1, 100, 16384, 1000000])
def test_answers_are_paced_by_the_clients_window(daemon, window):
    want = daemon.request("GET", "/api-docs/openapi.json")[2]
    if window == 1:
        want = daemon.request("GET", "/metrics?prefix=disk_free_inodes")[2][:300]
    path = "/api-docs/openapi.json" if window > 1 else "/metrics?prefix=disk_free_inodes"
    with H2(daemon.port, initial_window_size=window) as c:
        stream = c.request("GET", path)
        got, n_frames = b"", 0
        while len(got) < len(want):
            f = c.read_frame()
            if f[0] != h2raw.DATA:
                continue
            assert f[2] == stream and len(f[3]) <= min(window, 16384)
            got += f[3]
            n_frames += 1
            if not f[1] & h2raw.END_STREAM:
                c.send(h2raw.window_update(stream, len(f[3])) + h2raw.window_update(0, len(f[3])))
        assert len(got) == len(want) and (window == 1 or got == want)
        if window == 1:  # most of it is the same: times and numbers change
            assert n_frames == len(want)


def test_window_shrinks_while_an_answer_is_sent(daemon):
    want = daemon.request("GET", "/api-docs/openapi.json")[2]
    with H2(daemon.port, initial_window_size=5000) as c:
        stream = c.request("GET", "/api-docs/openapi.json")
        got = b""
        while len(got) < 5000:
            f = c.read_frame()
            got += f[3] if f[0] == h2raw.DATA else b""
        c.send(h2raw.settings(initial_window_size=10))  # ours is now 4990 below zero
        c.send(h2raw.window_update(stream, 4991))
        while len(got) < 5001:
            f = c.read_frame()
            got += f[3] if f[0] == h2raw.DATA else b""
        assert len(got) == 5001
        c.send(h2raw.window_update(stream, 1 << 20) + h2raw.window_update(0, 1 << 20))
        assert got + c.answer(stream)[2] == want


# --- the same service as over HTTP/1 ---

CASES = {
    "liveness": ("GET", LIVENESS, {}, None),
    "head": ("HEAD", LIVENESS, {}, None),
    "unknown": ("GET", "/nope", {}, None),
    "escaped": ("GET", "/api/check%2dliveness/v1", {}, None),
    "method": ("DELETE", INJECT, {}, None),
    "credentials": ("GET", LIVENESS, {"authorization": "Basic YTpi"}, None),
    "type": ("POST", INJECT, {"content-type": "text/plain"}, b"hello"),
    "no json": ("POST", INJECT, dict([JSON]), b"hello"),
    "nobody": ("POST", INJECT, dict([JSON]), NOBODY),
    "gzip": ("POST", INJECT, dict([JSON, ("content-encoding", "gzip")]), gzip.compress(NOBODY)),
    "no gzip": ("POST", INJECT, dict([JSON, ("content-encoding", "gzip")]), NOBODY),
    "br": ("POST", INJECT, dict([JSON, ("content-encoding", "br")]), NOBODY),
    "expectation": ("POST", INJECT, dict([JSON, ("expect", "wonders")]), NOBODY),
    "bad escape": ("GET", "/%zz", {}, None),
    "escaped NUL": ("GET", "/%00", {}, None),
    "fragment": ("GET", "/a#b", {}, None),
    "long target": ("GET", "/" + "a" * 8192, {}, None),
    "many fields": ("GET", LIVENESS, {f"x-{i}": "1" for i in range(101)}, None),
    "large header": ("GET", LIVENESS, {"x": "a" * 33000}, None),
}


@pytest.mark.parametrize("case", CASES)
def test_same_answers_as_http_1(daemon, case):
    method, path, headers, body = CASES[case]
    status, fields, text = daemon.request(method, path, body, headers)
    with H2(daemon.port) as c:
        if body is not None:
            headers = dict(headers, **{"content-length": str(len(body))})
        answer = c.answer(c.request(method, path, *headers.items(), body=body))
        assert c.is_alive()
    fields.pop("connection", None)
    assert (answer[0], answer[2]) == (status, text)
    assert {k for k in answer[1] if k != "date"} == {k for k in fields if k != "date"}
    assert {k: v for k, v in answer[1].items() if k != "date"} == {k: v for k, v in fields.items() if k != "date"}


def test_without_content_length(daemon):
    with H2(daemon.port) as c:
        status, _, body = c.answer(c.request("POST", INJECT, JSON, body=NOBODY))
        assert status == 200 and json.loads(body) == NOBODY_ANSWER
        status, _, body = c.answer(c.request("POST", INJECT, JSON))  # END_STREAM with the header: a body of nothing
        assert status == 400 and body.startswith(b"Failed to parse the request body as JSON")


def test_host_and_authority(daemon):
    with H2(daemon.port) as c:
        s = c.next_stream
        c.next_stream += 2
        c.send(frame(h2raw.HEADERS, 5, s, c.block([(":method", "GET"), (":scheme", "http"), (":path", LIVENESS), ("host", "x")])))
        assert c.answer(s)[0] == 200
        assert c.answer(c.request("GET", LIVENESS, ("host", "X")))[0] == 200
        assert c.answer(c.request("GET", LIVENESS, ("host", "y")))[0] == 400
        for authority in ("u@x", "x:y", "[::1"):
            s = c.next_stream
            c.next_stream += 2
            c.send(frame(h2raw.HEADERS, 5, s, c.block([(":method", "GET"), (":scheme", "http"), (":path", LIVENESS), (":authority", authority)])))
            assert c.answer(s)[0] == 400
        assert c.is_alive()


def test_padding_and_trailers(daemon):
    with H2(daemon.port) as c:
        s, out = c.request("POST", INJECT, JSON, end=False, send=False)
        for byte in NOBODY:
            out += frame(h2raw.DATA, h2raw.PADDED, s, b"\x05" + bytes([byte]) + bytes(5))
        out += frame(h2raw.HEADERS, 5, s, c.block([("x-checksum", "1")]))
        c.send(out)
        status, _, body = c.answer(s)
        assert status == 200 and json.loads(body) == NOBODY_ANSWER


def test_frames_byte_by_byte(daemon):
    with H2(daemon.port, begin=False) as c:
        s, out = c.request("POST", INJECT, JSON, ("content-length", str(len(NOBODY))), body=NOBODY, send=False)
        for byte in h2raw.PREFACE + h2raw.settings() + out:
            c.send(bytes([byte]))
        assert c.answer(s)[0] == 200


def test_refused_body_is_not_waited_for(daemon):
    """The answer comes before the body is complete; the rest is told to stay away, and the connection goes on."""
    with H2(daemon.port) as c:
        s = c.request("POST", INJECT, ("content-type", "text/plain"), ("content-length", "1000000"), body=b"x" * 1000, end=False)
        assert c.answer(s)[0] == 415
        f = c.read_frame()
        assert f[0] == h2raw.RST_STREAM and f[2] == s and f[3] == b"\0\0\0\0"
        s = c.request("POST", INJECT, JSON, ("content-length", str(BODY_LIMIT + 1)), body=b"x" * 1000, end=False)
        assert c.answer(s)[::2] == (413, TOO_LARGE)
        s = c.request("POST", INJECT, JSON, body=b"x" * 1000, end=False)
        assert c.is_alive()


# --- what is not HTTP/2 (RFC 9113 sections 5, 6, 8) ---

OK = [(":method", "GET"), (":scheme", "http"), (":path", LIVENESS), (":authority", "x")]
MALFORMED = {
    "no method": OK[1:],
    "no scheme": OK[:1] + OK[2:],
    "no path": OK[:2] + OK[3:],
    "empty path": [(":path", "") if f[0] == ":path" else f for f in OK],
    "path without slash": [(":path", "api") if f[0] == ":path" else f for f in OK],
    "two methods": OK + [(":method", "GET")],
    "unknown pseudo-header": OK + [(":version", "2")],
    "response pseudo-header": OK + [(":status", "200")],
    "pseudo-header behind a field": OK[:3] + [("a", "b")] + OK[3:],
    "upper case": OK + [("Accept", "x")],
    "connection": OK + [("connection", "keep-alive")],
    "keep-alive": OK + [("keep-alive", "1")],
    "proxy-connection": OK + [("proxy-connection", "close")],
    "transfer-encoding": OK + [("transfer-encoding", "chunked")],
    "upgrade": OK + [("upgrade", "websocket")],
    "te": OK + [("te", "gzip")],
    "CR in a value": OK + [("a", "b\rc")],
    "LF in a value": OK + [("a", "b\nc")],
    "CRLF in a value": OK + [("a", "b\r\nhost: y")],
    "NUL in a value": OK + [("a", "b\0c")],
    "CRLF in the path": [(":path", "/\r\nx: y") if f[0] == ":path" else f for f in OK],
    "CRLF in the method": [(":method", "GET\r\n") if f[0] == ":method" else f for f in OK],
    "CRLF in the authority": [(":authority", "x\r\ny") if f[0] == ":authority" else f for f in OK],
    "blank in a name": OK + [("a b", "c")],
    "colon in a name": OK + [("a:b", "c")],
    "CRLF in a name": OK + [("a\r\nb", "c")],
    "empty name": OK + [("", "c")],
    "blank around a value": OK + [("a", " b")],
    "two content-length": OK + [("content-length", "0"), ("content-length", "0")],
    "content-length that is none": OK + [("content-length", "+0")],
    "content-length without a body": OK + [("content-length", "5")],
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_request_resets_the_stream(daemon, case):
    with H2(daemon.port) as c:
        c.send(frame(h2raw.HEADERS, 5, 1, c.block(MALFORMED[case], plain=True)))
        assert c.answer(1) == ("reset", h2raw.PROTOCOL_ERROR)
        c.next_stream = 3
        assert c.answer(c.request())[0] == 200  # the connection is in step


@pytest.mark.parametrize("given,body", [("5", b"hell"), ("5", b"hello!"), ("0", b"x"), ("5", b"")])
def test_content_length_must_agree(daemon, given, body):
    with H2(daemon.port) as c:
        s = c.request("POST", INJECT, JSON, ("content-length", given), body=body)
        assert c.answer(s) == ("reset", h2raw.PROTOCOL_ERROR)
        assert c.answer(c.request())[0] == 200


def req(c, *more):
    return c.request(*more, send=False)[1]


BROKEN = {  # what is sent behind preface and SETTINGS -> codes of GOAWAY that will do
    "DATA on stream 0": (lambda c: frame(h2raw.DATA, 0, 0, b"x"), {1}),
    "DATA on an idle stream": (lambda c: frame(h2raw.DATA, 0, 1, b"x"), {1}),
    "HEADERS on stream 0": (lambda c: frame(h2raw.HEADERS, 5, 0, b"\x82"), {1}),
    "HEADERS on an even stream": (lambda c: frame(h2raw.HEADERS, 5, 2, c.block(OK)), {1}),
    "streams in the wrong order": (lambda c: req(c) + req(c) + frame(h2raw.HEADERS, 5, 1, b"\x82"), {1, 5}),
    "PUSH_PROMISE": (lambda c: req(c) + frame(h2raw.PUSH_PROMISE, 4, 1, b"\0\0\0\2\x82"), {1}),
    "frame too large": (lambda c: frame(h2raw.DATA, 0, 1, bytes(16385)), {6}),
    "SETTINGS of 5 bytes": (lambda c: frame(h2raw.SETTINGS, 0, 0, bytes(5)), {6}),
    "SETTINGS on a stream": (lambda c: frame(h2raw.SETTINGS, 0, 1), {1}),
    "SETTINGS ACK with something": (lambda c: frame(h2raw.SETTINGS, 1, 0, bytes(6)), {6}),
    "window beyond 31 bits": (lambda c: h2raw.settings(initial_window_size=0x80000000), {3}),
    "PING of 7 bytes": (lambda c: frame(h2raw.PING, 0, 0, bytes(7)), {6}),
    "PING on a stream": (lambda c: frame(h2raw.PING, 0, 1, bytes(8)), {1}),
    "WINDOW_UPDATE of 0": (lambda c: h2raw.window_update(0, 0), {1}),
    "WINDOW_UPDATE beyond 31 bits": (lambda c: h2raw.window_update(0, 0x7fffffff), {3}),
    "RST_STREAM of an idle stream": (lambda c: h2raw.reset(7), {1}),
    "CONTINUATION alone": (lambda c: frame(h2raw.CONTINUATION, 4, 1, b"\x82"), {1}),
    "DATA inside a header section": (lambda c: frame(h2raw.HEADERS, 0, 1, b"\x82") + frame(h2raw.DATA, 0, 1, b"x"), {1}),
    "broken HPACK": (lambda c: frame(h2raw.HEADERS, 5, 1, b"\xff\xff\xff\xff\xff\xff"), {9}),
    "HPACK index out of range": (lambda c: frame(h2raw.HEADERS, 5, 1, b"\xfe"), {9}),
    "table size beyond the limit": (lambda c: frame(h2raw.HEADERS, 5, 1, b"\x3f\xff\xff\x7f\x82"), {9}),
    "padding longer than the frame": (lambda c: c.request("POST", INJECT, end=False, send=False)[1] + frame(h2raw.DATA, 8, 1, b"\xff"), {1}),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_connection_ends_with_goaway(daemon, case):
    make, codes = BROKEN[case]
    with H2(daemon.port) as c:
        c.send(make(c))
        assert c.goaway() in codes
    assert daemon.request("GET", LIVENESS)[0] == 200


@pytest.mark.parametrize("data", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET / HTTP/1.1\r\n\r\n", h2raw.PREFACE + frame(h2raw.PING, 0, 0, bytes(8)),
                                  h2raw.PREFACE + bytes(100)])
def test_no_settings_behind_the_preface(daemon, data):
    with H2(daemon.port, begin=False) as c:
        c.send(data)
        assert c.goaway() in (h2raw.PROTOCOL_ERROR, h2raw.FRAME_SIZE_ERROR)


def test_almost_the_preface_is_http_1(daemon):
    for data, status in ((b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", b"505"), (b"PRI / HTTP/1.1\r\nHost: x\r\n\r\n", b"400"), (b"P\r\n\r\n", b"400"),
                         (b"PRI * HTTP/2.0\r\n\r\nSM", b"505")):
        with H2(daemon.port, begin=False) as c:
            c.send(data)
            c.socket.shutdown(socket.SHUT_WR)
            assert c.socket.makefile("rb").readline().split(b" ")[:2] == [b"HTTP/1.1", status]


def test_preface_in_a_later_request_is_none(daemon):
    with H2(daemon.port, begin=False) as c:
        c.send(b"GET /nope HTTP/1.1\r\nHost: x\r\n\r\n" + h2raw.PREFACE + h2raw.settings())
        lines = c.socket.makefile("rb").read(4000)
        assert lines.count(b"HTTP/1.1 404 ") == 1 and lines.count(b"HTTP/1.1 505 ") == 1


# --- attacks: the client is told to calm down, and nobody else notices ---

def attack(daemon, send, codes=(h2raw.ENHANCE_YOUR_CALM,), **our_settings):
    """send(c) sends until it returns False; GOAWAY must come, and probes be answered meanwhile."""
    with Probe(daemon) as probe, H2(daemon.port, **our_settings) as c:
        threads = Threads(1, lambda i: send(c))
        code = c.goaway()
        threads.join()
    assert code in codes
    print(probe)


def test_rapid_reset(daemon):
    def send(c):
        for _ in range(300):
            out = b""
            for _ in range(20):
                stream, request = c.request(send=False)
                out += request + h2raw.reset(stream)
            if not c.try_send(out):
                return
    attack(daemon, send)


def test_rapid_reset_of_slow_requests(daemon):
    def send(c):
        for _ in range(600):
            stream, request = c.request("POST", INJECT, JSON, body=SLOW, send=False)
            if not c.try_send(request + h2raw.reset(stream)):
                return
    attack(daemon, send)


def test_attackers_that_come_back(daemon):
    """Who is sent away may connect again; what each connection costs must leave the others their share."""
    until = time.monotonic() + 3

    def attacker(i):
        while time.monotonic() < until:
            with H2(daemon.port) as c:
                alive = True
                while alive and time.monotonic() < until:
                    out = b""
                    for _ in range(50):
                        stream, request = c.request("GET", "/metrics", send=False)
                        out += request + h2raw.reset(stream)
                    alive = c.try_send(out)
    with Probe(daemon) as probe:
        Threads(4, attacker).join()
    print(probe)


def test_reset_made_by_us(daemon):
    """The client makes mistakes on purpose, so that it is we who reset."""
    def send(c):
        for _ in range(300):
            out = b""
            for _ in range(20):
                out += c.request("POST", INJECT, ("connection", "close"), send=False)[1]
            if not c.try_send(out):
                return
    attack(daemon, send)


def test_continuation_flood(daemon):
    def send(c):
        if c.try_send(frame(h2raw.HEADERS, 1, 1, c.block(OK))):
            while c.try_send(frame(h2raw.CONTINUATION, 0, 1, c.block([("a", "b")], plain=True)) * 100):
                pass
    attack(daemon, send)


def test_empty_continuation_flood(daemon):
    def send(c):
        if c.try_send(frame(h2raw.HEADERS, 1, 1, c.block(OK))):
            while c.try_send(frame(h2raw.CONTINUATION, 0, 1) * 100):
                pass
    attack(daemon, send)


def test_hpack_bomb(daemon):
    """One entry of almost 4 KB in the table, then thousands of references of one byte to it."""
    def send(c):
        while True:
            s = c.next_stream
            c.next_stream += 2
            first = c.block(OK) + b"\x40" + h2raw.length(1) + b"a" + h2raw.length(3900) + b"b" * 3900
            if not c.try_send(frame(h2raw.HEADERS, 1, s, first) + frame(h2raw.CONTINUATION, 4, s, b"\xbe" * 16384)):
                return
            c.encoder = h2raw.hpack.Encoder()
    attack(daemon, send)


def test_ping_flood(daemon):
    def send(c):
        while c.try_send(frame(h2raw.PING, 0, 0, b"12345678") * 1000):
            pass
    attack(daemon, send)


def test_ping_flood_of_a_client_that_does_not_read(daemon):
    with Probe(daemon), H2(daemon.port) as c:
        c.socket.settimeout(20)
        while c.try_send(frame(h2raw.PING, 0, 0, b"12345678") * 1000):
            pass


@pytest.mark.parametrize("what", ["empty", "window", "table"])
def test_settings_flood(daemon, what):
    one = {"empty": h2raw.settings(), "window": h2raw.settings(initial_window_size=1) + h2raw.settings(initial_window_size=65535),
           "table": h2raw.settings(header_table_size=0) + h2raw.settings(header_table_size=4096)}[what]

    def send(c):
        while c.try_send(one * 500):
            pass
    attack(daemon, send)


def test_large_settings(daemon):
    attack(daemon, lambda c: c.try_send(frame(h2raw.SETTINGS, 0, 0, struct.pack(">HI", 4, 65535) * 2000)), codes=(1, 2, 11))


def test_priority_flood(daemon):
    def send(c):
        n = 1
        while c.try_send(b"".join(frame(h2raw.PRIORITY, 0, n + 2 * i, struct.pack(">IB", 0, 1)) for i in range(500))):
            n += 1000
    attack(daemon, send)


def test_unknown_frame_flood(daemon):
    def send(c):
        while c.try_send(frame(0xbe, 0, 0, b"grease") * 1000):
            pass
    attack(daemon, send)


def test_empty_data_flood(daemon):
    def send(c):
        c.try_send(c.request("POST", INJECT, JSON, end=False, send=False)[1])
        while c.try_send(frame(h2raw.DATA, 0, 1) * 1000):
            pass
    attack(daemon, send)


def test_window_update_flood(daemon):
    def send(c):
        while c.try_send(h2raw.window_update(0, 1) * 1000):
            pass
    attack(daemon, send)


def test_tiny_windows(daemon):
    """Answers are asked for and fetched byte by byte."""
    def send(c):
        c.try_send(b"".join(c.request("GET", "/api-docs/openapi.json", send=False)[1] for _ in range(50)))
        while c.try_send(b"".join(h2raw.window_update(1 + 2 * i, 1) for i in range(50))):
            pass
    attack(daemon, send, initial_window_size=0)


def test_more_streams_than_allowed(daemon):
    """Beyond SETTINGS_MAX_CONCURRENT_STREAMS a stream is refused, and is not worked on."""
    with Probe(daemon), H2(daemon.port) as c:
        c.send(b"".join(c.request("POST", INJECT, JSON, ("content-length", "5"), end=False, send=False)[1] for _ in range(150)))
        refused = set()
        while len(refused) < 50:
            f = c.read_frame()
            assert f is not None
            if f[0] == h2raw.RST_STREAM:
                assert struct.unpack(">I", f[3])[0] == h2raw.REFUSED_STREAM
                refused.add(f[2])
        assert refused == {1 + 2 * i for i in range(100, 150)}


def test_reset_streams_count_while_they_are_worked_on(where):
    held = SLOW.replace(b"slow@", b"held@")
    with Daemon(where, listener(where, max_concurrent_streams=5).replace("'HELD'", f"'{where}/go'")) as d, H2(d.port) as c:
        assert h2raw.settings(max_concurrent_streams=5)[9:] in c.read_frame()[3]
        for i in range(5):
            stream, request = c.request("POST", INJECT, JSON, body=held, send=False)
            c.send(request)
            wait_for("the policy to have it", lambda: d.stderr().count("is held") == i + 1)
            c.send(h2raw.reset(stream))
        assert c.answer(c.request()) == ("reset", h2raw.REFUSED_STREAM)
        (where / "go").touch()
        wait_for("the held requests to end", lambda: c.answer(c.request())[0] == 200)


def test_answers_that_are_not_read_wait_in_the_client(daemon):
    """A client that asks for much and reads nothing holds up itself only."""
    with Probe(daemon) as probe, H2(daemon.port, initial_window_size=0) as c:
        c.send(b"".join(c.request("GET", "/metrics", send=False)[1] for _ in range(100)))
        assert c.is_alive()
        time.sleep(0.5)
    print(probe)


# --- time ---

def test_header_takes_too_long(where):
    with Daemon(where, listener(where, header_timeout="'400ms'")) as d:
        for data in (h2raw.PREFACE[:10], h2raw.PREFACE, h2raw.PREFACE + h2raw.settings()[:5]):
            begun = time.monotonic()
            with H2(d.port, begin=False) as c:
                c.send(data)
                assert c.goaway() in (None, h2raw.ENHANCE_YOUR_CALM)
            assert 0.3 < time.monotonic() - begun < 20
        with H2(d.port) as c:  # a header section that drips, with the connection busy otherwise
            block = c.block(OK)
            begun = time.monotonic()
            c.send(frame(h2raw.HEADERS, 1, 1, block[:3]))
            assert c.goaway() == h2raw.ENHANCE_YOUR_CALM
            assert 0.3 < time.monotonic() - begun < 20
        with H2(d.port) as c:  # a malformed one has an end
            c.send(frame(h2raw.HEADERS, 5, 1, c.block(MALFORMED["connection"], plain=True)))
            assert c.answer(1) == ("reset", h2raw.PROTOCOL_ERROR)
            time.sleep(0.8)
            assert c.is_alive()


def test_body_takes_too_long(where):
    with Daemon(where, listener(where, body_timeout="'400ms'")) as d, H2(d.port) as c:
        begun = time.monotonic()
        s = c.request("POST", INJECT, JSON, ("content-length", "500"), body=b"{", end=False)
        other = c.request("POST", INJECT, JSON, body=NOBODY)
        assert c.answer(other)[0] == 200
        status, _, body = c.answer(s)
        assert (status, body) == (408, b"Error: the request body took too long")
        assert 0.3 < time.monotonic() - begun < 20
        assert c.is_alive()


def test_idle_connection_is_told_goodbye(where):
    with Daemon(where, listener(where, idle_timeout="'600ms'")) as d:
        with H2(d.port) as c:
            begun = time.monotonic()
            assert c.answer(c.request())[0] == 200
            threads = Threads(1, lambda i: ping_until_closed(c))  # which does not count
            assert c.goaway() == h2raw.NO_ERROR
            assert 0.3 < time.monotonic() - begun < 20
            threads.join()
        with H2(d.port) as c:  # a request at work is no idleness
            status, _, body = c.answer(c.request("POST", INJECT, JSON, body=SLOW))
            assert status == 200


def ping_until_closed(c):
    while c.try_send(frame(h2raw.PING, 0, 0, bytes(8))):
        time.sleep(0.05)


def test_slow_reader_is_reset(where):
    with Daemon(where, listener(where, write_timeout="'500ms'")) as d:
        with H2(d.port, initial_window_size=100) as c:
            begun = time.monotonic()
            s = c.request("GET", "/api-docs/openapi.json")
            assert c.answer(s) == ("reset", h2raw.CANCEL)
            assert 0.4 < time.monotonic() - begun < 20
            assert c.is_alive()  # the others do not suffer
            assert c.answer(c.request())[0] == 200
        with H2(d.port) as c:  # TCP itself is full: the connection ends
            c.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            c.send(h2raw.settings(initial_window_size=0x7fffffff) + h2raw.window_update(0, 0x70000000))
            begun, n = time.monotonic(), 0
            try:
                while time.monotonic() - begun < 30:
                    c.send(c.request("GET", "/api-docs/openapi.json", send=False)[1])
                    n += 1
                    time.sleep(0.01)
            except OSError:
                pass
            assert time.monotonic() - begun < 25
        assert d.request("GET", LIVENESS)[0] == 200


# --- the end ---

def test_half_closed_client_gets_its_answers(daemon):
    with H2(daemon.port) as c:
        streams = [c.request("POST", INJECT, JSON, body=SLOW) for _ in range(3)] + [c.request()]
        c.socket.shutdown(socket.SHUT_WR)
        got = {}
        while (f := c.read_frame()) is not None:
            if f[0] == h2raw.HEADERS:
                got[f[2]] = dict(f[3])[":status"]
        assert got == {s: "200" for s in streams}


def test_half_closed_inside_a_request(daemon):
    with H2(daemon.port) as c:
        c.request("POST", INJECT, JSON, body=b"{", end=False)
        c.socket.shutdown(socket.SHUT_WR)
        assert c.goaway() is None


def test_resets_under_load(daemon):
    """Connections are cut at any moment, with requests in any state."""
    linger = struct.pack("ii", 1, 0)

    def client(i):
        for k in range(25):
            with H2(daemon.port) as c:
                out = b"".join(c.request("POST", INJECT, JSON, body=SLOW if n % 5 == 0 else message(5000), send=False)[1] for n in range(20))
                out += c.request("GET", "/api-docs/openapi.json", send=False)[1]
                c.send(out[:len(out) * (k + 1) // 25])
                if k % 2:
                    c.read_frame()
                c.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    with Probe(daemon) as probe:
        Threads(8, client).join()
    print(probe)


def test_stop_lets_requests_finish(where):
    d = Daemon(where, listener(where)).start()
    with H2(d.port) as busy, H2(d.port) as idle:
        assert idle.is_alive()
        s = busy.request("POST", INJECT, JSON, body=SLOW)
        assert busy.is_alive()
        time.sleep(0.3)
        d.process.send_signal(signal.SIGTERM)
        assert idle.goaway() == h2raw.NO_ERROR
        codes, status = [], None
        while (f := busy.read_frame()) is not None:
            if f[0] == h2raw.GOAWAY:
                codes.append(struct.unpack(">II", f[3][:8]))
            if f[0] == h2raw.HEADERS and f[2] == s:
                status = dict(f[3])[":status"]
        assert status == "200"
        assert codes[0] == (0x7fffffff, 0) and codes[-1] == (s, 0)
    assert d.stop() == 0
