"""Who may use the HTTP service: logins (Basic, Bearer), access control lists, the built-in list, caches, the accounting log."""
import base64
import concurrent.futures
import http.client
import json
import re
import signal
import subprocess

import pytest

from cirrus import Daemon, policy, wait_for

LIVENESS = "/api/check-liveness/v1"
INJECT = "/api/inject/v1"
TRUSTED = "kumomta:http-listener-trusted-ip"
REALM = 'Basic realm="cirrus", Bearer realm="cirrus"'
NOBODY = json.dumps({"envelope_sender": "s@example.com", "recipients": [], "content": "Subject: x\r\n\r\nhi\r\n"}).encode()
JSON = {"Content-Type": "application/json"}
SECRETS = ["tiger-in-the-tank", "l10n-is-wrong", "sesame-open-yourself", "not-this-token"]
PASSWORD, WRONG, TOKEN, WRONG_TOKEN = SECRETS

LOGINS = f"""
local passwords = {{ scott = '{PASSWORD}', ops = '{PASSWORD}', group = '{PASSWORD}', odd = '{PASSWORD}' }}
kumo.on('http_server_validate_auth_basic', function(user, password)
  kumo.log_info('basic for', user, password == nil and 'without' or 'with')
  if user == 'error' then error('no database for the password ' .. password) end
  if user == 'reject' then kumo.reject(550, 'no') end
  if user == 'nil' then return nil end
  if user == 'typo' then return {{ group = {{ 'ops' }} }} end
  if user == 'nopassword' then return password == nil end
  if user == '' then return password == '{PASSWORD}' end
  if password == nil or passwords[user] ~= password then return false end
  if user == 'ops' then
    return {{ identities = {{ {{ identity = 'the operator', context = 'GenericAuth' }}, {{ identity = user, context = 'HttpBasicAuth' }} }},
      groups = {{ 'ops', 'dev' }} }}
  end
  if user == 'group' then return {{ groups = {{ '{TRUSTED}' }} }} end
  return true
end)
kumo.on('http_server_validate_auth_bearer', function(token)
  if token == '{TOKEN}' then return true end
  if token == 'ann.' .. '{TOKEN}' then return {{ identities = {{ {{ identity = 'ann', context = 'BearerToken' }} }}, groups = {{ 'ops' }} }} end
  return false
end)
kumo.on('http_message_generated', function(msg, auth_info)
  msg:set_meta('queue', 'null')
  kumo.log_info('generated', msg:get_meta 'http_auth', kumo.json_encode(auth_info))
end)
"""


def second_listener(more="trusted_hosts = { '10.1.1.1' }"):
    return f"kumo.start_http_listener {{ listen = '127.0.0.1:0', {more} }}"


def acct(where, more=""):
    return f"kumo.aaa.configure_acct_log {{ log_dir = '{where}/acct', min_free_space = '1%', min_free_inodes = '1%', {more} }}"


class Service(Daemon):
    """With a listener (port) where this host is trusted, and one (far) where nobody is."""

    def start(self, timeout=None):
        super().start(timeout)
        self.far = [int(p) for p in re.findall(r"http listener on \S+:(\d+)", self.stderr())][1]
        return self

    def ask(self, method, path, login=None, far=False, body=None, headers=None):
        """(status, headers, text). login: "user:password", or a whole header value."""
        headers = dict(headers or {})
        if login is not None:
            headers["Authorization"] = login if " " in login else "Basic " + base64.b64encode(login.encode()).decode()
        if method == "POST" and path == INJECT and body is None:
            body, headers = NOBODY, dict(JSON, **headers)
        c = http.client.HTTPConnection("127.0.0.1", self.far if far else self.port, timeout=30)
        try:
            c.request(method, path, body, headers)
            r = c.getresponse()
            return r.status, dict((k.lower(), v) for k, v in r.getheaders()), r.read().decode()
        finally:
            c.close()

    def status(self, *args, **more):
        return self.ask(*args, **more)[0]

    def accounted(self, **fields):
        return self.records(log_dir=self.dir / "acct", **fields)

    def wait_accounted(self, n, **fields):
        return wait_for(f"{n} accounting records {fields}", lambda: (lambda r: r if len(r) >= n else None)(self.accounted(**fields)))

    def count(self, text):
        return self.stderr().count(text)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    where = tmp_path_factory.mktemp("auth")
    with Service(where, policy(where, init=acct(where) + second_listener(), extra=LOGINS)) as d:
        yield d


# --- logins ---

def test_without_a_login(service):
    assert service.status("GET", LIVENESS) == 200
    assert service.status("GET", "/metrics") == 200
    assert service.status("POST", INJECT) == 200
    assert service.status("GET", LIVENESS, far=True) == 200
    for method, path in (("GET", "/metrics"), ("POST", INJECT), ("DELETE", INJECT), ("POST", LIVENESS)):
        status, headers, text = service.ask(method, path, far=True)
        assert (status, headers["www-authenticate"]) == (401, REALM)
        assert text == f"<Unauthenticated>@ ip=127.0.0.1 not permitted {method} on http_listener/127.0.0.1:{service.far}{path}"


@pytest.mark.parametrize("far", [False, True])
def test_basic(service, far):
    assert service.status("GET", LIVENESS, f"scott:{PASSWORD}", far) == 200
    assert service.status("POST", INJECT, f"scott:{PASSWORD}", far) == 200
    assert service.status("POST", INJECT, "nopassword", far) == 200
    assert service.status("POST", INJECT, f":{PASSWORD}", far) == 200
    # Wrong is wrong, whatever the address or the path would allow without.
    for login in (f"scott:{WRONG}", "scott:", "scott", f"nobody:{PASSWORD}", ":", "nopassword:", f"Scott:{PASSWORD}"):
        for path in (LIVENESS, "/metrics"):
            status, headers, text = service.ask("GET", path, login, far)
            assert (status, headers["www-authenticate"]) == (401, REALM), login
            assert text == f"Authentication Failed: HttpBasicAuth for {login.partition(':')[0]}"


@pytest.mark.parametrize("far", [False, True])
def test_bearer(service, far):
    for scheme in ("Bearer", "bearer"):
        assert service.status("POST", INJECT, f"{scheme} {TOKEN}", far) == 200
    status, headers, text = service.ask("POST", INJECT, f"Bearer {WRONG_TOKEN}", far)
    assert (status, headers["www-authenticate"], text) == (401, REALM, "Authentication Failed: BearerToken")


def encoded(data):
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("value", ["Basic", "Basic ", "Basic !!!", "Basic c2NvdHQ6dGlnZXI", "Basic " + encoded(b"a:b") + " x", "Basic c2NvdHQ6dGlnZXJ=",
                                   "Basic " + encoded(b"a\0:b"), "Basic " + encoded(b"a:b\n"), "Basic " + encoded(b"\xff:b"),
                                   "Bearer", "Bearer a b", "Digest username=\"scott\"", "scott", ""])
def test_malformed(service, value):
    for far in (False, True):
        c = http.client.HTTPConnection("127.0.0.1", service.far if far else service.port, timeout=30)
        c.request("GET", LIVENESS, headers={"Authorization": value})
        r = c.getresponse()
        text = r.read().decode()
        c.close()
        assert r.status == 400 and text.startswith("Error: malformed or unsupported Authorization header: "), (value, text)
        assert len(value) < 7 or value[6:].strip() == "" or value[6:] not in text


def test_two_authorization_headers(service):
    c = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    c.putrequest("GET", LIVENESS)
    c.putheader("Authorization", "Basic " + encoded(f"scott:{PASSWORD}".encode()))
    c.putheader("authorization", "Bearer " + TOKEN)
    c.endheaders()
    assert c.getresponse().status == 400
    c.close()


@pytest.mark.parametrize("user", ["error", "reject", "nil", "typo"])
def test_failing_handler(service, user):
    status, headers, text = service.ask("GET", LIVENESS, f"{user}:{PASSWORD}")
    assert (status, text) == (500, "try again later")
    assert "www-authenticate" not in headers
    wait_for("the cause in the diagnostic log", lambda: "kumod::aaa: http_server_validate_auth_basic: " in service.stderr())


def test_refused_after_a_good_login(service):
    """401 means that a login may help. After one it is 403."""
    for login, name in ((f"scott:{PASSWORD}", "id=[scott]"), (f"ops:{PASSWORD}", "id=[the operator, ops]"), (f"Bearer {TOKEN}", "id=[]")):
        status, headers, text = service.ask("GET", "/metrics", login, far=True)
        assert status == 403 and "www-authenticate" not in headers
        assert text == f"{name}@ ip=127.0.0.1 not permitted GET on http_listener/127.0.0.1:{service.far}/metrics"
        assert service.status("GET", "/metrics", login) == 200  # by the address
    # A login without identities is one all the same; and groups count.
    assert service.status("GET", "/metrics", f"group:{PASSWORD}", far=True) == 200
    status, headers, _ = service.ask("POST", LIVENESS, f"group:{PASSWORD}", far=True)
    assert (status, headers["allow"]) == (405, "GET,HEAD")
    status, headers, _ = service.ask("POST", LIVENESS, far=True)
    assert (status, headers["allow"]) == (401, "GET,HEAD")


def test_refusal_costs_no_body(service):
    c = http.client.HTTPConnection("127.0.0.1", service.far, timeout=30)
    c.putrequest("POST", INJECT)
    for name, value in (("Content-Type", "application/json"), ("Content-Length", "2000000"), ("Authorization", f"Bearer {WRONG_TOKEN}")):
        c.putheader(name, value)
    c.endheaders()
    assert c.getresponse().status == 401
    c.close()


def test_curl(service):
    def curl(*args, far=True, path=INJECT):
        p = subprocess.run(["curl", "-sS", "-m", "30", "-o", "/dev/null", "-w", "%{http_code}", *args,
                            f"http://127.0.0.1:{service.far if far else service.port}{path}"], capture_output=True, text=True)
        assert p.returncode == 0, p.stderr
        return int(p.stdout)
    post = ["-H", "Content-Type: application/json", "-d", NOBODY.decode()]
    assert curl(*post) == 401
    assert curl(*post, "-u", f"scott:{PASSWORD}") == 200
    assert curl(*post, "--anyauth", "-u", f"scott:{PASSWORD}") == 200  # asks first, is told Basic, and asks again
    assert curl(*post, "-u", f"scott:{WRONG}") == 401
    assert curl(*post, "-u", f"scott:{WRONG}", far=False) == 401
    assert curl(*post, "--oauth2-bearer", TOKEN) == 200
    assert curl("-u", f"scott:{PASSWORD}", path="/metrics") == 403
    assert curl("-I", path=LIVENESS) == 200


def test_http2(service):
    def curl(*args):
        p = subprocess.run(["curl", "-sS", "-m", "30", "-D", "-", "-o", "/dev/null", "--http2-prior-knowledge", *args,
                            f"http://127.0.0.1:{service.far}/metrics"], capture_output=True, text=True)
        assert p.returncode == 0, p.stderr
        return int(p.stdout.split()[1]), p.stdout
    assert curl()[0] == 401
    assert curl("-u", f"scott:{PASSWORD}")[0] == 403
    assert curl("-u", f"group:{PASSWORD}")[0] == 200
    assert curl("-H", "Authorization: Basic !!!")[0] == 400
    status, head = curl("-u", f"scott:{WRONG}")
    assert status == 401 and f"www-authenticate: {REALM}" in head


def test_unix_listener(where):
    """Its resource is called after its path."""
    lists = """
kumo.on('get_acl_definition', function(resource)
  if resource == 'http_listener/unix:{where}/s/metrics' then
    return kumo.aaa.make_access_control_list { { criteria = { Identity = 'Any' }, privilege = 'GET', access = 'Deny' } }
  end
end)
""".replace("{where}", str(where))
    text = policy(where, init=f"kumo.start_http_listener {{ listen = 'unix:{where}/s' }}", extra=lists)
    with Daemon(where, text) as d:
        def curl(path):
            p = subprocess.run(["curl", "-sS", "-m", "30", "--unix-socket", f"{where}/s", f"http://localhost{path}"], capture_output=True, text=True)
            assert p.returncode == 0, p.stderr
            return p.stdout
        assert curl("/metrics") == f"<Unauthenticated>@ ip=127.0.0.1 denied GET on http_listener/unix:{where}/s/metrics"
        assert curl(LIVENESS) == "OK"
        assert d.request("GET", "/metrics")[0] == 200


def test_message_knows_who_sent_it(service):
    message = json.dumps({"envelope_sender": "s@example.com", "recipients": [{"email": "r@example.org"}],
                          "content": "Subject: x\r\n\r\nhi\r\n"}).encode()
    for login, far, name, identities, groups in (
            (None, False, "127.0.0.1", [], [TRUSTED]),
            (f"scott:{PASSWORD}", False, "scott", [("scott", "HttpBasicAuth")], [TRUSTED]),
            (f"scott:{PASSWORD}", True, "scott", [("scott", "HttpBasicAuth")], []),
            (f"ops:{PASSWORD}", True, "ops", [("the operator", "GenericAuth"), ("ops", "HttpBasicAuth")], ["ops", "dev"]),
            (f"Bearer ann.{TOKEN}", True, "ann", [("ann", "BearerToken")], ["ops"])):
        n = service.count("generated ")
        status, _, text = service.ask("POST", INJECT, login, far, message, JSON)
        assert status == 200 and json.loads(text)["success_count"] == 1
        wait_for("the event", lambda: service.count("generated ") > n)
        found = re.findall(r"generated (\S+) (\{.*\})", service.stderr())[-1]
        assert found[0] == name
        assert json.loads(found[1]) == {"peer_address": "127.0.0.1", "groups": groups,
                                        "identities": [{"identity": i, "context": c} for i, c in identities]}


# --- the built-in lists ---

DEFAULTS = [  # path, methods, whether a login is enough, whether anybody may
    (LIVENESS, ["GET"], True, True),
    ("/rapidoc", ["GET"], True, True),
    ("/api-docs/openapi.json", ["GET"], True, True),
    (INJECT, ["POST"], True, False),
    ("/api/admin/bounce/v1", ["GET", "POST", "DELETE"], False, False),
    ("/api/admin/bump-config-epoch", ["POST"], False, False),
    ("/api/admin/memory/stats", ["GET"], False, False),
    ("/api/admin/set_diagnostic_log_filter/v1", ["POST"], False, False),
    ("/api/admin/suspend/v1", ["GET", "POST", "DELETE"], False, False),
    ("/api/admin/task-dump", ["GET"], False, False),
    ("/api/machine-info", ["GET"], False, False),
    ("/metrics", ["GET"], False, False),
    ("/metrics.json", ["GET"], False, False),
    ("/api/xfer/inject/v1", ["POST"], False, False),
]


def test_default_lists(service):
    n_served = 0
    for path, methods, login_is_enough, anybody in DEFAULTS:
        for method in methods:
            body, headers = (b"{}", JSON) if method == "POST" else (None, {})
            known = service.status("PUT", path, far=True)  # 404: not an endpoint of this version; else refused
            assert known in (401, 404)
            if known == 404:
                continue
            n_served += 1
            assert service.status(method, path, body=body, headers=headers) not in (401, 403, 404, 405, 500), path
            assert (service.status(method, path, far=True, body=body, headers=headers) == 401) is not anybody, path
            status = service.status(method, path, f"scott:{PASSWORD}", True, body, headers)
            assert (status == 403) is not login_is_enough and status != 401, path
    assert n_served >= 4


def test_every_route_has_a_default(service):
    status, _, text = service.ask("GET", "/api-docs/openapi.json")
    if status == 404:
        pytest.skip("this version describes no endpoints")
    for path, methods in json.loads(text)["paths"].items():
        for method in methods:
            assert service.status(method.upper(), path, body=b"", headers=JSON) not in (401, 403), (method, path)


# --- lists of one's own ---

ACL_FILE = """
[[acl."http_listener/*/metrics"]]
allow = false
privileges = ["GET"]
criteria.AllOf = [ {Identity = { Group = 'dev' }}, {Not = {Identity = { Individual = 'scott' }}} ]

[[acl."http_listener/*/metrics"]]
allow = true
privileges = ["GET"]
identity.Authenticated = {}

[[acl."http_listener/*/metrics.json"]]
allow = true
privileges = ["GET"]
criteria.AnyOf = [ {Identity = { MachineSet = ['127.0.0.0/8'] }} ]

[[acl."http_listener"]]
allow = true
privileges = ["POST"]
identity.Individual = "ann"
"""

OWN_LISTS = """
kumo.on('get_acl_definition', function(resource)
  kumo.log_info('acl of', resource)
  return kumo.aaa.load_acl_map('{where}/acl.toml'):get(resource)
end)
"""


def own_lists(where, extra="", init="", lists=OWN_LISTS):
    (where / "acl.toml").write_text(ACL_FILE)
    return policy(where, init=second_listener() + init, extra=LOGINS + lists.replace("{where}", str(where)) + extra)


def test_map_file(where):
    with Service(where, own_lists(where)) as d:
        assert d.status("GET", "/metrics", f"scott:{PASSWORD}", far=True) == 200
        status, _, text = d.ask("GET", "/metrics", f"ops:{PASSWORD}", far=True)
        assert status == 403 and " denied GET on http_listener/" in text
        assert d.status("GET", "/metrics") == 401  # the list replaces the built-in one
        assert d.status("GET", "/metrics.json", far=True) == 200
        assert d.status("POST", INJECT, f"scott:{PASSWORD}", far=True) == 200  # the built-in list where there is none
        assert d.status("POST", LIVENESS, f"Bearer ann.{TOKEN}", far=True) == 405  # allowed, but there is none
        asked = [line.rsplit(" ", 1)[1] for line in d.stderr().splitlines() if " acl of " in line]
        far = f"http_listener/127.0.0.1:{d.far}"
        assert asked[:3] == [far + "/metrics", far, "http_listener/*/metrics"]
        assert "http_listener" in asked


def test_fall_back_off(where):
    extra = "kumo.on('pre_init', function() kumo.aaa.set_fall_back_to_acl_map(false) end)"
    with Service(where, own_lists(where, extra)) as d:
        assert d.status("GET", LIVENESS) == 401
        assert d.status("POST", INJECT) == 401
        assert d.status("POST", INJECT, f"scott:{PASSWORD}") == 403
        assert d.status("POST", INJECT, f"Bearer ann.{TOKEN}") == 200
        assert d.status("GET", "/metrics.json") == 200


def test_rules_in_lua(where):
    lists = """
kumo.on('get_acl_definition', function(resource)
  if resource == 'http_listener/*/metrics' then
    return kumo.aaa.make_access_control_list {
      { criteria = { Identity = { Machine = '127.0.0.1' } }, privilege = 'GET', access = 'Deny' },
      { criteria = { Identity = { Any = {} } }, privilege = 'GET', access = 'Allow' } }
  end
end)
kumo.on('get_acl_definition', function(resource)
  if resource == 'http_listener/*/metrics.json' then error 'list not found' end
end)
"""
    with Service(where, own_lists(where, lists=lists)) as d:
        status, _, text = d.ask("GET", "/metrics")
        assert status == 401 and f"denied GET on http_listener/127.0.0.1:{d.port}/metrics" in text
        assert d.status("GET", "/metrics", f"scott:{PASSWORD}") == 403
        assert d.status("HEAD", "/metrics") == 401
        status, _, text = d.ask("GET", "/metrics.json")
        assert (status, text) == (500, "try again later")
        assert "list not found" in d.stderr() and "list not found" not in text
        assert d.status("GET", LIVENESS) == 200


def test_query_from_a_policy(where):
    extra = """
kumo.on('http_message_generated', function(msg, auth_info)
  local r = kumo.aaa.make_http_url_resource('127.0.0.1:1', 'http://localhost/metrics')
  local q = kumo.aaa.query_resource_access(r, auth_info, 'GET')
  kumo.log_info('may', tostring(q.allow), tostring(q.resource))
  msg:set_meta('queue', 'null')
end)
"""
    text = policy(where, init=second_listener(), extra=LOGINS.rpartition("kumo.on('http_message_generated'")[0] + extra)
    with Service(where, text) as d:
        message = json.dumps({"envelope_sender": "s@example.com", "recipients": [{"email": "r@example.org"}],
                              "content": "Subject: x\r\n\r\nhi\r\n"}).encode()
        assert d.status("POST", INJECT, body=message, headers=JSON) == 200
        wait_for("the answer", lambda: "may true http_listener/*/metrics" in d.stderr())
        assert d.status("POST", INJECT, f"scott:{PASSWORD}", True, message, JSON) == 200
        wait_for("the answer", lambda: "may false nil" in d.stderr())


# --- caches ---

def test_lists_are_asked_again_soon(where):
    with Service(where, own_lists(where)) as d:
        assert d.status("GET", "/metrics") == 401
        for _ in range(5):
            n = d.count("acl of")
            if all(d.status("GET", "/metrics") == 401 for _ in range(3)) and d.count("acl of") == n:
                break
        else:
            raise AssertionError("nothing is cached")
        (where / "acl.toml").write_text(ACL_FILE.replace("identity.Authenticated", "identity.Any"))
        wait_for("the new lists", lambda: d.status("GET", "/metrics") == 200)


def test_caches_last_until_the_epoch_moves(where):
    init = "kumo.aaa.set_acl_cache_ttl '1 hour' kumo.aaa.set_check_cache_ttl '1 hour'"
    with Service(where, own_lists(where, init=init)) as d:
        assert d.status("GET", "/metrics") == 401
        n = d.count("acl of")
        assert d.status("GET", "/metrics", f"scott:{PASSWORD}") == 200
        assert d.count("acl of") == n and d.count("basic for scott") == 1
        (where / "acl.toml").write_text(ACL_FILE.replace("identity.Authenticated", "identity.Any"))
        assert d.status("GET", "/metrics") == 401
        assert d.status("GET", "/metrics", f"scott:{PASSWORD}") == 200
        assert d.count("basic for scott") == 1
        # The next policy does not know scott any more.
        d.set_policy(d.policy_file.read_text().replace("scott = ", "scotty = "))
        d.process.send_signal(signal.SIGHUP)
        wait_for("the new lists", lambda: d.status("GET", "/metrics") == 200)
        assert d.status("GET", "/metrics", f"scott:{PASSWORD}") == 401


def test_login_is_cached(service):
    n = service.count("basic for odd with")
    for _ in range(5):
        assert service.status("GET", LIVENESS, f"odd:{PASSWORD}") == 200
        assert service.status("GET", LIVENESS, f"odd:{WRONG}") == 401
    assert service.count("basic for odd with") == n + 2


def test_requests_at_once_ask_once(where):
    """A policy may make the check of a password slow on purpose: a crowd of one client must not multiply that."""
    slow = """
    kumo.on('http_server_validate_auth_basic', function(user, password) kumo.log_info('asked for ' .. user) kumo.sleep(0.3) return true end)
    kumo.on('get_acl_definition', function(resource) kumo.log_info('asked for ' .. resource) kumo.sleep(0.05) return nil end)
    """
    init = second_listener() + "kumo.aaa.set_acl_cache_ttl '10 minutes' kumo.aaa.set_check_cache_ttl '10 minutes'" + acct(where)
    with Service(where, policy(where, init=init, extra=slow)) as d:
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            assert set(pool.map(lambda _: d.status("POST", INJECT, "scott:x", far=True), range(20))) == {200}
        assert d.count("asked for scott") == 1
        for resource in ("http_listener/*/api/inject/v1", "http_listener/*/api/inject"):
            assert d.count(f"asked for {resource}\n") == 1
        assert len(d.wait_accounted(20, type="Authentication", success=True)) == 20
        assert len(d.wait_accounted(20, type="Authorization", access="Allow")) == 20


# --- the accounting log ---

def test_accounting(where):
    with Service(where, policy(where, init=acct(where, "max_segment_duration = '1s'") + second_listener(), extra=LOGINS)) as d:
        d.ask("GET", "/metrics")
        d.ask("GET", "/metrics", f"ops:{PASSWORD}", far=True)
        d.ask("POST", INJECT, f"scott:{WRONG}")
        d.ask("GET", LIVENESS, f"Bearer {WRONG_TOKEN}", far=True)
        d.ask("GET", LIVENESS, f"Bearer ann.{TOKEN}", far=True)
        far, near = f"http_listener/127.0.0.1:{d.far}", f"http_listener/127.0.0.1:{d.port}"
        records = d.wait_accounted(7)
        for r in records:
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", r.pop("timestamp"))
        trusted = {"peer_address": "127.0.0.1", "identities": [], "groups": [TRUSTED]}
        stranger = {"peer_address": "127.0.0.1", "identities": [], "groups": []}
        operator = {"peer_address": "127.0.0.1", "groups": ["ops", "dev"],
                    "identities": [{"identity": "the operator", "context": "GenericAuth"}, {"identity": "ops", "context": "HttpBasicAuth"}]}
        ann = {"peer_address": "127.0.0.1", "identities": [{"identity": "ann", "context": "BearerToken"}], "groups": ["ops"]}
        assert records == [
            {"type": "Authorization", "target_resource": near + "/metrics", "privilege": "GET", "access": "Allow",
             "matching_resource": "http_listener/*/metrics",
             "rule": {"criteria": {"Identity": {"Group": TRUSTED}}, "privilege": "GET", "access": "Allow"},
             "auth_info": trusted, "considered_resources": [near + "/metrics", near]},
            {"type": "Authentication", "attempted_identity": {"identity": "ops", "context": "HttpBasicAuth"}, "success": True,
             "auth_info": operator},
            # What was missing: GET on /metrics; no list had a rule for it.
            {"type": "Authorization", "target_resource": far + "/metrics", "privilege": "GET", "access": "Deny", "matching_resource": None,
             "rule": None, "auth_info": operator,
             "considered_resources": [far + "/metrics", far, "http_listener/*/metrics", "http_listener"]},
            {"type": "Authentication", "attempted_identity": {"identity": "scott", "context": "HttpBasicAuth"}, "success": False,
             "auth_info": trusted},
            {"type": "Authentication", "attempted_identity": {"identity": "", "context": "BearerToken"}, "success": False,
             "auth_info": stranger},
            {"type": "Authentication", "attempted_identity": {"identity": "ann", "context": "BearerToken"}, "success": True, "auth_info": ann},
            {"type": "Authorization", "target_resource": far + LIVENESS, "privilege": "GET", "access": "Allow",
             "matching_resource": "http_listener/*/api/check-liveness",
             "rule": {"criteria": {"Identity": {"Any": {}}}, "privilege": "GET", "access": "Allow"}, "auth_info": ann,
             "considered_resources": [far + LIVENESS, far + "/api/check-liveness", far + "/api", far, "http_listener/*" + LIVENESS]},
        ]
        # The order of the fields is part of the format.
        assert [list(r) for r in records[:2]] == [
            ["type", "target_resource", "privilege", "access", "matching_resource", "rule", "auth_info", "considered_resources"],
            ["type", "attempted_identity", "success", "auth_info"]]
        # Segments: their names, and read-only once they are finished.
        segments = list((where / "acct").iterdir())
        assert segments and all(re.fullmatch(r"acct-\d{8}-\d{6}(\.\d+)?", s.name) for s in segments)
        wait_for("a finished segment", lambda: any(s.stat().st_mode & 0o222 == 0 for s in (where / "acct").iterdir()))
        assert d.metric(f'disk_free_bytes{{name="log dir {where}/acct"}}') > 0


def test_accounting_segments_by_size(where):
    with Service(where, policy(where, init=acct(where, "max_file_size = 4000") + second_listener(), extra=LOGINS)) as d:
        for _ in range(60):
            assert d.status("GET", LIVENESS) == 200
        d.wait_accounted(60)
    assert len(list((where / "acct").iterdir())) >= 5
    assert len(d.accounted()) == 60


def test_accounting_what_is_wanted(where):
    more = "log_authn_ok = false, log_authz_allow = false"
    with Service(where, policy(where, init=acct(where, more) + second_listener(), extra=LOGINS)) as d:
        d.ask("GET", "/metrics")
        d.ask("GET", LIVENESS, f"scott:{PASSWORD}", far=True)
        d.ask("GET", "/metrics", f"scott:{PASSWORD}", far=True)
        d.ask("GET", LIVENESS, f"scott:{WRONG}")
        d.wait_accounted(2)
    assert [(r["type"], r.get("access"), r.get("success")) for r in d.accounted()] == [
        ("Authorization", "Deny", None), ("Authentication", None, False)]


@pytest.mark.parametrize("init,error", [
    ("kumo.aaa.configure_acct_log {}", "missing field `log_dir`"),
    ("kumo.aaa.configure_acct_log { log_dir = '/tmp', log_authn = true }", "unknown field `log_authn`"),
    ("kumo.aaa.configure_acct_log { log_dir = '{where}/a' } kumo.aaa.configure_acct_log { log_dir = '{where}/b' }",
     "the accounting log is configured already"),
    ("kumo.aaa.set_acl_cache_ttl 'for ever'", "a duration is expected"),
    ("kumo.aaa.make_access_control_list { { privilege = 'GET', access = 'Allow' } }", "missing field `criteria`"),
    ("kumo.aaa.load_acl_map '{where}/none.toml'", "none.toml"),
    ("kumo.aaa.query_resource_access('x', {}, 'GET')", "a resource is expected"),
])
def test_mistakes_are_errors_of_the_start(where, init, error):
    d = Daemon(where, policy(where, init=init.replace("{where}", str(where))))
    status, stderr = d.run_to_end()
    assert status == 1 and error in stderr and "policy.lua:" in stderr, stderr


def test_no_secret_in_any_log(service):
    """After all the tests above: no password, no token, in no form, in no log. Last, and with every answer that fails."""
    for login in (f"error:{PASSWORD}", f"scott:{WRONG}", f"Bearer {WRONG_TOKEN}", f"Bearer {TOKEN}", f"scott:{PASSWORD}"):
        service.ask("GET", "/metrics", login, far=True)
    service.wait_accounted(4, success=False)
    forms = SECRETS + [encoded(f"{user}:{s}".encode()) for s in SECRETS for user in ("scott", "ops", "error", "odd", "group", "nil", "typo")]
    n_files = 0
    for path in [p for p in service.dir.rglob("*") if p.is_file() and p != service.policy_file]:
        data = path.read_bytes()
        if data.startswith(b"\x28\xb5\x2f\xfd"):
            data = subprocess.run(["zstd", "-dcq", str(path)], capture_output=True).stdout
        n_files += 1
        for form in forms:
            assert form.encode() not in data, (path, form)
    assert n_files >= 3
    assert "no database for the password ***" in service.stderr()
    metrics = service.ask("GET", "/metrics")[2]
    assert not any(form in metrics for form in forms)
