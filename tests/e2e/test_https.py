"""TLS in front of the HTTP service, with openssl, curl and Python's ssl as clients: certificates of every kind, mutual TLS, versions,
ALPN, resumption, and renewal without a restart; certificates from a Vault that speaks the KV version 2 API."""
import http.server
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import threading

import pytest

from cirrus import Daemon, policy, wait_for


def openssl(*args, **kwargs):
    return subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True, **kwargs).stdout


def make_certificate(where, name="cert", subject="/CN=localhost", san="DNS:localhost,IP:127.0.0.1", days=30, key=("-newkey", "rsa:2048"),
                     ca=None, extra=()):
    """A certificate and its key as files; self-signed, or signed by ca (a pair of paths)."""
    cert, private = where / f"{name}.pem", where / f"{name}.key"
    signer = ("-CA", ca[0], "-CAkey", ca[1]) if ca else ()
    openssl("req", "-x509", *key, "-nodes", "-keyout", private, "-out", cert, "-subj", subject, "-days", days,
            "-addext", f"subjectAltName={san}", *signer, *extra)
    return cert, private


def https_policy(where, fields="", init="", extra=""):
    text = policy(where, "protocol = { maildir_path = '%s' }" % (where / "mail"), init=init, extra=extra)
    return text.replace("kumo.start_http_listener { listen = '127.0.0.1:0' }",
                        "kumo.start_http_listener { listen = '127.0.0.1:0', use_tls = true, %s }\n"
                        "  kumo.start_http_listener { listen = '127.0.0.1:0' }" % fields)


def pair(cert, key):
    return f"tls_certificate = '{cert}', tls_private_key = '{key}'"


class Https(Daemon):
    """The first listener is https, the second one http (which Daemon's helpers use)."""

    def start(self, timeout=None):
        super().start(timeout)
        self.tls_port = int(re.search(r"https listener on \S+:(\d+)", self.stderr()).group(1))
        self.port = int(re.search(r" http listener on \S+:(\d+)", self.stderr()).group(1))
        return self

    def curl(self, *args, path="/api/check-liveness/v1"):
        p = subprocess.run(["curl", "-sS", "--max-time", "20", *map(str, args), f"https://localhost:{self.tls_port}{path}",
                            "--resolve", f"localhost:{self.tls_port}:127.0.0.1"], capture_output=True, text=True)
        return p.returncode, p.stdout + p.stderr

    def handshake(self, context=None, **kwargs):
        """An open TLS connection."""
        if context is None:
            context = ssl._create_unverified_context()
        return context.wrap_socket(socket.create_connection(("127.0.0.1", self.tls_port), timeout=20), server_hostname="localhost",
                                   **kwargs)

    def serial(self):
        with self.handshake() as s:
            der = s.getpeercert(binary_form=True)
        return openssl("x509", "-inform", "DER", "-noout", "-serial", input=der).decode().strip()


def file_serial(cert):
    return openssl("x509", "-in", cert, "-noout", "-serial").decode().strip()


KEYS = {
    "rsa": ("-newkey", "rsa:2048"),
    "ec": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "ed25519": ("-newkey", "ed25519"),
}


@pytest.mark.parametrize("kind", KEYS)
def test_certificate_and_key_from_files(where, kind):
    cert, key = make_certificate(where, key=KEYS[kind])
    with Https(where, https_policy(where, pair(cert, key))) as d:
        assert d.curl("--cacert", cert) == (0, "OK")
        assert d.serial() == file_serial(cert)


@pytest.mark.parametrize("form", ["pkcs1", "sec1"])
def test_traditional_key_forms(where, form):
    cert, key = make_certificate(where, key=KEYS["rsa" if form == "pkcs1" else "ec"])
    old = where / "old.key"
    openssl("rsa" if form == "pkcs1" else "ec", *(["-traditional"] if form == "pkcs1" else []), "-in", key, "-out", old)
    assert ("RSA PRIVATE KEY" if form == "pkcs1" else "EC PRIVATE KEY") in old.read_text()
    with Https(where, https_policy(where, pair(cert, old))) as d:
        assert d.curl("--cacert", cert) == (0, "OK")


def test_a_chain_of_three(where):
    root = make_certificate(where, "root", "/CN=root", "DNS:root", extra=("-addext", "basicConstraints=critical,CA:TRUE"))
    middle = make_certificate(where, "middle", "/CN=middle", "DNS:middle", ca=root)
    # The CA flag is there by default of `req -x509`; the leaf must be none.
    leaf = make_certificate(where, "leaf", ca=middle, extra=("-addext", "basicConstraints=critical,CA:FALSE"))
    chain = where / "chain.pem"
    chain.write_text(leaf[0].read_text() + middle[0].read_text())
    with Https(where, https_policy(where, pair(chain, leaf[1]))) as d:
        assert d.curl("--cacert", root[0]) == (0, "OK")


def test_without_a_certificate_one_is_made_for_the_hostname(where):
    with Https(where, https_policy(where, "hostname = 'mx.example.com'")) as d:
        with d.handshake() as s:
            der = s.getpeercert(binary_form=True)
        text = openssl("x509", "-inform", "DER", "-noout", "-text", input=der).decode()
        assert "DNS:mx.example.com" in text and "prime256v1" in text
        assert d.metric(f'tls_certificate_expiry_seconds{{listener="127.0.0.1:{d.tls_port}"}}') > 300 * 86400
        assert d.curl("-k") == (0, "OK")
        assert d.curl()[0] == 60  # not trusted by anybody
    assert not [p for p in where.rglob("*") if p.suffix in (".key", ".pem")]


def test_key_data_in_the_policy(where):
    cert, key = make_certificate(where)
    fields = f"tls_certificate = {{ key_data = [[{cert.read_text()}]] }}, tls_private_key = {{ key_data = [[{key.read_text()}]] }}"
    with Https(where, https_policy(where, fields)) as d:
        assert d.curl("--cacert", cert) == (0, "OK")
    assert "PRIVATE KEY" not in d.stderr_file.read_text()


def test_key_from_an_event(where):
    cert, key = make_certificate(where)
    extra = f"""
kumo.on('fetch_key', function(which)
  return io.open(which == 'cert' and '{cert}' or '{key}'):read('a')
end)"""
    fields = "tls_certificate = { event_name = 'fetch_key', event_args = { 'cert' } }, " \
             "tls_private_key = { event_name = 'fetch_key', event_args = { 'key' } }"
    with Https(where, https_policy(where, fields, extra=extra)) as d:
        assert d.curl("--cacert", cert) == (0, "OK")


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_versions_and_alpn(where, version):
    with Https(where, https_policy(where)) as d:
        assert d.curl("-k", f"--tlsv{version}", "--tls-max", version) == (0, "OK")
        context = ssl._create_unverified_context()
        context.set_alpn_protocols(["h2", "http/1.1"])
        with d.handshake(context) as s:
            assert s.selected_alpn_protocol() == "h2"
        code, text = d.curl("-k", "--http2", "-w", " %{http_version}")
        assert (code, text) == (0, "OK 2")
        code, text = d.curl("-k", "--http1.1", "-w", " %{http_version}")
        assert (code, text) == (0, "OK 1.1")


def test_old_versions_and_the_minimum(where):
    with Https(where, https_policy(where, "tls_minimum_version = '1.3'")) as d:
        assert d.curl("-k", "--tls-max", "1.2")[0] == 35
        assert d.curl("-k") == (0, "OK")
        p = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{d.tls_port}", "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"],
                           stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert p.returncode != 0


def test_sessions_are_resumed(where):
    with Https(where, https_policy(where)) as d:
        context = ssl._create_unverified_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with d.handshake(context) as s:
            s.sendall(b"GET /api/check-liveness/v1 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert s.recv(4096).startswith(b"HTTP/1.1 200")
            session = s.session
        with d.handshake(context, session=session) as s:
            assert s.session_reused


def test_mutual_tls(where):
    ca = make_certificate(where, "ca", "/CN=clients", "DNS:clients")
    client = make_certificate(where, "client", "/CN=alice/O=Example", "DNS:alice.example.com", ca=ca,
                              extra=("-addext", "basicConstraints=critical,CA:FALSE"))
    other = make_certificate(where, "other", "/CN=mallory", "DNS:mallory.example.com")
    extra = """
kumo.on('http_message_generated', function(msg, auth_info)
  local names = {}
  for _, i in ipairs(auth_info.identities) do table.insert(names, i.identity) end
  msg:set_meta('tenant', table.concat(names, '+'))
end)"""
    fields = f"tls_required_client_ca = '{ca[0]}'"
    with Https(where, https_policy(where, fields, extra=extra)) as d:
        assert d.curl("-k", "--cert", client[0], "--key", client[1]) == (0, "OK")
        assert d.curl("-k")[0] != 0
        assert d.curl("-k", "--cert", other[0], "--key", other[1])[0] != 0
        body = json.dumps({"envelope_sender": "s@example.com", "recipients": [{"email": "r@example.org"}], "content": "Subject: x\r\n\r\nx\r\n"})
        code, text = d.curl("-k", "--cert", client[0], "--key", client[1], "-H", "Content-Type: application/json", "-d", body,
                            path="/api/inject/v1")
        assert code == 0 and '"success_count":1' in text
        r, = d.wait_record("Reception")
        assert r["meta"]["tenant"] == "CN=alice+DNS:alice.example.com"


def test_injection_over_tls_and_clear_text_is_refused(where):
    with Https(where, https_policy(where)) as d:
        body = json.dumps({"envelope_sender": "s@example.com", "recipients": [{"email": "r@example.org"}], "content": "Subject: x\r\n\r\nx\r\n"})
        code, text = d.curl("-k", "-H", "Content-Type: application/json", "-d", body, path="/api/inject/v1")
        assert code == 0 and json.loads(text)["success_count"] == 1
        d.wait_record("Delivery")
        with socket.create_connection(("127.0.0.1", d.tls_port), timeout=20) as s:
            s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert not s.recv(4096).startswith(b"HTTP")


@pytest.mark.parametrize("end", ["Connection: close", "HTTP/1.0", "idle_timeout", "an error"])
def test_the_end_is_told(where, end):
    """By a close_notify, without which a client cannot tell it from an attack that cuts the answer short."""
    sent = {"HTTP/1.0": "GET /api/check-liveness/v1 HTTP/1.0\r\n\r\n", "an error": "GET /api/check-liveness/v1 HTTP/1.1\r\n\r\n"}
    request = sent.get(end, f"GET /api/check-liveness/v1 HTTP/1.1\r\nHost: x\r\n{end if ':' in end else 'X: y'}\r\n\r\n")
    context = ssl._create_unverified_context()
    context.options &= ~0x80  # SSL_OP_IGNORE_UNEXPECTED_EOF, which some Pythons set
    with Https(where, https_policy(where, "idle_timeout = '100ms'" if end == "idle_timeout" else "")) as d:
        with socket.create_connection(("127.0.0.1", d.tls_port), timeout=20) as raw:
            with context.wrap_socket(raw, suppress_ragged_eofs=False) as s:
                s.sendall(request.encode())
                answer = b""
                while data := s.recv(4096):  # raises when the end is not told
                    answer += data
        assert answer.startswith(b"HTTP/1.1 400" if end == "an error" else b"HTTP/1.1 200")


def test_a_target_may_say_https(where):
    with Https(where, https_policy(where)) as d:
        for scheme in ("https", "HTTPS", "http"):
            code, text = d.curl("-k", "--http1.1", "--request-target", f"{scheme}://mail.example.com:1/api/check-liveness/v1")
            assert (code, text) == (0, "OK")


# --- renewal ---

def test_renewal_of_files(where):
    cert, key = make_certificate(where)
    with Https(where, https_policy(where, pair(cert, key))) as d:
        first = d.serial()
        old = d.handshake()
        make_certificate(where)  # over the same files
        d.process.send_signal(signal.SIGHUP)
        wait_for("the new certificate", lambda: d.serial() == file_serial(cert))
        assert d.serial() != first
        old.sendall(b"GET /api/check-liveness/v1 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert old.recv(4096).startswith(b"HTTP/1.1 200")  # the old connection lives on
        old.close()
        # A bad new one is logged, and the one before stays.
        good = d.serial()
        key.write_text("garbage")
        d.process.send_signal(signal.SIGHUP)
        wait_for("the complaint", lambda: "keeps its certificate" in d.stderr())
        assert str(key) in d.stderr() and d.serial() == good
        # The endpoint does the same as the signal; what was bad is tried again.
        make_certificate(where)
        assert d.request("POST", "/api/admin/bump-config-epoch")[0] == 200
        wait_for("the third certificate", lambda: d.serial() == file_serial(cert))


def test_renewal_is_noticed_by_itself(where):
    cert, key = make_certificate(where, days=365)
    with Https(where, https_policy(where, pair(cert, key))) as d:
        make_certificate(where, days=365)
        wait_for("the new certificate", lambda: d.serial() == file_serial(cert))


# --- Vault ---

class Vault(threading.Thread):
    """The part of Vault's KV version 2 API that reads a secret."""

    def __init__(self):
        super().__init__()
        self.secrets = {}
        self.asked = []
        vault = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                vault.asked.append((self.path, self.headers.get("X-Vault-Token")))
                if self.headers.get("X-Vault-Token") != "hvs.TOKEN":
                    return self.answer(403, {"errors": ["permission denied"]})
                value = vault.secrets.get(self.path)
                if value is None:
                    return self.answer(404, {"errors": []})
                self.answer(200, {"data": {"data": value, "metadata": {"version": 1}}})

            def answer(self, status, value):
                body = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = "http://127.0.0.1:%d" % self.server.server_address[1]

    def run(self):
        self.server.serve_forever()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.server.shutdown()
        self.server.server_close()
        self.join()


VAULT_FIELDS = "tls_certificate = { vault_mount = 'secret', vault_path = 'tls/cert' }, " \
               "tls_private_key = { vault_mount = 'secret', vault_path = 'tls/key' }"


def test_vault(where):
    cert, key = make_certificate(where)
    with Vault() as vault:
        vault.secrets = {"/v1/secret/data/tls/cert": {"key": cert.read_text()}, "/v1/secret/data/tls/key": {"key": key.read_text()}}
        env = {"VAULT_ADDR": vault.address, "VAULT_TOKEN": "hvs.TOKEN"}
        with Https(where, https_policy(where, VAULT_FIELDS), env=env) as d:
            assert d.curl("--cacert", cert) == (0, "OK")
            make_certificate(where)
            vault.secrets = {"/v1/secret/data/tls/cert": {"key": cert.read_text()}, "/v1/secret/data/tls/key": {"key": key.read_text()}}
            d.process.send_signal(signal.SIGHUP)
            wait_for("the new certificate", lambda: d.serial() == file_serial(cert))
        assert "hvs.TOKEN" not in d.stderr_file.read_text()


@pytest.mark.parametrize("fields, token, expected", [
    (VAULT_FIELDS, "hvs.WRONG", ["403", "permission denied", "secret/tls/cert"]),
    (VAULT_FIELDS.replace("tls/cert", "tls/none"), "hvs.TOKEN", ["404", "secret/tls/none"]),
    (VAULT_FIELDS.replace("'tls/cert'", "'tls/cert', vault_key = 'other'"), "hvs.TOKEN", ["other"]),
])
def test_vault_errors_name_what_was_asked(where, fields, token, expected):
    with Vault() as vault:
        vault.secrets = {"/v1/secret/data/tls/cert": {"key": "x"}, "/v1/secret/data/tls/key": {"key": "x"}}
        d = Https(where, https_policy(where, fields), env={"VAULT_ADDR": vault.address, "VAULT_TOKEN": token})
        status, text = d.run_to_end()
    assert status == 1 and "127.0.0.1" in text and token not in text
    for word in expected:
        assert word in text, text


# --- mistakes at start ---

def fails(where, fields):
    status, text = Https(where, https_policy(where, fields)).run_to_end()
    assert status == 1 and "policy.lua:" in text, text
    return text


def test_mistakes_name_listener_and_source(where):
    cert, key = make_certificate(where)
    _, other = make_certificate(where, "other")
    text = fails(where, pair(cert, other))
    assert str(other) in text and "127.0.0.1:0" in text
    text = fails(where, pair(cert, "/nonexistent.key"))
    assert "KeySource failed to load data from file `/nonexistent.key`: No such file or directory" in text
    (where / "garbage").write_text("this is no certificate")
    assert str(where / "garbage") in fails(where, pair(where / "garbage", key))
    assert "tls_certificate" in fails(where, f"tls_private_key = '{key}'")
    assert "unknown field `vault_pth`" in fails(where, "tls_certificate = { vault_mount = 'x', vault_pth = 'y' }, tls_private_key = 'k'")


def test_an_expired_certificate_is_a_warning(where):
    cert, key = where / "cert.pem", where / "cert.key"
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", where / "csr", "-subj", "/CN=localhost")
    (where / "ca.conf").write_text("[ca]\ndefault_ca=d\n[d]\ndatabase=index\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\n[p]\nCN=supplied\n")
    (where / "index").write_text("")
    (where / "serial").write_text("01")
    openssl("ca", "-batch", "-config", "ca.conf", "-selfsign", "-keyfile", key, "-in", "csr", "-out", cert,
            "-startdate", "20200101000000Z", "-enddate", "20210101000000Z", "-notext", cwd=where)
    with Https(where, https_policy(where, pair(cert, key))) as d:
        assert "expired" in d.stderr() and f"https listener on 127.0.0.1:{d.tls_port}" in d.stderr()
        assert d.curl("-k") == (0, "OK")
        assert d.metric(f'tls_certificate_expiry_seconds{{listener="127.0.0.1:{d.tls_port}"}}') < 0


def test_tls_fields_without_tls_are_warned_about(where):
    text = https_policy(where, pair("/a", "/b")).replace("use_tls = true", "use_tls = false")
    with Daemon(where, text) as d:
        assert "use_tls is not true" in d.stderr()


def test_garbage_and_silence_instead_of_a_handshake(where):
    with Https(where, https_policy(where, "header_timeout = '1s'")) as d:
        for garbage in (b"", b"\x16\x03\x01", b"\0" * 4096, os.urandom(4096), b"\x16\x03\x01\xff\xff" + b"x" * 20000):
            with socket.create_connection(("127.0.0.1", d.tls_port), timeout=20) as s:
                try:
                    s.sendall(garbage)
                    while s.recv(4096):
                        pass
                except ConnectionError:
                    pass
            assert d.curl("-k") == (0, "OK")
