"""The SMTP service command by command: what is answered, in which order, and what becomes of the message."""
import re

import pytest

from cirrus import wait_for
from smtpraw import SIMPLE, Client, Smtp, split


@pytest.fixture(scope="module")
def d(tmp_path_factory):
    with Smtp(tmp_path_factory.mktemp("smtp"), "") as daemon:
        yield daemon


def test_a_session(d):
    n = len(d.maildir.messages())
    with d.client() as c:
        assert c.banner.lines == ["220 mx.example KumoMTA"]
        assert c.hello().lines == ["250-mx.example Aloha client.example", "250-PIPELINING", "250-ENHANCEDSTATUSCODES", "250-8BITMIME",
                                   "250-SMTPUTF8", "250-SIZE 20971520", "250-CHUNKING", "250 STARTTLS"]
        assert c.must("MAIL FROM:<a@example.com>").text == "OK <a@example.com>"
        assert c.must("RCPT TO:<b@maildir.example>").text == "OK <b@maildir.example>"
        r = c.data(b"Subject: first\r\n\r\nhello\r\n")
        assert re.fullmatch(r"OK ids=[0-9a-f]{32}", r.text), r
        assert c.must("QUIT", 221).text == "2.0.0 mx.example closing connection"
        assert c.ended()
    message = d.received(n + 1)[-1]
    added, sent = split(message)
    assert sent == b"Subject: first\r\n\r\nhello\r\n"
    assert added[0].startswith(b"X-KumoRef: ")
    assert re.fullmatch(rb"Received: from client\.example \(127\.0\.0\.1\)\r\n  by mx\.example \(Cirrus 127\.0\.0\.1\)\r\n"
                        rb"  with ESMTP id " + r.ids[0].encode() + rb" for <b@maildir\.example>;\r\n"
                        rb"  \w{3}, \d+ \w{3} \d{4} \d\d:\d\d:\d\d \+0000\r\n", added[1]), added[1]
    record = d.wait_record("Reception", id=r.ids[0])[0]
    assert record["reception_protocol"] == "ESMTP" and record["sender"] == "a@example.com" and record["recipient"] == "b@maildir.example"
    assert record["peer_address"] == {"name": "client.example", "addr": "127.0.0.1"} and len(record["session_id"]) == 36
    assert record["size"] == len(message) and record["queue"] == "maildir.example"


def test_helo(d):
    with d.client() as c:
        assert c.cmd("HELO old.example").lines == ["250 mx.example Hello old.example"]
        c.deliver()


def test_mail_without_a_greeting(d):
    with d.client() as c:
        r = c.deliver()
        assert d.wait_record("Reception", id=r.ids[0])[0]["peer_address"]["name"] == ""


def test_order(d):
    with d.client() as c:
        c.hello()
        assert c.cmd("RCPT TO:<b@maildir.example>").lines[0].startswith("503 5.5.0")
        assert c.cmd("DATA").lines[0].startswith("503 5.5.0")
        c.must("MAIL FROM:<a@example.com>")
        assert c.cmd("MAIL FROM:<a@example.com>").lines[0].startswith("503 5.5.0")
        assert c.cmd("DATA").lines[0].startswith("503 5.5.0")
        c.must("RCPT TO:<b@maildir.example>")
        assert c.cmd("MAIL FROM:<c@example.com>").lines[0].startswith("503 5.5.0")
        assert c.data().code == 250
        # The transaction is over.
        assert c.cmd("DATA").code == 503


@pytest.mark.parametrize("command", ["RSET", "EHLO again.example", "HELO again.example"])
def test_reset(d, command):
    with d.client() as c:
        c.hello()
        c.begin()
        c.must(command)
        assert c.cmd("DATA").code == 503
        assert c.cmd("RCPT TO:<b@maildir.example>").code == 503
        c.deliver()


@pytest.mark.parametrize("line,reply", [
    ("NOOP", "250 2.0.0"), ("NOOP ignored", "250 2.0.0"), ("RSET", "250 2.0.0"),
    ("RSET \t ", "250 2.0.0"), ("MAIL FROM:<a@b.c>\t", "250 OK"), ("MAIL\tFROM:<a@b.c>", "500 5.5.2"),
    ("VRFY x", "502 5.5.1"), ("EXPN x", "502 5.5.1"), ("HELP", "502 5.5.1"), ("LHLO x", "502 5.5.1"), ("NONSENSE", "502 5.5.1"),
    ("", "500 5.5.2"), ("EHLO", "501 5.5.4"), ("EHLO a b", "501 5.5.4"), ("RSET x", "501 5.5.4"), ("DATA x", "501 5.5.4"),
    ("MAIL FROM:<a b>", "501 5.1.7"), ("MAIL FROM:<a@b.c", "501 5.1.7"), ("MAIL FROM a@b.c", "501 5.5.2"), ("MAIL", "501 5.5.2"),
    ("MAIL FROM:<a@b.c> BOGUS=1", "555 5.5.4"), ("MAIL FROM:<a@b.c> SIZE=x", "501 5.5.4"), ("MAIL FROM:<a@b.c> BODY=BINARYMIME", "501 5.5.4"),
    ("MAIL FROM:<a@b.c> SIZE=20971521", "552 5.3.4"), ("MAIL FROM:<a@b.c> REQUIRETLS", "550 5.7.30"),
    ("AUTH PLAIN AGEAYg==", "524 5.7.11"), ("AUTH CRAM-MD5", "504 5.5.4"), ("AUTH", "501 5.5.4"),
    ("XCLIENT ADDR=192.0.2.1", "550 5.7.1"), ("STARTTLS x", "501 5.5.4"),
    (b"EHLO b\xfccher.example", "501 5.5.2"), (b"NOOP a\x00b", "500 5.5.2"), (b"NOOP a\rb", "500 5.5.2"), (b"NOOP \x7f", "500 5.5.2"),
], ids=lambda v: repr(v)[:40])
def test_reply(d, line, reply):
    with d.client() as c:
        c.hello()
        assert c.cmd(line).lines[0].startswith(reply)
        c.must("NOOP")  # and the session goes on


@pytest.mark.parametrize("line,reply", [
    ("RCPT TO:<>", "501 5.1.3"), ("RCPT TO:<no domain>", "501 5.1.3"), ("RCPT TO:<nodomain>", "501 5.1.3"), ("RCPT <b@c.d>", "501 5.5.2"),
    ("RCPT TO:<b@c.d> NOTIFY=NEVER,SUCCESS", "501 5.5.4"), ("RCPT TO:<b@c.d> SIZE=1", "555 5.5.4"),
    ("AUTH PLAIN AGEAYg==", "503 5.5.1"),
])
def test_reply_in_a_transaction(d, line, reply):
    with d.client() as c:
        c.hello()
        c.must("MAIL FROM:<a@example.com>")
        assert c.cmd(line).lines[0].startswith(reply)
        c.must("RCPT TO:<b@maildir.example>")
        assert c.data().code == 250


ADDRESSES = [
    ("<b@maildir.example>", "b@maildir.example"),
    ("b@maildir.example", "b@maildir.example"),
    (" <b@maildir.example>", "b@maildir.example"),
    ('<"b c"@maildir.example>', '"b c"@maildir.example'),
    ('<"b>c"@maildir.example>', '"b>c"@maildir.example'),
    ('<"b\\"c"@maildir.example>', '"b\\"c"@maildir.example'),
    ("<@relay.example:b@maildir.example>", "b@maildir.example"),
    ("<@one.example,@two.example:b@maildir.example>", "b@maildir.example"),
    ("<b@[192.0.2.1]>", "b@[192.0.2.1]"),
    ("<b@[IPv6:2001:db8::1]>", "b@[IPv6:2001:db8::1]"),
    ("<jörg@bücher.example>", "jörg@bücher.example"),
    ("<b+tag=x@maildir.example>", "b+tag=x@maildir.example"),
]


@pytest.mark.parametrize("written,address", ADDRESSES)
def test_address(d, written, address):
    """As recipient and as sender: echoed, recorded and traced as it is."""
    with d.client() as c:
        c.hello()
        assert c.must(f"MAIL FROM:{written} SMTPUTF8").text == f"OK <{address}>"
        assert c.must(f"RCPT TO:{written}").text == f"OK <{address}>"
        r = c.data()
    record = d.wait_record("Reception", id=r.ids[0])[0]
    assert record["sender"] == address and record["recipient"] == address
    delivered = wait_for("the message", lambda: [m for m in d.maildir.messages() if r.ids[0].encode() in m])
    assert f"for <{address}>;".encode() in delivered[0]


def test_postmaster(d):
    with d.client() as c:
        c.must("MAIL FROM:<>")
        assert c.must("RCPT TO:<Postmaster>").text == "OK <Postmaster>"
        i = c.data().ids[0]
    record = d.wait_record("Reception", id=i)[0]
    assert record["recipient"] == "Postmaster@mx.example" and record["queue"] == "mx.example"


def test_null_sender(d):
    with d.client() as c:
        c.hello()
        assert c.must("MAIL FROM:<>").text == "OK <>"
        c.must("RCPT TO:<b@maildir.example>")
        r = c.data()
    assert d.wait_record("Reception", id=r.ids[0])[0]["sender"] == ""


def test_pipelining(d):
    """A whole session in one piece: the replies come in order, and DATA waits for nobody but the 354."""
    with d.client() as c:
        c.send("EHLO p.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@maildir.example>\r\nRCPT TO:<bad>\r\nRCPT TO:<c@maildir.example>\r\nDATA\r\n")
        assert [c.reply().code for _ in range(6)] == [250, 250, 250, 501, 250, 354]
        c.send(SIMPLE + b".\r\nMAIL FROM:<a@example.com>\r\nRSET\r\nQUIT\r\n")
        replies = [c.reply() for _ in range(4)]
        assert [r.code for r in replies] == [250, 250, 250, 221]
        assert len(replies[0].ids) == 2


def test_many_messages_on_a_connection(d):
    with d.client() as c:
        c.hello()
        ids = [c.deliver().ids[0] for _ in range(50)]
    assert len(set(ids)) == 50
    d.wait_record("Delivery", id=ids[-1])


def test_one_byte_at_a_time(d):
    text = b"EHLO slow.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@maildir.example>\r\nDATA\r\n"
    with d.client() as c:
        for i in range(len(text)):
            c.send(text[i:i + 1])
        assert [c.reply().code for _ in range(4)] == [250, 250, 250, 354]
        for b in b"x\r\n..\r\n.\r\n":
            c.send(bytes([b]))
        assert c.reply().code == 250


# --- the content ---

CONTENTS = {
    "dots": (b".\r\n..\r\n...a\r\n.b\r\n", b"..\r\n...\r\n....a\r\n..b\r\n"),
    "8-bit": (b"Subject: \xff\xfe\r\n\r\n\x80\x81\r\n", None),
    "utf-8": ("Subject: jörg\r\n\r\nöäü\r\n".encode(), None),
    "nul": (b"Subject: x\r\n\r\na\x00b\r\n", None),
    "no header": (b"\r\nbody\r\n", None),
    "only text": (b"just text\r\n", None),
    "empty lines": (b"\r\n\r\n\r\n", None),
    "longest line": (b"x" * 998 + b"\r\n", None),
    "controls": (bytes(i for i in range(1, 32) if i not in (10, 13)) + b"\x7f\r\n", None),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_content_byte_for_byte(d, name):
    content, sent = CONTENTS[name]
    with d.client() as c:
        c.hello()
        c.begin()
        r = c.data(sent or content)
        assert r.code == 250, r
    found = wait_for("the message", lambda: [m for m in d.maildir.messages() if r.ids[0].encode() in m])
    assert split(found[0])[1] == content


def test_empty_message(d):
    with d.client() as c:
        c.hello()
        r = c.deliver(content=b"")
    found = wait_for("the message", lambda: [m for m in d.maildir.messages() if r.ids[0].encode() in m])
    assert split(found[0])[1] == b""


def test_large_message(d):
    line = b"y" * 76 + b"\r\n"
    content = b"Subject: large\r\n\r\n" + line * (10 << 20 >> 6)
    with d.client() as c:
        c.hello()
        r = c.deliver(content=content)
    found = wait_for("the message", lambda: [m for m in d.maildir.messages() if r.ids[0].encode() in m[:1000]])
    assert split(found[0])[1] == content


# --- smuggling: line ends that are none, around the dot (https://smtpsmuggling.com) ---

ENDINGS = [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\r", b"\r\n.\n", b"\n.\r", b"\r.\n", b"\r.\r\n", b"\r\r\n.\r\r\n", b"\n\n.\r\n", b"\r\n\n.\r\n",
           b"\r\n\x00.\r\n", b"\r\n.\x00\r\n", b"\r\n.\r\r\n", b"\r\n. \r\n", b"\r\n .\r\n"]
SMUGGLED = b"MAIL FROM:<evil@example.com>\r\nRCPT TO:<victim@maildir.example>\r\nDATA\r\nSubject: smuggled\r\n\r\n"


@pytest.mark.parametrize("endings", ["Deny", "Allow", "Fix"])
@pytest.mark.parametrize("ending", ENDINGS, ids=repr)
def test_smuggling(smuggling, ending, endings):
    """Whatever stands in for the end, there is one message, or none; and never one of the client's second envelope."""
    d, ports = smuggling
    with Client(ports[endings]) as c:
        c.hello()
        c.begin()
        c.must("DATA", 354)
        sent = b"Subject: outer\r\n\r\ntext" + ending + SMUGGLED + b"\r\n"
        c.send(sent + b".\r\nNOOP\r\n")
        first, second = c.reply(), c.reply()
        assert second.lines == ["250 2.0.0 OK"]
        has_bare = re.search(rb"\r(?!\n)|(?<!\r)\n", ending)
        assert first.code == (552 if has_bare and endings == "Deny" else 250), first
        if first.code == 552:
            assert first.text.startswith("5.6.0 ")
            return
        assert len(first.ids) == 1
    found = wait_for("the message", lambda: [m for m in d.maildir.messages() if first.ids[0].encode() in m])
    body = split(found[0])[1]
    expected = re.sub(rb"(?<=\r\n)\.", b"", sent)
    if endings == "Fix":
        expected = re.sub(rb"\r\n|\r|\n", b"\r\n", expected)
    assert body == expected
    assert not d.records("Reception", sender="evil@example.com")


@pytest.fixture(scope="module")
def smuggling(tmp_path_factory):
    names = ["Deny", "Allow", "Fix"]
    with Smtp(tmp_path_factory.mktemp("smuggling"), [f"invalid_line_endings = '{n}'" for n in names]) as daemon:
        yield daemon, dict(zip(names, daemon.smtp_ports))


def test_bare_lf_ends_no_command(smuggling):
    d, ports = smuggling
    with Client(ports["Deny"]) as c:
        c.send("EHLO a.example\n")
        assert c.reply().lines[0].startswith("500 5.5.2")
        c.send("NOOP\nNOOP\r\n")
        assert [c.reply().code for _ in range(2)] == [500, 250]
    for kind in ("Allow", "Fix"):
        with Client(ports[kind]) as c:
            c.send("EHLO a.example\nNOOP\n")
            assert [c.reply().code for _ in range(2)] == [250, 250]


# --- lines that are too long ---

def test_long_command(d):
    with d.client() as c:
        c.hello()
        assert c.cmd("MAIL FROM:<" + "a" * 2000 + "@example.com>").lines[0].startswith("500 5.2.3")
        c.must("NOOP")
        # In pieces, much longer than any buffer.
        for _ in range(20):
            c.send("x" * 30000)
        c.send("\r\n")
        assert c.reply().lines[0].startswith("500 5.2.3")
        c.must("NOOP")
        c.must("NOOP " + "y" * 1990)


def test_endless_command(d):
    with d.client() as c:
        c.hello()
        try:
            for _ in range(200):
                c.send(b"z" * 30000)
        except ConnectionError:
            return
        assert c.reply().code == 421
        assert c.ended()


def test_long_line_of_a_message(d):
    with d.client() as c:
        c.hello()
        c.begin()
        assert c.data(b"x" * 999 + b"\r\n").lines[0].startswith("500 5.2.3")
        c.deliver(content=b"x" * 998 + b"\r\n")
        # The dot of transparency is not part of the line.
        c.deliver(content=b"." + b"." * 998 + b"\r\n")


# --- BDAT ---

def test_bdat(d):
    with d.client() as c:
        c.hello()
        c.begin()
        chunk = b"Subject: chunks\r\n\r\n.\r\n..\r\n"
        c.send(b"BDAT %d\r\n" % len(chunk) + chunk)
        assert c.reply().lines == ["250 2.0.0 26 octets received"]
        c.send(b"BDAT 0\r\nBDAT 7 LAST\r\n.\r\nend\r")
        assert c.reply().code == 250
        r = c.reply()
        # A CR at the very end belongs to no CRLF.
        assert r.lines[0].startswith("552 5.6.0")
        c.begin()
        c.send(b"BDAT %d\r\n" % len(chunk) + chunk + b"BDAT 6 LAST\r\n.\r\nx\r\n")
        assert c.reply().code == 250
        r = c.reply()
        assert r.code == 250 and len(r.ids) == 1
        c.must("NOOP")
    found = wait_for("the message", lambda: [m for m in d.maildir.messages() if r.ids[0].encode() in m])
    assert split(found[0])[1] == chunk + b".\r\nx\r\n"


def test_bdat_in_one_piece_with_its_envelope(d):
    with d.client() as c:
        c.send(b"EHLO b.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@maildir.example>\r\nBDAT 22 LAST\r\nSubject: x\r\n\r\nbody\r\n\r\nQUIT\r\n")
        assert [c.reply().code for _ in range(5)] == [250, 250, 250, 250, 221]


def test_bdat_out_of_order(d):
    """The bytes of a chunk are read in any case, so that they are never taken for commands."""
    with d.client() as c:
        c.hello()
        c.send(b"BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")
        assert [c.reply().code for _ in range(2)] == [503, 250]
        c.must("MAIL FROM:<a@example.com>")
        c.send(b"BDAT 6\r\nQUIT\r\nNOOP\r\n")
        assert [c.reply().code for _ in range(2)] == [503, 250]
        c.begin()
        c.send(b"BDAT 6\r\nabcd\r\n")
        assert c.reply().code == 250
        assert c.cmd("DATA").lines[0].startswith("503 5.5.0")
        assert c.cmd("RCPT TO:<c@maildir.example>").lines[0].startswith("503 5.5.0")
        assert c.cmd("MAIL FROM:<c@example.com>").lines[0].startswith("503 5.5.0")
        c.must("RSET")
        c.deliver()


@pytest.mark.parametrize("line", ["BDAT", "BDAT x", "BDAT -1", "BDAT 1 FIRST", "BDAT 99999999999999999999"])
def test_bdat_malformed(d, line):
    """Nobody can tell where such a chunk ends: the session does."""
    with d.client() as c:
        c.hello()
        c.begin()
        assert c.cmd(line).code == 501
        assert c.reply().code == 421 and c.ended()


def test_bdat_too_big(d):
    with d.client() as c:
        c.hello()
        c.begin()
        assert c.cmd("BDAT 99999999999").lines[0].startswith("552 5.3.4")
        assert c.reply().code == 421 and c.ended()


# --- loops, errors, other protocols ---

def test_loop_detection(d):
    field = b"Received: from a by b; x\r\n"
    with d.client() as c:
        c.hello()
        c.begin()
        r = c.data(field * 101 + b"\r\nbody\r\n")
        assert r.lines[0].startswith("554 5.4.6")
        c.deliver(content=field * 100 + b"Subject: Received: x\r\n\r\n" + field * 10)


def test_too_many_errors(d):
    with d.client() as c:
        c.hello()
        for _ in range(20):
            assert c.cmd("NONSENSE").code == 502
        assert c.cmd("NONSENSE").code == 502
        assert c.reply().lines[0].startswith("421 4.7.0") and c.ended()


def test_too_many_refusals(where):
    """Somebody who tries one address after the other."""
    with Smtp(where, "relay_hosts = {}") as d:
        with d.client() as c:
            c.must("MAIL FROM:<a@example.com>")
            for _ in range(10):
                c.send(b"RCPT TO:<x@other.example>\r\n" * 100)
                assert {c.reply().code for _ in range(100)} == {550}
            assert c.cmd("RCPT TO:<x@other.example>").code == 550
            assert c.reply().lines[0].startswith("421 4.7.0") and c.ended()


def test_errors_are_forgiven_with_a_message(d):
    with d.client() as c:
        c.hello()
        for _ in range(3):
            for _ in range(15):
                assert c.cmd("NONSENSE").code == 502
            c.deliver()


@pytest.mark.parametrize("line", ["GET / HTTP/1.1", "POST /api/inject/v1 HTTP/1.1", "CONNECT x:25 HTTP/1.1", "PRI * HTTP/2.0", "OPTIONS * HTTP/1.1"])
def test_http(d, line):
    """A browser that was made to send a form here must not get a message through."""
    with d.client() as c:
        c.send(line + "\r\nHost: x\r\nContent-Length: 100\r\n\r\nEHLO x\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@maildir.example>\r\nDATA\r\nx\r\n.\r\n")
        assert c.reply().lines[0].startswith("421 4.7.0") and c.ended()


# --- delivery reports ---

def test_dsn_parameters_are_kept(where):
    extra = """
kumo.on('smtp_server_message_received', function(msg)
  print('DSN', msg:recipient().email, kumo.json_encode(msg:get_meta('dsn')), msg:get_meta('requiretls'))
end)"""
    with Smtp(where, "", extra=extra) as d:
        with d.client() as c:
            c.hello()
            c.must("MAIL FROM:<a@example.com> RET=hdrs ENVID=x+2By")
            c.must("RCPT TO:<b@maildir.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b+40old.example")
            c.must("RCPT TO:<c@maildir.example>")
            assert len(c.data().ids) == 2
            c.deliver(to=("plain@maildir.example",))
        lines = [line for line in d.stderr().splitlines() if line.startswith("DSN")]
        assert lines == [
            'DSN\tb@maildir.example\t{"envid":"x+2By","recipients":{"b@maildir.example":{"notify":"SUCCESS,DELAY",'
            '"orcpt":"rfc822;b+40old.example"}},"ret":"HDRS"}\tnil',
            'DSN\tc@maildir.example\t{"envid":"x+2By","recipients":{},"ret":"HDRS"}\tnil',
            "DSN\tplain@maildir.example\tnull\tnil"]


# --- rejection records ---

def test_durations(where):
    """Of each message that came to its end, whatever became of it, and of no other."""
    with Smtp(where, "max_message_size = 100") as d:
        with d.client() as c:
            c.hello()
            c.deliver()
            c.begin()
            assert c.data(b"x" * 98 + b"\r\n" + b"y" * 10 + b"\r\n").code == 552
            c.begin()
            c.must("RSET")
        for name in ("read_data", "process_data", "transaction"):
            assert d.metric(f"smtpsrv_{name}_duration_count") == 2
            assert d.metric(f"smtpsrv_{name}_duration_sum") > 0


def test_rejection_records(where):
    with Smtp(where, "relay_hosts = {}", extra="kumo.on('get_listener_domain', function(domain) if domain == 'ours.example' then "
              "return kumo.make_listener_domain { relay_to = true } end end)") as d:
        with d.client() as c:
            c.hello()
            c.cmd("RCPT TO:<early@ours.example>")
            c.must("MAIL FROM:<a@example.com>")
            c.must("RCPT TO:<b@ours.example>")
            assert re.match(r"550 5\.7\.1 relaying not permitted for 127\.0\.0\.1:\d+$", c.cmd("RCPT TO:<x@theirs.example>").lines[0])
            c.must("DATA", 354)
            c.send(b"bare\nLF\r\n.\r\n")
            assert c.reply().code == 552
        records = d.wait_record("Rejection", 3)
        assert [r["response"]["command"] for r in records] == ["RCPT TO:<early@ours.example>", "RCPT TO:<x@theirs.example>", "DATA"]
        assert [r["response"]["code"] for r in records] == [503, 550, 552]
        assert records[1]["response"]["enhanced_code"] == {"class": 5, "subject": 7, "detail": 1}
        assert records[1]["response"]["content"].startswith("relaying not permitted for ")
        assert [(r["sender"], r["recipient"]) for r in records] == [("", ""), ("a@example.com", "b@ours.example"), ("a@example.com", "b@ours.example")]
        for r in records:
            assert r["id"] == "" and r["queue"] == "" and r["site"] == "" and r["size"] == 0 and r["reception_protocol"] is None
            assert r["peer_address"] == {"name": "client.example", "addr": "127.0.0.1"} and r["created"] == r["timestamp"]
            assert len(r["session_id"]) == 36
        d.wait_metric('smtp_server_rejections{service="esmtp_listener"}', 3)
