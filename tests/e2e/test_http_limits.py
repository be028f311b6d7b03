"""What a listener lets through: compressed bodies and answers, time-outs, caps of connections and memory, sockets other than an
address and port, PROXY headers; and crowds of clients that are slow, idle or gone."""
import gzip
import json
import os
import re
import socket
import struct
import subprocess
import time
import zlib

import pytest

from cirrus import Daemon, Threads, policy, wait_for
from test_http2 import H2, INJECT, JSON, LIVENESS, NOBODY, NOBODY_ANSWER, TOO_LARGE, Probe, listener, message

OPENAPI = "/api-docs/openapi.json"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    where = tmp_path_factory.mktemp("limits")
    with Daemon(where, listener(where)) as d:
        yield d


def zstd(data, *args):
    return subprocess.run(["zstd", "-cq", *args], input=data, capture_output=True, check=True).stdout


def varied(n):
    """A request with a message of about n bytes that compresses as text does."""
    lines = "".join(f"{i} {i * 2654435761 % 4294967296:x}\r\n" for i in range(n // 20))
    return json.dumps({"envelope_sender": "s@example.com", "recipients": [{"email": "r@example.org"}], "content": "Subject: x\r\n\r\n" + lines}).encode()


def raw_deflate(data):
    c = zlib.compressobj(wbits=-15)
    return c.compress(data) + c.flush()


CODERS = {"gzip": gzip.compress, "deflate": zlib.compress, "raw deflate": raw_deflate, "zstd": zstd, "zstd -19": lambda d: zstd(d, "-19")}


def decode(headers, body):
    coding = headers.get("content-encoding", "identity")
    if coding == "gzip":
        return gzip.decompress(body)
    if coding == "deflate":
        return zlib.decompress(body)
    if coding == "zstd":
        return subprocess.run(["zstd", "-dcq"], input=body, capture_output=True, check=True).stdout
    assert coding == "identity"
    return body


def post(daemon, protocol, body, coding, **more):
    """(status, headers, body) over either protocol; chunked means without a length."""
    headers = {"content-type": "application/json", "content-encoding": coding, **more}
    if protocol == "h2":
        with H2(daemon.port) as c:
            return c.answer(c.request("POST", INJECT, *headers.items(), body=body))
    if protocol == "chunked":
        c = daemon.connect()
        c.request("POST", INJECT, iter([body[i:i + 1000] for i in range(0, len(body), 1000)]), headers, encode_chunked=True)
        r = c.getresponse()
        answer = r.status, {k.lower(): v for k, v in r.getheaders()}, r.read()
        c.close()
        return answer
    return daemon.request("POST", INJECT, body, headers)


PROTOCOLS = ["h1", "chunked", "h2"]


# --- compressed bodies ---

@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("coder", CODERS)
def test_compressed_body(daemon, coder, protocol):
    for size in (100, 100000, 1900000):
        body = CODERS[coder](varied(size))
        status, _, answer = post(daemon, protocol, body, coder.split()[-1] if coder.startswith("raw") else coder.split()[0])
        assert status == 200 and json.loads(answer)["success_count"] == 1


def test_gzip_members_and_zstd_frames_follow_each_other(daemon):
    half = len(NOBODY) // 2
    for code, name in ((gzip.compress, "gzip"), (zstd, "zstd")):
        status, _, answer = post(daemon, "h1", code(NOBODY[:half]) + code(NOBODY[half:]), name)
        assert status == 200 and json.loads(answer) == NOBODY_ANSWER


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("coder", ["gzip", "deflate", "zstd"])
def test_limit_and_ratio_hold_behind_the_decoder(daemon, coder, protocol):
    limit = 2097152
    code = CODERS[coder]
    noise = os.urandom(1 << 20).hex().encode()  # what does not compress well is held to the limit alone
    fits = noise[:limit]
    status, _, answer = post(daemon, protocol, code(fits), coder)
    assert status == 400 and answer.startswith(b"Failed to parse the request body as JSON")
    for bomb in (fits + b"x", b"\0" * (64 << 20), b" " * (limit + 1), b" " * 1500000):
        status, headers, answer = post(daemon, protocol, code(bomb), coder)
        assert (status, answer) == (413, TOO_LARGE)
    status, _, _ = post(daemon, protocol, code(b" " * (1 << 20)), coder)  # up to 1 MB any ratio will do
    assert status == 400
    assert daemon.request("GET", LIVENESS)[0] == 200


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("coder", ["gzip", "deflate", "zstd"])
def test_corrupt_body_names_its_coding(daemon, coder, protocol):
    good = CODERS[coder](message(1000))
    for bad, why in ((good[:-3], "it ends too early"), (b"none of it", ""), (good + b"and more", ""), (good[:10] + b"\xff" * 10 + good[20:], "")):
        status, headers, answer = post(daemon, protocol, bad, coder)
        assert status == 400 and answer.startswith(f"Error: the request body is not valid {coder}: {why}".encode()), answer


@pytest.mark.parametrize("coding", ["br", "compress", "gzip, gzip", "gzip, br", "identity, zstd, gzip", "x"])
def test_unknown_and_stacked_codings(daemon, coding):
    for protocol in PROTOCOLS:
        status, headers, answer = post(daemon, protocol, NOBODY, coding)
        assert status == 415 and headers["accept-encoding"] == "gzip, deflate, zstd"


def test_identity_is_no_coding(daemon):
    for coding in ("identity", "Identity", "identity, identity", "", ","):
        assert post(daemon, "h1", NOBODY, coding)[0] == 200
    assert post(daemon, "h1", gzip.compress(NOBODY), "identity, GZIP")[0] == 200
    assert post(daemon, "h1", gzip.compress(NOBODY), "gzip, ,")[0] == 200
    assert post(daemon, "h1", gzip.compress(NOBODY), "x-gzip")[0] == 200


def test_window_beyond_8_mb_is_refused(daemon):
    assert post(daemon, "h1", zstd(message(100000), "--long=27"), "zstd")[0] == 400


def test_curl_sends_what_gzip_made(daemon):
    p = subprocess.run(["curl", "-sS", "-H", "Content-Type: application/json", "-H", "Content-Encoding: gzip", "--data-binary", "@-",
                        f"http://127.0.0.1:{daemon.port}{INJECT}"],
                       input=subprocess.run(["gzip", "-9c"], input=message(500000), capture_output=True, check=True).stdout,
                       capture_output=True, timeout=60)
    assert json.loads(p.stdout)["success_count"] == 1


# --- compressed answers ---

@pytest.mark.parametrize("accept,coding", [
    ("gzip", "gzip"), ("deflate", "deflate"), ("zstd", "zstd"), ("gzip, deflate, br, zstd", "zstd"), ("gzip, deflate", "gzip"),
    ("gzip;q=0.5, deflate;q=0.6", "deflate"), ("*", "zstd"), ("*;q=0.1, zstd;q=0", "gzip"), ("br", None), ("identity", None), ("gzip;q=0", None),
    ("identity;q=0.5, gzip;q=0.1", None), ("", None), (None, None)])
def test_answers_are_compressed_as_accepted(daemon, accept, coding):
    plain = json.loads(daemon.request("GET", OPENAPI)[2])
    headers = {} if accept is None else {"accept-encoding": accept}
    status, got, body = daemon.request("GET", OPENAPI, headers=headers)
    assert status == 200 and got.get("content-encoding") == coding and got["vary"] == "accept-encoding"
    assert int(got["content-length"]) == len(body) and json.loads(decode(got, body)) == plain
    # HEAD has the same header, over either protocol.
    status, head, nothing = daemon.request("HEAD", OPENAPI, headers=headers)
    assert nothing == b"" and {k: v for k, v in head.items() if k != "date"} == {k: v for k, v in got.items() if k != "date"}
    with H2(daemon.port) as c:
        status, over_h2, body = c.answer(c.request("GET", OPENAPI, *headers.items()))
        assert over_h2.get("content-encoding") == coding and json.loads(decode(over_h2, body)) == plain


def test_small_answers_are_left_alone(daemon):
    status, got, body = daemon.request("GET", LIVENESS, headers={"accept-encoding": "gzip"})
    assert body == b"OK" and "content-encoding" not in got and "vary" not in got
    status, got, body = daemon.request("GET", LIVENESS, headers={"accept-encoding": "gzip, identity;q=0"})
    assert got["content-encoding"] == "gzip" and gzip.decompress(body) == b"OK"


def test_metrics_for_a_scraper(daemon):
    p = subprocess.run(["curl", "-sS", "--compressed", f"http://127.0.0.1:{daemon.port}/metrics"], capture_output=True, timeout=30)
    assert b"# TYPE total_messages_received counter" in p.stdout


# --- time ---

def test_slow_header_and_slow_body(where):
    with Daemon(where, listener(where, header_timeout="0.5", body_timeout="'500ms'")) as d, Probe(d) as probe:
        def slow(i):
            data = (f"POST {INJECT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n".encode(),
                    f"POST {INJECT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9000\r\n\r\n".encode(),
                    f"POST {INJECT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode())[i % 3]
            drip = (b"X-Drip: 1\r\n", b"x", b"1\r\nx\r\n")[i % 3]
            begun, answer = time.monotonic(), b""
            with socket.create_connection(("127.0.0.1", d.port), timeout=20) as s:
                s.sendall(data)
                s.settimeout(0.05)
                while time.monotonic() - begun < 30 and b"\r\n\r\n" not in answer:
                    try:
                        answer += s.recv(1000)
                    except TimeoutError:
                        s.sendall(drip)
                assert answer.startswith(b"HTTP/1.1 408 ")
                assert 0.4 < time.monotonic() - begun < 30
        Threads(60, slow).join()
    print(probe)


def test_slow_reader(where):
    """Who asks and does not read is cut off; the rest of the world does not notice."""
    with Daemon(where, listener(where, write_timeout="'700ms'")) as d, Probe(d) as probe:
        def deaf(i):
            with socket.socket() as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                s.settimeout(30)
                s.connect(("127.0.0.1", d.port))
                begun = time.monotonic()
                try:
                    while time.monotonic() - begun < 30:
                        s.sendall(f"GET {OPENAPI} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * 20)
                except OSError:
                    pass
                assert time.monotonic() - begun < 25
        Threads(20, deaf).join()
    print(probe)


# --- how many ---

def connect(port, timeout=20):
    s = socket.create_connection(("127.0.0.1", port), timeout=timeout)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def ask(s):
    s.sendall(f"GET {LIVENESS} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return s.recv(1000)


def test_accepting_pauses_at_the_cap(where):
    with Daemon(where, listener(where, max_connections=5)) as d:
        inside = [connect(d.port) for _ in range(5)]
        for s in inside:
            assert ask(s).startswith(b"HTTP/1.1 200")
        waiting = [connect(d.port) for _ in range(3)]
        for s in waiting:
            s.settimeout(0.3)
            with pytest.raises(TimeoutError):
                ask(s)
        for s, w in zip(inside, waiting):
            s.close()
            w.settimeout(20)
            assert w.recv(1000).startswith(b"HTTP/1.1 200")
        for s in inside[3:] + waiting:
            assert ask(s).startswith(b"HTTP/1.1 200")
            s.close()
        assert d.request("GET", LIVENESS)[0] == 200


def test_connections_of_one_host(where):
    """Hosts that are not trusted have a cap of their own. Trusted ones have none."""
    with Daemon(where, listener(where, max_connections_per_host=3, trusted_hosts="{ '127.0.0.2' }")) as d:
        inside = [connect(d.port) for _ in range(3)]
        for s in inside:
            assert ask(s).startswith(b"HTTP/1.1 200")  # liveness is for everybody
        with connect(d.port) as s:
            assert s.recv(10) == b""
        others = []
        for i in range(10):
            s = socket.socket()
            s.settimeout(20)
            s.bind(("127.0.0.2", 0))
            s.connect(("127.0.0.1", d.port))
            assert ask(s).startswith(b"HTTP/1.1 200")
            others.append(s)
        inside[0].close()
        wait_for("room for one", lambda: is_let_in(d.port))
        for s in inside + others:
            s.close()


def is_let_in(port):
    with connect(port) as s:
        try:
            return ask(s).startswith(b"HTTP/1.1 200")
        except ConnectionError:
            return False


def test_header_fields(where):
    with Daemon(where, listener(where, max_request_headers=5)) as d:
        with connect(d.port) as s:
            s.sendall(f"GET {LIVENESS} HTTP/1.1\r\nHost: x\r\nA: 1\r\nB: 1\r\nC: 1\r\nD: 1\r\n\r\n".encode())
            assert s.recv(1000).startswith(b"HTTP/1.1 200")
            s.sendall(f"GET {LIVENESS} HTTP/1.1\r\nHost: x\r\nA: 1\r\nB: 1\r\nC: 1\r\nD: 1\r\nE: 1\r\n\r\n".encode())
            assert s.recv(1000).startswith(b"HTTP/1.1 431")
        with H2(d.port) as c:
            assert c.answer(c.request("GET", LIVENESS, *((f"x-{i}", "1") for i in range(5))))[0] == 200
            assert c.answer(c.request("GET", LIVENESS, *((f"x-{i}", "1") for i in range(6))))[0] == 431


def test_memory_of_all_bodies(where):
    """Two bodies of 120 MB fit into 256 MB, a third does not: it is refused before it is sent, or when it has become too much."""
    size = 120 << 20
    head = f"POST {INJECT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with Daemon(where, listener(where, request_body_limit=size)) as d:
        holders = [connect(d.port, timeout=60) for _ in range(2)]
        piece = b"x" * (1 << 20)
        for s in holders:
            s.sendall((head + f"Content-Length: {size}\r\n\r\n").encode())
            for _ in range(119):
                s.sendall(piece)
        with Probe(d) as probe:
            wait_for("the bodies to arrive", lambda: not_enough_memory(d, head, size))
            with connect(d.port) as s:  # of unknown length: as it arrives
                s.sendall((head + "Transfer-Encoding: chunked\r\n\r\n").encode())
                chunk = b"100000\r\n" + piece + b"\r\n"
                try:
                    for _ in range(40):
                        s.sendall(chunk)
                except OSError:
                    pass
                answer = s.recv(1000)
                assert answer.startswith(b"HTTP/1.1 503 ") and b"\r\nretry-after: 1\r\n" in answer
            with H2(d.port) as c:
                status, headers, body = c.answer(c.request("POST", INJECT, JSON, ("content-length", str(size)), end=False))
                assert status == 503 and headers["retry-after"] == "1"
            assert d.accept()["success_count"] == 1  # there is always room for a small one
        for s in holders:
            s.close()
        wait_for("the memory to be given back", lambda: not not_enough_memory(d, head, size))
    print(probe)


def test_body_that_can_never_fit(where):
    """It is too large, not something to try again with."""
    with Daemon(where, listener(where, request_body_limit=1 << 30)) as d:
        warned = re.search(r"WARN .*request_body_limit of the listener on \S+ is (\d+) instead of 1073741824", d.stderr())
        head = f"POST {INJECT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
        for more, status in ((0, b"100"), (1, b"413")):
            with connect(d.port) as s:
                s.sendall((head + f"Content-Length: {int(warned.group(1)) + more}\r\n\r\n").encode())
                assert s.recv(1000).split()[1] == status


def not_enough_memory(d, head, size):
    with connect(d.port) as s:
        s.sendall((head + f"Content-Length: {size}\r\nExpect: 100-continue\r\n\r\n").encode())
        answer = s.recv(1000)
        assert answer.startswith((b"HTTP/1.1 503 ", b"HTTP/1.1 100 "))
        return answer.startswith(b"HTTP/1.1 503 ") and b"Error: too many requests are being received" in answer


# --- other sockets ---

def test_unix_socket(where):
    path = where / "api.sock"
    text = policy(where, init=f"kumo.start_http_listener {{ listen = 'unix:{path}', listen_mode = '0600' }}")
    with Daemon(where, text) as d:
        assert f"http listener on unix:{path}" in d.stderr()
        assert path.stat().st_mode & 0o7777 == 0o600
        p = subprocess.run(["curl", "-sS", "--unix-socket", str(path), "http://localhost/metrics?prefix=disk"], capture_output=True, timeout=30)
        assert p.stdout.startswith(b"# HELP disk_")  # trusted: it counts as 127.0.0.1
        p = subprocess.run(["curl", "-sS", "--unix-socket", str(path), "--http2-prior-knowledge", f"http://localhost{LIVENESS}"],
                           capture_output=True, timeout=30)
        assert p.stdout == b"OK"
        # A second daemon must not take it away.
        other = Daemon(where / "other", policy(where / "other", init=f"kumo.start_http_listener {{ listen = 'unix:{path}' }}"))
        status, stderr = other.run_to_end()
        assert status != 0 and str(path) in stderr and "in use" in stderr
        assert subprocess.run(["curl", "-sS", "--unix-socket", str(path), f"http://localhost{LIVENESS}"], capture_output=True).stdout == b"OK"
        d.kill()
        assert path.exists()
        d.start()  # the socket of the killed one is replaced
        assert subprocess.run(["curl", "-sS", "--unix-socket", str(path), f"http://localhost{LIVENESS}"], capture_output=True).stdout == b"OK"
    assert not path.exists()


# What systemd does for a socket unit: the descriptors from 3 on, and the variables that name them. (A shell's redirection takes one digit only.)
HAND_OVER = """
import fcntl, os, sys
high = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3]]
for number, fd in enumerate(high, 3):
    os.dup2(fd, number, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2", LISTEN_FDNAMES="api:local")
os.execv(sys.argv[3], sys.argv[3:])
"""


def test_inherited_sockets(where):
    tcp, un, path = socket.socket(), socket.socket(socket.AF_UNIX), str(where / "inherited.sock")
    tcp.bind(("127.0.0.1", 0))
    tcp.listen()
    un.bind(path)
    un.listen()
    early = socket.create_connection(tcp.getsockname(), timeout=30)  # before there is a daemon: it waits
    early.sendall(f"GET {LIVENESS} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    d = Daemon(where, policy(where, init="kumo.start_http_listener { listen = 'fd:api' } kumo.start_http_listener { listen = 'fd:local' }"),
               wrap=["python3", "-c", HAND_OVER, str(tcp.fileno()), str(un.fileno())])
    popen = subprocess.Popen

    def with_fds(*args, **kw):
        return popen(*args, **{**kw, "pass_fds": (tcp.fileno(), un.fileno())})
    subprocess.Popen = with_fds
    try:
        d.start()
    finally:
        subprocess.Popen = popen
    assert early.recv(1000).startswith(b"HTTP/1.1 200")
    assert f"http listener on 127.0.0.1:{tcp.getsockname()[1]}" in d.stderr() and "http listener on fd:local" in d.stderr()
    p = subprocess.run(["curl", "-sS", "--unix-socket", path, "http://localhost/metrics?prefix=disk"], capture_output=True, timeout=30)
    assert p.stdout.startswith(b"# HELP disk_")
    early.close()
    assert d.stop() == 0
    assert os.path.exists(path)  # systemd's
    status, stderr = Daemon(where / "other", policy(where / "other", init="kumo.start_http_listener { listen = 'fd:api' }")).run_to_end()
    assert status != 0 and "no descriptors were handed to this process" in stderr


# --- PROXY ---

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def proxy_v2(peer, local, command=0x21):
    body = socket.inet_aton(peer[0]) + socket.inet_aton(local[0]) + struct.pack(">HH", peer[1], local[1])
    return SIGNATURE + bytes([command, 0x11]) + struct.pack(">H", len(body)) + body


@pytest.fixture(scope="module")
def behind_proxy(tmp_path_factory):
    where = tmp_path_factory.mktemp("proxy")
    params = dict(proxy_protocol="{ '127.0.0.1/32' }", trusted_hosts="{ '192.0.2.0/24' }", header_timeout="'1s'")
    init = "kumo.start_http_listener { listen = '127.0.0.1:0', proxy_protocol = { '10.0.0.0/8' } }"
    text = listener(where, **params).replace("end)\n", f"  {init}\nend)\n", 1)
    with Daemon(where, text) as d:
        d.other_port = int(re.findall(r"http listener on \S+:(\d+)", d.stderr())[1])
        yield d


def exchange(port, data):
    with connect(port) as s:
        s.sendall(data)
        got = b""
        try:
            s.shutdown(socket.SHUT_WR)
            while piece := s.recv(65536):
                got += piece
        except OSError:
            pass
        return got


GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("header,status,who", [
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\n", 200, None),
    (b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 80\r\n", 401, b"ip=203.0.113.7 "),
    (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 80\r\n", 401, b"ip=2001:db8::7 "),
    (b"PROXY UNKNOWN\r\n", 401, b"ip=127.0.0.1 "),
    (proxy_v2(("192.0.2.7", 4711), ("198.51.100.1", 80)), 200, None),
    (proxy_v2(("203.0.113.7", 4711), ("198.51.100.1", 80)), 401, b"ip=203.0.113.7 "),
    (proxy_v2(("192.0.2.7", 4711), ("198.51.100.1", 80), 0x20), 401, b"ip=127.0.0.1 "),
], ids=["v1 trusted", "v1 stranger", "v1 IPv6", "v1 unknown", "v2 trusted", "v2 stranger", "v2 local"])
def test_proxy_header(behind_proxy, header, status, who):
    answer = exchange(behind_proxy.port, header + GET)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:300]
    assert who is None or who in answer
    # Ahead of HTTP/2, too.
    with H2(behind_proxy.port, begin=False) as c:
        c.send(header + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        got = c.answer(c.request("GET", "/metrics"))
        assert got[0] == status and (who is None or who in got[2])


@pytest.mark.parametrize("data", [GET, b"", b"PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n" + GET, b"PROXY TCP4 192.0.2.7 198.51.100.1 04711 80\r\n" + GET,
                                  b"PROXY tcp4 192.0.2.7 198.51.100.1 4711 80\r\n" + GET, b" PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\n" + GET,
                                  b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\n" + GET, b"PROXY " + b"x" * 200 + GET, SIGNATURE + b"\x31\x11\0\x0c" + bytes(12) + GET,
                                  SIGNATURE + b"\x21\x11\xff\xff" + bytes(5000), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
                         ids=["none", "nothing", "no port", "zero in front", "small letters", "blank in front", "LF", "long", "v3", "long v2", "h2"])
def test_proxy_header_is_required_and_strict(behind_proxy, data):
    assert exchange(behind_proxy.port, data) == b""


def test_proxy_header_has_its_time(behind_proxy):
    begun = time.monotonic()
    with connect(behind_proxy.port) as s:
        s.sendall(b"PROXY TCP4 ")
        assert s.recv(10) == b""
        assert 0.8 < time.monotonic() - begun < 20


def test_proxy_header_of_others_is_malformed(behind_proxy):
    for header in (b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\n", proxy_v2(("192.0.2.7", 4711), ("198.51.100.1", 80))):
        assert exchange(behind_proxy.other_port, header + GET).startswith(b"HTTP/1.1 400 ")
    assert exchange(behind_proxy.other_port, GET).startswith(b"HTTP/1.1 200 ")


# --- crowds ---

def rss(d):
    text = open(f"/proc/{d.process.pid}/status").read()
    return int(re.search(r"VmRSS:\s+(\d+)", text).group(1)) * 1024


N_IDLE = 10000 if not os.environ.get("CIRRUS_SLOW") else 2000


@pytest.mark.parametrize("protocol", ["h1", "h2"])
def test_idle_connections(where, protocol):
    """Thousands that have asked once and wait: what each costs, and what the others notice."""
    import resource
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    n = min(N_IDLE, hard // 4 * 3 - 200)
    with Daemon(where, listener(where)) as d:
        first = [connect(d.port) for _ in range(50)]
        for s in first:
            ask(s)
        before = rss(d)
        crowd = []
        with Probe(d) as probe:
            for i in range(n):
                if protocol == "h2":
                    c = H2(d.port)
                    assert c.answer(c.request())[0] == 200
                    crowd.append(c.socket)
                else:
                    s = connect(d.port)
                    assert ask(s).startswith(b"HTTP/1.1 200")
                    crowd.append(s)
            time.sleep(2)  # buffers are given back after a second of idleness
        print(f"{protocol}: {n} idle connections, {(rss(d) - before) / n / 1024:.1f} KB each; {probe}")
        for s in crowd[::n // 20]:
            if protocol == "h1":
                assert ask(s).startswith(b"HTTP/1.1 200")
        for s in crowd + first:
            s.close()
        assert d.request("GET", LIVENESS)[0] == 200
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_100_000_requests_on_one_connection(daemon):
    n, batch = 100000, 500
    with Probe(daemon) as probe, connect(daemon.port) as s:
        request = f"GET {LIVENESS} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        f, begun = s.makefile("rb"), time.monotonic()
        for _ in range(n // batch):
            s.sendall(request * batch)
            for _ in range(batch):
                assert f.readline() == b"HTTP/1.1 200 OK\r\n"
                while f.readline() != b"\r\n":
                    pass
                assert f.read(2) == b"OK"
        print(f"{n} requests in {time.monotonic() - begun:.1f} s; {probe if probe.took else ''}")


def test_resets_under_load(daemon):
    linger = struct.pack("ii", 1, 0)

    def client(i):
        for k in range(100):
            with connect(daemon.port) as s:
                body = message(20000)
                data = (f"POST {INJECT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body +
                        f"GET {OPENAPI} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                s.sendall(data[:len(data) * (k + 1) // 100])
                if k % 3 == 0:
                    s.shutdown(socket.SHUT_WR)
                if k % 2:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    with Probe(daemon) as probe:
        Threads(8, client).join()
    print(probe)
