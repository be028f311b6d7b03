"""Every parameter of kumo.start_esmtp_listener, and kumo.make_listener_domain's, seen from the outside."""
import base64
import json
import re
import socket
import time

import pytest

from cirrus import wait_for
from smtpraw import Client, Smtp, split


def header(message, name):
    found = re.search(rb"^" + name + rb": ((?:[^\r]|\r\n[ \t])*)\r\n", message, re.M)
    return re.sub(rb"\r\n[ \t]+", b" ", found.group(1)) if found else None


# --- mistakes ---

MISTAKES = [
    ("lissten = '127.0.0.1:0'", ["unknown field `lissten`, expected one of `listen`, `listen_mode`, `hostname`", "(did you mean `listen`?)"]),
    ("listen = 'nowhere'", ["nowhere"]),
    ("listen = 25", ["invalid type: integer `25`"]),
    ("listen = 'unix:relative'", ["invalid value: \"unix:relative\", expected unix: and an absolute path"]),
    ("listen_mode = '0999'", ["invalid value: \"0999\", expected permissions such as '0660'"]),
    ("hostname = 'a b'", ["field `hostname`: invalid value"]),
    ("hostname = 'a\\nb'", ["field `hostname`: control characters"]),
    ("banner = 'a\\r\\n250 b'", ["field `banner`: control characters"]),
    ("relay_hosts = { '192.168.1.1/24' }", ["192.168.1.1/24 is not a valid CIDR"]),
    ("relay_hosts = '127.0.0.1'", ["invalid type: string"]),
    ("max_message_size = 0", ["invalid value: integer `0`"]),
    ("max_connections = 0", ["invalid value: integer `0`"]),
    ("max_recipients_per_message = 'many'", ["invalid type: string \"many\""]),
    ("max_messages_per_connection = 0", ["invalid value"]),
    ("data_buffer_size = 1", ["invalid value: integer `1`"]),
    ("line_length_hard_limit = 0", ["invalid value"]),
    ("client_timeout = 0", ["field `client_timeout`: invalid value: 0s"]),
    ("client_timeout = 'soon'", ["expected a duration"]),
    ("data_processing_timeout = 0", ["field `data_processing_timeout`"]),
    ("invalid_line_endings = 'Ignore'", ["unknown variant `Ignore`, expected one of `Deny`, `Allow`, `Fix`"]),
    ("batch_handling = 'ByDomain'", ["unknown variant `ByDomain`, expected one of `BifurcateAlways`, `BatchByDomain`"]),
    ("allow_xclient = 1", ["invalid type: integer `1`, expected a boolean"]),
    ("require_proxy_protocol = 'yes'", ["expected a boolean"]),
    ("implicit_tls = 'yes'", ["expected a boolean"]),
    ("deferred_queue = 'yes'", ["expected a boolean"]),
    ("deferred_spool = 'yes'", ["expected a boolean"]),
    ("meta = 'x'", ["expected a map of metadata"]),
    ("trace_headers = { header_name = 'a b' }", ["trace_headers: field `header_name`"]),
    ("trace_headers = { nope = true }", ["trace_headers: unknown field `nope`"]),
    ("trace_headers = { received_header = 1 }", ["trace_headers: invalid type: integer `1`, expected a boolean"]),
    ("peer = { ['300.0.0.1'] = {} }", ["300.0.0.1 is not a valid CIDR"]),
    ("peer = { ['10.0.0.0/8'] = { baner = 'x' } }", ["10.0.0.0/8: unknown field `baner`", "(did you mean `banner`?)"]),
    ("peer = { ['10.0.0.0/8'] = { listen = '0.0.0.0:25' } }", ["10.0.0.0/8: unknown field `listen`"]),
    ("peer = { ['10.0.0.0/8'] = { max_connections = 1 } }", ["unknown field `max_connections`"]),
    ("via = { ['10.0.0.1'] = { peer = { ['::1'] = { banner = 1 } } } }", ["10.0.0.1: ::1: invalid type: integer `1`, expected a string"]),
    ("peer = 'x'", ["expected a map from networks to parameters"]),
    ("tls_certificate = '/nonexistent.pem'", ["`/nonexistent.pem`: No such file"]),
    ("tls_private_key = '/x'", ["tls_private_key is given without tls_certificate"]),
    ("via = { ['10.0.0.1'] = { tls_certificate = '/nonexistent.pem' } }", ["`/nonexistent.pem`: No such file"]),
    ("tls_required_client_ca = '/nonexistent.pem'", ["`/nonexistent.pem`: No such file"]),
]


@pytest.mark.parametrize("fields,words", MISTAKES, ids=[m[0][:50] for m in MISTAKES])
@pytest.mark.parametrize("how", [(), ("--validate",)], ids=["start", "validate"])
def test_mistake(where, fields, words, how):
    status, err = Smtp(where, fields if "listen" in fields else f"listen = '127.0.0.1:0', {fields}").run_to_end(*how)
    assert status == 1
    for word in words:
        assert word in err, err
    assert "policy.lua:" in err


DOMAIN_MISTAKES = [
    ("relay_too = true", "unknown field `relay_too`, expected one of `relay_to`"),
    ("relay_to = 'yes'", "invalid type: string \"yes\", expected a boolean"),
    ("relay_from = { 'x' }", "x is not a valid CIDR"),
    ("relay_from_authz = 'x'", "invalid type: string \"x\", expected a sequence of strings"),
    ("log_oob = 'Maybe'", "unknown variant `Maybe`, expected one of `Ignore`, `LogThenDrop`, `LogThenRelay`"),
    ("log_arf = 1", "invalid type: integer `1`"),
    ("ttl = 'x'", "expected a duration"),
]


@pytest.mark.parametrize("fields,words", DOMAIN_MISTAKES, ids=[m[0] for m in DOMAIN_MISTAKES])
def test_domain_mistake(where, fields, words):
    status, err = Smtp(where, "", init=f"kumo.make_listener_domain {{ {fields} }}").run_to_end("--validate")
    assert status == 1 and words in err, err


def test_only_in_init(where):
    extra = "kumo.on('smtp_server_mail_from', function() kumo.start_esmtp_listener { listen = '127.0.0.1:0' } end)"
    with Smtp(where / "a", "", extra=extra) as d:
        with d.client() as c:
            assert c.cmd("MAIL FROM:<a@example.com>").code == 421
        assert "kumo.start_esmtp_listener must be called from the `init` event (called from `smtp_server_mail_from`)" in d.stderr()
    status, err = Smtp(where / "b", "", extra="kumo.start_esmtp_listener {}").run_to_end()
    assert status == 1 and "kumo.start_esmtp_listener must be called from the `init` event" in err


def test_validate_opens_no_port(where):
    status, err = Smtp(where, "").run_to_end("--validate")
    assert status == 0 and "smtp listener" not in err, err


def test_port_in_use(where):
    with socket.create_server(("127.0.0.1", 0)) as s:
        status, err = Smtp(where, f"listen = '127.0.0.1:{s.getsockname()[1]}'").run_to_end()
    assert status == 1 and "Address already in use" in err and "policy.lua:" in err


# --- one by one ---

def test_listen_on_any_address(where):
    """The documented form `0:PORT`, and the line that says where."""
    with Smtp(where, "listen = '0:0', hostname = 'mx.example'") as d:
        assert re.search(r" INFO \S+ kumod: smtp listener on 0\.0\.0\.0:\d+\n", d.stderr())
        for host in ("127.0.0.1", "127.0.0.2"):
            with d.client(host=host) as c:
                c.hello()


def test_listen_ipv6(where):
    with Smtp(where, "listen = '[::1]:0', hostname = 'mx.example'") as d:
        with d.client(host="::1") as c:
            c.hello()
            r = c.deliver()  # ::1 is in relay_hosts
        message = d.received()[0]
        assert b"(::1)" in header(message, b"Received") and b"(Cirrus ::1)" in header(message, b"Received")
        assert d.wait_record("Reception", id=r.ids[0])[0]["peer_address"]["addr"] == "::1"


def test_hostname(where):
    with Smtp(where, "listen = '127.0.0.1:0'") as d:
        with d.client() as c:
            assert c.banner.text == f"{socket.gethostname()} KumoMTA"


def test_banner(where):
    with Smtp(where, "banner = 'Welcome to the machine!'") as d:
        with d.client() as c:
            assert c.banner.text == "mx.example Welcome to the machine!"


def test_relay_hosts(where):
    with Smtp(where, ["relay_hosts = { '127.0.0.2', '127.1.0.0/16' }", "relay_hosts = {}"]) as d:
        for source, code in (("127.0.0.2", 250), ("127.1.2.3", 250), ("127.0.0.1", 550)):
            with d.client(source=(source, 0)) as c:
                c.hello()
                c.must("MAIL FROM:<a@example.com>")
                r = c.cmd("RCPT TO:<b@maildir.example>")
                assert r.code == code, (source, r)
                if code == 550:
                    assert r.text.startswith(f"5.7.1 relaying not permitted for {source}:")
        with d.client(1) as c:
            c.must("MAIL FROM:<a@example.com>")
            assert c.cmd("RCPT TO:<b@maildir.example>").code == 550


def test_max_connections(where):
    with Smtp(where, "max_connections = 3") as d:
        clients = [d.client() for _ in range(3)]
        with Client(d.smtp_port, banner=False) as c:
            assert c.reply().lines == ["421 4.3.2 mx.example too many concurrent sessions. Try later"]
            assert c.ended()
        d.wait_metric('total_connections_denied{service="esmtp_listener"}', 1)
        clients[0].must("QUIT", 221)
        for c in clients:
            c.socket.close()
        wait_for("room", lambda: d.metric('connection_count{service="esmtp_listener"}') == 0)
        with d.client() as c:
            c.hello()
        assert d.metric('total_connection_count{service="esmtp_listener"}') >= 4
        assert not d.records("Rejection")


def test_max_messages_per_connection(where):
    with Smtp(where, "max_messages_per_connection = 3") as d:
        with d.client() as c:
            c.hello()
            c.deliver()
            c.must("MAIL FROM:<a@example.com>")
            c.must("RCPT TO:<b@maildir.example>")
            c.must("RCPT TO:<c@maildir.example>")
            assert c.cmd("RCPT TO:<d@maildir.example>").lines[0].startswith("452 4.5.3")
            assert len(c.data().ids) == 2
            assert c.cmd("MAIL FROM:<a@example.com>").lines[0].startswith("421 4.5.3")
            assert c.ended()
        with d.client() as c:
            c.hello()
            c.deliver()


def test_refused_recipients_count_as_messages(where):
    with Smtp(where, "max_messages_per_connection = 2", extra="kumo.on('smtp_server_rcpt_to', function(r) kumo.reject(550, 'no') end)") as d:
        with d.client() as c:
            c.must("MAIL FROM:<a@example.com>")
            assert c.cmd("RCPT TO:<a@maildir.example>").code == 550
            assert c.cmd("RCPT TO:<b@maildir.example>").code == 550
            assert c.cmd("RCPT TO:<c@maildir.example>").lines[0].startswith("421 4.5.3")
            assert c.ended()


def test_max_recipients_per_message(where):
    with Smtp(where, "max_recipients_per_message = 2") as d:
        with d.client() as c:
            c.hello()
            for _ in range(2):
                c.must("MAIL FROM:<a@example.com>")
                c.must("RCPT TO:<b@maildir.example>")
                c.must("RCPT TO:<c@maildir.example>")
                for _ in range(3):
                    assert c.cmd("RCPT TO:<d@maildir.example>").lines[0].startswith("452 4.5.3")
                assert len(c.data().ids) == 2


def test_max_message_size(where):
    with Smtp(where, "max_message_size = 1000") as d:
        with d.client() as c:
            assert "SIZE 1000" in c.hello().lines[5]
            assert c.cmd("MAIL FROM:<a@example.com> SIZE=1001").lines[0].startswith("552 5.3.4")
            c.must("MAIL FROM:<a@example.com> SIZE=1000")
            c.must("RCPT TO:<b@maildir.example>")
            content = (b"x" * 98 + b"\r\n") * 10
            assert c.data(content).code == 250
            c.begin()
            assert c.data(content + b"\r\n").lines[0].startswith("552 5.3.4")
            c.begin()
            c.send(b"BDAT 1002 LAST\r\n" + content + b"\r\n")
            assert c.reply().lines[0].startswith("552 5.3.4")
            c.deliver()


def test_line_length_hard_limit(where):
    with Smtp(where, ["line_length_hard_limit = 10", "line_length_hard_limit = 100000"]) as d:
        with d.client() as c:
            c.hello()  # commands have a limit of their own
            c.deliver(content=b"x" * 10 + b"\r\n")
            c.begin()
            assert c.data(b"x" * 11 + b"\r\n").lines[0].startswith("500 5.2.3")
        with d.client(1) as c:
            c.hello()
            c.deliver(content=b"x" * 100000 + b"\r\n")


@pytest.mark.parametrize("size", [512, 131072, 1 << 20])
def test_data_buffer_size(where, size):
    """The message is the same, whatever it is read by."""
    with Smtp(where, f"data_buffer_size = {size}") as d:
        content = b"".join(b"%06d" % i + b"z" * 70 + b"\r\n" for i in range(20000))
        with d.client() as c:
            c.hello()
            c.begin()
            c.must("DATA", 354)
            c.send(content + b".\r\nNOOP\r\n")
            assert c.reply().code == 250 and c.reply().code == 250
        assert split(d.received()[0])[1] == content


def test_client_timeout(where):
    with Smtp(where, "client_timeout = '3s'") as d:  # enough for a test on a busy machine to say the next thing
        with d.client() as c:
            r = c.reply()
            assert r.lines == ["421 4.3.2 mx.example idle too long"] and c.ended()
        with d.client() as c:  # in a command, whatever trickles in
            begun = time.monotonic()
            c.hello()
            with pytest.raises((ConnectionError, AssertionError)):
                while time.monotonic() - begun < 30:
                    c.send("N")
                    time.sleep(0.05)
                    c.socket.setblocking(False)
                    try:
                        data = c.socket.recv(1000)
                        assert b"421 4.3.2" not in data
                    except BlockingIOError:
                        pass
                    c.socket.setblocking(True)
        with d.client() as c:  # in a message
            c.hello()
            c.begin()
            c.must("DATA", 354)
            c.send("Subject: x\r\n")
            assert c.reply().lines[0].startswith("421 4.3.2") and c.ended()
        assert not d.records("Rejection") and not d.records("Reception")


def test_data_processing_timeout(where):
    extra = """
kumo.on('smtp_server_data', function(msg) if msg:sender().user == 'data' then kumo.sleep(30) end end)
kumo.on('smtp_server_message_received', function(msg) if msg:sender().user == 'received' then kumo.sleep(30) end end)
"""
    with Smtp(where, "data_processing_timeout = '3s'", extra=extra) as d:
        with d.client() as c:
            c.hello()
            for sender in ("data", "received"):
                c.begin(sender=f"{sender}@example.com")
                assert c.data().lines == ["451 4.4.5 data_processing_timeout exceeded (rx)"]
            c.deliver()
        assert len(d.wait_record("Reception")) == 1


def test_batch_handling(where):
    to = ("a@one.example", "b@two.example", "c@one.example", "d@ONE.example", "e@three.example")
    with Smtp(where, ["batch_handling = 'BatchByDomain'", "batch_handling = 'BifurcateAlways'", ""]) as d:
        with d.client(0) as c:
            c.hello()
            ids = c.deliver(to=to).ids
            assert len(ids) == 3
            recipients = [d.wait_record("Reception", id=i)[0]["recipient"] for i in ids]
            assert recipients == [["a@one.example", "c@one.example", "d@ONE.example"], "b@two.example", "e@three.example"]
        for index in (1, 2):
            with d.client(index) as c:
                c.hello()
                ids = c.deliver(to=to).ids
                assert [d.wait_record("Reception", id=i)[0]["recipient"] for i in ids] == list(to)


def test_meta(where):
    extra = """
kumo.on('smtp_server_mail_from', function(sender, conn)
  print('META', conn:get_meta('hello'), kumo.json_encode(conn:get_meta('list')), conn:get_meta('trusted'), conn:get_meta('other'))
end)"""
    listener = """meta = { hello = 'there', list = { 1, 'two', { three = 3 } }, trusted = false },
    peer = { ['127.0.0.2'] = { meta = { trusted = true } } }"""
    with Smtp(where, listener, extra=extra) as d:
        for source in ("127.0.0.1", "127.0.0.2"):
            with d.client(source=(source, 0)) as c:
                c.must("MAIL FROM:<a@example.com>")
        assert [line for line in d.stderr().splitlines() if line.startswith("META")] == [
            'META\tthere\t[1,"two",{"three":3}]\tfalse\tnil', 'META\tthere\t[1,"two",{"three":3}]\ttrue\tnil']


def test_meta_of_the_proxy_is_not_its_client_s(where):
    extra = "kumo.on('smtp_server_mail_from', function(s, conn) print('META', conn:get_meta('role'), conn:get_meta('base'), conn:get_meta('orig_received_from')) end)"
    listener = """meta = { base = 'b' }, peer = { ['127.0.0.2'] = { require_proxy_protocol = true, meta = { role = 'proxy' } },
      ['192.0.2.1'] = { meta = { base = 'c' } } }"""
    with Smtp(where, listener, extra=extra) as d:
        for sent in (b"PROXY TCP4 192.0.2.1 198.51.100.1 1 25\r\n", b"PROXY UNKNOWN\r\n"):
            with Client(d.smtp_port, banner=False, source=("127.0.0.2", 0)) as c:
                c.send(sent)
                assert c.reply().code == 220
                c.must("MAIL FROM:<a@example.com>")
        lines = [line.split("\t") for line in d.stderr().splitlines() if line.startswith("META")]
        assert lines[0][:3] == ["META", "nil", "c"] and lines[0][3].startswith("127.0.0.2:")
        assert lines[1] == ["META", "proxy", "b", "nil"]


def test_peer_and_via(where):
    listener = """listen = '0.0.0.0:0', hostname = 'base.example', banner = 'base', peer = {
      ['127.0.0.0/8'] = { banner = 'loopback' },
      ['127.0.0.2'] = { banner = 'two', via = { ['127.0.0.9'] = { hostname = 'nine-for-two.example' } } },
      ['127.0.0.3'] = { max_message_size = 333 },
    }, via = { ['127.0.0.8'] = { hostname = 'eight.example', banner = 'eight', peer = { ['127.0.0.3'] = { banner = 'eight for three' } } } }"""
    with Smtp(where, listener) as d:
        for source, host, banner, size in (("127.0.0.1", "127.0.0.1", "base.example loopback", 20971520),
                                           ("127.0.0.2", "127.0.0.1", "base.example two", 20971520),
                                           ("127.0.0.2", "127.0.0.9", "nine-for-two.example two", 20971520),
                                           ("127.0.0.3", "127.0.0.1", "base.example base", 333),
                                           ("127.0.0.1", "127.0.0.8", "eight.example eight", 20971520),
                                           ("127.0.0.3", "127.0.0.8", "eight.example eight for three", 333)):
            with d.client(host=host, source=(source, 0)) as c:
                assert c.banner.text == banner, (source, host)
                assert f"250-SIZE {size}" in c.hello().lines


def test_relay_hosts_of_a_block(where):
    with Smtp(where, "relay_hosts = {}, peer = { ['127.0.0.2'] = { relay_hosts = { '127.0.0.0/8' } } }") as d:
        for source, code in (("127.0.0.1", 550), ("127.0.0.2", 250)):
            with d.client(source=(source, 0)) as c:
                c.must("MAIL FROM:<a@example.com>")
                assert c.cmd("RCPT TO:<b@maildir.example>").code == code


def test_trace_headers(where):
    kinds = ["", "trace_headers = { received_header = false }", "trace_headers = { supplemental_header = false }",
             "trace_headers = { header_name = 'X-Trace', include_meta_names = { 'tenant', 'absent' } }",
             "trace_headers = { received_header = false, supplemental_header = false }"]
    extra = "kumo.on('smtp_server_message_received', function(msg) msg:set_meta('tenant', 'acme') end)"
    with Smtp(where, kinds, extra=extra) as d:
        found = []
        for index in range(len(kinds)):
            with d.client(index) as c:
                c.hello()
                c.deliver(content=b"Subject: %d\r\n\r\nx\r\n" % index)
            found.append([m for m in d.received(index + 1) if b"Subject: %d\r\n" % index in m][0])
        assert header(found[0], b"Received") and json.loads(base64.b64decode(header(found[0], b"X-KumoRef"))) == {
            "_@_": "\\_/", "recipient": "b@maildir.example"}
        assert not header(found[1], b"Received") and header(found[1], b"X-KumoRef")
        assert header(found[2], b"Received") and not header(found[2], b"X-KumoRef")
        assert json.loads(base64.b64decode(header(found[3], b"X-Trace").replace(b" ", b""))) == {
            "_@_": "\\_/", "recipient": "b@maildir.example", "tenant": "acme", "absent": None}
        assert found[4] == b"Subject: 4\r\n\r\nx\r\n"


# --- XCLIENT and PROXY ---

SHOW_CONNECTION = """
local function show(what, conn)
  local t = { what }
  for _, k in ipairs { 'received_from', 'received_via', 'orig_received_from', 'orig_received_via', 'ehlo_domain', 'hostname' } do
    t[#t + 1] = tostring(conn:get_meta(k))
  end
  print(table.concat(t, ' '))
end
kumo.on('smtp_server_connection_accepted', function(conn) show('ACCEPTED', conn) end)
kumo.on('smtp_server_mail_from', function(sender, conn) show('MAIL', conn) end)
"""


def shown(d, word):
    return [line.split() for line in d.stderr().splitlines() if line.startswith(word + " ")]


def test_allow_xclient(where):
    listener = """relay_hosts = { '192.0.2.0/24' }, peer = { ['127.0.0.2'] = { allow_xclient = true },
      ['192.0.2.1'] = { banner = 'one', allow_xclient = true }, ['192.0.2.2'] = { banner = 'two' } },
      via = { ['198.51.100.1'] = { hostname = 'via.example' } }"""
    with Smtp(where, listener, extra=SHOW_CONNECTION) as d:
        with d.client() as c:
            assert not [line for line in c.hello().lines if "XCLIENT" in line]
            assert c.cmd("XCLIENT ADDR=192.0.2.1").lines[0].startswith("550 ")
        with d.client(source=("127.0.0.2", 0)) as c:
            local = c.socket.getsockname()[1]
            assert "250 XCLIENT ADDR PORT DESTADDR DESTPORT" in c.hello().lines
            c.must("MAIL FROM:<a@example.com>")
            assert c.cmd("XCLIENT ADDR=192.0.2.1").lines[0].startswith("503 ")
            assert c.cmd("RCPT TO:<b@maildir.example>").code == 550
            c.must("RSET")
            for bad in ("", "ADDR=1", "NAME=x", "ADDR"):
                assert c.cmd(f"XCLIENT {bad}").code == 501
            assert c.must("XCLIENT ADDR=192.0.2.1 PORT=1234 DESTADDR=198.51.100.1 DESTPORT=26", 220).text == "via.example one"
            # A new session: nothing of the old one holds.
            c.must("MAIL FROM:<a@example.com>")
            c.must("RCPT TO:<b@maildir.example>")
            r = c.data()
            assert d.wait_record("Reception", id=r.ids[0])[0]["peer_address"] == {"name": "", "addr": "192.0.2.1"}
            assert c.must("XCLIENT ADDR=IPV6:2001:db8::1", 220).text == "via.example KumoMTA"
            assert c.cmd("XCLIENT ADDR=192.0.2.2").code == 550  # who that is, is not allowed to
            c.must("MAIL FROM:<a@example.com>")
        lines = shown(d, "MAIL")
        assert lines[1] == ["MAIL", "192.0.2.1:1234", "198.51.100.1:26", f"127.0.0.2:{local}", f"127.0.0.1:{d.smtp_port}", "nil", "via.example"]
        assert lines[2][1:5] == ["[2001:db8::1]:1234", "198.51.100.1:26", f"127.0.0.2:{local}", f"127.0.0.1:{d.smtp_port}"]


@pytest.mark.parametrize("binary", [False, True])
def test_require_proxy_protocol(where, binary):
    listener = """peer = { ['127.0.0.2'] = { require_proxy_protocol = true }, ['192.0.2.7'] = { banner = 'seven' } }"""
    sent = b"PROXY TCP4 192.0.2.7 198.51.100.2 1111 25\r\n"
    if binary:
        sent = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([192, 0, 2, 7, 198, 51, 100, 2, 4, 87, 0, 25])
    with Smtp(where, listener, extra=SHOW_CONNECTION) as d:
        with Client(d.smtp_port, banner=False, source=("127.0.0.2", 0)) as c:
            local = c.socket.getsockname()[1]
            c.send(sent + b"EHLO p.example\r\n")
            assert c.reply().text == "mx.example seven"
            assert c.reply().code == 250
            c.must("MAIL FROM:<a@example.com>")
            assert c.cmd("RCPT TO:<b@maildir.example>").code == 550  # relay_hosts are about the real client
        assert shown(d, "ACCEPTED") == [["ACCEPTED", "192.0.2.7:1111", "198.51.100.2:25", f"127.0.0.2:{local}",
                                         f"127.0.0.1:{d.smtp_port}", "nil", "mx.example"]]
        for wrong in (b"EHLO x\r\n", b"PROXY TCP4 1.2.3 4.5.6.7 1 2\r\n", b"PROXY " + b"x" * 200):
            with Client(d.smtp_port, banner=False, source=("127.0.0.2", 0)) as c:
                c.send(wrong)
                assert c.ended()
        with d.client() as c:  # others cannot
            c.send(sent)
            assert c.reply().code >= 500
        assert len(shown(d, "ACCEPTED")) == 2


# --- deferring ---

def test_proxy_protocol_of_the_policy(where):
    """The policy may require it of one connection; then it is asked again about the addresses that the header gives."""
    extra = """kumo.on('smtp_server_get_dynamic_parameters', function(_, conn)
  print('ASKED', conn:get_meta('received_from'), conn:get_meta('orig_received_from'))
  return { peer = { ['127.0.0.2'] = { require_proxy_protocol = true }, ['192.0.2.0/24'] = { banner = 'proxied', require_proxy_protocol = true } } }
end)"""
    with Smtp(where, "", extra=extra) as d:
        with d.client() as c:
            assert c.banner.lines == ["220 mx.example KumoMTA"]
        with Client(d.smtp_port, banner=False, source=("127.0.0.2", 0)) as c:
            proxy = ":".join(map(str, c.socket.getsockname()))
            c.send("PROXY TCP4 192.0.2.7 192.0.2.1 4711 25\r\n")
            assert c.reply().lines == ["220 mx.example proxied"]
            c.hello()
            c.begin(to=())
            assert c.cmd("RCPT TO:<b@maildir.example>").lines == ["550 5.7.1 relaying not permitted for 192.0.2.7:4711"]
        with Client(d.smtp_port, banner=False, source=("127.0.0.2", 0)) as c:
            c.send("EHLO client.example\r\n")
            assert c.ended()
        asked = [line.split("\t")[1:] for line in d.stderr().splitlines() if line.startswith("ASKED")]
        assert asked[1:3] == [[proxy, "nil"], ["192.0.2.7:4711", proxy]]


def test_deferred_queue(where):
    extra = """
kumo.on('smtp_server_message_received', function(msg) error('not asked') end)
kumo.on('smtp_server_message_deferred_inject', function(msg, conn)
  local user = msg:recipient().user
  if user == 'never' then kumo.reject(550, '5.1.1 no such user') end
  if user == 'later' then kumo.reject(451, '4.7.1 later') end
  if user == 'wrong' then error('a mistake') end
  msg:set_meta('tenant', conn:get_meta('ehlo_domain'))
  print('INJECT', user, conn:get_meta('reception_protocol'), msg:queue_name())
end)"""
    with Smtp(where, "deferred_queue = true", extra=extra) as d:
        ids = {}
        with d.client() as c:
            c.hello("tenant1")
            for user in ("good", "never", "later", "wrong"):
                ids[user] = c.deliver(to=(f"{user}@maildir.example",), content=b"Subject: %s\r\n\r\nx\r\n" % user.encode()).ids[0]
        for i in ids.values():
            assert d.wait_record("Reception", id=i)[0]["queue"] == "deferred_smtp_inject.kumomta.internal"
        rebind = d.wait_record("DeferredInjectionRebind", id=ids["good"])[0]
        assert rebind["queue"] == "tenant1@maildir.example" and rebind["delivery_protocol"] == "DeferredSmtpInjection"
        assert rebind["response"]["code"] == 250 and rebind["response"]["content"] == "ok"
        message = d.received()[0]
        assert b"Subject: good" in message and message.startswith(b"X-KumoRef: ") and b"Received: " in message
        assert d.wait_record("Delivery", id=ids["good"])[0]["queue"] == "tenant1@maildir.example"
        bounce = d.wait_record("Bounce", id=ids["never"])[0]
        assert bounce["response"]["code"] == 550 and bounce["response"]["enhanced_code"] == {"class": 5, "subject": 1, "detail": 1}
        assert d.wait_record("TransientFailure", id=ids["later"])[0]["response"]["code"] == 451
        failure = d.wait_record("TransientFailure", id=ids["wrong"])[0]
        assert failure["response"]["code"] == 450 and "a mistake" in failure["response"]["content"]
        assert d.stderr().count("INJECT\tgood\tESMTP\ttenant1@maildir.example") == 1


def test_deferred_queue_outlives_a_restart(where):
    """What was not processed yet is processed after it, and what was is not again."""
    extra = """
kumo.on('smtp_server_message_deferred_inject', function(msg)
  if msg:recipient().user == 'slow' then kumo.sleep(SLEEP) end
  print('INJECT', msg:recipient().user)
end)"""
    with Smtp(where, "deferred_queue = true", extra="SLEEP = 3600" + extra) as d:
        with d.client() as c:
            c.hello()
            quick = c.deliver(to=("quick@maildir.example",)).ids[0]
            slow = [c.deliver(to=("slow@maildir.example",)).ids[0] for _ in range(3)]
        d.wait_record("Delivery", id=quick)
        d.kill()
    d.set_policy(d.policy_file.read_text().replace("SLEEP = 3600", "SLEEP = 0"))
    with d:
        for i in slow:
            d.wait_record("DeferredInjectionRebind", id=i)
            d.wait_record("Delivery", id=i)
        assert "3 messages recovered" in d.stderr() and d.stderr().count("INJECT\tslow") == 3 and "quick" not in d.stderr()


def test_deferred_queue_keeps_the_queue_that_was_named(where):
    with Smtp(where, "deferred_queue = true", extra="kumo.on('smtp_server_data', function(msg) msg:set_meta('queue', 'special') end)") as d:
        with d.client() as c:
            c.hello()
            i = c.deliver().ids[0]
        assert d.wait_record("Delivery", id=i)[0]["queue"] == "special"


def test_deferred_spool(where):
    """Not stored while all goes well; stored with the first failure, and at a stop."""
    dead = "protocol = { smtp = { mx_list = { '[127.0.0.1]:1' } } }, retry_interval = '1h'"
    with Smtp(where, "deferred_spool = true", queue=dead) as d:
        with d.client() as c:
            c.hello()
            first = c.deliver().ids[0]
        d.wait_record("TransientFailure", id=first)
        wait_for("the message in the spool", lambda: re.search(
            r"spool\n\s+messages\s+1\n", d.request("GET", "/api/admin/memory/stats")[2].decode()))
        d.kill()
    with d:
        assert "1 messages recovered" in d.stderr()


def test_deferred_spool_is_stored_at_a_stop(where):
    held = "protocol = { smtp = { mx_list = { '[127.0.0.1]:1' } } }, retry_interval = '1h'"
    extra = "kumo.on('get_egress_pool', function() kumo.sleep(3600) end)"
    with Smtp(where, "deferred_spool = true", queue=held + ", egress_pool = 'slow'", extra=extra) as d:
        with d.client() as c:
            c.hello()
            for _ in range(3):
                c.deliver()
        assert re.search(r"spool\n\s+messages\s+0\n", d.request("GET", "/api/admin/memory/stats")[2].decode())
    assert "3 messages that were taken with deferred_spool are stored now" in d.stderr()
    with d:
        assert "3 messages recovered" in d.stderr()


def test_without_deferred_spool_a_message_is_there_after_a_kill(where):
    held = "protocol = { smtp = { mx_list = { '[127.0.0.1]:1' } } }"
    with Smtp(where, "", queue=held) as d:
        with d.client() as c:
            c.hello()
            c.deliver(to=("a@one.example", "b@two.example"))
            d.kill()
    with d:
        assert "2 messages recovered" in d.stderr()
