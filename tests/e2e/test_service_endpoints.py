"""The endpoints that belong to the service itself: what they answer, that the API reference describes exactly what is served, the page
that shows it (in a real browser), the watched configuration, the access log and the metrics of requests."""
import base64
import hashlib
import http.client
import json
import os
import re
import subprocess
import time
from contextlib import closing
from html.parser import HTMLParser

import jsonschema
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus

import browser
from cirrus import ROOT, Daemon, policy, wait_for

JSON = {"Content-Type": "application/json"}
OPEN_METRICS = "application/openmetrics-text"
# Paths and methods that clients of KumoMTA's API expect of what this version has.
EXPECTED = {
    ("POST", "/api/inject/v1"), ("GET", "/api/check-liveness/v1"), ("GET", "/api/machine-info"),
    ("POST", "/api/admin/bump-config-epoch"), ("POST", "/api/admin/set_diagnostic_log_filter/v1"),
    ("GET", "/api/admin/memory/stats"), ("GET", "/api/admin/task-dump"), ("GET", "/metrics"), ("GET", "/metrics.json"),
    ("GET", "/api-docs/openapi.json"), ("GET", "/rapidoc"),
}
METHODS = ("get", "put", "post", "delete")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    where = tmp_path_factory.mktemp("endpoints")
    with Daemon(where, policy(where), env={"CIRRUS_LOG": "info"}) as d:
        yield d


@pytest.fixture(scope="module")
def spec(daemon):
    status, headers, body = daemon.request("GET", "/api-docs/openapi.json")
    assert status == 200 and headers["content-type"] == "application/json"
    return json.loads(body)


def operations(spec):
    return {(m.upper(), path): op for path, item in spec["paths"].items() for m, op in item.items()}


def check_answer(spec, method, path, status, body):
    """An answer in JSON against the schema that the reference gives for it."""
    media = operations(spec)[method, path]["responses"][str(status)]["content"]["application/json"]
    jsonschema.Draft202012Validator({**media["schema"], "components": spec["components"]}).validate(json.loads(body))


# --- single endpoints ---

def test_machine_info(daemon, spec):
    status, headers, body = daemon.request("GET", "/api/machine-info")
    assert status == 200 and headers["content-type"] == "application/json"
    check_answer(spec, "GET", "/api/machine-info", status, body)
    info = json.loads(body)
    assert list(info) == ["node_id", "hostname", "mac_address", "num_cores", "kernel_version", "platform", "distribution", "os_version",
                          "total_memory_bytes", "container_runtime", "cpu_brand", "fingerprint", "online_since", "process_kind", "version"]
    assert info["node_id"] == (daemon.dir / "nodeid").read_text().strip()
    assert info["hostname"] == os.uname().nodename and info["kernel_version"] == os.uname().release
    assert info["platform"] == f"linux/{os.uname().machine}"
    assert re.fullmatch(r"([0-9A-F]{2}:){5}[0-9A-F]{2}", info["mac_address"])
    assert 1 <= info["num_cores"] <= os.cpu_count()
    memory = int(re.search(r"MemTotal: +(\d+) kB", open("/proc/meminfo").read()).group(1)) * 1024
    assert info["total_memory_bytes"] == memory
    assert info["container_runtime"] is None or isinstance(info["container_runtime"], str)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", info["online_since"])
    assert info["process_kind"] == "kumod" and info["fingerprint"].endswith("node_id=" + info["node_id"])
    if os.path.exists("/etc/machine-id"):
        assert open("/etc/machine-id").read().strip() not in info["fingerprint"] or not open("/etc/machine-id").read().strip()
    assert daemon.request("GET", "/api/machine-info")[2] == body


def test_memory_stats(daemon):
    status, headers, body = daemon.request("GET", "/api/admin/memory/stats")
    text = body.decode()
    assert status == 200 and headers["content-type"].startswith("text/plain")
    for word in ("process", "resident", "allocator", "message bodies", "messages scheduled", "spool", "on disk"):
        assert word in text
    resident = int(re.search(r"^  resident +(\d+) ", text, re.M).group(1))
    assert 1 << 20 < resident < 1 << 32


def test_full_disk(where):
    init = f"kumo.configure_local_logs {{ log_dir = '{where}/more', min_free_space = '100%' }}"
    with Daemon(where, policy(where, init=init)) as d:
        assert d.request("GET", "/api/check-liveness/v1")[::2] == (503, b"storage is too full")
        status, text = d.inject()
        assert (status, text) == (503, "Error: disk is too full")
        assert d.request("GET", "/metrics")[0] == 200


def test_task_dump(daemon):
    """An idle connection is there by name, and what it waits for; the request that asks is there too."""
    idle = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=30)
    idle.request("GET", "/api/check-liveness/v1")
    idle.getresponse().read()
    name = "http 127.0.0.1:%d" % idle.sock.getsockname()[1]
    status, headers, body = daemon.request("GET", "/api/admin/task-dump")
    text = body.decode()
    idle.close()
    assert status == 200 and headers["content-type"].startswith("text/plain")
    workers = re.findall(r"^worker-(\d+): (\d+) fibers$", text, re.M)
    assert [int(i) for i, _ in workers] == list(range(len(workers))) and len(workers) >= 1
    fibers = re.findall(r"^  (\d+)\.(\d+) +([0-9.]+) s  (\S.*?) {2,}(\S.*)$", text, re.M)
    assert len(fibers) == sum(int(n) for _, n in workers)
    assert [waits for *_, waits, fiber in fibers if fiber == name] == ["input"], text
    assert any("config-monitor" in fiber for *_, fiber in fibers) and all(waits for *_, waits, _ in fibers)


def test_task_dump_names_what_keeps_a_worker(where):
    """A policy blocks a worker in a system call: the dump comes all the same, and says so."""
    os.mkfifo(where / "fifo")
    extra = f"""kumo.on('http_message_generated', function(msg)
      io.open('{where}/fifo', 'r'):close()
      msg:set_meta('queue', 'null')
    end)"""
    with Daemon(where, policy(where, extra=extra), env={"KUMO_AVAILABLE_PARALLELISM": "3"}) as d:
        c = d.connect()
        body = json.dumps({"envelope_sender": "s@example.com", "recipients": [{"email": "r@example.com"}], "content": "Subject: x\r\n\r\nx\r\n"})
        c.request("POST", "/api/inject/v1", body, JSON)
        # Held by somebody who reads, the end for writing can be had: then the worker is in open().
        fd = wait_for("the blocked worker", lambda: open_to_write(where / "fifo"))
        os.close(fd)
        c.getresponse().read()
        c.request("POST", "/api/inject/v1", body, JSON)
        time.sleep(0.5)
        connections = []

        def dump():
            """A connection may be given to the blocked worker: then another one is tried."""
            connection = d.connect(timeout=8)
            connections.append(connection)
            try:
                connection.request("GET", "/api/admin/task-dump")
                text = connection.getresponse().read().decode()
            except TimeoutError:
                return None
            return "does not answer" in text and text
        text = wait_for("a dump with the blocked worker", dump)
        assert re.search(r"^worker-\d: does not answer; it runs http", text, re.M), text
        assert len(re.findall(r"^worker-\d: \d+ fibers$", text, re.M)) == 2
        os.close(wait_for("the blocked worker", lambda: open_to_write(where / "fifo"), 30))
        assert c.getresponse().status == 200
        for connection in [c, *connections]:
            connection.close()


def open_to_write(fifo):
    """A descriptor, or None while nobody reads."""
    try:
        return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


def test_set_diagnostic_log_filter(daemon):
    path = "/api/admin/set_diagnostic_log_filter/v1"

    def post(body, headers=JSON):
        return daemon.request("POST", path, body if isinstance(body, (str, bytes)) else json.dumps(body), headers)
    status, headers, body = post({"filter": "kumod=info"})
    assert (status, body) == (200, b"") and headers["content-length"] == "0" and "content-type" not in headers
    assert "the filter of the diagnostic log is now 'kumod=info'" in daemon.stderr()
    status, headers, body = post({"filter": "=="})
    assert (status, body) == (500, b"Error: parsing log filter '==': invalid filter directive")
    assert headers["content-type"].startswith("text/plain")
    for bad, code, says in [("{", 400, "JSON"), ("", 400, "JSON"), ([], 422, "expected struct SetDiagnosticFilterRequest"), ({}, 422, "missing field `filter`"),
                            ({"filter": 1}, 422, "filter: invalid type: integer `1`, expected a string"),
                            ({"filter": None}, 422, "filter: invalid type: null, expected a string"),
                            ({"filter": "info", "filtre": 1}, 422, "filtre: unknown field `filtre`, expected one of `filter`")]:
        status, _, body = post(bad)
        assert status == code and says in body.decode(), (bad, status, body)
    assert post({"filter": "info"}, {"Content-Type": "text/plain"})[0] == 415
    assert daemon.request("GET", path)[0] == 405
    assert post({"filter": "info"})[0] == 200


def test_bump_config_epoch(where):
    """Queues ask again, and what they are told is the file as it is now."""
    with Daemon(where, policy(where, extra="kumo.on('http_message_generated', function(msg) kumo.reject(500, 'first') end)")) as d:
        assert "first" in d.inject()[1]["errors"][0]
        d.set_policy(policy(where, extra="kumo.on('http_message_generated', function(msg) kumo.reject(500, 'second') end)"))
        status, headers, body = d.request("POST", "/api/admin/bump-config-epoch")
        assert (status, body) == (200, b"") and headers["content-length"] == "0"
        assert "second" in d.inject()[1]["errors"][0]
        d.set_policy("this is no Lua")
        assert d.request("POST", "/api/admin/bump-config-epoch")[0] == 200
        assert "the policy stays as it was" in d.stderr() and "second" in d.inject()[1]["errors"][0]


def test_watched_files(where):
    """A watched file that changes begins an epoch within 10 s and a bit; the same text written again does not."""
    (where / "etc/a/b").mkdir(parents=True)
    (where / "etc/a/b/x.toml").write_text("x = 1")
    (where / "etc/a/b/x.txt").write_text("not watched")
    init = f"""kumo.set_config_monitor_globs {{ '{where}/etc/**/*.{{lua,toml}}', '{where}/policy.lua', '{where}/etc/a/b/x.toml' }}
      for _, f in ipairs(kumo.eval_config_monitor_globs()) do kumo.log_warn('watched', f) end"""

    def text(word):
        return policy(where, init=init, extra=f"kumo.on('http_message_generated', function(msg) kumo.reject(500, '{word}') end)")
    with Daemon(where, text("first")) as d:
        assert re.findall(r"watched (\S+)", d.stderr()) == [f"{where}/etc/a/b/x.toml", f"{where}/policy.lua"]
        assert "first" in d.inject()[1]["errors"][0]
        d.set_policy(text("second"))
        (where / "etc/a/b/x.txt").write_text("changed, but not watched")
        wait_for("the new policy", lambda: "second" in d.inject()[1]["errors"][0])
        assert d.stderr().count("new configuration epoch") == 1 and f"{where}/policy.lua has changed" in d.stderr()
        d.set_policy(text("second"))
        (where / "etc/new.lua").write_text("--")
        wait_for("the new file", lambda: d.stderr().count("new configuration epoch") == 2)
        assert f"{where}/etc/new.lua has changed: a new" in d.stderr(), "the one written again has not"
        (where / "etc/new.lua").unlink()
        wait_for("its end", lambda: d.stderr().count("new configuration epoch") == 3)


@pytest.mark.parametrize("globs,says", [("'x'", "table expected"), ("{ 1 }", "element 1 is a number, expected a string"),
                                        ("{ 'a', '/etc/{a,b' }", "/etc/{a,b: a { is not closed")])
def test_bad_globs(where, globs, says):
    status, stderr = Daemon(where, policy(where, init=f"kumo.set_config_monitor_globs({globs})")).run_to_end()
    assert status == 1 and says in stderr and "policy.lua:" in stderr


# --- metrics ---

def test_openmetrics(daemon):
    """By a parser that is not ours; the same numbers as in the other form."""
    status, headers, body = daemon.request("GET", "/metrics", headers={"Accept": OPEN_METRICS + "; version=1.0.0"})
    assert status == 200 and headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert "accept" in headers["vary"]
    text = body.decode()
    assert text.endswith("# EOF\n")
    families = {f.name: f for f in parse_openmetrics(text)}
    assert families["cirrus_http_requests"].type == "counter" and families["total_messages_received"].type == "counter"
    assert {s.name for s in families["total_messages_received"].samples} == {"total_messages_received_total"}
    histogram = families["cirrus_http_request_seconds"]
    assert {s.name.rpartition("_")[2] for s in histogram.samples} == {"bucket", "sum", "count"}
    assert {s.labels["le"] for s in histogram.samples if "le" in s.labels} >= {"0.5", "1.0", "10.0", "+Inf"}
    status, headers, body = daemon.request("GET", "/metrics")
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8" and b"# EOF" not in body
    plain = {f.name: f for f in parse_prometheus(body.decode())}
    assert {n.removesuffix("_total") for n in plain} == {n.removesuffix("_total") for n in families}


def test_metrics_negotiation(daemon):
    prometheus = f"{OPEN_METRICS};version=1.0.0;q=0.5,{OPEN_METRICS};version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
    for accept, is_open in [(prometheus, True), ("*/*", False), ("text/plain", False), (OPEN_METRICS + ";q=0", False), ("", False),
                            (f"text/plain;q=0.4, {OPEN_METRICS};q=0.6", True), (OPEN_METRICS + ";version=0.0.1", False)]:
        _, headers, body = daemon.request("GET", "/metrics?prefix=lua_", headers={"Accept": accept})
        assert headers["content-type"].startswith(OPEN_METRICS) == is_open == body.endswith(b"# EOF\n"), accept
        assert body.startswith(b"# HELP lua_")


def test_request_metrics(daemon):
    """Each request counts once, under its route, its method and the class of its status."""
    def count(**labels):
        text = daemon.request("GET", "/metrics?prefix=cirrus_http_")[2].decode()
        return sum(s.value for f in parse_prometheus(text) for s in f.samples
                   if s.name == labels["name"] and all(s.labels.get(k) == v for k, v in labels.items() if k != "name"))
    requests = "cirrus_http_requests_total"
    wanted = [({"route": "/api/check-liveness/v1", "method": "GET", "status": "2xx"}, ("GET", "/api/check-liveness/v1", None, {})),
              ({"route": "/api/inject/v1", "method": "POST", "status": "4xx"}, ("POST", "/api/inject/v1", "{", JSON)),
              ({"route": "none", "status": "4xx"}, ("GET", "/no/such/path", None, {})),
              ({"route": "none", "status": "4xx"}, ("DELETE", "/metrics", None, {}))]
    for labels, asked in wanted:
        before = count(name=requests, **labels)
        assert daemon.request(*asked)[0] // 100 == int(labels["status"][0])
        assert count(name=requests, **labels) == before + 1, labels
    liveness = {"route": "/api/check-liveness/v1"}
    assert count(name="cirrus_http_request_seconds_count", **liveness) == count(name=requests, **liveness)
    assert 0 < count(name="cirrus_http_request_seconds_sum", **liveness) < 5
    assert count(name="cirrus_http_response_bytes_total", **liveness) > 20 * count(name=requests, **liveness)
    assert count(name="cirrus_http_request_bytes_total", **liveness) > 20 * count(name=requests, **liveness)
    with closing(daemon.connect()) as c:
        before = count(name=requests, route="none")
        c.connect()
        c.sock.sendall(b"GARBAGE\r\n\r\n")
        assert b" 400 " in c.sock.recv(4096)
    assert count(name=requests, route="none") == before + 1


# --- the access log ---

def lines_of(daemon, directory="access"):
    out = []
    for path in sorted((daemon.dir / directory).glob("access-*")):
        data = subprocess.run(["zstd", "-dcq", str(path)], capture_output=True).stdout
        for line in data.split(b"\n"):
            try:
                out.append(json.loads(line))
            except ValueError:
                continue
    return out


ACCESS_FIELDS = ["time", "listener", "peer", "protocol", "tls", "method", "path", "route", "status", "bytes_in", "bytes_out", "duration",
                 "user", "user_agent"]


def test_access_log(where):
    init = f"""kumo.start_http_listener {{ listen = '127.0.0.1:0', access_log = {{ log_dir = '{where}/access', max_segment_duration = '1s' }} }}"""
    with Daemon(where, policy(where, init=init)) as d:
        d.port = int(re.findall(r"http listener on \S+:(\d+)", d.stderr())[1])
        d.request("GET", "/metrics?prefix=lua_&token=hush-1&x", headers={"User-Agent": "probe/1", "Authorization": "Basic aHVzaC0yOmh1c2gtMw=="})
        d.request("GET", "/metrics?prefix=lua_&token=hush-1&hush-4", headers={"User-Agent": "probe/1\u00ff"})
        d.request("GET", "/nothing/here?a=hush-5")
        d.request("POST", "/api/inject/v1", json.dumps({"envelope_sender": "", "recipients": [], "content": "hush-6"}), JSON)
        with closing(d.connect()) as c:
            c.connect()
            c.sock.sendall(b"GET  /broken\r\n\r\n")
            c.sock.recv(4096)
        lines = wait_for("five lines", lambda: (lambda v: v if len(v) >= 5 else None)(lines_of(d)))
        assert len(lines) == 5 and "hush" not in json.dumps(lines).lower()
        login, metrics, missing, inject, broken = lines
        for line in lines:
            assert [k for k in line if k != "query"] == ACCESS_FIELDS
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["time"])
            assert line["listener"] == f"127.0.0.1:{d.port}" and line["peer"].startswith("127.0.0.1:") and line["tls"] is None
            assert line["protocol"] == "HTTP/1.1" and line["user"] is None
        assert login["status"] == 401 and login["route"] == "/metrics" and login["user_agent"] == "probe/1"
        assert metrics["query"] == "prefix=lua_&token=***&***" and metrics["status"] == 200 and metrics["path"] == metrics["route"] == "/metrics"
        assert metrics["bytes_out"] > 500 and 20 < metrics["bytes_in"] < 400 and 0 < metrics["duration"] < 10
        assert (missing["status"], missing["route"], missing["query"]) == (404, None, "a=***") and missing["path"] == "/nothing/here"
        assert (inject["method"], inject["path"], inject["status"]) == ("POST", "/api/inject/v1", 200) and inject["bytes_in"] > 60
        assert (broken["status"], broken["path"], broken["route"]) == (400, None, None)
        for _ in range(3):  # segments are finished by age, and what is finished is read-only
            d.request("GET", "/api/check-liveness/v1")
            time.sleep(1.1)
        wait_for("finished segments", lambda: [p for p in (where / "access").glob("access-*") if not os.stat(p).st_mode & 0o222])
    assert len(lines_of(d)) == 8 and all(not os.stat(p).st_mode & 0o222 for p in (where / "access").glob("access-*"))


def test_access_log_user(where):
    """Who has logged in is in the log by name."""
    init = f"kumo.start_http_listener {{ listen = '127.0.0.1:0', access_log = {{ log_dir = '{where}/access' }} }}"
    extra = """kumo.on('http_server_validate_auth_basic', function(user, password) return user == 'scott' and password == 'tiger-hush' end)"""
    with Daemon(where, policy(where, init=init, extra=extra)) as d:
        d.port = int(re.findall(r"http listener on \S+:(\d+)", d.stderr())[1])
        login = "Basic " + base64.b64encode(b"scott:tiger-hush").decode()
        assert d.request("GET", "/metrics", headers={"Authorization": login})[0] == 200
    (line,) = lines_of(d)
    assert line["user"] == "scott" and line["status"] == 200 and "hush" not in json.dumps(line)


def test_access_log_protocols(where):
    """HTTP/1.0, HTTP/2 and TLS are told apart, and a request of HTTP/2 counts like any other."""
    init = f"""for _, tls in ipairs {{ false, true }} do
      kumo.start_http_listener {{ listen = '127.0.0.1:0', use_tls = tls, access_log = {{ log_dir = '{where}/access' }} }}
    end"""
    with Daemon(where, policy(where, init=init)) as d:
        d.port, plain, tls = (int(p) for p in re.findall(r"https? listener on \S+:(\d+)", d.stderr()))
        for command in (["--http1.0", f"http://127.0.0.1:{plain}"], ["--http2-prior-knowledge", f"http://127.0.0.1:{plain}"],
                        ["-k", f"https://127.0.0.1:{tls}"]):
            out = subprocess.run(["curl", "-sS", *command[:-1], command[-1] + "/metrics?prefix=cirrus_http_requests"], capture_output=True, timeout=30)
            assert out.returncode == 0 and b"cirrus_http_requests_total" in out.stdout, out
        assert d.metric('cirrus_http_requests_total{method="GET", route="/metrics", status="2xx"}') == 3
    one, two, three = lines_of(d)
    assert [line["protocol"] for line in (one, two, three)] == ["HTTP/1.0", "HTTP/2", "HTTP/2"]
    assert one["tls"] is two["tls"] is None and three["tls"] == "TLSv1.3"
    for line in (one, two, three):
        assert line["method"] == "GET" and line["path"] == line["route"] == "/metrics" and line["query"] == "prefix=cirrus_http_requests"
        assert line["status"] == 200 and line["bytes_out"] > 1000 and line["bytes_in"] > 20 and 0 < line["duration"] < 10
        assert line["user_agent"].startswith("curl/")


def test_access_logs_are_shared(where):
    """Two listeners, one directory: one log; with other settings it is an error that says so."""
    def listener(more):
        return f"kumo.start_http_listener {{ listen = '127.0.0.1:0', access_log = {{ log_dir = '{where}/access', {more} }} }}\n"
    with Daemon(where, policy(where, init=listener("max_file_size = 9999") * 2)) as d:
        ports = [int(p) for p in re.findall(r"http listener on \S+:(\d+)", d.stderr())]
        for d.port in ports[1:]:
            assert d.request("GET", "/api/check-liveness/v1")[0] == 200
    assert {line["listener"] for line in lines_of(d)} == {f"127.0.0.1:{p}" for p in ports[1:]}
    status, stderr = Daemon(where, policy(where, init=listener("") + listener("compression_level = 3"))).run_to_end()
    assert status == 1 and f"access_log: another listener has the same log_dir {where}/access and other settings" in stderr


@pytest.mark.parametrize("table,says", [("{}", "access_log: missing field `log_dir`"), ("true", "access_log: "),
                                        ("{ log_dir = '/tmp', level = 1 }", "access_log: unknown field `level`, expected one of `log_dir`"),
                                        ("{ log_dir = '/proc/nothing' }", "/proc/nothing"), ("{ log_dir = '/tmp', max_file_size = 0 }", "max_file_size 0")])
def test_bad_access_log(where, table, says):
    d = Daemon(where, policy(where, init=f"kumo.start_http_listener {{ listen = '127.0.0.1:0', access_log = {table} }}"))
    for more in ([], ["--validate"]):
        status, stderr = d.run_to_end(*more)
        assert status == 1 and says in stderr, stderr


def test_access_log_never_waits(where):
    """When lines pile up they are lost and counted; requests are answered."""
    init = f"kumo.start_http_listener {{ listen = '127.0.0.1:0', access_log = {{ log_dir = '{where}/access', back_pressure = 1 }} }}"
    with Daemon(where, policy(where, init=init)) as d:
        d.port = int(re.findall(r"http listener on \S+:(\d+)", d.stderr())[1])
        c = d.connect()
        begun = time.monotonic()
        for _ in range(300):
            c.request("GET", "/api/check-liveness/v1")
            assert c.getresponse().read() == b"OK"
        assert time.monotonic() - begun < 30
        c.close()
        assert d.metric("cirrus_http_access_log_lost_total") > 0
    assert 0 < len(lines_of(d)) < 302


# --- the description of the API ---

def refs(node):
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from refs(value)
    elif isinstance(node, list):
        for value in node:
            yield from refs(value)


def test_openapi_structure(spec):
    """What the OpenAPI 3.1 specification asks of a document, as far as it applies; schemas against JSON Schema's own."""
    assert re.fullmatch(r"3\.1\.\d+", spec["openapi"])
    assert set(spec) <= {"openapi", "info", "servers", "paths", "components", "security", "tags"}
    assert spec["info"]["title"] and spec["info"]["version"] and set(spec["info"]["license"]) == {"name", "identifier"}
    for scheme in spec["components"]["securitySchemes"].values():
        assert scheme["type"] == "http" and scheme["scheme"] in ("basic", "bearer")
    for requirement in spec["security"]:
        assert set(requirement) <= set(spec["components"]["securitySchemes"])
    names = []
    for (method, path), op in operations(spec).items():
        assert path.startswith("/") and "{" not in path and method.lower() in METHODS
        assert set(op) <= {"tags", "summary", "description", "operationId", "parameters", "requestBody", "responses", "security", "deprecated"}
        names.append(op["operationId"])
        assert re.fullmatch(r"[a-z][a-z0-9_]*", op["operationId"]) and op["summary"] and len(op["tags"]) >= 1
        assert op["responses"] and all(re.fullmatch(r"[1-5]\d\d", s) for s in op["responses"])
        for parameter in op.get("parameters", []):
            assert {"name", "in", "schema"} <= set(parameter) <= {"name", "in", "schema", "required", "description", "deprecated"}
            assert parameter["in"] in ("query", "header")
            jsonschema.Draft202012Validator.check_schema(parameter["schema"])
        contents = [op["requestBody"]["content"]] if "requestBody" in op else []
        assert method in ("POST", "PUT", "DELETE") or not contents
        for response in op["responses"].values():
            assert response["description"] and set(response) <= {"description", "content", "headers"}
            for header in response.get("headers", {}).values():
                assert {"schema"} <= set(header) <= {"description", "schema"}
                jsonschema.Draft202012Validator.check_schema(header["schema"])
            contents.append(response.get("content", {}))
        for content in contents:
            for kind, media in content.items():
                assert re.fullmatch(r"[a-z]+/[a-z.+-]+", kind)
                jsonschema.Draft202012Validator.check_schema(media["schema"])
    assert len(names) == len(set(names))
    for name, schema in spec["components"]["schemas"].items():
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name)
        jsonschema.Draft202012Validator.check_schema(schema)
        for variant in schema.get("oneOf", [schema]):
            fields = variant.get("properties", {})
            assert fields or variant["type"] == "string"
            assert set(variant.get("required", [])) <= set(fields)
            for value in [variant, *fields.values()]:
                for example in value.get("examples", []) + ([value["default"]] if "default" in value else []):
                    jsonschema.Draft202012Validator({**value, "components": spec["components"]}).validate(example)
    used = set(refs(spec))
    assert used == {f"#/components/schemas/{n}" for n in spec["components"]["schemas"]}


def test_openapi_passes_a_validator(daemon):
    """openapi-spec-validator, from the environment that tests/support/test_venv.py makes."""
    python = ROOT / "build/test-venv/bin/python3"
    if subprocess.run([python, "-c", "import openapi_spec_validator"], capture_output=True).returncode if python.exists() else True:
        pytest.skip("the package openapi-spec-validator is not installed")
    text = daemon.request("GET", "/api-docs/openapi.json")[2]
    check = "import json, sys, openapi_spec_validator as v; v.validate(json.load(sys.stdin))"
    p = subprocess.run([python, "-c", check], input=text, capture_output=True)
    assert p.returncode == 0, p.stderr.decode()
    spoilt = json.loads(text)
    del spoilt["info"]["title"]  # it does look
    assert subprocess.run([python, "-c", check], input=json.dumps(spoilt).encode(), capture_output=True).returncode != 0


def test_openapi_lists_what_is_served(daemon, spec):
    """Every listed route is served, and no other method on these paths; every path that clients expect is listed."""
    listed = set(operations(spec))
    assert EXPECTED <= listed, EXPECTED - listed
    for path in spec["paths"]:
        methods = {m for m, p in listed if p == path}
        status, headers, _ = daemon.request("PATCH", path)
        assert status == 405
        assert set(headers["allow"].split(",")) == methods | ({"HEAD"} if "GET" in methods else set()), path
    for path in ("/", "/api", "/api/inject", "/metricsx", "/rapidoc/", "/openapi.json"):
        assert daemon.request("GET", path)[0] == 404


def test_openapi_describes_the_source(daemon, spec):
    """No route in the source is missing from the list."""
    root = os.path.join(os.path.dirname(__file__), "../../src")
    found = set()
    for folder, _, names in os.walk(root):
        for name in names:
            if name.endswith(".c"):
                with open(os.path.join(folder, name)) as f:
                    found |= set(re.findall(r'\.method = "(\w+)",\s*\.path = "([^"]+)"', f.read()))
    assert found == set(operations(spec))


def test_inject_is_described(daemon, spec):
    """What the schema allows is taken, and what it refuses is refused."""
    schema = {"$ref": "#/components/schemas/InjectV1Request", "components": spec["components"]}
    validator = jsonschema.Draft202012Validator(schema)
    good = {"envelope_sender": "s@example.com", "recipients": [{"email": "r@example.com", "name": "R", "metadata": {}}],
            "content": "Subject: x\r\n\r\nx\r\n", "template_dialect": "Static", "substitutions": None,
            "trace_headers": {"supplemental_header": False}}
    bad = [{**good, "recipients": {}}, {**good, "content": 5}, {**good, "x": 1}, {**good, "recipients": [{}]},
           {**good, "recipients": [{"email": "r@example.com", "nam": "R"}]}, {**good, "template_dialect": "Mustache"},
           {k: v for k, v in good.items() if k != "envelope_sender"}]
    status, answer = daemon.inject(**{("sender" if k == "envelope_sender" else "to" if k == "recipients" else k): v for k, v in good.items()})
    assert validator.is_valid(good) and status == 200, answer
    check_answer(spec, "POST", "/api/inject/v1", 200, json.dumps(answer))
    for body in bad:
        assert not validator.is_valid(body), body
        assert daemon.request("POST", "/api/inject/v1", json.dumps(body), JSON)[0] == 422, body


def test_reference_is_public(where):
    """The two are open to a peer that is not trusted; the rest of the service is not."""
    init = "kumo.start_http_listener { listen = '127.0.0.1:0', trusted_hosts = { '192.0.2.1' } }"
    with Daemon(where, policy(where, init=init)) as d:
        d.port = int(re.findall(r"http listener on \S+:(\d+)", d.stderr())[1])
        for path in ("/rapidoc", "/api-docs/openapi.json", "/api/check-liveness/v1"):
            assert d.request("GET", path)[0] == 200
        for path in ("/api/machine-info", "/metrics", "/metrics.json", "/api/admin/memory/stats", "/api/admin/task-dump"):
            assert d.request("GET", path)[0] == 401
        assert d.request("POST", "/api/admin/bump-config-epoch")[0] == 401
        assert d.request("POST", "/api/admin/set_diagnostic_log_filter/v1", '{"filter":"trace"}', JSON)[0] == 401


# --- the page ---

class Outline(HTMLParser):
    """What is in a page: tags with their attributes, and the text of style and script."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.inside = [], {"style": [], "script": []}, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside in self.texts:
            self.texts[self.inside].append(data)


def test_page_is_self_contained(daemon):
    """Its policy lets exactly its own style and script run; nothing in it points elsewhere."""
    status, headers, body = daemon.request("GET", "/rapidoc")
    assert status == 200 and headers["content-type"] == "text/html; charset=utf-8"
    page = Outline(body.decode())
    csp = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert csp["default-src"] == "'none'" and csp["connect-src"] == "'self'" and csp["frame-ancestors"] == csp["base-uri"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    for kind in ("style", "script"):
        (text,) = ["".join(page.texts[kind])]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert csp[kind + "-src"] == f"'sha256-{digest}'"
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") or name == "style" for name in attributes), tag
        for name in ("src", "href", "action"):
            assert not re.match(r"(https?:)?//", attributes.get(name, "")), attributes
    assert not re.search(r"https?://|innerHTML|eval\(|document\.write", body.decode())
    assert ("html", {"lang": "en"}) in page.tags and [t for t, _ in page.tags].count("main") == 1
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.skipif(browser.find() is None, reason="no Chromium here")
def test_page_in_a_browser(daemon, spec, where):
    """Shows every endpoint, finds one, sends a GET and a POST, and is silent; assistive technology knows what each control is."""
    with browser.Page(where) as page:
        page.go(f"http://127.0.0.1:{daemon.port}/rapidoc")
        page.wait("document.querySelectorAll('section').length > 0")
        shown = page.run("[...document.querySelectorAll('section h3')].map(e => e.innerText.split(/\\s+/))")
        assert {tuple(x) for x in shown} == set(operations(spec))
        assert "cirrusd" in page.run("document.title") and spec["info"]["version"] in page.run("document.querySelector('h1').innerText")
        # Parameters and schemas, the nested one too.
        text = page.run("document.querySelector('#op-inject_v1').innerText")
        for word in ("envelope_sender", "InjectV1Request", "Recipient", "metadata", "422", "InjectV1Response", "failed_recipients"):
            assert word in text
        assert "prefix" in page.run("document.querySelector('#op-report_metrics').innerText")
        # Finding.
        page.run("(() => { const f = document.getElementById('filter'); f.value = 'machine'; f.dispatchEvent(new Event('input')); })()")
        assert page.run("[...document.querySelectorAll('nav li')].filter(e => !e.hidden).map(e => e.innerText)") == ["GET /api/machine-info"]
        assert page.run("document.getElementById('found').innerText") == "1 found"
        # Trying.
        send = """(id, fill) => { const s = document.querySelector(id); s.querySelector('details.try').open = true;
          const f = s.querySelector('form'); fill(f); f.requestSubmit(); }"""
        page.run(f"({send})('#op-report_metrics', f => f.querySelector('input').value = 'lua_')")
        answer = page.wait("document.querySelector('#op-report_metrics [role=status] pre[tabindex]')?.innerText")
        assert answer.startswith("# HELP lua_") and "200" in page.run("document.querySelector('#op-report_metrics [role=status]').innerText")
        page.run(f"({send})('#op-set_diagnostic_log_filter_v1', f => f.querySelector('textarea').value = '{{\"filter\":\"info,lua=warn\"}}')")
        page.wait("document.querySelector('#op-set_diagnostic_log_filter_v1 [role=status] .good')?.innerText")
        wait_for("the filter", lambda: "now 'info,lua=warn'" in daemon.stderr())
        # A field of the header is sent, too: the second time the answer is the stored one.
        assert "Idempotency-Key" in text
        for n in (1, 2):
            page.run(f"({send})('#op-inject_v1', f => f.querySelector('[data-header=\"Idempotency-Key\"]').value = 'from-the-page')")
            page.wait("document.querySelector('#op-inject_v1 [role=status] .good')?.innerText.startsWith('200')")
            replayed = page.run("document.querySelector('#op-inject_v1 [role=status] details pre').textContent.includes('idempotent-replayed: true')")
            assert replayed == (n == 2)
        # The example in the form of an injection is a request that the schema allows.
        example = json.loads(page.run("document.querySelector('#op-inject_v1 textarea').value"))
        jsonschema.Draft202012Validator({"$ref": "#/components/schemas/InjectV1Request", "components": spec["components"]}).validate(example)
        # With a wrong login, the answer is shown as what it is.
        page.run("(() => { document.getElementById('login-user').value = 'nobody'; })()")
        page.run(f"({send})('#op-machine_info', f => f)")
        page.wait("document.querySelector('#op-machine_info [role=status] .bad')?.innerText.startsWith('401')")
        for role in ("textbox", "searchbox", "button"):
            names = page.accessible(role)
            assert names and all(names), (role, names)
        assert page.accessible("main") and page.accessible("navigation") == ["Endpoints"]
        levels = page.run("[...document.querySelectorAll('h1,h2,h3,h4')].map(e => +e.tagName[1])")
        assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:]))
        errors = [line for line in page.console if "401" not in line]
        assert not errors, errors
        assert all(u.startswith((f"http://127.0.0.1:{daemon.port}/", "data:", "about:")) for u in page.requests), page.requests


@pytest.mark.skipif(browser.find() is None, reason="no Chromium here")
def test_page_refuses_what_is_injected(daemon, where):
    """The policy of the page stops a script that somebody got into it."""
    with browser.Page(where) as page:
        page.go(f"http://127.0.0.1:{daemon.port}/rapidoc")
        page.wait("document.querySelectorAll('section').length > 0")
        page.run("(() => { const s = document.createElement('script'); s.textContent = 'window.broken = 1'; document.body.append(s); })()")
        page.run("(() => { const d = document.createElement('div'); d.innerHTML = '<img src=x onerror=\"window.broken = 1\">'; document.body.append(d); })()")
        page.wait("new Promise(done => setTimeout(() => done(true), 300))")
        assert page.run("window.broken") is None
        assert any("Content Security Policy" in line for line in page.console)
