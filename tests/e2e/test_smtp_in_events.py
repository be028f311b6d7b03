"""The policy's part in an SMTP session: every event with its arguments, and what refusals, failures and answers do."""
import re

import pytest

from cirrus import wait_for
from smtpraw import SIMPLE, Client, Smtp, split


def printed(d, word):
    """The lines that the policy has printed, without their first word."""
    return [line.split("\t")[1:] for line in d.stderr().splitlines() if line.split("\t")[0] == word]


# --- order and arguments ---

ALL = """
local function seen(name, ...)
  local t = { 'EVENT', name }
  for i = 1, select('#', ...) do t[#t + 1] = tostring((select(i, ...))) end
  print(table.concat(t, '\\t'))
end
kumo.on('smtp_server_get_dynamic_parameters', function(listener, conn) seen('dynamic', listener, conn:get_meta('received_via')) end)
kumo.on('smtp_server_connection_accepted', function(conn) seen('accepted', conn:get_meta('reception_protocol')) end)
kumo.on('smtp_server_ehlo', function(domain, conn, extensions)
  seen('ehlo', domain, conn:get_meta('ehlo_domain'), extensions and #extensions)
end)
kumo.on('smtp_server_mail_from', function(sender, conn) seen('mail_from', sender, sender.user, sender.domain, conn:get_meta('ehlo_domain')) end)
kumo.on('get_listener_domain', function(domain, listener, conn)
  seen('domain', '<' .. domain .. '>', listener, conn:get_meta('hostname'))
  if domain == 'ours.example' then return kumo.make_listener_domain { relay_to = true } end
end)
kumo.on('smtp_server_rcpt_to', function(rcpt, conn) seen('rcpt_to', rcpt.email) conn:set_meta('n', (conn:get_meta 'n' or 0) + 1) end)
kumo.on('smtp_server_data', function(msg, conn) seen('data', msg:sender(), #msg:recipient_list(), (msg:get_data():gsub('\\r\\n', '|')), conn:get_meta 'n') end)
kumo.on('smtp_server_split_transaction', function(msg, conn) seen('split', #msg:recipient_list()) end)
kumo.on('smtp_server_message_received', function(msg, conn)
  seen('received', msg:recipient(), msg:get_data():sub(1, 9), msg:get_meta('n'), msg:get_meta('received_from') == conn:get_meta('received_from'))
end)
"""


def test_order_and_arguments(where):
    with Smtp(where, "relay_hosts = {}", extra=ALL) as d:
        with d.client() as c:
            c.hello()
            c.must("MAIL FROM:<\"a b\"@Else.example>")
            c.must("RCPT TO:<x@OURS.example>")
            c.must("RCPT TO:<y@ours.example>")
            assert len(c.data(b"x\r\n").ids) == 2
        address = f"127.0.0.1:{d.smtp_port}"
        assert printed(d, "EVENT") == [
            ["dynamic", address, address],
            ["accepted", "ESMTP"],
            ["ehlo", "client.example", "nil", "7"],
            ["mail_from", '"a b"@Else.example', "a b", "Else.example", "client.example"],
            ["domain", "<else.example>", address, "mx.example"],
            ["domain", "<ours.example>", address, "mx.example"],
            ["rcpt_to", "x@OURS.example"],
            ["rcpt_to", "y@ours.example"],  # what the policy says of both domains is known
            ["data", '"a b"@Else.example', "2", "x|", "2"],
            ["split", "2"],
            ["received", "x@OURS.example", "Received:", "2", "true"],
            ["received", "y@ours.example", "Received:", "2", "true"],
        ]


def test_helo_has_no_extensions(where):
    with Smtp(where, "", extra="kumo.on('smtp_server_ehlo', function(domain, conn, ext) print('EXT', domain, ext) return { 'X' } end)") as d:
        with d.client() as c:
            assert c.cmd("HELO x.example").lines == ["250 mx.example Hello x.example"]
            assert c.cmd("EHLO y.example").lines == ["250-mx.example Aloha y.example", "250 X"]
        assert printed(d, "EXT")[0] == ["x.example", "nil"]


def test_null_sender_asks_about_the_empty_domain(where):
    with Smtp(where, "relay_hosts = {}", extra="kumo.on('get_listener_domain', function(domain) print('DOMAIN', '<' .. domain .. '>') "
              "if domain == '' then return kumo.make_listener_domain { relay_from = { '127.0.0.0/8' } } end end)") as d:
        with d.client() as c:
            c.must("MAIL FROM:<>")
            c.must("RCPT TO:<anybody@else.example>")
            assert c.data().code == 250
            c.must("MAIL FROM:<x@else.example>")
            assert c.cmd("RCPT TO:<anybody@else.example>").code == 550
        assert printed(d, "DOMAIN") == [["<>"], ["<else.example>"]]


# --- refusing ---

COMMANDS = {"smtp_server_ehlo": "EHLO client.example", "smtp_server_mail_from": "MAIL FROM:<a@example.com>",
            "smtp_server_rcpt_to": "RCPT TO:<b@maildir.example>"}
REFUSALS = [  # what is called, the replies, whether the session goes on
    ("kumo.reject(550, '5.7.1 no')", ["550 5.7.1 no"], True),
    ("kumo.reject(451, 'later\\nreally')", ["451-later", "451 really"], True),
    ("kumo.reject(421, 'go away')", ["421 go away"], False),
    ("kumo.disconnect(421, 'bye')", ["421 bye"], False),
    ("kumo.disconnect(451, 'no thank you')", ["451 no thank you"], False),
    ("kumo.disconnect(451, 'no', 'ForceDisconnect')", ["451 no"], False),
    ("kumo.disconnect(451, 'no', 'FollowWith421')", ["451 no", "421 mx.example disconnecting due to previous error"], False),
    ("kumo.disconnect(421, 'no', 'FollowWith421')", ["421 no"], False),
    ("kumo.disconnect(451, 'no', 'If421')", ["451 no"], True),
    ("kumo.disconnect(421, 'no', 'If421')", ["421 no"], False),
    ("error('a mistake')", ["421 4.3.0 mx.example technical difficulties"], False),
    ("kumo.disconnect(451, 'no', 'Maybe')", ["421 4.3.0 mx.example technical difficulties"], False),
]


@pytest.fixture(scope="module")
def refusing(tmp_path_factory):
    """One daemon for all of them: the name that the client greets with says which refusal is to come, and where."""
    choose = "\n".join(f"  [{i + 1}] = function() {what} end," for i, (what, _, _) in enumerate(REFUSALS))
    handlers = "\n".join(f"kumo.on('{event}', function(x, conn) act('{event}', {'x' if event.endswith('ehlo') else 'conn:get_meta(%r)' % 'ehlo_domain'}) end)"
                         for event in COMMANDS)
    messages = "\n".join(f"kumo.on('{event}', function(msg, conn) act('{event}', conn:get_meta('ehlo_domain')) end)"
                         for event in ("smtp_server_data", "smtp_server_split_transaction", "smtp_server_message_received"))
    extra = f"""
local refusals = {{
{choose}
}}
local function act(event, name)
  local wanted, n = name:match('^([%a_]+)%.(%d+)$')
  if wanted == event then refusals[tonumber(n)]() end
end
{handlers}
{messages}
"""
    with Smtp(tmp_path_factory.mktemp("refusing"), "", extra=extra) as d:
        yield d


def replies(c, n):
    out = []
    for _ in range(n):
        out.append(c.line())
    return out


@pytest.mark.parametrize("event", COMMANDS)
@pytest.mark.parametrize("i", range(len(REFUSALS)), ids=[r[0] for r in REFUSALS])
def test_refusal_of_a_command(refusing, event, i):
    what, expected, goes_on = REFUSALS[i]
    with refusing.client() as c:
        greeting = f"EHLO {event}.{i + 1}"
        if event != "smtp_server_ehlo":
            c.must(greeting)
        if event == "smtp_server_rcpt_to":
            c.must("MAIL FROM:<a@example.com>")
        c.send((greeting if event == "smtp_server_ehlo" else COMMANDS[event]) + "\r\n")
        assert replies(c, len(expected)) == expected
        if goes_on:
            c.must("NOOP")
            c.must("RSET")
            c.must("EHLO fine")
            c.deliver()
        else:
            assert c.ended()


@pytest.mark.parametrize("event", ["smtp_server_data", "smtp_server_split_transaction", "smtp_server_message_received"])
@pytest.mark.parametrize("i", range(len(REFUSALS)), ids=[r[0] for r in REFUSALS])
def test_refusal_of_a_message(refusing, event, i):
    what, expected, goes_on = REFUSALS[i]
    sender = f"{event}.{i}@example.com"
    with refusing.client() as c:
        c.must(f"EHLO {event}.{i + 1}")
        c.begin(to=("b@maildir.example", "c@maildir.example"), sender=sender)
        c.must("DATA", 354)
        c.send(SIMPLE + b".\r\n")
        assert replies(c, len(expected)) == expected
        if goes_on:
            assert c.cmd("DATA").code == 503  # the transaction is over
            c.must("EHLO fine")
            c.deliver()
        else:
            assert c.ended()
    assert not refusing.records("Reception", sender=sender)
    if expected[0][:3] in ("550", "451"):
        assert refusing.wait_record("Rejection", sender=sender)[0]["response"]["command"] == "DATA"


@pytest.mark.parametrize("event", ["smtp_server_connection_accepted", "smtp_server_get_dynamic_parameters"])
@pytest.mark.parametrize("what,expected", [(r[0], r[1]) for r in REFUSALS if "Maybe" not in r[0]])
def test_refusal_of_a_connection(where, event, what, expected):
    """The connection is closed, whatever the code."""
    argument = "conn" if "accepted" in event else "listener, conn"
    with Smtp(where, "", extra=f"kumo.on('{event}', function({argument}) {what} end)") as d:
        with Client(d.smtp_port, banner=False) as c:
            assert replies(c, len(expected)) == expected
            assert c.ended()


def test_a_refused_message_that_was_saved_is_not_in_the_spool(where):
    extra = """kumo.on('smtp_server_message_received', function(msg)
  if msg.save then msg:save() end
  kumo.reject(550, 'no')
end)"""
    with Smtp(where, "", extra=extra) as d:
        with d.client() as c:
            c.begin()
            assert c.data().code == 550
    with d:
        assert "0 messages recovered" in d.stderr()


# --- answers ---

def test_ehlo_extensions(where):
    extra = """kumo.on('smtp_server_ehlo', function(domain, conn, extensions)
  if domain == 'add' then table.insert(extensions, 'X-SOMETHING') return extensions end
  if domain == 'none' then return {} end
  if domain == 'nil' then return nil end
  if domain == 'text' then return 'X' end
  if domain == 'break' then return { 'X\\r\\n250 Y' } end
  if domain == 'number' then return { {} } end
end)"""
    with Smtp(where, "", extra=extra) as d:
        with d.client() as c:
            assert c.must("EHLO add").lines[-1] == "250 X-SOMETHING"
            assert c.must("EHLO none").lines == ["250 mx.example Aloha none"]
            assert len(c.must("EHLO nil").lines) == 8
        for bad in ("text", "break", "number"):
            with d.client() as c:
                assert c.cmd(f"EHLO {bad}").code == 421 and c.ended()


def test_dynamic_parameters(where):
    extra = """kumo.on('smtp_server_get_dynamic_parameters', function(listener, conn)
  local peer = conn:get_meta('received_from')
  if peer:match('^127.0.0.2:') then return { banner = 'two', max_message_size = 222, meta = { who = 'two' },
    via = { ['127.0.0.0/8'] = { hostname = 'two.example' } } } end
  if peer:match('^127.0.0.3:') then return nil end
  if peer:match('^127.0.0.4:') then return { listen = '127.0.0.1:25' } end
  if peer:match('^127.0.0.5:') then return 5 end
end)
kumo.on('smtp_server_mail_from', function(sender, conn) print('WHO', conn:get_meta('who')) end)"""
    with Smtp(where, "", extra=extra) as d:
        with d.client(source=("127.0.0.2", 0)) as c:
            assert c.banner.text == "two.example two"
            assert "250-SIZE 222" in c.hello().lines
            c.must("MAIL FROM:<a@example.com>")
        for source in ("127.0.0.1", "127.0.0.3"):
            with d.client(source=(source, 0)) as c:
                assert c.banner.text == "mx.example KumoMTA"
        for source in ("127.0.0.4", "127.0.0.5"):
            with Client(d.smtp_port, banner=False, source=(source, 0)) as c:
                assert c.reply().code == 421 and c.ended()
        assert "unknown field `listen`" in d.stderr()
        assert printed(d, "WHO") == [["two"]]


def test_data_may_change_the_message(where):
    extra = """kumo.on('smtp_server_data', function(msg, conn)
  msg:set_meta('tenant', 'acme')
  conn:set_meta('late', 'x')
  assert(msg:get_meta('ehlo_domain') == 'client.example')
end)
kumo.on('smtp_server_message_received', function(msg) print('META', msg:get_meta('tenant'), msg:queue_name()) end)"""
    with Smtp(where, "", extra=extra) as d:
        with d.client() as c:
            c.hello()
            ids = c.deliver(to=("a@one.example", "b@two.example")).ids
        assert printed(d, "META") == [["acme", "acme@one.example"], ["acme", "acme@two.example"]]
        assert d.wait_record("Reception", id=ids[1])[0]["queue"] == "acme@two.example"


SPLITS = {
    "each": ("local t = {} for _, r in ipairs(msg:recipient_list()) do t[#t + 1] = { r } end return t", ["a@one.example", "b@two.example", "c@one.example"]),
    "domain": ("local t = {} for _, r in ipairs(msg:recipient_list()) do local d = r.domain t[d] = t[d] or {} table.insert(t[d], r) end return t",
               [["a@one.example", "c@one.example"], "b@two.example"]),
    "all": ("return { msg:recipient_list() }", [["a@one.example", "b@two.example", "c@one.example"]]),
    "others": ("return { { 'x@new.example' }, { '<y@new.example>', '@route.example:z@new.example' and '<@route.example:z@new.example>' } }",
               ["x@new.example", ["y@new.example", "z@new.example"]]),
    "nil": ("return nil", ["a@one.example", "b@two.example", "c@one.example"]),
    "nothing": ("", ["a@one.example", "b@two.example", "c@one.example"]),
    "none": ("return {}", []),
    "one of none": ("return { {}, { 'x@new.example' } }", ["x@new.example"]),
}


@pytest.mark.parametrize("name", SPLITS)
def test_split_transaction(where, name):
    code, expected = SPLITS[name]
    with Smtp(where, "", extra=f"kumo.on('smtp_server_split_transaction', function(msg, conn) {code} end)") as d:
        with d.client() as c:
            c.hello()
            r = c.deliver(to=("a@one.example", "b@two.example", "c@one.example"))
        got = [d.wait_record("Reception", id=i)[0]["recipient"] for i in r.ids]
        assert sorted(got, key=str) == sorted(expected, key=str)
        assert r.text.startswith("OK ids=")


@pytest.mark.parametrize("code", ["return 'x'", "return { 'a@b.example' }", "return { { 'no address' } }", "return { { '<>' } }", "return { { 1 } }"])
def test_split_transaction_that_makes_no_sense(where, code):
    with Smtp(where, "", extra=f"kumo.on('smtp_server_split_transaction', function(msg, conn) {code} end)") as d:
        with d.client() as c:
            c.begin()
            assert c.data().lines == ["421 4.3.0 mx.example technical difficulties"] and c.ended()
        assert "smtp_server_split_transaction" in d.stderr()
        assert not d.records("Reception")


def test_rewrite_response(where):
    extra = """kumo.on('smtp_server_rewrite_response', function(status, response, command, conn)
  print('REPLY', status, (response:gsub('\\n', '|'):gsub('ids=%x+$', 'ids=N')), command, conn:get_meta('ehlo_domain'))
  if command == 'DATA' and status == 250 then return 250, 'super fantastic!\\n' .. response end
  if command == 'NOOP a' then return 251, nil end
  if command == 'NOOP b' then return nil, 'changed' end
  if command == 'NOOP c' then return nil, 'evil\\r\\n250 second\\0x' end
  if command == 'NOOP d' then error('a mistake') end
  if command == 'NOOP e' then kumo.reject(550, 'no') end
  if command == 'NOOP f' then return 999, 'x' end
  if command == 'NOOP g' then return 250, {} end
  if command == 'NOOP h' then return 250, '' end
  if command == 'NOOP z' then return 421, 'closing' end
end)"""
    with Smtp(where, "", extra=extra) as d:
        with d.client() as c:
            c.hello()
            c.begin()
            r = c.data()
            assert r.lines[0] == "250-super fantastic!" and r.lines[1].startswith("250 OK ids=")
            assert c.cmd("NOOP a").lines == ["251 2.0.0 OK"]
            assert c.cmd("NOOP b").lines == ["250 changed"]
            assert c.cmd("NOOP c").lines == ["250-evil", "250 250 second?x"]
            for letter in "defg":
                assert c.cmd(f"NOOP {letter}").lines == ["250 2.0.0 OK"]
            assert c.cmd("NOOP h").lines == ["250 "]
            c.cmd("VRFY x")
            assert c.cmd("NOOP z").lines == ["421 closing"] and c.ended()
        seen = printed(d, "REPLY")
        assert seen[0] == ["220", "mx.example KumoMTA", "nil", "nil"]
        assert seen[1][:3] == ["250", "mx.example Aloha client.example|PIPELINING|ENHANCEDSTATUSCODES|8BITMIME|SMTPUTF8|SIZE 20971520|CHUNKING|STARTTLS",
                               "EHLO client.example"]
        assert seen[2] == ["250", "OK <a@example.com>", "MAIL FROM:<a@example.com>", "client.example"]
        assert seen[5] == ["250", "OK ids=N", "DATA", "client.example"]
        assert ["502", "5.5.1 Command unimplemented", "VRFY x", "client.example"] in seen
        assert d.stderr().count("a reply goes out as it was") == 4


def test_rewrite_response_sees_no_credentials(where):
    extra = "kumo.on('smtp_server_rewrite_response', function(status, response, command) print('REPLY', status, command) end)"
    with Smtp(where, "", extra=extra) as d:
        with d.client() as c:
            c.starttls()
            c.hello()
            assert c.cmd("AUTH PLAIN AGRhbmllbAB0aWdlcg==").code == 535
            assert c.cmd("AUTH LOGIN ZGFuaWVs").code == 334
            assert c.cmd("dGlnZXI=").code == 535
        text = d.stderr() + str(d.wait_record("Rejection", 2))
        assert ["535", "AUTH PLAIN"] in printed(d, "REPLY") and ["535", "AUTH LOGIN"] in printed(d, "REPLY")
        for secret in ("AGRhbm", "dGlnZXI", "ZGFuaWVs", "tiger"):
            assert secret not in text


# --- relaying ---

RELAY = """kumo.on('get_listener_domain', function(domain, listener, conn)
  if domain == 'in.example' then return kumo.make_listener_domain { relay_to = true } end
  if domain == 'from.example' then return kumo.make_listener_domain { relay_from = { '127.0.0.2' } } end
  if domain == 'authz.example' then return kumo.make_listener_domain { relay_from_authz = { 'daniel' } } end
  if domain == 'oob.example' then return kumo.make_listener_domain { log_oob = 'LogThenDrop' } end
  if domain == 'arf.example' then return kumo.make_listener_domain { log_arf = true } end
  if domain == 'off.example' then return kumo.make_listener_domain { relay_to = false, log_oob = false } end
  if domain == 'auth.example' and conn:get_meta('authz_id') then return kumo.make_listener_domain { relay_to = true } end
  if domain == 'error.example' then error('a mistake') end
  if domain == 'reject.example' then kumo.reject(550, 'no') end
  if domain == 'wrong.example' then return { relay_to = true } end
end)
kumo.on('smtp_server_auth_plain', function(authz, authc, password) return password == 'tiger' end)"""


@pytest.fixture(scope="module")
def relay(tmp_path_factory):
    with Smtp(tmp_path_factory.mktemp("relay"), "relay_hosts = { '127.0.0.9' }", extra=RELAY) as d:
        yield d


@pytest.mark.parametrize("source,sender,rcpt,code", [
    ("127.0.0.1", "x@else.example", "y@in.example", 250),
    ("127.0.0.1", "x@else.example", "y@IN.Example", 250),
    ("127.0.0.1", "x@else.example", "y@out.example", 550),
    ("127.0.0.1", "x@in.example", "y@out.example", 550),
    ("127.0.0.1", "x@from.example", "y@out.example", 550),
    ("127.0.0.2", "x@from.example", "y@out.example", 250),
    ("127.0.0.2", "x@else.example", "y@out.example", 550),
    ("127.0.0.2", "x@else.example", "y@from.example", 550),
    ("127.0.0.9", "x@else.example", "y@out.example", 250),
    ("127.0.0.1", "x@else.example", "y@oob.example", 250),
    ("127.0.0.1", "x@else.example", "y@arf.example", 250),
    ("127.0.0.1", "x@else.example", "y@off.example", 550),
    ("127.0.0.1", "x@authz.example", "y@out.example", 550),
    ("127.0.0.1", "", "y@in.example", 250),
    ("127.0.0.1", "x@else.example", "Postmaster", 550),
])
def test_relaying(relay, source, sender, rcpt, code):
    with relay.client(source=(source, 0)) as c:
        c.must(f"MAIL FROM:<{sender}>")
        r = c.cmd(f"RCPT TO:<{rcpt}>")
        assert r.code == code, r
        if code == 550:
            assert r.text.startswith(f"5.7.1 relaying not permitted for {source}:")


def test_relaying_to_postmaster(where):
    """Without a domain it is that of our own name, and so the policy is asked about that, before the message and after."""
    extra = """kumo.on('get_listener_domain', function(domain)
  print('ASKED', domain)
  if domain == 'mx.example' then return kumo.make_listener_domain { relay_to = true } end
end)"""
    with Smtp(where, "relay_hosts = {}", extra=extra) as d:
        with d.client() as c:
            c.begin(to=("Postmaster",))
            i, = c.data().ids
        assert d.wait_record("Reception", id=i)[0]["recipient"] == "Postmaster@mx.example"
        assert printed(d, "ASKED") == [["example.com"], ["mx.example"]]


@pytest.mark.parametrize("domain", ["error", "reject", "wrong"])
def test_get_listener_domain_that_fails(relay, domain):
    with relay.client() as c:
        c.must("MAIL FROM:<x@else.example>")
        assert c.cmd(f"RCPT TO:<x@{domain}.example>").lines == ["421 4.3.0 mx.example technical difficulties"] and c.ended()


def test_no_report_for_a_domain_that_only_logs_them(relay):
    with relay.client() as c:
        c.begin(to=("y@oob.example",), sender="x@else.example")
        assert c.data().lines == ["550 5.7.1 relaying not permitted"]
        # With a recipient that may have it, the message is taken for that one.
        c.begin(to=("y@oob.example", "z@in.example"), sender="x@else.example")
        r = c.data()
        assert len(r.ids) == 1
    assert relay.wait_record("Reception", id=r.ids[0])[0]["recipient"] == "z@in.example"


def test_relaying_after_a_login(relay):
    """What the policy has said of a domain before does not hold any more; what it says may depend on who it is."""
    with relay.client() as c:
        c.starttls()
        c.hello()
        c.must("MAIL FROM:<x@authz.example>")
        assert c.cmd("RCPT TO:<y@auth.example>").code == 550
        assert c.cmd("RCPT TO:<y@out.example>").code == 550
        c.must("RSET")
        c.must("AUTH PLAIN AGRhbmllbAB0aWdlcg==", 235)
        c.must("MAIL FROM:<x@authz.example>")
        c.must("RCPT TO:<y@auth.example>")
        c.must("RCPT TO:<y@out.example>")
        assert c.data().code == 250
        c.must("MAIL FROM:<x@else.example>")
        assert c.cmd("RCPT TO:<y@out.example>").code == 550


def test_ttl_of_a_domain(where):
    extra = """kumo.on('get_listener_domain', function(domain)
  print('DOMAIN', domain)
  return kumo.make_listener_domain { relay_to = domain == 'in.example', ttl = 0.3 }
end)"""
    with Smtp(where, "relay_hosts = {}", extra=extra) as d:
        with d.client() as c:
            c.must("MAIL FROM:<x@else.example>")
            c.must("RCPT TO:<y@in.example>")
            n = len(printed(d, "DOMAIN"))

            def asked():
                c.must("RCPT TO:<y@in.example>")
                return len(printed(d, "DOMAIN")) > n
            wait_for("the domain to be asked about again", asked)


def test_envelope_changed_by_the_policy_is_looked_at_again(where):
    """smtp_server_split_transaction makes a recipient that may not have mail from here."""
    extra = """kumo.on('get_listener_domain', function(domain) if domain == 'in.example' then return kumo.make_listener_domain { relay_to = true } end end)
kumo.on('smtp_server_split_transaction', function(msg) return { { 'x@out.example' } } end)"""
    with Smtp(where, "relay_hosts = {}", extra=extra) as d:
        with d.client() as c:
            c.begin(to=("y@in.example",))
            assert c.data().lines == ["550 5.7.1 relaying not permitted"]


# --- queues ---

def test_queue_that_cannot_be_made(where):
    """The failure of get_queue_config is not the client's to know."""
    d = Smtp(where, "", queue="")
    d.set_policy(d.policy_file.read_text().replace("return kumo.make_queue_config {  }", "if domain == 'bad.example' then kumo.reject(550, 'secret') end "
                                                   "return kumo.make_queue_config {}"))
    with d:
        with d.client() as c:
            c.begin(to=("a@good.example", "b@bad.example"))
            assert c.data().lines == ["421 4.3.0 mx.example technical difficulties"] and c.ended()
        assert not d.records("Reception") and "secret" not in str(d.records("Rejection"))
    with d:
        assert "0 messages recovered" in d.stderr()


def test_null_queue(where):
    """Thrown away, but logged."""
    with Smtp(where, "", extra="kumo.on('smtp_server_message_received', function(msg) msg:set_meta('queue', 'null') end)") as d:
        with d.client() as c:
            i = c.deliver().ids[0]
        assert d.wait_record("Reception", id=i)[0]["queue"] == "null"
    with d:
        assert "0 messages recovered" in d.stderr()


# --- the connection object ---

def test_connection_object(where):
    extra = """
local kept
kumo.on('smtp_server_mail_from', function(sender, conn)
  kept = conn
  conn:set_meta('t', { a = { 1, 2 }, b = 'x' })
  conn:set_meta('n', 1.5)
  print('CONN', kumo.json_encode(conn:get_meta('t')), conn:get_meta('n'), conn:get_meta('absent'), pcall(conn.set_meta, conn, 'f', print))
  print('CLASS', tostring(conn):match('^ConnectionMetaData'), getmetatable(conn), pcall(conn.get_meta, {}, 'x'))
  print('WHO', kumo.json_encode(conn:auth_info()))
end)
kumo.on('smtp_server_rcpt_to', function(rcpt, conn) if kept then print('KEPT', pcall(kept.get_meta, kept, 't')) else print('KEPT', 'none') end end)
"""
    with Smtp(where, "", extra=extra, init="kumo.set_max_lua_context_use_count(1000)") as d:
        with d.client() as c:
            c.begin()
            r = c.data()
        lines = d.stderr()
        assert 'CONN\t{"a":[1,2],"b":"x"}\t1.5\tnil\tfalse' in lines
        assert "CLASS\tConnectionMetaData\tfalse\tfalse" in lines
        assert 'WHO\t{"groups":[],"identities":[],"peer_address":"127.0.0.1"}' in lines
        kept = printed(d, "KEPT")[0]
        assert kept == ["none"] or (kept[0] == "false" and "this connection belonged to an event that is over" in kept[1])
        assert d.wait_record("Reception", id=r.ids[0])


def test_meta_of_records(where):
    """Connection metadata is the message's, too."""
    extra = "kumo.on('smtp_server_mail_from', function(s, conn) conn:set_meta('campaign', 'spring') end)"
    with Smtp(where, "", extra=extra) as d:
        with d.client() as c:
            i = c.deliver().ids[0]
        r = d.wait_record("Reception", id=i)[0]
        assert r["meta"] == {"campaign": "spring"} and r["queue"] == "spring:@maildir.example"


def test_handlers_that_wait_hold_up_nobody(where):
    extra = "kumo.on('smtp_server_mail_from', function(sender) if sender.user == 'slow' then kumo.sleep(1000) end end)"
    with Smtp(where, "", extra=extra) as d:
        with d.client() as slow:
            slow.send("MAIL FROM:<slow@example.com>\r\n")
            for _ in range(20):
                with d.client() as c:
                    c.deliver()
    # and the daemon stops in good order all the same


# --- watching ---

def test_trace_of_a_session(where):
    """What is read, written and asked passes one place, which the diagnostic log shows at level trace, without credentials."""
    extra = """kumo.on('smtp_server_auth_plain', function(authz, authc, password) return password == 'tiger' end)
kumo.on('get_listener_domain', function(domain) return kumo.make_listener_domain { relay_to = true } end)
kumo.on('smtp_server_rcpt_to', function(rcpt) if rcpt.user == 'no' then kumo.reject(550, 'no') end end)"""
    with Smtp(where, "relay_hosts = {}", extra=extra, env={"CIRRUS_LOG": "kumod=info,kumod::smtp_server=trace,lua=info"}) as d:
        with d.client() as c:
            c.starttls()
            c.hello()
            c.must("AUTH PLAIN AGRhbmllbAB0aWdlcg==", 235)
            c.must("MAIL FROM:<a@example.com>")
            c.must("RCPT TO:<b@maildir.example>")
            assert c.cmd("RCPT TO:<no@maildir.example>").code == 550
            assert c.data(b"Subject: seen\r\n\r\nx\r\n").code == 250
            c.must("QUIT", 221)
        lines = [re.sub(r".* kumod::smtp_server: 127\.0\.0\.1:\d+ ", "", line) for line in
                 wait_for("the end", lambda: "closed: " in d.stderr() and d.stderr()).splitlines() if " TRACE " in line]
        for expected in ("connected: ", "S: 220 mx.example KumoMTA", "C: STARTTLS", "C: EHLO client.example", "S: 250-PIPELINING", "C: AUTH PLAIN ***",
                         "callback: smtp_server_auth_plain true", "S: 235 2.7.0 AUTH OK!", "C: MAIL FROM:<a@example.com>",
                         "callback: get_listener_domain domain=example.com ", "S: 250 OK <b@maildir.example>", "S: 550 no", "C: DATA",
                         "callback: smtp_server_rcpt_to  raised no", "C: Subject: seen", "S: 221 2.0.0 mx.example closing connection", "closed: "):
            assert [line for line in lines if line.startswith(expected)], (expected, lines)
        assert "AGRhbm" not in d.stderr() and "tiger" not in d.stderr()
