"""What the documented page of kumo.start_http_listener says and no other test holds; docs/http-listener.md has the whole list."""
import http.client
import re
import socket
import ssl
import time

import pytest

from cirrus import Daemon, policy, wait_for
from test_https import Https, Vault, file_serial, https_policy, make_certificate, openssl, pair

LIVENESS = "/api/check-liveness/v1"
INJECT = "/api/inject/v1"
LIMIT = 2 * 1024 * 1024
FIRST = "kumo.start_http_listener { listen = '127.0.0.1:0' }"


def listeners(d):
    """(address, port) of each, in the order of the policy."""
    return [(a, int(p)) for a, p in re.findall(r" https? listener on (\S+):(\d+)$", d.stderr(), re.M)]


def get(host, port, path=LIVENESS, source=None, method="GET", body=None, headers=None):
    c = http.client.HTTPConnection(host, port, timeout=30, source_address=(source, 0) if source else None)
    try:
        c.request(method, path, body, headers or {})
        r = c.getresponse()
        return r.status, r.reason, r.read()
    finally:
        c.close()


def machine_addresses():
    """An IPv4 address of this machine besides the loopback, if it has one. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.connect(("192.0.2.1", 9))
        except OSError:
            return []
        return [s.getsockname()[0]]


# --- listen ---

def test_default_address(where):
    text = policy(where).replace(FIRST, "kumo.start_http_listener {}")
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", 8000))
            s.listen()
            is_ours = True
        except OSError:
            is_ours = False
        status, err = Daemon(where / "busy", text).run_to_end()
        assert status == 1 and "127.0.0.1:8000" in err and "Address already in use" in err
    if is_ours:
        with Daemon(where / "free", text) as d:
            assert listeners(d) == [("127.0.0.1", 8000)]
            assert get("127.0.0.1", 8000)[0] == 200
            with pytest.raises(OSError):
                get("::1", 8000)


@pytest.mark.parametrize("written", ["0.0.0.0:0", "0:0"])
def test_all_ipv4_addresses(where, written):
    with Daemon(where, policy(where).replace("127.0.0.1:0", written)) as d:
        (address, port), = listeners(d)
        assert address == "0.0.0.0"
        for host in ["127.0.0.1", "127.0.0.2", "127.1.2.3", *machine_addresses()]:
            assert get(host, port)[0] == 200, host
        with pytest.raises(OSError):
            get("::1", port)


def test_one_address_is_not_the_others(where):
    with Daemon(where, policy(where).replace("127.0.0.1:0", "127.0.0.2:0")) as d:
        (address, port), = listeners(d)
        assert address == "127.0.0.2" and get("127.0.0.2", port)[0] == 200
        with pytest.raises(OSError):
            get("127.0.0.1", port)


def test_ipv6_stands_in_brackets(where):
    with Daemon(where, policy(where).replace("127.0.0.1:0", "[::1]:0")) as d:
        (address, port), = listeners(d)
        assert address == "[::1]" and get("::1", port) == (200, "OK", b"OK")
        assert get("::1", port, "/metrics")[0] == 200  # trusted by default
    status, err = Daemon(where / "bare", policy(where / "bare").replace("127.0.0.1:0", "::1:0")).run_to_end()
    assert status == 1 and "[IPV6]:PORT" in err


# --- hostname ---

def subject_names(d, port):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as raw:
        with ssl._create_unverified_context().wrap_socket(raw) as s:
            der = s.getpeercert(binary_form=True)
    text = openssl("x509", "-inform", "DER", "-noout", "-ext", "subjectAltName", input=der).decode()
    return re.findall(r"(?:DNS|IP Address):([^,\s]+)", text)


def test_default_hostname_is_the_machine_s(where):
    with Https(where, https_policy(where)) as d:
        assert socket.gethostname() in subject_names(d, d.tls_port)


@pytest.mark.parametrize("name", ["mx.example.com", "192.0.2.7"])
def test_hostname_is_in_the_certificate(where, name):
    with Https(where, https_policy(where, f"hostname = '{name}'")) as d:
        assert name in subject_names(d, d.tls_port)
        assert socket.gethostname() not in subject_names(d, d.tls_port)


# --- several listeners ---

def test_listeners_have_their_own_settings(where):
    one, two = make_certificate(where, "one", "/CN=one"), make_certificate(where, "two", "/CN=two")
    init = f"""kumo.start_http_listener {{ listen = '127.0.0.1:0', use_tls = true, {pair(*one)}, trusted_hosts = {{}} }}
  kumo.start_http_listener {{ listen = '127.0.0.1:0', use_tls = true, {pair(*two)}, request_body_limit = 100 }}"""
    with Daemon(where, policy(where, init=init)) as d:
        ports = [port for _, port in listeners(d)]
        assert len(set(ports)) == 3

        def ask(port, path, body=None):
            c = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=ssl._create_unverified_context())
            c.connect()
            der = c.sock.getpeercert(binary_form=True)
            c.request("POST" if body else "GET", path, body, {"Content-Type": "application/json"} if body else {})
            status = c.getresponse().status
            c.close()
            return status, openssl("x509", "-inform", "DER", "-noout", "-serial", input=der).decode().strip()
        assert ask(ports[1], "/metrics") == (401, file_serial(one[0]))
        assert ask(ports[2], "/metrics") == (200, file_serial(two[0]))
        assert ask(ports[2], INJECT, b"x" * 101)[0] == 413
        assert get("127.0.0.1", ports[0], "/metrics")[0] == 200
        assert get("127.0.0.1", ports[0], INJECT, method="POST", body=b"x" * 101, headers={"Content-Type": "application/json"})[0] == 400


# --- certificates ---

def test_certificate_and_key_in_one_file(where):
    cert, key = make_certificate(where)
    both = where / "both.pem"
    both.write_text(cert.read_text() + key.read_text())
    with Https(where, https_policy(where, f"tls_certificate = '{both}'")) as d:
        assert d.curl("--cacert", cert) == (0, "OK")


def test_certificate_without_its_key(where):
    cert, _ = make_certificate(where)
    status, err = Https(where, https_policy(where, f"tls_certificate = '{cert}'")).run_to_end()
    assert status == 1 and str(cert) in err and "https listener on 127.0.0.1:0" in err


def test_vault_named_by_the_table(where):
    """The table's address, token and field count, not the environment's."""
    cert, key = make_certificate(where)
    with Vault() as vault:
        vault.secrets = {"/v1/secret/data/tls/mail": {"cert": cert.read_text(), "key": key.read_text()}}
        source = f"{{ vault_mount = 'secret', vault_path = 'tls/mail', vault_address = '{vault.address}', vault_token = 'hvs.TOKEN' %s }}"
        fields = f"tls_certificate = {source % ', vault_key = [[cert]]'}, tls_private_key = {source % ''}"
        env = {"VAULT_ADDR": "http://127.0.0.1:1", "VAULT_TOKEN": "hvs.OTHER"}
        with Https(where, https_policy(where, fields), env=env) as d:
            assert d.curl("--cacert", cert) == (0, "OK")
            assert {token for _, token in vault.asked} == {"hvs.TOKEN"}
        assert "hvs." not in d.stderr_file.read_text()


def test_without_an_address_of_the_vault(where):
    text = https_policy(where, "tls_certificate = { vault_mount = 'secret', vault_path = 'tls/mail' }")
    d = Https(where, text)
    d.env.pop("VAULT_ADDR", None)
    d.env.pop("VAULT_TOKEN", None)
    status, err = d.run_to_end()
    assert status == 1 and "VAULT_ADDR" in err and "policy.lua:" in err


# --- trusted_hosts ---

@pytest.mark.parametrize("hosts, trusted, others", [
    (None, ["127.0.0.1", "::1"], ["127.0.0.2"]),
    ("{}", [], ["127.0.0.1", "127.0.0.2", "::1"]),
    ("{ '127.0.0.2' }", ["127.0.0.2"], ["127.0.0.1", "::1"]),
    ("{ '127.0.0.0/30', '::/64' }", ["127.0.0.1", "127.0.0.2", "::1"], ["127.0.0.4"]),
    ("{ '::1' }", ["::1"], ["127.0.0.1"]),
], ids=["default", "nobody", "address", "networks", "ipv6"])
def test_trusted_hosts(where, hosts, trusted, others):
    field = f", trusted_hosts = {hosts}" if hosts else ""
    init = f"kumo.start_http_listener {{ listen = '[::1]:0'{field} }}"
    text = policy(where, init=init).replace(FIRST, f"kumo.start_http_listener {{ listen = '0.0.0.0:0'{field} }}")
    with Daemon(where, text) as d:
        (_, v4), (_, v6) = listeners(d)
        for source in trusted + others:
            host, port = ("::1", v6) if ":" in source else ("127.0.0.1", v4)
            assert get(host, port, "/metrics", source)[0] == (200 if source in trusted else 401), source


# --- request_body_limit ---

def too_large(port):
    return get("127.0.0.1", port, INJECT, method="POST", body=b"x" * (LIMIT + 1), headers={"Content-Type": "application/json"})


def test_default_body_limit(where):
    with Daemon(where, policy(where)) as d:
        assert get("127.0.0.1", d.port, INJECT, method="POST", body=b"x" * LIMIT, headers={"Content-Type": "application/json"})[0] == 400
        status, _, text = too_large(d.port)
        assert (status, text) == (413, b"Failed to buffer the request body: length limit exceeded")


def test_reason_phrase_of_413(where):
    with Daemon(where, policy(where)) as d:
        assert too_large(d.port)[:2] == (413, "Payload Too Large")


# --- renewal without a signal ---

def vault_certificate(where, vault, days):
    """Stores a new certificate with its key, and returns its file."""
    cert, key = make_certificate(where, days=days)
    vault.secrets = {"/v1/secret/data/tls/mail": {"key": cert.read_text() + key.read_text()}}
    return cert


def from_vault(where, vault):
    fields = "tls_certificate = { vault_mount = 'secret', vault_path = 'tls/mail' }"
    return Https(where, https_policy(where, fields), env={"VAULT_ADDR": vault.address, "VAULT_TOKEN": "hvs.TOKEN"})


def test_renewal_from_a_vault_by_itself(where):
    """Asked once a minute, not with each look at files. A certificate of more than a month: a shorter one is read more often."""
    with Vault() as vault:
        vault_certificate(where, vault, 365)
        with from_vault(where, vault) as d:
            first, n_asked, began = d.serial(), len(vault.asked), time.monotonic()
            cert = vault_certificate(where, vault, 365)
            wait_for("the next question", lambda: len(vault.asked) > n_asked, 90)
            assert time.monotonic() - began > 45
            wait_for("the new certificate", lambda: d.serial() == file_serial(cert))
            assert d.serial() != first


def test_last_month_of_a_certificate_is_quiet(where):
    """It is not loaded, and not logged, with every look while nothing has changed."""
    with Vault() as vault:
        vault_certificate(where, vault, 20)
        with from_vault(where, vault) as d:
            n_asked, began = len(vault.asked), time.monotonic()
            wait_for("25 s, or a question", lambda: len(vault.asked) > n_asked or time.monotonic() - began > 25, 40)
            assert len(vault.asked) == n_asked and "certificate loaded" not in d.stderr()
