"""The daemon as a process: command line, start, privileges, signals, reload, what it leaves behind."""
import json
import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time
import uuid

import pytest

from cirrus import SANITIZER, Daemon, Maildir, closed_port, policy, smtp_queue, wait_for
from sink import Sink

NEVER = "retry_interval = '1h'"


def run(d, *args):
    p = subprocess.run([d.command()[0], *args], capture_output=True, text=True, env=d.env, timeout=30)
    return p.returncode, p.stdout, p.stderr


def stall_after_data(seconds):
    """A handler of DATA that answers late."""
    import asyncio

    async def handle_DATA(server, session, envelope):
        await asyncio.sleep(seconds)
        return await type(server.event_handler).handle_DATA(server.event_handler, server, session, envelope)
    return handle_DATA


# --- the command line ---

def test_version_and_help(where):
    d = Daemon(where, "this is no policy")
    status, out, err = run(d, "--version")
    assert status == 0 and re.fullmatch(r"cirrusd \d+\.\d+\.\d+\S*\n", out) and err == ""
    for option in ("--help", "-h"):
        status, out, err = run(d, option)
        assert status == 0 and err == ""
        for word in ("Usage: cirrusd", "--policy FILE", "--user NAME", "--validate", "--version"):
            assert word in out


def test_validate_as_a_user_who_is_not_there(where):
    status, err = Daemon(where, policy(where)).run_to_end("--validate", "--user", "nobody-of-that-name")
    assert status == 1 and "--user nobody-of-that-name: there is no such user" in err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_validate_as_another_user(where):
    """Directories of logs that it makes are the user's, and what he may not do is an error."""
    base = pathlib.Path(tempfile.mkdtemp(prefix="cirrus-nobody-"))
    try:
        shutil.chown(base, "nobody")
        base.chmod(0o755)
        env = {"ASAN_OPTIONS": "detect_leaks=0"}  # LeakSanitizer cannot look into a process that has changed its user
        d = Daemon(base, policy(base), args=["--user", "nobody"], env=env)
        shutil.copy(d.command()[0], base / "cirrusd")

        def validate():
            return subprocess.run([str(base / "cirrusd"), *d.command("--validate")[1:]], capture_output=True, text=True, env=d.env,
                                  timeout=30, cwd="/")
        p = validate()
        assert p.returncode == 0, p.stderr
        assert (base / "logs").owner() == "nobody"
        (base / "policy.lua").chmod(0o600)
        p = validate()
        assert p.returncode == 1 and "Permission denied" in p.stderr
    finally:
        shutil.rmtree(base)


def test_validate_good(where):
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
    text = policy(where, init=f"""kumo.start_http_listener {{ listen = '127.0.0.1:{port}' }}
  assert(_VALIDATING_CONFIG)
  print('init has run')""")
    with s:  # a port in use does not matter: none is opened
        s.listen()
        d = Daemon(where, text)
        p = subprocess.run(d.command("--validate"), capture_output=True, text=True, env=d.env, timeout=30, cwd=where)
    assert p.returncode == 0, p.stderr
    assert "init has run" in p.stdout + p.stderr
    assert "http listener on" not in p.stderr and "initialization complete" not in p.stderr
    assert not (where / "spool").exists(), "validating makes no spool"


@pytest.mark.parametrize("break_it", [
    lambda t: t + "this is no Lua\n", lambda t: t.replace("listen =", "lisen ="), lambda t: t.replace("kind = 'Journal'", "kind = 'Paper'", 1),
    lambda t: t + "kumo.on('pre_init', function() error('boom') end)\n",
    lambda t: t + "kumo.on('validate_config', function() error('boom') end)\n",
    lambda t: t + "kumo.on('validate_config', function() kumo.validation_failed() end)\n"],
    ids=["syntax", "parameter", "spool kind", "pre_init", "validate_config", "validation_failed"])
def test_validate_bad(where, break_it):
    d = Daemon(where, break_it(policy(where)))
    status, err = d.run_to_end("--validate")
    assert status == 1 and "Error: " in err and "http listener on" not in err


def test_handlers_that_are_never_called_are_told(where):
    events = ["requeue_message", "throttle_insert_ready_queue", "smtp_client_rewrite_delivery_status", "my_own"]
    extra = "\n".join(f"kumo.on('{e}', function() end)" for e in events)
    with Daemon(where, policy(where, extra=extra)) as d:
        told = re.findall(r"WARN \S+ kumod: the policy has a handler of the event `(\w+)`, which this version of cirrus does not call", d.stderr())
        assert sorted(told) == sorted(events[:3])


def test_validate_while_the_service_runs(where):
    with Daemon(where, policy(where)) as d:
        status, err = d.run_to_end("--validate")
        assert status == 0, err
        d.accept(to=[])
        d.set_policy("nonsense")
        assert d.run_to_end("--validate")[0] == 1
        d.accept(to=[])


# --- start ---

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z +(ERROR|WARN|INFO|DEBUG|TRACE) +\S+ \S+: .*")


def test_lines_on_stderr(where):
    text = policy(where, init="kumo.start_http_listener { listen = '[::1]:0' }")
    with Daemon(where, text) as d:
        first = d.stderr()
    lines = first.splitlines()
    number = {}
    for i, line in enumerate(lines):
        assert LINE.fullmatch(line), line
        for words in ("Version is", "NodeId is", "http listener on 127.0.0.1:", "http listener on [::1]:", "messages recovered",
                      "initialization complete"):
            if words in line:
                assert words not in number, f"twice: {line}"
                number[words] = i
    assert list(number) == sorted(number, key=number.get) and len(number) == 6
    assert number["Version is"] < number["http listener on 127.0.0.1:"] < number["http listener on [::1]:"] < number["initialization complete"]
    port = int(re.search(r"http listener on 127\.0\.0\.1:(\d+)$", first, re.M).group(1))
    assert port == d.port and port != 0
    assert f"NodeId is {(where / 'nodeid').read_text().strip()}" in first
    assert "ERROR" not in first
    last = d.stderr()
    assert "received Terminated, stopping" in last and "stopped in good order" in last.splitlines()[-1]


def test_listeners_answer_while_the_spool_is_read(where):
    """A queue for each message is asked of the policy, which may take its time: who asks meanwhile is told what is waited for."""
    listener = "kumo.start_esmtp_listener { listen = '127.0.0.1:0' }"
    d = Daemon(where, policy(where, queue=smtp_queue(closed_port()), init=listener))
    with d:
        d.accept(to=["r@slow.example"])
    wait = f"while io.open('{where}/go') == nil do kumo.sleep(0.02) end"
    d.set_policy(policy(where, init=listener).replace("kumo.on('get_queue_config', function(domain, tenant, campaign, routing_domain)",
                                                      "kumo.on('get_queue_config', function(domain)\n  " + wait))
    starting = threading.Thread(target=d.start)
    n = d.runs
    starting.start()
    try:
        wait_for("the listeners", lambda: d.runs > n and (where / f"stderr.{n + 1}").exists() and "smtp listener on" in d.stderr())
        d.port, smtp_port = (int(re.search(rf"{kind} listener on \S+:(\d+)", d.stderr()).group(1)) for kind in ("http", "smtp"))
        assert d.request("GET", "/api/check-liveness/v1")[::2] == (503, b"waiting for spool startup")
        assert d.inject() == (503, "Error: waiting for spool startup")
        assert d.request("GET", "/metrics")[0] == 200
        with socket.create_connection(("127.0.0.1", smtp_port), timeout=30) as s:
            assert re.fullmatch(rb"421 4\.3\.2 \S+ waiting for spool startup\. Try again soon!\r\n", s.recv(1000))
        assert "initialization complete" not in d.stderr()
    finally:
        (where / "go").touch()
        starting.join()
    assert d.request("GET", "/api/check-liveness/v1")[0] == 200
    assert d.stop() == 0


def test_node_id_is_made_once(where):
    d = Daemon(where, policy(where))
    with d:
        made = (where / "nodeid").read_text().strip()
        assert uuid.UUID(made).version == 4
    with d:
        assert (where / "nodeid").read_text().strip() == made and f"NodeId is {made}" in d.stderr()
    d.env["KUMO_NODE_ID"] = given = str(uuid.uuid4())
    with d:
        assert f"NodeId is {given}" in d.stderr()
        assert (where / "nodeid").read_text().strip() == made
    del d.env["KUMO_NODE_ID"]
    os.unlink(where / "nodeid")
    (where / "deep").write_text("in the way")
    d.env["KUMO_NODE_ID_PATH"] = str(where / "deep/nodeid")  # cannot be made: a derived one, the same each time
    derived = set()
    for _ in range(2):
        with d:
            derived.add(re.search(r"NodeId is (\S+)", d.stderr()).group(1))
            assert "the node id is derived from the machine's" in d.stderr()
    assert len(derived) == 1


def test_node_id_is_in_every_record(where):
    with Sink() as sink, Daemon(where, policy(where, smtp_queue(sink.port))) as d:
        d.accept()
        d.wait_record("Delivery")
    assert {r["nodeid"] for r in d.records()} == {(where / "nodeid").read_text().strip()}


def log_policy(where):
    return policy(where, init="for _, level in ipairs { 'debug', 'info', 'warn', 'error' } do kumo['log_' .. level]('said at ' .. level) end")


@pytest.mark.parametrize("variable", ["CIRRUS_LOG", "KUMOD_LOG"])
@pytest.mark.parametrize("filter,shown", [("lua=warn", {"warn", "error"}), ("lua=debug", {"debug", "info", "warn", "error"}),
                                          ("error,lua=error", {"error"}), ("off,kumod=info,lua=off", set())])
def test_log_filter(where, variable, filter, shown):
    filter = filter if "kumod" in filter or filter.startswith("error") else "kumod=info," + filter
    if "kumod" not in filter:
        filter += ",kumod=info"
    with Daemon(where, log_policy(where), env={variable: filter}) as d:
        said = set(re.findall(r"said at (\w+)", d.stderr()))
        assert said == shown


def test_log_filter_silences_the_service(where):
    d = Daemon(where, policy(where), env={"CIRRUS_LOG": "error", "KUMOD_LOG": "trace"})
    process = subprocess.Popen(d.command(), stderr=subprocess.PIPE, env=d.env, cwd=where)
    try:
        # Nothing is said; that it lives is seen from its lock and its threads only, so it is asked to stop once it has a spool.
        wait_for("the spool", lambda: list((where / "spool/data").glob("*.journal")) if (where / "spool/data").exists() else None)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        text = process.stderr.read().decode()
        assert " INFO " not in text and " DEBUG " not in text
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


# --- privileges ---

def status_of(pid, *fields):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return [re.search(rf"^{f}:\s+(.*)$", text, re.M).group(1) for f in fields]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_privileges_are_dropped_after_the_ports_are_bound():
    nobody = pwd.getpwnam("nobody")
    base = pathlib.Path(tempfile.mkdtemp(prefix="cirrus-nobody-"))  # below /tmp itself: pytest's directories are root's alone
    try:
        base.chmod(0o755)
        binary = base / "cirrusd"  # the build directory may be root's alone as well
        home = base / "home"
        home.mkdir()
        os.chown(home, nobody.pw_uid, nobody.pw_gid)
        for port in (81, 82, 83, 84, 85):
            with socket.socket() as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if s.connect_ex(("127.0.0.1", port)) != 0:
                    break
        else:
            pytest.skip("no low port is free")
        text = policy(home, f"protocol = {{ maildir_path = '{home}/mail' }}").replace("127.0.0.1:0", f"127.0.0.1:{port}")
        d = Daemon(home, text, args=["--user", "nobody"])
        shutil.copy(d.command()[0], binary)
        command = d.command
        d.command = lambda *more: [str(binary), *command(*more)[1:]]
        (home / "policy.lua").chmod(0o644)
        with d:
            assert d.port == port
            pid = d.process.pid
            for task in os.listdir(f"/proc/{pid}/task"):
                uid, gid, groups, effective, permitted, inheritable, ambient, no_new = status_of(
                    f"{pid}/task/{task}", "Uid", "Gid", "Groups", "CapEff", "CapPrm", "CapInh", "CapAmb", "NoNewPrivs")
                assert uid.split() == [str(nobody.pw_uid)] * 4, task
                assert gid.split() == [str(nobody.pw_gid)] * 4
                assert set(groups.split()) <= {str(nobody.pw_gid)}
                assert {int(c, 16) for c in (effective, permitted, inheritable, ambient)} == {0}
                assert no_new == "1"
            d.accept()
            wait_for("the message", Maildir(home / "mail").messages)
            d.wait_record("Delivery")
            assert "running as root" not in d.stderr()
        made = [p for p in home.rglob("*") if p.name not in ("policy.lua", "stderr.1")]
        assert {home / "spool/data", home / "spool/meta", home / "logs", home / "nodeid"} <= set(made)
        for path in made:
            assert (path.stat().st_uid, path.stat().st_gid) == (nobody.pw_uid, nobody.pw_gid), path
        # The spool and the logs are readable by a second start, and a low port is bound again.
        with d:
            assert d.port == port
    finally:
        shutil.rmtree(base)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_root_without_user_is_warned(where):
    with Daemon(where, policy(where)) as d:
        assert re.search(r"WARN .*running as root", d.stderr())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_spool_of_another_user_is_refused(where):
    base = pathlib.Path(tempfile.mkdtemp(prefix="cirrus-nobody-"))
    try:
        base.chmod(0o755)
        (base / "spool").mkdir(mode=0o700)
        d = Daemon(base, policy(base), args=["--user", "nobody"], env={"KUMO_NODE_ID": str(uuid.uuid4())})
        shutil.copy(d.command()[0], base / "cirrusd")
        (base / "policy.lua").chmod(0o644)
        p = subprocess.run([str(base / "cirrusd"), *d.command()[1:]], capture_output=True, text=True, env=d.env, timeout=30, cwd="/")
        assert p.returncode == 1 and "Permission denied" in p.stderr and str(base) in p.stderr
    finally:
        shutil.rmtree(base)


# --- the end ---

@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_delivery_in_hand_finishes(where, sig):
    """The answer to a message that the peer has taken is waited for; nothing is sent twice."""
    with Sink() as sink:
        sink.handler.handle_DATA = stall_after_data(2)
        d = Daemon(where, policy(where, smtp_queue(sink.port)))
        with d:
            d.accept(to=["slow@example.org"])
            wait_for("the recipient", lambda: sink.attempts)
            began = time.monotonic()
            assert d.stop(sig) == 0
            assert time.monotonic() - began < 20
        assert len(sink.messages) == 1
        assert [r["type"] for r in d.records()] == ["Reception", "Delivery"]
        with d:
            assert "0 messages recovered" in d.stderr()
        assert len(sink.messages) == 1


def test_delivery_that_takes_too_long_returns_to_the_queue(where):
    """A peer that never answers holds the daemon up to its deadline and no longer; the message is kept."""
    with Sink({"stall": "stall"}) as sink:
        d = Daemon(where, policy(where, smtp_queue(sink.port)))
        with d:
            d.accept(to=["stall@example.org"])
            wait_for("the recipient", lambda: sink.attempts)
            for i in range(20):
                d.accept(to=[f"r{i}@example.org"])
            wait_for("the others", lambda: len(sink.messages) == 20)
            began = time.monotonic()
            assert d.stop(timeout=80) == 0
            assert time.monotonic() - began < 60
        assert len(sink.messages) == 20
        sink.handler.rules.clear()
        with d:
            assert "1 messages recovered" in d.stderr()
            wait_for("the message", lambda: len(sink.messages) == 21)


def test_a_second_signal_does_no_harm(where):
    with Sink() as sink:
        sink.handler.handle_DATA = stall_after_data(2)
        d = Daemon(where, policy(where, smtp_queue(sink.port)))
        with d:
            d.accept()
            wait_for("the recipient", lambda: sink.attempts)
            for sig in (signal.SIGTERM, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                d.process.send_signal(sig)
            assert d.stop() == 0
        assert len(sink.messages) == 1


def test_stop_under_load_loses_nothing(where):
    """Clients that are in the middle of it: what was answered 200 is there, the rest is refused or cut off cleanly."""
    accepted, other, lock = [], [], threading.Lock()
    with Sink() as sink:
        d = Daemon(where, policy(where, smtp_queue(sink.port)))

        def client(i):
            k = 0
            c = d.connect()
            while True:
                token = f"c{i}-{k}"
                k += 1
                body = json.dumps({"envelope_sender": "s@example.com", "recipients": [{"email": f"{token}@example.org"}],
                                   "content": f"Subject: {token}\r\n\r\nx\r\n"})
                try:
                    c.request("POST", "/api/inject/v1", body, {"Content-Type": "application/json"})
                    r = c.getresponse()
                    r.read()
                    if r.status == 200:
                        with lock:
                            accepted.append(token)
                        continue
                    assert r.status == 503
                    with lock:
                        other.append(r.status)
                except OSError:
                    pass
                except Exception as e:  # an answer cut short would be an http.client error
                    if type(e).__name__ not in ("RemoteDisconnected", "BadStatusLine"):
                        with lock:
                            other.append(e)
                return
        with d:
            threads = [threading.Thread(target=client, args=(i,)) for i in range(8)]
            for t in threads:
                t.start()
            wait_for("some messages", lambda: len(accepted) > 300)
            assert d.stop() == 0
            for t in threads:
                t.join()
        assert all(o == 503 for o in other), other
        with d:
            wait_for("all of them", lambda: len({m.recipients[0] for m in sink.messages}) >= len(accepted))
        seen = [m.recipients[0].split("@")[0] for m in sink.messages]
        assert set(seen) >= set(accepted)
        assert len(seen) == len(set(seen)), "in good order nothing is sent twice"


def test_requests_in_flight_are_answered(where):
    """A request that was begun before the signal gets its answer, and is told that the connection ends."""
    d = Daemon(where, policy(where, smtp_queue(closed_port(), NEVER)))
    with d:
        body = json.dumps({"envelope_sender": "s@example.com", "recipients": [{"email": "r@example.org"}], "content": "Subject: x\r\n\r\nx\r\n"})
        with socket.create_connection(("127.0.0.1", d.port), timeout=30) as c, socket.create_connection(("127.0.0.1", d.port)) as idle:
            c.sendall(f"POST /api/inject/v1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode())
            d.request("GET", "/api/check-liveness/v1")
            d.process.send_signal(signal.SIGTERM)
            wait_for("the signal", lambda: "received Terminated" in d.stderr())
            idle.settimeout(20)
            assert idle.recv(1) == b"", "an idle connection is closed at once"
            c.sendall(body.encode())
            answer = b"".join(iter(lambda: c.recv(65536), b""))
            assert re.match(rb"HTTP/1\.1 (200|503) ", answer) and b"connection: close" in answer.lower()
            is_taken = answer.startswith(b"HTTP/1.1 200 ")
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", d.port), timeout=5).close()
        assert d.stop() == 0
    with d:
        assert f"{1 if is_taken else 0} messages recovered" in d.stderr()


def test_stop_right_after_the_start(where):
    for _ in range(5):
        d = Daemon(where, policy(where))
        process = subprocess.Popen(d.command(), stderr=subprocess.PIPE, env=d.env, cwd=where)
        for line in process.stderr:
            if b"http listener on" in line:
                break
        process.send_signal(signal.SIGTERM)
        text = process.stderr.read().decode()
        assert process.wait(60) == 0 and "stopped in good order" in text
        assert not SANITIZER.search(text), text


def test_stop_during_the_start(where):
    """The policy does not come to name the queue of what is in the spool: the message stays there."""
    d = Daemon(where, policy(where, queue=smtp_queue(closed_port())))
    with d:
        d.accept(to=["r@slow.example"])
    d.set_policy(policy(where).replace("kumo.on('get_queue_config', function(domain, tenant, campaign, routing_domain)",
                                       "kumo.on('get_queue_config', function(domain)\n  print('asked') kumo.sleep(3600)"))
    process = subprocess.Popen(d.command(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=d.env, cwd=where)
    assert process.stdout.readline() == b"asked\n"
    process.send_signal(signal.SIGTERM)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 0 and text.decode().rstrip().endswith("stopped in good order"), text
    d.set_policy(policy(where, queue=smtp_queue(closed_port())))
    with d:
        assert "1 messages recovered" in d.stderr()


def test_validation_that_is_ended_has_not_passed(where):
    d = Daemon(where, policy(where, init="print('begun') kumo.sleep(3600)"))
    process = subprocess.Popen(d.command("--validate"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=d.env, cwd=where)
    assert process.stdout.readline() == b"begun\n"
    process.send_signal(signal.SIGTERM)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 1 and b"Error: " in text


def test_segments_of_records_are_finished(where):
    """While it is written a segment is writable; when it is whole, it is not, for anybody, and each of its lines is whole."""
    with Sink() as sink, Daemon(where, policy(where, smtp_queue(sink.port)).replace("max_segment_duration = '1s'", "max_segment_duration = '1h'")) as d:
        for i in range(50):
            d.accept(to=[f"r{i}@example.org"])
        d.wait_record("Delivery", 50)
        live = [p for p in (where / "logs").iterdir() if p.is_file()]
        assert live and all(stat.S_IMODE(p.stat().st_mode) & 0o200 for p in live)
    done = [p for p in (where / "logs").iterdir() if p.is_file()]
    assert len(done) == len(live)
    for path in done:
        assert stat.S_IMODE(path.stat().st_mode) & 0o222 == 0, path
        p = subprocess.run(["zstd", "-dcq", str(path)], capture_output=True)
        assert p.returncode == 0 and p.stdout.endswith(b"\n")
        for line in p.stdout.splitlines():
            json.loads(line)
    assert len(d.records("Delivery")) == 50 and len(d.records("Reception")) == 50


def test_segments_left_by_a_crash_are_finished_at_the_next_start(where):
    d = Daemon(where, policy(where, smtp_queue(closed_port(), NEVER)).replace("max_segment_duration = '1s'", "max_segment_duration = '1h'"))
    d.start()
    d.accept()
    d.wait_record("Reception")
    d.kill()
    left = [p for p in (where / "logs").iterdir() if p.is_file()]
    with d:
        assert left and all(stat.S_IMODE(p.stat().st_mode) & 0o222 == 0 for p in left)
    assert len(d.records("Reception")) == 1


def test_a_policy_that_hangs_does_not_hold_up_the_start(where):
    """Its time-out is waited for once, not for each message or queue; what it was to be asked about waits in the spool."""
    with Sink() as sink:
        d = Daemon(where, policy(where, smtp_queue(closed_port(), NEVER)))
        to = [f"r{i}@hang{i % 3}.example" for i in range(9)]
        with d:
            d.accept(to=to)
        good = policy(where, smtp_queue(sink.port))
        d.set_policy(good.replace("(domain, tenant, campaign, routing_domain)", "(domain, tenant, campaign, routing_domain) kumo.sleep(3600)"))
        with d:
            assert "9 messages recovered" in d.stderr() and "the queues of 9 of them could not be made; they wait" in d.stderr()
            assert d.request("GET", "/api/check-liveness/v1")[0] == 200
        d.set_policy(good)
        with d:
            assert "9 messages recovered" in d.stderr()
            d.inject()  # what was put off has its time of an hour still
            wait_for("a new one", lambda: sink.messages)


# --- reload ---

def reload(d, text):
    """Sends SIGHUP with another policy and waits until that was read."""
    n = d.stderr().count("reloading the policy")
    d.set_policy(text)
    d.process.send_signal(signal.SIGHUP)
    wait_for("the reload", lambda: d.stderr().count("reloading the policy") > n)


def test_reload_takes_a_new_policy(where):
    with Sink() as sink, Daemon(where, policy(where, f"protocol = {{ maildir_path = '{where}/mail' }}")) as d:
        pid, port = d.process.pid, d.port
        d.accept(to=["before@example.org"])
        wait_for("the first", lambda: len(Maildir(where / "mail").messages()) == 1)
        # The same queue, which exists by now, another way out; and a new handler.
        extra = "kumo.on('http_message_generated', function(msg) msg:set_meta('tenant', 'new') end)"
        reload(d, policy(where, smtp_queue(sink.port), extra=extra))

        def is_new():
            d.accept(to=["after@example.org"])
            return sink.messages
        wait_for("the new way", is_new)
        assert d.process.pid == pid and d.request("GET", "/api/check-liveness/v1")[0] == 200 and d.port == port
        wait_for("the meta", lambda: [r for r in d.records("Delivery") if r["meta"].get("tenant") == "new"])
        assert d.stderr().count("http listener on") == 1, "init does not run again"


def test_reload_reaches_messages_that_wait(where):
    """A queue whose peer is gone gets another one: the new configuration is used for the next attempt."""
    with Sink() as sink:
        often = "retry_interval = '1s', max_retry_interval = '1s'"
        with Daemon(where, policy(where, smtp_queue(closed_port(), often))) as d:
            d.accept()
            d.wait_record("TransientFailure")
            reload(d, policy(where, smtp_queue(sink.port, often)))
            wait_for("the message", lambda: sink.messages)


@pytest.mark.parametrize("broken", ["this is no Lua", "error('boom at load')", "local x = nil + 1"])
def test_reload_keeps_the_old_policy_when_the_new_one_is_broken(where, broken):
    good = policy(where, f"protocol = {{ maildir_path = '{where}/mail' }}",
                  extra="kumo.on('http_message_generated', function(msg) msg:set_meta('tenant', 'old') end)")
    with Daemon(where, good) as d:
        d.accept()
        wait_for("the first", lambda: len(Maildir(where / "mail").messages()) == 1)
        reload(d, good + broken)
        wait_for("the log line", lambda: re.search(r"ERROR .*the policy stays as it was: .*policy\.lua", d.stderr()))
        for i in range(20):
            d.accept(to=[f"r{i}@new{i}.example"])  # new queues too
        wait_for("the others", lambda: len(Maildir(where / "mail").messages()) == 21)
        wait_for("the records", lambda: len(d.records("Delivery")) == 21)
        assert {r["meta"].get("tenant") for r in d.records("Delivery")} == {"old"}
        reload(d, good.replace("'old'", "'mended'"))
        wait_for("the mended one", lambda: d.accept() and [r for r in d.records("Delivery") if r["meta"].get("tenant") == "mended"])


def test_reload_many_times_under_load(where):
    with Sink() as sink, Daemon(where, policy(where, smtp_queue(sink.port))) as d:
        done = threading.Event()
        errors = []

        def load(i):
            k = 0
            while not done.is_set():
                try:
                    d.accept(to=[f"t{i}-{k}@example.org"])
                except Exception as e:
                    errors.append(e)
                    return
                k += 1
            counts.append(k)
        counts = []
        threads = [threading.Thread(target=load, args=(i,)) for i in range(4)]
        for t in threads:
            t.start()
        try:
            for i in range(10):
                reload(d, policy(where, smtp_queue(sink.port), extra=f"-- version {i}"))
                before = len(sink.messages)
                wait_for("messages after the reload", lambda: len(sink.messages) > before + 5 or errors)
        finally:
            done.set()
            for t in threads:
                t.join()
        assert not errors, errors[0]
        wait_for("all", lambda: len(sink.messages) >= sum(counts))
        assert len(sink.messages) == sum(counts)
