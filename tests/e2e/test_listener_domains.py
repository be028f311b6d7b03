"""policy-extras.listener_domains: get_listener_domain from files."""
import base64
import json
import socket
import tomllib

import pytest

from smtpraw import Smtp


# The file of the documented example, and a listener of its own.
LISTENER_DOMAINS = """
["*"]
relay_to = false
log_oob = 'LogThenDrop'

["Example.com"]
relay_to = true

["send.example.com"]
relay_from = [ '127.0.0.0/29' ]

["auth-send.example.com"]
relay_from_authz = [ 'username1', 'username2' ]

["*.example.com"]
relay_to = true

["www.example.com"]
relay_to = false

[listener."127.0.0.1:PORT"."*"]
relay_to = true

[listener."127.0.0.1:PORT"."*.example.com"]
relay_to = false
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


@pytest.mark.parametrize("form", ["toml", "json"])
def test_listener_domains(where, form):
    """policy-extras.listener_domains: exact names, names below, everything else; a listener's own come first."""
    port = free_port()
    content = tomllib.loads(LISTENER_DOMAINS.replace("PORT", str(port)))
    where.mkdir(exist_ok=True)
    file = where / f"domains.{form}"
    file.write_text(json.dumps(content) if form == "json" else LISTENER_DOMAINS.replace("PORT", str(port)))
    extra = f"""kumo.on('get_listener_domain', require('policy-extras.listener_domains'):setup {{ '{file}' }})
kumo.on('smtp_server_auth_plain', function() return true end)"""
    with Smtp(where, ["relay_hosts = {}", f"relay_hosts = {{}}, listen = '127.0.0.1:{port}'"], extra=extra) as d:
        def taken(index, sender="a@nowhere.example"):
            with d.client(index) as c:
                c.hello()
                c.must(f"MAIL FROM:<{sender}>")
                return [a for a in ("example.com", "a.EXAMPLE.com", "a.b.example.com", "www.example.com", "send.example.com", "other.org", "com")
                        if c.cmd(f"RCPT TO:<x@{a}>").code == 250]
        some = ["example.com", "a.EXAMPLE.com", "a.b.example.com", "other.org", "com"]  # the last two for their reports
        assert taken(0) == some
        assert taken(0, "a@www.example.com") == some
        assert taken(0, "a@auth-send.example.com") == some
        assert len(taken(0, "a@send.example.com")) == 7
        # Nothing of its own holds for example.com, so that of all listeners does; for the others its `*` does.
        assert taken(1) == ["example.com", "other.org", "com"]
        for user, code in (("username2", 250), ("username3", 550)):
            with d.client() as c:
                c.hello()
                c.starttls()
                c.hello()
                c.must("AUTH PLAIN " + base64.b64encode(f"\0{user}\0x".encode()).decode(), 235)
                c.must("MAIL FROM:<a@auth-send.example.com>")
                c.must("RCPT TO:<x@www.example.com>", code)


@pytest.mark.parametrize("setup,words", [
    ("{ { ['x.example'] = { relay_two = true } } }", ["a table: domain `x.example`: ", "unknown field `relay_two`"]),
    ("{ { ['x.example'] = 1 } }", ["listener_domains: a table: `x.example` is no table"]),
    ("{ { listener = 1 } }", ["listener_domains: a table: `listener` is no table"]),
    ("{ { listener = { ['127.0.0.1:25'] = { ['x.example'] = { log_oob = 'Log' } } } } }", ["listener `127.0.0.1:25`: domain `x.example`: ", "unknown variant `Log`"]),
    ("{ '/nonexistent.toml' }", ["/nonexistent.toml: No such file"]),
    ("'/nonexistent.toml'", ["`files` is no table"]),
    ("{} m:setup {}", ["listener_domains module has already been configured"]),
])
def test_listener_domains_mistake(where, setup, words):
    status, err = Smtp(where, "", extra=f"local m = require 'policy-extras.listener_domains' m:setup {setup}").run_to_end("--validate")
    assert status == 1 and all(word in err for word in words), err


def test_a_helper_of_one_s_own_comes_first(where):
    (where / "policy-extras").mkdir(parents=True)
    (where / "policy-extras/listener_domains.lua").write_text("print 'MINE' return {}")
    with Smtp(where, "", extra="require 'policy-extras.listener_domains'") as d:
        assert "MINE" in d.stderr()
