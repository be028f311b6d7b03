"""An SMTP listener on what is no address and port: a path, and a socket that is handed down."""
import socket
import subprocess

import pytest

from smtpraw import Client, Smtp


def test_listen_on_a_path(where):
    """Who may open the socket counts as this machine."""
    path = where / "smtp.sock"
    with Smtp(where, ["", f"listen = 'unix:{path}', listen_mode = '0600', hostname = 'mx.example'"]) as d:
        assert f"smtp listener on unix:{path}\n" in d.stderr() and path.stat().st_mode & 0o7777 == 0o600
        with Client(str(path)) as c:
            c.hello()
            c.starttls()
            c.hello()
            r = c.deliver()
        reception, = d.wait_record("Reception", id=r.ids[0])
        assert reception["peer_address"] == {"name": "client.example", "addr": "127.0.0.1"}
        assert b"Received: from client.example (127.0.0.1)\r\n  by mx.example (Cirrus 127.0.0.1)\r\n  with ESMTPS " in d.received()[0]
    assert not path.exists()


@pytest.mark.parametrize("listen,why", [("unix:/nonexistent/s", "No such file"), ("fd:smtp", "no descriptors were handed to this process")])
def test_listen_where_nobody_can(where, listen, why):
    d = Smtp(where, f"listen = '{listen}'")
    status, err = d.run_to_end()
    assert status == 1 and f"listening on {listen}: {why}" in err and "policy.lua:" in err
    assert d.run_to_end("--validate")[0] == 0


# What systemd does for a socket unit.
HAND_OVER = """
import fcntl, os, sys
high = fcntl.fcntl(int(sys.argv[1]), fcntl.F_DUPFD, 10)
os.dup2(high, 3, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="mail")
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_listen_on_a_socket_that_is_handed_down(where, monkeypatch):
    tcp = socket.create_server(("127.0.0.1", 0))
    d = Smtp(where, "listen = 'fd:mail', hostname = 'mx.example'")
    d.wrap = ["python3", "-c", HAND_OVER, str(tcp.fileno())]
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **kw: popen(*args, **{**kw, "pass_fds": (tcp.fileno(),)}))
    with d:
        assert d.smtp_port == tcp.getsockname()[1]
        with d.client() as c:
            c.deliver()
