"""Real clients against the SMTP service: smtplib, aiosmtplib, swaks, openssl s_client, Postfix's smtp-source where it is installed, and
a second cirrusd. With TLS of every kind, and logins."""
import asyncio
import base64
import email.message
import re
import shutil
import smtplib
import socket
import ssl
import subprocess

import aiosmtplib
import pytest

from cirrus import Daemon, policy, smtp_queue, wait_for
from smtpraw import Client, Smtp, split
from test_https import make_certificate

LOGIN = """kumo.on('smtp_server_auth_plain', function(authz, authc, password, conn)
  print('LOGIN', authz, authc, password, conn:get_meta('tls_cipher') ~= nil)
  if authc == 'group' then return { identities = { { identity = 'group-user', context = 'GenericAuth' } }, groups = { 'senders' } } end
  if authc == 'nobody' then return { identities = {} } end
  if authc == 'nil' then return nil end
  if authc == 'number' then return 1 end
  if authc == 'reject' then kumo.reject(454, '4.7.0 not now') end
  return authc == 'daniel' and password == 'tiger'
end)
kumo.on('smtp_server_mail_from', function(sender, conn)
  print('WHO', conn:get_meta('authz_id'), conn:get_meta('authn_id'), kumo.json_encode(conn:auth_info()))
  print('TLS', conn:get_meta('tls_cipher'), conn:get_meta('tls_protocol_version'), kumo.json_encode(conn:get_meta('tls_peer_subject_name')))
end)"""


def printed(d, word):
    return [line.split("\t")[1:] for line in d.stderr().splitlines() if line.split("\t")[0] == word]


@pytest.fixture(scope="module")
def d(tmp_path_factory):
    with Smtp(tmp_path_factory.mktemp("clients"), ["", "implicit_tls = true"], extra=LOGIN) as daemon:
        yield daemon


def find(d, i):
    return wait_for("the message", lambda: [m for m in d.maildir.messages() if i.encode() in m[:2000]])[0]


def plain(authc, password, authz=""):
    return base64.b64encode(f"{authz}\0{authc}\0{password}".encode()).decode()


# --- smtplib ---

def message(subject="from smtplib", text="hello\n.\n..leading dots\nöäü\n"):
    m = email.message.EmailMessage()
    m["Subject"], m["From"], m["To"] = subject, "a@example.com", "b@maildir.example"
    m.set_content(text)
    return m


def test_smtplib(d):
    with smtplib.SMTP("127.0.0.1", d.smtp_port) as s:
        assert s.send_message(message()) == {}
        code, text = s.noop()
        assert code == 250
        for name in ("pipelining", "8bitmime", "smtputf8", "size", "chunking", "starttls", "enhancedstatuscodes"):
            assert s.has_extn(name)
    wait_for("the message", lambda: [m for m in d.maildir.messages() if b"from smtplib" in m and b"..leading dots" in m and b"\r\n.\r\n" in m])


def test_smtplib_utf8(d):
    m = message("utf-8 envelope")
    m.replace_header("To", "jörg@bücher.example")
    with smtplib.SMTP("127.0.0.1", d.smtp_port) as s:
        assert s.send_message(m) == {}
    wait_for("the message", lambda: [x for x in d.maildir.messages() if "for <jörg@bücher.example>".encode() in x])


def test_smtplib_many_recipients(d):
    to = [f"r{i}@maildir.example" for i in range(300)]
    with smtplib.SMTP("127.0.0.1", d.smtp_port) as s:
        assert s.sendmail("many@example.com", to, "Subject: many\r\n\r\nx\r\n") == {}
    d.wait_record("Delivery", 300, sender="many@example.com")


@pytest.mark.parametrize("mechanism", ["auth_plain", "auth_login"])
@pytest.mark.parametrize("implicit", [False, True])
def test_smtplib_login(d, mechanism, implicit):
    context = ssl._create_unverified_context()
    if implicit:
        s = smtplib.SMTP_SSL("127.0.0.1", d.smtp_ports[1], context=context)
    else:
        s = smtplib.SMTP("127.0.0.1", d.smtp_port)
        s.starttls(context=context)
    with s:
        s.ehlo("login.example")
        assert s.esmtp_features["auth"].split() == ["PLAIN", "LOGIN"] and not s.has_extn("starttls")
        s.user, s.password = "daniel", "wrong"
        with pytest.raises(smtplib.SMTPAuthenticationError):
            s.auth(mechanism[5:], getattr(s, mechanism))
        s.user, s.password = "daniel", "tiger"
        assert s.auth(mechanism[5:], getattr(s, mechanism))[0] == 235
        s.send_message(message(f"by {mechanism} {implicit}"))
    found = wait_for("the message", lambda: [m for m in d.maildir.messages() if f"by {mechanism} {implicit}".encode() in m])[0]
    assert re.search(rb"\r\n  with ESMTPSA \(TLSv1_3:TLS13_AES_256_GCM_SHA384\) id ", found)
    assert ["daniel", "daniel", "tiger", "true"] in printed(d, "LOGIN")


def test_aiosmtplib(d):
    async def run():
        client = aiosmtplib.SMTP(hostname="127.0.0.1", port=d.smtp_port, start_tls=True, validate_certs=False)
        async with client:
            await client.login("daniel", "tiger")
            return await client.send_message(message("from aiosmtplib"))
    errors, text = asyncio.run(run())
    assert errors == {} and "ids=" in text
    wait_for("the message", lambda: [m for m in d.maildir.messages() if b"from aiosmtplib" in m])


# --- swaks ---

def swaks(d, *args, index=0):
    return subprocess.run(["swaks", "--server", "127.0.0.1", "--port", str(d.smtp_ports[index]), "--from", "a@example.com", "--to",
                           "b@maildir.example", "--helo", "swaks.example", *args], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("args,index", [((), 0), (("--pipeline",), 0), (("-tls",), 0), (("--tls-on-connect",), 1),
                                        (("-tls", "--auth", "PLAIN", "--auth-user", "daniel", "--auth-password", "tiger"), 0),
                                        (("-tls", "--auth", "LOGIN", "--auth-user", "daniel", "--auth-password", "tiger"), 0),
                                        (("--tls-on-connect", "--auth", "LOGIN", "--auth-user", "daniel", "--auth-password", "tiger"), 1),
                                        (("--protocol", "SMTP"), 0)], ids=lambda v: " ".join(v) if isinstance(v, tuple) else str(v))
def test_swaks(d, args, index):
    p = swaks(d, *args, index=index)
    assert p.returncode == 0, p.stdout + p.stderr
    i = re.search(r"250 OK ids=([0-9a-f]{32})", p.stdout).group(1)
    assert b"swaks.example" in find(d, i)


def test_swaks_refused(d):
    p = swaks(d, "-tls", "--auth", "PLAIN", "--auth-user", "daniel", "--auth-password", "wrong")
    assert p.returncode != 0 and "535 5.7.8" in p.stdout
    p = swaks(d, "--auth", "PLAIN", "--auth-user", "daniel", "--auth-password", "tiger")  # in the clear nothing is offered
    assert p.returncode != 0


def test_swaks_proxy_and_xclient(where):
    with Smtp(where, ["peer = { ['127.0.0.1'] = { allow_xclient = true } }, relay_hosts = { '192.0.2.0/24' }",
                      "peer = { ['127.0.0.1'] = { require_proxy_protocol = true } }, relay_hosts = { '192.0.2.0/24' }"]) as d:
        p = swaks(d, "--xclient-addr", "192.0.2.9")
        assert p.returncode == 0, p.stdout
        for version in ("1", "2"):
            p = swaks(d, "--proxy-version", version, "--proxy-family", "TCP4" if version == "1" else "AF_INET", "--proxy-source", "192.0.2.8",
                      "--proxy-source-port", "99", "--proxy-dest", "198.51.100.1", "--proxy-dest-port", "25",
                      *(("--proxy-protocol", "STREAM", "--proxy-command", "PROXY") if version == "2" else ()), index=1)
            assert p.returncode == 0, p.stdout
        addresses = [r["peer_address"]["addr"] for r in d.wait_record("Reception", 3)]
        assert addresses == ["192.0.2.9", "192.0.2.8", "192.0.2.8"]


# --- openssl s_client ---

def s_client(d, *args, index=0, script="", starttls=True):
    return subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{d.smtp_ports[index]}", "-crlf", "-ign_eof",
                           *(["-starttls", "smtp"] if starttls else []), *args], input=script, capture_output=True, text=True, timeout=60)


SCRIPT = "EHLO s.example\nMAIL FROM:<a@example.com>\nRCPT TO:<b@maildir.example>\nDATA\nSubject: s_client\n\nx\n.\nQUIT\n"


@pytest.mark.parametrize("index,starttls", [(0, True), (1, False)])
def test_s_client(d, index, starttls):
    p = s_client(d, index=index, starttls=starttls, script=SCRIPT)
    assert "250 OK ids=" in p.stdout and "221 2.0.0" in p.stdout, p.stdout + p.stderr


@pytest.mark.parametrize("args,version", [(("-tls1_2",), "TLSv1_2"), (("-tls1_3",), "TLSv1_3")])
def test_versions(d, args, version):
    p = s_client(d, *args, script=SCRIPT)
    i = re.search(r"250 OK ids=([0-9a-f]{32})", p.stdout).group(1)
    assert f"ESMTPS ({version}:".encode() in find(d, i)
    record = d.wait_record("Reception", id=i)[0]
    assert record["tls_protocol_version"] == version and record["tls_cipher"] and "tls_peer_subject_name" not in record


def test_old_versions_are_refused(d):
    p = s_client(d, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")
    assert p.returncode != 0
    with d.client() as c:
        c.hello()


# --- TLS ---

def test_certificates(where):
    one = make_certificate(where, "one", "/CN=one.example", "DNS:one.example")
    two = make_certificate(where, "two", "/CN=two.example", "DNS:two.example")
    listener = f"""relay_hosts = {{ '127.0.0.0/8' }}, tls_certificate = '{one[0]}', tls_private_key = '{one[1]}', peer = {{
      ['127.0.0.2'] = {{ tls_certificate = '{two[0]}', tls_private_key = '{two[1]}' }} }}"""
    extra = f"""kumo.on('smtp_server_get_dynamic_parameters', function(listener, conn)
  if conn:get_meta('received_from'):match('^127.0.0.3:') then return {{ tls_certificate = '{two[0]}', tls_private_key = '{two[1]}' }} end
  if conn:get_meta('received_from'):match('^127.0.0.4:') then return {{ tls_certificate = '/nonexistent.pem' }} end
end)"""
    with Smtp(where, listener, extra=extra) as d:
        for source, cert, name in (("127.0.0.1", one, "one"), ("127.0.0.2", two, "two"), ("127.0.0.3", two, "two")):
            context = ssl.create_default_context(cafile=cert[0])
            with d.client(source=(source, 0)) as c:
                c.must("STARTTLS", 220)
                c.socket = context.wrap_socket(c.socket, server_hostname=f"{name}.example")
                c.hello()
                c.deliver()
        with d.client(source=("127.0.0.4", 0)) as c:
            assert c.cmd("STARTTLS").lines[0].startswith("454 4.7.0")
            c.deliver()
        assert "`/nonexistent.pem`: No such file" in d.stderr()
        assert d.metric(f'tls_certificate_expiry_seconds{{listener="127.0.0.1:{d.smtp_port}"}}') > 20 * 86400


def test_self_signed_certificate_has_the_hostname(d):
    with d.client() as c:
        c.starttls()
        der = c.socket.getpeercert(binary_form=True)
    text = subprocess.run(["openssl", "x509", "-inform", "DER", "-noout", "-text"], input=der, capture_output=True).stdout
    assert b"DNS:mx.example" in text


def test_certificate_is_renewed(where):
    cert, key = make_certificate(where, "cert", "/CN=old.example", "DNS:mx.example")

    def serial(d):
        with d.client() as c:
            c.starttls()
            der = c.socket.getpeercert(binary_form=True)
        return subprocess.run(["openssl", "x509", "-inform", "DER", "-noout", "-subject"], input=der, capture_output=True).stdout
    with Smtp(where, f"tls_certificate = '{cert}', tls_private_key = '{key}'") as d:
        assert b"old.example" in serial(d)
        fresh = make_certificate(where, "fresh", "/CN=new.example", "DNS:mx.example")
        fresh[0].rename(cert)
        fresh[1].rename(key)
        d.process.send_signal(1)
        wait_for("the new certificate", lambda: b"new.example" in serial(d))
        assert "smtp listener on 127.0.0.1:" in d.stderr() and "certificate loaded, valid until" in d.stderr()


def test_client_certificates(where):
    """One of the CA is who it says; others, and none, are served all the same."""
    ca = make_certificate(where, "ca", "/CN=clients", "DNS:clients")
    good = make_certificate(where, "good", "/CN=alice/O=Example", "DNS:alice.example", ca=ca, extra=("-addext", "basicConstraints=critical,CA:FALSE"))
    bad = make_certificate(where, "bad", "/CN=mallory", "DNS:mallory.example")
    with Smtp(where, f"tls_required_client_ca = '{ca[0]}'", extra=LOGIN) as d:
        for cert, names in ((good, ["CN=alice", "O=Example"]), (bad, None), (None, None)):
            context = ssl._create_unverified_context()
            if cert:
                context.load_cert_chain(*cert)
            with d.client() as c:
                c.starttls(context)
                c.hello()
                i = c.deliver().ids[0]
            record = d.wait_record("Reception", id=i)[0]
            assert record.get("tls_peer_subject_name") == names, record
        assert [line[2] for line in printed(d, "TLS")] == ['["CN=alice","O=Example"]', "null", "null"]


def test_starttls_forgets(d):
    """RFC 3207: neither what was said before nor what was sent along counts."""
    with d.client() as c:
        c.hello("before.example")
        c.must("MAIL FROM:<before@example.com>")
        c.send(b"STARTTLS\r\nRCPT TO:<injected@maildir.example>\r\nNOOP\r\n")
        assert c.reply().code == 220
        c.tls()
        assert c.cmd("RCPT TO:<b@maildir.example>").code == 503
        i = c.deliver().ids[0]
        assert d.wait_record("Reception", id=i)[0]["peer_address"]["name"] == ""
        assert c.cmd("STARTTLS").lines[0].startswith("501 5.5.1")
        c.must("NOOP")


def test_a_failed_handshake_goes_on_in_the_clear(d):
    with d.client() as c:
        c.hello()
        c.must("STARTTLS", 220)
        c.send(b"\x16\x03\x01\x00\x05hello")  # a record that is no ClientHello
        alert = c.socket.recv(100)
        assert alert[:1] == b"\x15"
        c.hello("again.example")
        c.deliver()


def test_clear_text_on_the_tls_port(d):
    with Client(d.smtp_ports[1], banner=False) as c:
        c.send("EHLO x\r\n")
        while c.socket.recv(1000):  # an alert, perhaps, and the end
            pass


def test_handshake_timeout(where):
    with Smtp(where, ["client_timeout = '300ms'", "client_timeout = '300ms', implicit_tls = true"]) as d:
        with d.client() as c:
            c.must("STARTTLS", 220)
            assert c.socket.recv(100) == b""
        with Client(d.smtp_ports[1], banner=False) as c:
            assert c.socket.recv(100) == b""


def test_requiretls(d):
    with d.client() as c:
        c.starttls()
        c.hello()
        c.must("MAIL FROM:<a@example.com> REQUIRETLS")
        c.must("RCPT TO:<b@maildir.example>")
        assert c.data().code == 250


# --- AUTH ---

def test_auth(d):
    with d.client() as c:
        assert c.cmd(f"AUTH PLAIN {plain('daniel', 'tiger')}").lines[0].startswith("524 5.7.11")
        c.starttls()
        assert c.hello().lines[-1] == "250 AUTH PLAIN LOGIN"
        assert c.cmd(f"AUTH PLAIN {plain('daniel', 'wrong')}").lines == ["535 5.7.8 AUTH invalid"]
        assert c.cmd("AUTH PLAIN").lines == ["334 "]
        assert c.cmd("*").lines[0].startswith("501 5.5.0")
        for bad in ("x", "====", "AGE", plain("", "x"), base64.b64encode(b"no nul").decode(), base64.b64encode(b"\0a\xff\0b").decode()):
            assert c.cmd("AUTH PLAIN").code == 334
            assert c.cmd(bad).lines[0].startswith("501 5.5.2"), bad
        assert c.cmd("AUTH GSSAPI").lines[0].startswith("504 5.5.4")
        assert c.cmd("AUTH PLAIN").code == 334
        assert c.cmd(plain("daniel", "tiger", "boss")).lines == ["235 2.7.0 AUTH OK!"]
        assert c.cmd(f"AUTH PLAIN {plain('daniel', 'tiger')}").lines[0].startswith("503 5.5.1")
        i = c.deliver().ids[0]
    assert printed(d, "WHO")[-1] == ["boss", "daniel", '{"groups":[],"identities":[{"context":"SmtpAuthPlainAuthorization","identity":"boss"},'
                                     '{"context":"SmtpAuthPlainAuthentication","identity":"daniel"}],"peer_address":"127.0.0.1"}']
    assert b" with ESMTPSA (" in find(d, i)


def test_auth_login(d):
    def b64(text):
        return base64.b64encode(text.encode()).decode()
    with d.client() as c:
        c.starttls()
        c.hello()
        assert c.cmd("AUTH LOGIN").lines == ["334 VXNlcm5hbWU6"]
        assert c.cmd("*").code == 501
        assert c.cmd("AUTH LOGIN").code == 334
        assert c.cmd(b64("daniel")).lines == ["334 UGFzc3dvcmQ6"]
        assert c.cmd(b64("wrong")).code == 535
        assert c.cmd(f"AUTH LOGIN {b64('daniel')}").lines == ["334 UGFzc3dvcmQ6"]
        assert c.cmd("not base64!").code == 501
        assert c.cmd(f"AUTH LOGIN {b64('dan' + chr(0) + 'iel')}").code == 334
        assert c.cmd(b64("tiger")).code == 501  # a NUL would shift the fields
        assert c.cmd(f"AUTH LOGIN {b64('daniel')}").code == 334
        assert c.cmd(b64("tiger")).code == 235
        c.deliver()


def test_auth_info(d):
    """What the policy says of the identity counts; what makes no sense ends the session."""
    with d.client() as c:
        c.starttls()
        c.must(f"AUTH PLAIN {plain('group', 'x')}", 235)
        c.must("MAIL FROM:<a@example.com>")
    assert printed(d, "WHO")[-1] == ["group", "group", '{"groups":["senders"],"identities":[{"context":"GenericAuth","identity":"group-user"}],'
                                     '"peer_address":"127.0.0.1"}']
    for user in ("nobody", "nil", "number"):
        with d.client() as c:
            c.starttls()
            assert c.cmd(f"AUTH PLAIN {plain(user, 'x')}").lines == ["421 4.3.0 mx.example technical difficulties"]
    with d.client() as c:
        c.starttls()
        assert c.cmd(f"AUTH PLAIN {plain('reject', 'x')}").lines == ["454 4.7.0 not now"]
        c.must("NOOP")


def test_auth_info_says_who_it_is(where):
    """A client that claims to act for somebody else is who the policy says that it is."""
    extra = """
kumo.on('smtp_server_auth_plain', function(authz, authc)
  return { identities = { { identity = authc, context = 'SmtpAuthPlainAuthorization' }, { identity = authc .. '-1', context = 'SmtpAuthPlainAuthentication' } } }
end)
kumo.on('get_listener_domain', function() return kumo.make_listener_domain { relay_from_authz = { 'boss' } } end)
kumo.on('smtp_server_rcpt_to', function(_, conn) print('IS', conn:get_meta('authz_id'), conn:get_meta('authn_id')) end)
"""
    with Smtp(where, "relay_hosts = {}", extra=extra) as d:
        for authz, authc, code in (("boss", "daniel", 550), ("daniel", "boss", 250)):
            with d.client() as c:
                c.starttls()
                c.must("AUTH PLAIN " + base64.b64encode(f"{authz}\0{authc}\0x".encode()).decode(), 235)
                c.must("MAIL FROM:<a@example.com>")
                c.must("RCPT TO:<b@maildir.example>", code)
        assert printed(d, "IS") == [["boss", "boss-1"]]


def test_too_many_failed_logins(d):
    with d.client() as c:
        c.starttls()
        for _ in range(5):
            assert c.cmd(f"AUTH PLAIN {plain('daniel', 'wrong')}").code == 535
        assert c.reply().lines[0].startswith("421 4.7.0")


def test_without_a_handler_nobody_can_log_in(where):
    init = f"kumo.aaa.configure_acct_log {{ log_dir = '{where}/acct', max_segment_duration = '1s' }}"
    with Smtp(where, "", init=init) as d:
        with d.client() as c:
            c.starttls()
            assert c.cmd(f"AUTH PLAIN {plain('daniel', 'tiger')}").code == 535
        entry = wait_for("the accounting log", lambda: d.records("Authentication", log_dir=d.dir / "acct"))[0]
        assert entry["attempted_identity"] == {"identity": "daniel", "context": "SmtpAuthPlainAuthentication"} and entry["success"] is False
        assert "tiger" not in str(entry)


def test_a_long_sasl_response(d):
    with d.client() as c:
        c.starttls()
        assert c.cmd("AUTH PLAIN").code == 334
        assert c.cmd(plain("daniel", "x" * 9000)).code == 535
        assert c.cmd(f"AUTH PLAIN {plain('daniel', 'y' * 9000)}").code == 535
        assert c.cmd("AUTH PLAIN").code == 334
        assert c.cmd("A" * 20000).lines[0].startswith("500 5.2.3")
        c.must("NOOP")


def test_proxy_in_front_of_tls(where):
    with Smtp(where, "require_proxy_protocol = true, implicit_tls = true, relay_hosts = { '192.0.2.1' }") as d:
        with Client(d.smtp_port, banner=False) as c:
            c.send(b"PROXY TCP4 192.0.2.1 198.51.100.1 1 465\r\n")
            c.tls()
            assert c.reply().code == 220
            c.hello()
            i = c.deliver().ids[0]
        record = d.wait_record("Reception", id=i)[0]
        assert record["peer_address"]["addr"] == "192.0.2.1" and record["tls_protocol_version"] == "TLSv1_3"


# --- smtp-source ---

@pytest.mark.skipif(not shutil.which("smtp-source"), reason="Postfix is not installed")
@pytest.mark.parametrize("args", [(), ("-d",), ("-o",), ("-N",)], ids=str)
def test_smtp_source(where, args):
    with Smtp(where, "") as d:
        subprocess.run(["smtp-source", "-s", "20", "-m", "500", "-r", "3", "-l", "5000", "-f", "a@example.com", "-t", "b@maildir.example", *args,
                        f"127.0.0.1:{d.smtp_port}"], check=True, timeout=120)
        d.wait_record("Delivery", 1500)


# --- two daemons in a row ---

def test_two_daemons(where):
    """HTTP in on the first, SMTP to the second, a maildir at the end: byte for byte but for the trace fields."""
    contents = {
        "dots": "Subject: dots\r\n\r\n.\r\n..\r\n...\r\n.x\r\n",
        "8bit": "Subject: 8bit jörg\r\n\r\nöäü € 漢字\r\n",
        "long": "Subject: long\r\n\r\n" + ("z" * 900 + "\r\n") * 1500,
        "header only": "Subject: header only\r\n\r\n",
        "no end": "Subject: no end\r\n\r\nno line end here",
    }
    to = ['"quoted local"@maildir.example', 'plain@maildir.example', "jörg@bücher.example", '"a\\"b@c"@maildir.example', "b@[IPv6:2001:db8::1]"]
    with Smtp(where / "second", "invalid_line_endings = 'Deny'") as second:
        with Daemon(where / "first", policy(where / "first", queue=smtp_queue(second.smtp_port))) as first:
            for content in contents.values():
                first.accept(content, to=to, sender="s@example.com")
            first.wait_record("Delivery", len(to) * len(contents))
            assert not first.records("Bounce") and not first.records("TransientFailure")
            responses = {r["response"]["content"] for r in first.records("Delivery")}
            assert all(re.match(r"OK ids=[0-9a-f]{32}$", r) for r in responses)
        got = second.received(len(to) * len(contents))
        for name, content in contents.items():
            expected = content.encode() if content.endswith("\r\n") else content.encode() + b"\r\n"
            same = [m for m in got if split(m)[1] == expected]
            assert len(same) == len(to), name
            assert sorted(re.search(rb" for <(.*)>;", m).group(1).decode() for m in same) == sorted(to)
        ids = {r["id"] for r in second.records("Reception")}
        assert {r[7:] for r in responses} == ids


def test_two_daemons_smtp_to_smtp(where):
    """In by SMTP, out by SMTP, with line ends of all kinds on the way in: they come out as CRLF, as one message each."""
    with Smtp(where / "second", "") as second:
        with Smtp(where / "first", ["invalid_line_endings = 'Allow'", "invalid_line_endings = 'Fix'"], queue=smtp_queue(second.smtp_port)) as first:
            for index in (0, 1):
                for ending in (b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n..\n", b"\r.\r\n"):
                    with first.client(index) as c:
                        c.hello()
                        c.begin()
                        c.must("DATA", 354)
                        c.send(b"Subject: x\r\n\r\nouter" + ending + b"MAIL FROM:<evil@example.com>\r\nRCPT TO:<v@maildir.example>\r\nDATA\r\n\r\nx\r\n.\r\n")
                        assert c.reply().code == 250
            first.wait_record("Delivery", 10)
        got = second.received(10)
        assert len(got) == 10 and not second.records("Reception", sender="evil@example.com")
        for m in got:
            assert not re.search(rb"\r(?!\n)|(?<!\r)\n", m) and b"\r\nRCPT TO:<v@maildir.example>\r\n" in m
