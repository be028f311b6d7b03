"""Memory limits: where they come from, and that the service takes no mail over the soft one while what is queued goes on."""
import socket
import signal

import pytest

from cirrus import Daemon, Maildir, policy, wait_for

MAILDIR = "protocol = {{ maildir_path = '{dir}/maildir' }}"
LIVENESS = "/api/check-liveness/v1"


def with_limits(where, **limits):
    """A policy whose limits are set whenever the file is run, so that a reload changes them."""
    lines = "".join(f"kumo.set_memory_{name}({value})\n" for name, value in limits.items())
    text = policy(where, queue=MAILDIR.format(dir=where))
    return text.replace("local kumo = require 'kumo'\n", "local kumo = require 'kumo'\n" + lines, 1)


def test_no_mail_over_the_soft_limit(where):
    with Daemon(where, with_limits(where, soft_limit=1 << 40)) as d:
        d.accept(to=["before@example.org"])
        assert d.metric("memory_limit") == 1 << 40 and d.metric("memory_low_thresh") == (1 << 40) // 5 * 4
        assert 0 < d.metric("memory_usage") < 1 << 40 and d.metric("memory_over_limit_count") == 0
        wait_for("the first message", lambda: len(Maildir(where / "maildir").messages()) == 1)

        d.set_policy(with_limits(where, soft_limit=1 << 20))
        d.process.send_signal(signal.SIGHUP)
        wait_for("load shedding", lambda: d.request("GET", LIVENESS)[0] == 503)
        status, headers, body = d.request("GET", LIVENESS)
        assert (status, body) == (503, b"load shedding")
        with socket.create_connection(("127.0.0.1", d.port), timeout=30) as s:  # the answer comes before the body
            s.sendall(b"POST /api/inject/v1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{")
            answer = s.recv(10000)
        assert answer.startswith(b"HTTP/1.1 503 ") and b"\r\nretry-after: 1\r\n" in answer.lower() and b"load shedding" in answer
        assert d.metric("memory_over_limit_count") == 1 and d.metric("memory_limit") == 1 << 20
        assert "is over the soft limit of 1048576" in d.stderr()

        d.set_policy(with_limits(where, soft_limit=1 << 40))
        d.process.send_signal(signal.SIGHUP)
        wait_for("mail to be taken again", lambda: d.request("GET", LIVENESS)[0] == 200)
        d.accept(to=["after@example.org"])
        wait_for("both messages", lambda: len(Maildir(where / "maildir").messages()) == 2)


def test_low_memory_only_sheds(where):
    """Above the low threshold mail is taken, and messages that wait give their bodies back to the spool and get them again."""
    with Daemon(where, with_limits(where, soft_limit=1 << 40, low_thresh=1)) as d:
        assert d.metric("memory_low_count") == 1 and d.request("GET", LIVENESS)[0] == 200
        d.accept(to=[f"r{i}@example.org" for i in range(20)])
        wait_for("20 messages", lambda: len(Maildir(where / "maildir").messages()) == 20)
        assert all(m.endswith(b"Subject: test\r\n\r\nhello\r\n") for m in Maildir(where / "maildir").messages())


@pytest.mark.parametrize("limits, env, soft, low", [
    (dict(hard_limit=4000 << 20), {}, 3000 << 20, 2400 << 20),
    (dict(hard_limit=4000 << 20, low_thresh=123456789), {}, 3000 << 20, 123456789),
    ({}, {"KUMOD_MEMORY_HARD_LIMIT": "4194304000"}, 3000 << 20, 2400 << 20),
    ({}, {"KUMOD_MEMORY_SOFT_LIMIT": "5000000000"}, 5000000000, 4000000000),
    (dict(soft_limit=5 << 30), {"KUMOD_MEMORY_SOFT_LIMIT": "5000000000"}, 5 << 30, 4 << 30),
])
def test_where_the_limits_come_from(where, limits, env, soft, low):
    with Daemon(where, with_limits(where, **limits), env=env) as d:
        assert (d.metric("memory_limit"), d.metric("memory_low_thresh")) == (soft, low)


@pytest.mark.parametrize("value", ["", "many", "-1", "0", "1G"])
def test_bad_environment(where, value):
    status, stderr = Daemon(where, policy(where), env={"KUMOD_MEMORY_SOFT_LIMIT": value}).run_to_end()
    assert status == 1 and "KUMOD_MEMORY_SOFT_LIMIT" in stderr


@pytest.mark.parametrize("call", ["set_memory_soft_limit(0)", "set_memory_hard_limit(-5)", "set_memory_low_thresh('x')", "set_memory_soft_limit(1.5)"])
def test_bad_limit(where, call):
    status, stderr = Daemon(where, f"require('kumo').{call}").run_to_end("--validate")
    assert status == 1 and call.split("(")[0] in stderr
