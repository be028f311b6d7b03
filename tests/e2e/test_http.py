"""The HTTP service against reference clients: Python's http.client, curl, and raw sockets where a client must misbehave."""
import http.client
import json
import re
import socket
import subprocess
import time

import pytest

from cirrus import Daemon, Threads, policy

BODY_LIMIT = 2097152
TOO_LARGE = b"Failed to buffer the request body: length limit exceeded"
LIVENESS = "/api/check-liveness/v1"
INJECT = "/api/inject/v1"
# No recipients: the whole way through the endpoint, but nothing to store or deliver.
NOBODY = json.dumps({"envelope_sender": "s@example.com", "recipients": [], "content": "Subject: x\r\n\r\nhi\r\n"}).encode()
NOBODY_ANSWER = {"success_count": 0, "fail_count": 0, "failed_recipients": [], "errors": [], "messages": [], "durability": "fsync"}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    where = tmp_path_factory.mktemp("http")
    extra = "kumo.on('http_message_generated', function(msg) msg:set_meta('queue', 'null') end)"
    with Daemon(where, policy(where, extra=extra)) as d:
        yield d


class Raw:
    """A connection that sends exactly what it is told."""

    def __init__(self, port, timeout=20):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.file.close()
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode())

    def answer(self, is_head=False):
        """(status, headers, body) of one answer; None at the end of the connection."""
        line = self.file.readline()
        if line == b"":
            return None
        version, status, _ = line.decode().split(" ", 2)
        assert version == "HTTP/1.1" and line.endswith(b"\r\n")
        headers = {}
        while (line := self.file.readline()) != b"\r\n":
            assert line.endswith(b"\r\n"), line
            name, value = line.decode().split(":", 1)
            assert name.lower() not in headers
            headers[name.lower()] = value.strip()
        n = 0 if is_head or int(status) < 200 or int(status) in (204, 304) else int(headers["content-length"])
        body = self.file.read(n)
        assert len(body) == n
        return int(status), headers, body

    def is_at_end(self):
        return self.file.read(1) == b""


def request(method="GET", path=LIVENESS, *more, body=b"", version="HTTP/1.1"):
    head = [f"{method} {path} {version}", "Host: x", *more]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def post(body=NOBODY, *more):
    return request("POST", INJECT, "Content-Type: application/json", f"Content-Length: {len(body)}", *more, body=body)


def chunked(data, size):
    pieces = [data[i:i + size] for i in range(0, len(data), size)]
    return b"".join(f"{len(p):x}\r\n".encode() + p + b"\r\n" for p in pieces) + b"0\r\n\r\n"


def exchange(daemon, data, is_head=False):
    """One request on a connection of its own: (answer, whether the service closed it)."""
    with Raw(daemon.port) as c:
        c.send(data)
        answer = c.answer(is_head)
        assert answer is not None
        is_closing = answer[1].get("connection") == "close"
        if is_closing:
            c.socket.shutdown(socket.SHUT_WR)
            assert c.is_at_end()
        return answer, is_closing


def curl(daemon, path, *args, data=None, timeout=60):
    """(status, what went over the line in -v's words, body)."""
    p = subprocess.run(["curl", "-sSv", "--max-time", "50", "-w", "\n%{http_code}", *args, f"http://127.0.0.1:{daemon.port}{path}"],
                       input=data, capture_output=True, timeout=timeout)
    body, _, status = p.stdout.rpartition(b"\n")
    assert p.returncode == 0, p.stderr.decode()
    return int(status), p.stderr.decode(), body


# --- the endpoints that are always there ---

def test_liveness(daemon):
    status, headers, body = daemon.request("GET", LIVENESS)
    assert (status, body) == (200, b"OK")
    assert headers["content-length"] == "2"
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", headers["date"])


SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(\{([a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"(?:, ?)?)+\})? (-?[0-9.e+-]+|NaN|[+-]Inf)')


def test_metrics_text(daemon):
    daemon.inject()
    status, headers, body = daemon.request("GET", "/metrics")
    assert status == 200 and headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    text = body.decode()
    assert text.endswith("\n")
    types, samples, helped = {}, {}, set()
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ", 3)[2]
            assert name not in helped, "metrics of one name stand together"
            helped.add(name)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert kind in ("counter", "gauge", "histogram") and name in helped and name not in types
            types[name] = kind
        else:
            found = SAMPLE.fullmatch(line)
            assert found, line
            name = found.group(1)
            family = name if name in types else re.sub(r"_(bucket|sum|count)$", "", name)
            assert list(types)[-1] == family, line
            assert types[family] == "histogram" or family == name
            assert line.rpartition(" ")[0] not in samples
            samples[line.rpartition(" ")[0]] = float(found.group(4))
    assert samples['total_messages_received{service="http_listener"}'] >= 1
    assert samples['disk_free_bytes{name="data spool"}'] > 0
    assert f'disk_free_inodes_percent{{name="log dir {daemon.dir}/logs"}}' in samples
    assert types["disk_free_bytes"] == "gauge" and types["total_messages_received"] == "counter"
    for name in (n for n, kind in types.items() if kind == "histogram"):
        series = {}
        for key, value in samples.items():
            if key.startswith(name + "_bucket{"):
                labels = re.sub(r',?le="[^"]*"', "", key[len(name) + 7:])
                series.setdefault(labels, []).append((re.search(r'le="([^"]*)"', key).group(1), value))
        for labels, buckets in series.items():
            assert buckets[-1][0] == "+Inf" and [b[1] for b in buckets] == sorted(b[1] for b in buckets)
            plain = "" if labels == "{}" else labels
            assert samples[f"{name}_count{plain}"] == buckets[-1][1] and f"{name}_sum{plain}" in samples


def test_metrics_json(daemon):
    daemon.inject()
    status, headers, body = daemon.request("GET", "/metrics.json")
    assert status == 200 and headers["content-type"].startswith("application/json")
    metrics = json.loads(body)
    text = daemon.request("GET", "/metrics")[2].decode()
    assert set(metrics) == set(re.findall(r"^# TYPE (\S+) ", text, re.M))
    for name, metric in metrics.items():
        assert isinstance(metric, dict) and metric["type"] in ("counter", "gauge", "histogram"), name
        assert isinstance(metric["help"], str) and metric["help"]
    received = metrics["total_messages_received"]
    assert received["type"] == "counter" and received["value"]["service"]["http_listener"] >= 1
    assert "data spool" in metrics["disk_free_bytes"]["value"]["name"]


def test_metrics_prefix(daemon):
    status, _, body = daemon.request("GET", "/metrics?prefix=disk_free_in")
    assert status == 200
    assert set(re.findall(r"^# TYPE (\S+) ", body.decode(), re.M)) == {"disk_free_inodes", "disk_free_inodes_percent"}
    status, _, body = daemon.request("GET", "/metrics.json?prefix=disk_free_in")
    assert status == 200 and set(json.loads(body)) == {"disk_free_inodes", "disk_free_inodes_percent"}
    assert json.loads(daemon.request("GET", "/metrics.json?prefix=there_is_none")[2]) == {}


# --- bodies ---

@pytest.mark.parametrize("size", [1, 7, 64, 100000])
def test_chunked_by_http_client(daemon, size):
    c = daemon.connect()
    pieces = [NOBODY[i:i + size] for i in range(0, len(NOBODY), size)]
    c.request("POST", INJECT, iter(pieces), {"Content-Type": "application/json"}, encode_chunked=True)
    r = c.getresponse()
    assert r.status == 200 and json.loads(r.read()) == NOBODY_ANSWER
    c.request("GET", LIVENESS)  # the same connection is in step
    assert c.getresponse().read() == b"OK"
    c.close()


def test_chunked_by_curl(daemon):
    message = json.dumps({"envelope_sender": "s@example.com", "recipients": [{"email": "r@example.org"}],
                          "content": "Subject: x\r\n\r\n" + "0123456789\r\n" * 20000}).encode()
    status, trace, body = curl(daemon, INJECT, "-H", "Content-Type: application/json", "-H", "Transfer-Encoding: chunked",
                               "--data-binary", "@-", data=message)
    assert "> Transfer-Encoding: chunked" in trace and "Content-Length:" not in re.sub("(?m)^[^>].*", "", trace)
    assert status == 200 and json.loads(body)["success_count"] == 1


def test_expect_100_continue_by_curl(daemon):
    message = json.dumps({"envelope_sender": "s@example.com", "recipients": [{"email": "r@example.org"}],
                          "content": "Subject: x\r\n\r\n" + "0123456789\r\n" * 100000}).encode()
    assert 1 << 20 < len(message) < BODY_LIMIT
    status, trace, body = curl(daemon, INJECT, "-H", "Content-Type: application/json", "-H", "Expect: 100-continue",
                               "--expect100-timeout", "20", "--data-binary", "@-", data=message)
    assert "< HTTP/1.1 100 Continue" in trace
    assert status == 200 and json.loads(body)["success_count"] == 1


def test_expect_100_continue_is_not_given_to_what_is_refused(daemon):
    with Raw(daemon.port) as c:
        c.send(request("POST", INJECT, "Content-Type: application/json", f"Content-Length: {BODY_LIMIT + 1}", "Expect: 100-continue"))
        status, headers, body = c.answer()
        assert (status, body) == (413, TOO_LARGE) and headers["connection"] == "close"
        c.socket.shutdown(socket.SHUT_WR)
        assert c.is_at_end()


def test_expect_100_continue_then_the_body(daemon):
    with Raw(daemon.port) as c:
        c.send(post(b"", "Expect: 100-continue").replace(b"Content-Length: 0", f"Content-Length: {len(NOBODY)}".encode()))
        assert c.answer()[0] == 100
        c.send(NOBODY)
        status, _, body = c.answer()
        assert status == 200 and json.loads(body) == NOBODY_ANSWER
        c.send(request())
        assert c.answer()[0] == 200


def test_unknown_expectation(daemon):
    assert exchange(daemon, post(NOBODY, "Expect: a-miracle"))[0][0] == 417


def test_every_byte_alone(daemon):
    with Raw(daemon.port) as c:
        for byte in post() + request("POST", INJECT, "Content-Type: application/json", "Transfer-Encoding: chunked",
                                     body=chunked(NOBODY, 50)):
            c.send(bytes([byte]))
        for _ in range(2):
            status, _, body = c.answer()
            assert status == 200 and json.loads(body) == NOBODY_ANSWER


def test_chunk_extensions_and_trailers_are_read_over(daemon):
    body = f"{len(NOBODY):X};a=b;c=\"d\"\r\n".encode() + NOBODY + b"\r\n0;last\r\nX-Trailer: 1\r\n\r\n"
    with Raw(daemon.port) as c:
        c.send(request("POST", INJECT, "Content-Type: application/json", "Transfer-Encoding: chunked", body=body))
        assert c.answer()[0] == 200
        c.send(request())
        assert c.answer()[2] == b"OK"


# --- connections ---

def test_pipelined_requests_are_answered_in_order(daemon):
    n = 500
    kinds = [(request(), 200, b"OK"), (request("GET", "/nowhere"), 404, b""), (post(), 200, json.dumps(NOBODY_ANSWER).encode()),
             (request("HEAD"), 200, b"")]
    with Raw(daemon.port) as c:
        c.send(b"".join(kinds[i % 4][0] for i in range(n)))
        for i in range(n):
            status, headers, body = c.answer(is_head=i % 4 == 3)
            assert status == kinds[i % 4][1], i
            if i % 4 == 2:
                assert json.loads(body) == NOBODY_ANSWER
            else:
                assert body == kinds[i % 4][2]
        c.socket.shutdown(socket.SHUT_WR)
        assert c.is_at_end()


def test_many_requests_on_one_connection(daemon):
    c = daemon.connect()
    c.connect()
    first = c.sock.getsockname()
    for i in range(1000):
        if i % 2:
            c.request("GET", LIVENESS)
            r = c.getresponse()
            assert (r.status, r.read()) == (200, b"OK")
        else:
            c.request("POST", INJECT, NOBODY, {"Content-Type": "application/json"})
            r = c.getresponse()
            assert r.status == 200 and json.loads(r.read()) == NOBODY_ANSWER
        assert not r.will_close
    assert c.sock.getsockname() == first
    c.close()


@pytest.mark.parametrize("data", [request(), post(), request("POST", INJECT, "Content-Type: application/json",
                                                            "Transfer-Encoding: chunked", body=chunked(NOBODY, 9)),
                                  request() * 3 + post()], ids=["get", "post", "chunked", "pipelined"])
def test_half_closed_client_gets_its_answers(daemon, data):
    n = data.count(b" HTTP/1.1\r\n")
    with Raw(daemon.port) as c:
        c.send(data)
        c.socket.shutdown(socket.SHUT_WR)
        for _ in range(n):
            assert c.answer()[0] == 200
        assert c.is_at_end()


def test_half_closed_inside_a_request(daemon):
    for data in (request()[:-2], post()[:-5], request("POST", INJECT, "Content-Type: application/json",
                                                      "Transfer-Encoding: chunked", body=chunked(NOBODY, 9)[:-2])):
        with Raw(daemon.port) as c:
            c.send(data)
            c.socket.shutdown(socket.SHUT_WR)
            status, headers, body = c.answer()
            assert status == 400 and headers["connection"] == "close" and b"the connection ended inside the request" in body
            assert c.is_at_end()


def test_connection_close_and_http_1_0(daemon):
    (status, headers, body), is_closing = exchange(daemon, request("GET", LIVENESS, "Connection: close"))
    assert status == 200 and is_closing and body == b"OK"
    (status, headers, body), is_closing = exchange(daemon, request(version="HTTP/1.0"))
    assert status == 200 and is_closing
    with Raw(daemon.port) as c:
        for _ in range(3):
            c.send(request("GET", LIVENESS, "Connection: keep-alive", version="HTTP/1.0"))
            status, headers, _ = c.answer()
            assert status == 200 and headers["connection"] == "keep-alive"


def test_head(daemon):
    get = daemon.request("GET", LIVENESS)
    head = daemon.request("HEAD", LIVENESS)
    assert head[0] == 200 and head[2] == b"" and head[1]["content-length"] == get[1]["content-length"] == "2"
    with Raw(daemon.port) as c:
        c.send(request("HEAD", "/metrics") + request())
        status, headers, _ = c.answer(is_head=True)
        assert status == 200 and int(headers["content-length"]) > 1000
        assert c.answer()[2] == b"OK"
    status, trace, body = curl(daemon, LIVENESS, "--head")
    assert status == 200 and b"content-length: 2" in body


def test_blank_line_before_a_request_and_absolute_target(daemon):
    with Raw(daemon.port) as c:
        c.send(b"\r\n" + request() + b"\r\n" + request("GET", f"http://x:1{LIVENESS}?a=b"))
        assert c.answer()[2] == b"OK"
        assert c.answer()[2] == b"OK"


def test_escaped_slash_is_no_separator(daemon):
    assert daemon.request("GET", LIVENESS.replace("-", "%2D"))[0] == 200
    for escape in ("%2f", "%2F"):
        assert daemon.request("GET", LIVENESS.replace("/v1", escape + "v1"))[0] == 404


# --- refusals that keep the connection in step ---

def test_unknown_path(daemon):
    (status, headers, body), is_closing = exchange(daemon, request("GET", "/nope"))
    assert (status, body, is_closing) == (404, b"", False) and headers["content-length"] == "0"
    assert "content-type" not in headers
    assert daemon.request("POST", "/", b"x" * 100)[0] == 404


@pytest.mark.parametrize("method,path,allow", [("POST", LIVENESS, "GET,HEAD"), ("GET", INJECT, "POST"), ("DELETE", INJECT, "POST"),
                                               ("OPTIONS", INJECT, "POST"), ("PUT", "/metrics", "GET,HEAD")])
def test_method_not_allowed(daemon, method, path, allow):
    status, headers, body = daemon.request(method, path)
    assert (status, headers["allow"]) == (405, allow)
    assert body.decode() == f"Error: method {method} is not allowed here"


def test_length_required(daemon):
    (status, headers, body), _ = exchange(daemon, request("POST", INJECT, "Content-Type: application/json"))
    assert status == 411 and b"Content-Length" in body


@pytest.mark.parametrize("content_type,expected", [
    ("application/json", 200), ("application/json; charset=utf-8", 200), ("APPLICATION/JSON", 200), ("application/x+json", 200),
    ("text/plain", 415), ("application/jsonx", 415), ("application/x-www-form-urlencoded", 415), ("", 415)])
def test_content_type(daemon, content_type, expected):
    status, headers, body = daemon.request("POST", INJECT, NOBODY, {"Content-Type": content_type} if content_type else {})
    assert status == expected
    if expected == 415:
        assert body == b"Expected request with `Content-Type: application/json`"


def test_compressed_body_is_refused(daemon):
    status, headers, body = daemon.request("POST", INJECT, NOBODY, {"Content-Type": "application/json", "Content-Encoding": "br"})
    assert status == 415 and "accept-encoding" in headers


def test_connection_goes_on_after_a_refusal(daemon):
    with Raw(daemon.port) as c:
        c.send(request("POST", INJECT, "Content-Type: text/plain", "Content-Length: 5", body=b"hello") + request())
        assert c.answer()[0] == 415
        assert c.answer()[2] == b"OK"


@pytest.mark.parametrize("more,expected", [(0, 400), (1, 413)], ids=["limit", "one more"])
@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
def test_default_body_limit(daemon, is_chunked, more, expected):
    body = b"x" * (BODY_LIMIT + more)  # not JSON: what is taken is refused for that
    data = (request("POST", INJECT, "Content-Type: application/json", "Transfer-Encoding: chunked", body=chunked(body, 60000))
            if is_chunked else post(body))
    with Raw(daemon.port) as c:
        try:
            c.send(data)
        except OSError:
            pytest.fail("the connection was reset before the answer could be read")
        status, headers, text = c.answer()
        assert status == expected
        if expected == 413:
            assert text == TOO_LARGE and headers["connection"] == "close"


def test_body_limit_of_the_listener(where):
    text = policy(where).replace("listen = '127.0.0.1:0'", "listen = '127.0.0.1:0', request_body_limit = 200")
    with Daemon(where, text) as d:
        assert len(NOBODY) <= 200
        assert d.request("POST", INJECT, NOBODY.ljust(200), {"Content-Type": "application/json"})[0] == 200
        status, _, body = d.request("POST", INJECT, NOBODY.ljust(201), {"Content-Type": "application/json"})
        assert (status, body) == (413, TOO_LARGE)
        (status, headers, body), is_closing = exchange(
            d, request("POST", INJECT, "Content-Type: application/json", "Transfer-Encoding: chunked", body=chunked(NOBODY.ljust(201), 50)))
        assert (status, body, is_closing) == (413, TOO_LARGE, True)


# --- refusals that close the connection: what follows cannot be told from the request ---

def bad(*lines, body=b""):
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


GET = f"GET {LIVENESS} HTTP/1.1"
POST = f"POST {INJECT} HTTP/1.1"
MALFORMED = {
    "CL and TE": (400, bad(POST, "Host: x", "Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n")),
    "TE and CL": (400, bad(POST, "Host: x", "Transfer-Encoding: chunked", "Content-Length: 5", body=b"0\r\n\r\n")),
    "two different Content-Length": (400, bad(POST, "Host: x", "Content-Length: 5", "Content-Length: 6", body=b"hello")),
    "two equal Content-Length": (400, bad(POST, "Host: x", "Content-Length: 5", "Content-Length: 5", body=b"hello")),
    "list of Content-Length": (400, bad(POST, "Host: x", "Content-Length: 5, 5", body=b"hello")),
    "negative Content-Length": (400, bad(POST, "Host: x", "Content-Length: -1")),
    "Content-Length with a sign": (400, bad(POST, "Host: x", "Content-Length: +5", body=b"hello")),
    "Content-Length in hex": (400, bad(POST, "Host: x", "Content-Length: 0x5", body=b"hello")),
    "Content-Length beyond 64 bits": (400, bad(POST, "Host: x", "Content-Length: 18446744073709551621", body=b"hello")),
    "empty Content-Length": (400, bad(POST, "Host: x", "Content-Length:")),
    "obs-fold": (400, bad(GET, "Host: x", "X-A: 1", " folded")),
    "obs-fold with a tab": (400, bad(GET, "Host: x", "X-A: 1", "\tfolded")),
    "bare LF in the header": (400, f"{GET}\nHost: x\n\n".encode()),
    "bare LF after a field": (400, f"{GET}\r\nHost: x\nX-A: 1\r\n\r\n".encode()),
    "bare CR in a field": (400, bad(GET, "Host: x", "X-A: a\rb")),
    "NUL in a field": (400, bad(GET, "Host: x", "X-A: a\0b")),
    "control character in a field": (400, bad(GET, "Host: x", "X-A: a\x01b")),
    "blank before the colon": (400, bad(GET, "Host : x")),
    "blank before the colon of Content-Length": (400, bad(POST, "Host: x", "Content-Length : 5", body=b"hello")),
    "tab before the colon": (400, bad(POST, "Host: x", "Transfer-Encoding\t: chunked", body=b"0\r\n\r\n")),
    "field without a colon": (400, bad(GET, "Host: x", "X-A")),
    "field without a name": (400, bad(GET, "Host: x", ": 1")),
    "blank before the first field": (400, bad(GET, " Host: x")),
    "no Host": (400, bad(GET)),
    "two Hosts": (400, bad(GET, "Host: x", "Host: x")),
    "blank in Host": (400, bad(GET, "Host: a b")),
    "path in Host": (400, bad(GET, "Host: a/b")),
    "user in Host": (400, bad(GET, "Host: u@x")),
    "port in Host is no number": (400, bad(GET, "Host: x:80a")),
    "user in the target": (400, bad(f"GET http://u:p@x{LIVENESS} HTTP/1.1", "Host: x")),
    "https target without TLS": (400, bad(f"GET https://x{LIVENESS} HTTP/1.1", "Host: x")),
    "chunked twice": (400, bad(POST, "Host: x", "Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n")),
    "chunked not last": (400, bad(POST, "Host: x", "Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n")),
    "coding without chunked": (400, bad(POST, "Host: x", "Transfer-Encoding: gzip", body=b"0\r\n\r\n")),
    "obfuscated chunked": (400, bad(POST, "Host: x", "Transfer-Encoding: xchunked", body=b"0\r\n\r\n")),
    "unknown coding": (501, bad(POST, "Host: x", "Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n")),
    "TE in HTTP/1.0": (400, bad(f"POST {INJECT} HTTP/1.0", "Host: x", "Transfer-Encoding: chunked", body=b"0\r\n\r\n")),
    "no version": (400, bad(f"GET {LIVENESS}")),
    "strange version": (400, bad(f"GET {LIVENESS} HTTP/1.1.1", "Host: x")),
    "small-letter version": (400, bad(f"GET {LIVENESS} http/1.1", "Host: x")),
    "HTTP/2.0": (505, bad(f"GET {LIVENESS} HTTP/2.0", "Host: x")),
    "HTTP/1.2": (505, bad(f"GET {LIVENESS} HTTP/1.2", "Host: x")),
    "two blanks in the request line": (400, bad(f"GET  {LIVENESS} HTTP/1.1", "Host: x")),
    "tab in the request line": (400, bad(f"GET\t{LIVENESS} HTTP/1.1", "Host: x")),
    "blank in the target": (400, bad("GET /a b HTTP/1.1", "Host: x")),
    "fragment in the target": (400, bad(f"GET {LIVENESS}#a HTTP/1.1", "Host: x")),
    "raw UTF-8 in the target": (400, bad("GET /\xc3\xbc HTTP/1.1", "Host: x")),
    "broken escape in the target": (400, bad("GET /%4 HTTP/1.1", "Host: x")),
    "escaped NUL in the target": (400, bad("GET /%00 HTTP/1.1", "Host: x")),
    "target without a slash": (400, bad("GET api HTTP/1.1", "Host: x")),
    "empty method": (400, bad(f" {LIVENESS} HTTP/1.1", "Host: x")),
    "unknown method": (501, bad(f"BREW {LIVENESS} HTTP/1.1", "Host: x")),
    "CONNECT": (501, bad("CONNECT x:443 HTTP/1.1", "Host: x")),
    "SMTP": (400, b"EHLO example.com\r\nMAIL FROM:<s@example.com>\r\n\r\n"),
    "TLS": (400, bytes.fromhex("16030100c8010000c40303")),
    "long target": (414, bad("GET /" + "a" * 9000 + " HTTP/1.1", "Host: x")),
    "large header": (431, bad(GET, "Host: x", "X-A: " + "a" * 33000)),
    "many fields": (431, bad(GET, "Host: x", *(f"X-{i}: 1" for i in range(101)))),
    "chunk size is no number": (400, bad(POST, "Host: x", "Content-Type: application/json", "Transfer-Encoding: chunked", body=b"g\r\n")),
    "chunk size with a sign": (400, bad(POST, "Host: x", "Content-Type: application/json", "Transfer-Encoding: chunked", body=b"+5\r\n")),
    "chunk size with 0x": (400, bad(POST, "Host: x", "Content-Type: application/json", "Transfer-Encoding: chunked", body=b"0x5\r\n")),
    "bare LF after the chunk size": (400, bad(POST, "Host: x", "Content-Type: application/json", "Transfer-Encoding: chunked",
                                              body=b"5\nhello\n0\n\n")),
    "chunk longer than its size": (400, bad(POST, "Host: x", "Content-Type: application/json", "Transfer-Encoding: chunked",
                                            body=b"2\r\nhello\r\n0\r\n\r\n")),
    "huge chunk": (400, bad(POST, "Host: x", "Content-Type: application/json", "Transfer-Encoding: chunked",
                            body=b"10000000000000000\r\n")),
    "chunk over the limit": (413, bad(POST, "Host: x", "Content-Type: application/json", "Transfer-Encoding: chunked",
                                      body=b"fffffff\r\n")),
    "bad trailer": (400, bad(POST, "Host: x", "Content-Type: application/json", "Transfer-Encoding: chunked", body=b"0\r\nno colon\r\n\r\n")),
    "endless chunk extension": (400, bad(POST, "Host: x", "Content-Type: application/json", "Transfer-Encoding: chunked",
                                         body=b"1;" + b"a" * 5000)),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_request_is_refused_and_the_connection_closed(daemon, case):
    expected, data = MALFORMED[case]
    # What stands behind it must not be taken for a request.
    with Raw(daemon.port) as c:
        c.send(data + request("GET", "/metrics"))
        status, headers, body = c.answer()
        assert status == expected and headers["connection"] == "close"
        assert headers["content-type"] == "text/plain; charset=utf-8"
        assert body == TOO_LARGE if expected == 413 else body.startswith(b"Error: ") and len(body) > len(b"Error: ")
        c.socket.shutdown(socket.SHUT_WR)
        assert c.is_at_end()


def test_limits_just_kept(daemon):
    assert exchange(daemon, bad("GET /" + "a" * 8000 + " HTTP/1.1", "Host: x"))[0][0] == 404
    assert exchange(daemon, bad(GET, "Host: x", "X-A: " + "a" * 32000))[0][0] == 200
    assert exchange(daemon, bad(GET, "Host: x", *(f"X-{i}: 1" for i in range(99))))[0][0] == 200


# --- clients that are slow or many ---

def test_half_a_request_and_silence_disturbs_nobody(daemon):
    """Unfinished requests in every stage, more than there are workers; others are served at once."""
    beginnings = [b"", b"G", request()[:-2], request()[:-1], post()[:-1], post()[:len(post()) - len(NOBODY)],
                  request("POST", INJECT, "Content-Type: application/json", "Transfer-Encoding: chunked", body=b"5\r\nhel")]
    silent = [Raw(daemon.port) for _ in range(20) for _ in beginnings]
    try:
        for i, c in enumerate(silent):
            c.send(beginnings[i % len(beginnings)])
        for _ in range(50):
            assert daemon.request("GET", LIVENESS)[2] == b"OK"
            assert daemon.request("POST", INJECT, NOBODY, {"Content-Type": "application/json"})[0] == 200
        # None of them was given up early, and each may still finish.
        for i, c in enumerate(silent[:len(beginnings)]):
            if 0 < i < 4:
                c.send(request()[len(beginnings[i]):])
                assert c.answer()[2] == b"OK"
            elif i in (4, 5):
                c.send(post()[len(beginnings[i]):])
                assert json.loads(c.answer()[2]) == NOBODY_ANSWER
    finally:
        for c in silent:
            c.__exit__()


def test_client_that_does_not_read_disturbs_nobody(daemon):
    with Raw(daemon.port) as c:
        c.socket.settimeout(2)
        sent = 0
        try:  # answers of /metrics are large: the service must stop reading before it holds all of them
            for _ in range(2000):
                c.send(request("GET", "/metrics") * 50)
                sent += 50
        except TimeoutError:
            pass
        assert sent < 100000, "the service took everything without sending anything"
        for _ in range(20):
            assert daemon.request("GET", LIVENESS, timeout=10)[2] == b"OK"


def test_many_connections_at_once(daemon):
    def one(i):
        c = daemon.connect()
        for _ in range(20):
            c.request("POST", INJECT, NOBODY, {"Content-Type": "application/json"})
            r = c.getresponse()
            assert r.status == 200 and json.loads(r.read()) == NOBODY_ANSWER
        c.close()
    Threads(100, one).join()


def test_client_that_resets(daemon):
    for i in range(50):
        c = socket.create_connection(("127.0.0.1", daemon.port))
        c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        c.sendall((post() * 10)[:37 * i])
        c.close()
    assert daemon.request("GET", LIVENESS)[2] == b"OK"


# --- trust ---

def test_peer_that_is_not_trusted(where):
    text = policy(where).replace("listen = '127.0.0.1:0'", "listen = '127.0.0.1:0', trusted_hosts = { '10.1.1.1' }")
    with Daemon(where, text) as d:
        for method, path in (("GET", "/metrics"), ("HEAD", "/metrics"), ("GET", "/metrics.json"), ("POST", INJECT), ("GET", INJECT),
                             ("POST", LIVENESS)):
            body = NOBODY if path == INJECT and method == "POST" else None
            status, headers, text = d.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            assert status == 401, (method, path)
            if method != "HEAD":
                assert text.decode() == f"<Unauthenticated>@ ip=127.0.0.1 not permitted {method} on http_listener/127.0.0.1:{d.port}{path}"
        assert d.request("GET", LIVENESS)[0] == 200
        assert d.request("HEAD", LIVENESS)[0] == 200
        assert d.request("GET", "/nowhere")[0] == 404
        # Who is refused costs nothing: the body is not waited for.
        with Raw(d.port) as c:
            c.send(request("POST", INJECT, "Content-Type: application/json", f"Content-Length: {BODY_LIMIT}", "Expect: 100-continue"))
            assert c.answer()[0] == 401


@pytest.mark.parametrize("value", ["Basic dXNlcjpwYXNz", "Bearer abc"])
def test_credentials_that_nobody_gave_out(daemon, value):
    for path in ("/metrics", LIVENESS):
        status, headers, _ = daemon.request("GET", path, headers={"Authorization": value})
        assert status == 401, path
    with pytest.raises(http.client.HTTPException):  # and the reference client keeps us from sending nonsense itself
        daemon.request("GET", "/a b")


def test_two_listeners_have_their_own_parameters(where):
    text = policy(where, init="""kumo.start_http_listener { listen = '127.0.0.1:0', trusted_hosts = { '127.0.0.0/8' }, request_body_limit = 10 }
        kumo.start_http_listener { listen = '[::1]:0' }""")
    with Daemon(where, text) as d:
        ports = [int(p) for p in re.findall(r"http listener on \S+:(\d+)", d.stderr())]
        assert len(set(ports)) == 3 and "http listener on [::1]:" in d.stderr()
        assert d.request("POST", INJECT, NOBODY, {"Content-Type": "application/json"})[0] == 200
        c = http.client.HTTPConnection("127.0.0.1", ports[1], timeout=20)
        c.request("POST", INJECT, NOBODY, {"Content-Type": "application/json"})
        assert c.getresponse().status == 413
        c.close()
        c = http.client.HTTPConnection("::1", ports[2], timeout=20)
        c.request("GET", LIVENESS)
        assert c.getresponse().read() == b"OK"
        c.close()
