"""What the end-to-end tests share: a real cirrusd as a child process, its policy, its logs, its HTTP API."""
import collections
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import threading
import time
import weakref

ROOT = pathlib.Path(__file__).resolve().parents[2]
SANITIZER = re.compile(r"AddressSanitizer|LeakSanitizer|ThreadSanitizer|\.[ch]:\d+:\d+: runtime error:")
TIMEOUT = 90 if os.environ.get("CIRRUS_SLOW") else 60


def binary():
    for path in (os.environ.get("CIRRUSD"), ROOT / "build/check/src/app/cirrusd", ROOT / "build/release/cirrusd"):
        if path and os.path.exists(path):
            return str(path)
    raise RuntimeError("no cirrusd: build first (tools/check), or name it in the environment variable CIRRUSD")


def wait_for(what, condition, timeout=None, saw=None):
    """Polls until condition() is true and returns it; fails naming what was waited for, and what was seen instead: by saw(), or the last
    value of the condition where that says anything."""
    begun = time.monotonic()
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() - begun > (timeout or TIMEOUT):
            seen = saw() if saw else value
            also = "" if seen is None or seen is False else f", and saw at last {str(seen)[:2000]}"
            raise AssertionError(f"waited in vain for {what} ({time.monotonic() - begun:.0f} s){also}")
        time.sleep(0.02)


_closed_ports = []


def closed_port(host="127.0.0.1"):
    """A port at which nobody listens, nor will for as long as the tests run, unless one does so with SO_REUSEADDR: a port that was let go
    of may be another test's daemon's a moment later."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((host, 0))
    _closed_ports.append(s)
    return s.getsockname()[1]


INIT = """
local kumo = require 'kumo'
kumo.on('init', function()
  kumo.define_spool {{ name = 'data', path = '{dir}/spool/data', kind = 'Journal', min_free_space = '1%', min_free_inodes = '1%' }}
  kumo.define_spool {{ name = 'meta', path = '{dir}/spool/meta', kind = 'Journal', min_free_space = '1%', min_free_inodes = '1%' }}
  kumo.configure_local_logs {{ log_dir = '{dir}/logs', max_segment_duration = '1s', min_free_space = '1%', min_free_inodes = '1%',
    meta = {{ 'tenant', 'campaign' }}, headers = {{ 'Subject' }} }}
  kumo.start_http_listener {{ listen = '127.0.0.1:0' }}
  {init}
end)
"""


def policy(directory, queue="", path="", init="", extra=""):
    """A policy with the usual init. queue and path: Lua table bodies of make_queue_config and make_egress_path."""
    return INIT.format(dir=directory, init=init) + f"""
kumo.on('get_queue_config', function(domain, tenant, campaign, routing_domain)
  return kumo.make_queue_config {{ {queue} }}
end)
kumo.on('get_egress_path_config', function(domain, source, site)
  return kumo.make_egress_path {{ prohibited_hosts = {{}}, {path} }}
end)
{extra}
"""


def smtp_queue(port, more="", host="127.0.0.1"):
    return f"protocol = {{ smtp = {{ mx_list = {{ {{ name = 'sink', addr = '{host}:{port}' }} }} }} }}, {more}"


_daemons = weakref.WeakSet()


def add_stderr(item, report):
    """What the daemons of a test that fails had to say, those of its module that still run among them: the machine it ran on may be gone
    by then."""
    files = set(item.funcargs["tmp_path"].glob("**/stderr.*")) if "tmp_path" in item.funcargs else set()
    files |= {d.stderr_file for d in list(_daemons) if d.process is not None}
    for path in sorted(files):
        if path.exists():
            report.sections.append((str(path), path.read_text(errors="replace")[-4000:]))


class Daemon:
    def __init__(self, directory, policy_text, env=None, args=(), wrap=()):
        self.dir = pathlib.Path(directory)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.policy_file = self.dir / "policy.lua"
        self.env = dict(os.environ, KUMO_NODE_ID_PATH=str(self.dir / "nodeid"), **(env or {}))
        self.env.setdefault("UBSAN_OPTIONS", "halt_on_error=1:print_stacktrace=1")
        self.args = list(args)
        self.wrap = list(wrap)
        self.process = None
        self.runs = 0
        self.set_policy(policy_text)

    def set_policy(self, text):
        """As a whole: a daemon that looks at the file just then must not see half of it."""
        fresh = self.policy_file.with_name("policy.lua.new")
        fresh.write_text(text)
        fresh.replace(self.policy_file)

    def command(self, *more):
        return [*self.wrap, binary(), "--policy", str(self.policy_file), *self.args, *more]

    def start(self, timeout=None):
        self.runs += 1
        _daemons.add(self)
        self.stderr_file = self.dir / f"stderr.{self.runs}"
        with open(self.stderr_file, "wb") as out:
            self.process = subprocess.Popen(self.command(), stdout=out, stderr=out, env=self.env, cwd=self.dir)
        wait_for("the end of initialization",
                 lambda: "initialization complete" in self.stderr() or self.process.poll() is not None, timeout)
        if self.process.poll() is not None:
            raise AssertionError(f"cirrusd ended with {self.process.returncode}:\n{self.stderr()}")
        self.port = int(re.search(r"http listener on \S+:(\d+)", self.stderr()).group(1))
        return self

    def run_to_end(self, *more, timeout=30):
        """For policies that must fail: (status, stderr)."""
        p = subprocess.run(self.command(*more), capture_output=True, text=True, env=self.env, timeout=timeout, cwd=self.dir)
        return p.returncode, p.stderr

    def stderr(self):
        return self.stderr_file.read_text(errors="replace")

    def stop(self, sig=signal.SIGTERM, timeout=60):
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"cirrusd did not stop:\n{self.stderr()[-3000:]}")
        self.process = None
        text = self.stderr()
        assert not SANITIZER.search(text), text[-6000:]
        return status

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process = None

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, value, trace):
        if kind is not None and self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
            self.process = None
            return
        status = self.stop()
        assert status in (0, None), f"exit status {status}:\n{self.stderr()[-6000:]}"

    # --- HTTP ---
    def connect(self, timeout=30):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def request(self, method, path, body=None, headers=None, timeout=30):
        c = self.connect(timeout)
        try:
            c.request(method, path, body=body, headers=headers or {})
            r = c.getresponse()
            return r.status, dict((k.lower(), v) for k, v in r.getheaders()), r.read()
        finally:
            c.close()

    def inject(self, content="Subject: test\r\n\r\nhello\r\n", to=("r@example.org",), sender="s@example.com", **fields):
        """Posts and returns (status, decoded answer or text). Without trace headers, unless they are asked for: most tests are about
        the bytes that they have posted."""
        body = dict(envelope_sender=sender, recipients=[{"email": t} if isinstance(t, str) else t for t in to], content=content,
                    trace_headers={"supplemental_header": False})
        body.update(fields)
        status, headers, data = self.request("POST", "/api/inject/v1", json.dumps(body), {"Content-Type": "application/json"})
        if headers.get("content-type") == "application/json":
            return status, json.loads(data)
        return status, data.decode()

    def accept(self, *args, **fields):
        """inject() that must succeed for every recipient."""
        status, answer = self.inject(*args, **fields)
        assert status == 200 and answer["fail_count"] == 0, (status, answer)
        return answer

    def metric(self, name):
        text = self.request("GET", "/metrics")[2].decode()
        found = re.search(rf"^{re.escape(name)} ([-0-9.e+]+)$", text, re.M)
        return float(found.group(1)) if found else 0.0

    def wait_metric(self, name, value):
        """Until the metric has that value: what a record or an answer tells may be counted a moment later."""
        wait_for(f"{name} to be {value}", lambda: self.metric(name) == value, saw=lambda: self.metric(name))

    # --- logs ---
    def records(self, kind=None, log_dir=None, **fields):
        """Every record that can be read, live segments included."""
        out = []
        for path in sorted((log_dir or self.dir / "logs").glob("*")):
            if path.name.startswith("."):
                continue
            data = subprocess.run(["zstd", "-dcq", str(path)], capture_output=True).stdout
            for line in data.split(b"\n"):
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                if (kind is None or record["type"] == kind) and all(record.get(k) == v for k, v in fields.items()):
                    out.append(record)
        return out

    def wait_record(self, kind, n=1, timeout=None, **fields):
        """At least n such records; returns them."""
        return wait_for(f"{n} records {kind} {fields}",
                        lambda: (lambda r: r if len(r) >= n else None)(self.records(kind, **fields)), timeout, self.describe_records)

    def describe_records(self):
        """What has been logged, for a test that misses something in it."""
        records = self.records()
        counts = collections.Counter(r["type"] for r in records)
        return f"{dict(counts)}, the last ones {[(r['type'], r['recipient'], r['response']['content'][:100]) for r in records[-3:]]}"


class Maildir:
    def __init__(self, path):
        self.path = pathlib.Path(path)

    def messages(self):
        return [p.read_bytes() for p in sorted((self.path / "new").glob("*"))] if (self.path / "new").exists() else []


class Threads:
    """Runs fn(i) for i in range(n) in threads and raises the first error."""

    def __init__(self, n, fn):
        self.errors = []

        def run(i):
            try:
                fn(i)
            except BaseException as e:  # noqa: B902 - carried to the test's thread
                self.errors.append(e)
        self.threads = [threading.Thread(target=run, args=(i,)) for i in range(n)]
        for t in self.threads:
            t.start()

    def join(self):
        for t in self.threads:
            t.join()
        if self.errors:
            raise self.errors[0]
