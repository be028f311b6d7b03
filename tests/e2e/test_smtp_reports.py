"""Reports that come back by SMTP: bounces (RFC 3464, log_oob) and complaints (RFC 5965, log_arf). Which messages are taken for one, the
records that they become, and whether they go on."""
import base64
import json
import re
import smtplib

import pytest

from cirrus import Threads, smtp_queue
from sink import Sink
from smtpraw import Smtp

DOMAINS = """kumo.on('get_listener_domain', function(domain)
  local what = {
    ['drop.example'] = { log_oob = 'LogThenDrop', log_arf = 'LogThenDrop' },
    ['relay.example'] = { log_oob = 'LogThenRelay', log_arf = 'LogThenRelay' },
    ['true.example'] = { log_oob = true, log_arf = true },
    ['false.example'] = { log_oob = false, log_arf = false, relay_to = true },
    ['oob.example'] = { log_oob = 'LogThenDrop' },
    ['arf.example'] = { log_arf = 'LogThenDrop' },
    ['both.example'] = { log_oob = 'LogThenDrop', log_arf = 'LogThenRelay', relay_to = true },
    ['open.example'] = { relay_to = true },
  }
  return what[domain] and kumo.make_listener_domain(what[domain])
end)
"""



@pytest.fixture(scope="module")
def d(tmp_path_factory):
    with Smtp(tmp_path_factory.mktemp("reports"), "relay_hosts = { '127.0.0.9' }", extra=DOMAINS) as d:
        yield d


def crlf(text):
    return text.replace("\n", "\r\n").encode()


ORIGINAL = """From: news@sender.example
To: jane@far.example
Subject: The October letter
Message-ID: <october@sender.example>

Dear Jane,
"""
FAILED = """Original-Recipient: rfc822; jane@far.example
Final-Recipient: rfc822; jane.doe@inner.far.example
Action: failed
Status: 5.1.1
Remote-MTA: dns; inner.far.example
Diagnostic-Code: smtp; 550 5.1.1 <jane.doe@inner.far.example>:
 nobody of that name
Last-Attempt-Date: Tue, 3 Mar 2026 10:20:30 +0100
"""


def recipient(address, action="failed", status="5.1.1", more=""):
    return f"Final-Recipient: rfc822; {address}\nAction: {action}\nStatus: {status}\n{more}"


def dsn(*recipients, original=ORIGINAL, original_type="message/rfc822", kind="delivery-status", mta="Reporting-MTA: dns; mx.far.example\n",
        status_header=""):
    fields = mta + "Arrival-Date: Tue, 3 Mar 2026 10:00:00 +0100\n" + "".join("\n" + r for r in recipients)
    return f"""From: Mail Delivery System <mailer-daemon@far.example>
To: bounces@sender.example
Subject: Your mail did not arrive
MIME-Version: 1.0
Content-Type: multipart/report; report-type={kind};
\tboundary="=_limit 1"

This is for machines that know MIME.

--=_limit 1
Content-Type: text/plain; charset=utf-8

We are sorry.

--=_limit 1
Content-Type: message/delivery-status
{status_header}
{fields}
--=_limit 1
Content-Type: {original_type}

{original}
--=_limit 1--
"""


def arf(fields="", original=ORIGINAL, original_type="message/rfc822", original_header="", required="Feedback-Type: abuse\nUser-Agent: Complaints/2.1\nVersion: 1\n",
        kind="feedback-report"):
    return f"""From: <feedback@far.example>
To: <complaints@sender.example>
Subject: FW: The October letter
MIME-Version: 1.0
Content-Type: multipart/report; report-type={kind}; boundary="part"

--part
Content-Type: text/plain; charset="US-ASCII"
Content-Transfer-Encoding: 7bit

A user of ours did not like this mail.

--part
Content-Type: message/feedback-report

{required}{fields}
--part
Content-Type: {original_type}
{original_header}
{original}
--part--
"""


def send(d, content, to="r@drop.example", sender="", source=None):
    """By smtplib. Returns the ids."""
    content = content if isinstance(content, bytes) else crlf(content)
    with smtplib.SMTP("127.0.0.1", d.smtp_port, local_hostname="mx.far.example", source_address=source) as c:
        c.ehlo_or_helo_if_needed()
        c.mail(sender)
        for address in [to] if isinstance(to, str) else to:
            assert c.rcpt(address)[0] == 250
        code, text = c.data(content)
        if code != 250:
            return code, text.decode()
        assert text.startswith(b"OK ids=")
        return text[7:].decode().split()


def fence(d):
    """A record behind all those of the messages that were sent before."""
    [i] = send(d, "Subject: fence\n\n", to="fence@open.example")
    d.wait_record("Reception", id=i)


def about(d, i):
    fence(d)
    return [r for r in d.records() if r["id"] == i]


# --- bounces ---

def test_bounce(d):
    [i] = send(d, dsn(FAILED), to="b+17@drop.example")
    [r] = about(d, i)  # and nothing else: it is dropped
    assert r["type"] == "OOB"
    assert r["sender"] == "b+17@drop.example" and r["recipient"] == "jane@far.example"
    assert r["response"] == {"code": 550, "enhanced_code": {"class": 5, "subject": 1, "detail": 1},
                             "content": "<jane.doe@inner.far.example>: nobody of that name", "command": None}
    assert r["peer_address"] == {"name": "mx.far.example", "addr": "127.0.0.1"}
    assert r["timestamp"] == 1772529630 and r["event_time"] == "2026-03-03T09:20:30.000000000Z"
    assert r["created"] > r["timestamp"] and r["size"] == 0 and r["num_attempts"] == 0
    assert r["queue"] == "" and r["site"] == "" and r["meta"] == {} and r["headers"] == {}
    assert r["reception_protocol"] == "ESMTP" and r["delivery_protocol"] is None and r["feedback_report"] is None
    assert r["bounce_classification"] == "Uncategorized" and len(r["session_id"]) == 36


def test_several_recipients(d):
    """Only what failed is a bounce."""
    text = dsn(recipient("one@far.example", more="Diagnostic-Code: smtp; 552 5.2.2 full\n"),
               recipient("late@far.example", "delayed", "4.4.1", "Will-Retry-Until: Tue, 3 Mar 2027 10:20:30 +0100\n"),
               recipient("two@far.example", "Failed", "5.4.4", "Diagnostic-Code: x-local; no route\n"),
               recipient("there@far.example", "delivered", "2.1.5"), recipient("on@far.example", "relayed", "2.1.9"),
               recipient("list@far.example", "expanded", "2.0.0"), recipient("<three@far.example>", status="5.7.0 (policy)"))
    [i] = send(d, text)
    got = [(r["type"], r["recipient"], r["response"]["code"], tuple(r["response"]["enhanced_code"].values()), r["response"]["content"]) for r in about(d, i)]
    assert got == [("OOB", "one@far.example", 552, (5, 2, 2), "full"), ("OOB", "two@far.example", 550, (5, 4, 4), "no route"),
                   ("OOB", "three@far.example", 550, (5, 7, 0), "")]


@pytest.mark.parametrize("action,status", [("delayed", "4.4.1"), ("delivered", "2.0.0"), ("relayed", "2.0.0"), ("expanded", "2.0.0")])
def test_what_is_no_bounce_is_still_a_report(d, action, status):
    """It is taken, and makes no record: nobody has bounced."""
    [i] = send(d, dsn(recipient("jane@far.example", action, status)))
    assert about(d, i) == []
    [i] = send(d, dsn(recipient("jane@far.example", action, status)), to="r@relay.example")
    d.wait_record("Delivery", id=i)
    assert sorted(r["type"] for r in about(d, i)) == ["Delivery", "Reception"]


@pytest.mark.parametrize("changes", [
    dict(original="From: a@b.example\nSubject: only the header\n", original_type="text/rfc822-headers"),
    dict(original="From: ä@b.example\n\nöäü\n", original_type="message/global"),
    dict(original="nothing to see", original_type="text/plain"),
    dict(mta="Original-Envelope-Id: e7\nReporting-MTA: mx.far.example\n"),
    dict(kind='"Delivery-Status"'),
], ids=["headers", "global", "no original", "mta without type", "quoted type"])
def test_forms_of_bounces(d, changes):
    [i] = send(d, dsn(FAILED, **changes))
    [r] = about(d, i)
    assert r["type"] == "OOB" and r["recipient"] == "jane@far.example" and r["peer_address"]["name"] == "mx.far.example"


def test_encoded_fields(d):
    fields = crlf("Reporting-MTA: dns; mx.far.example\n\n" + recipient("jürgen@far.example", more="Diagnostic-Code: smtp; 550 5.1.1 Ärger\n"))
    for encoding, coded in (("base64", base64.encodebytes(fields).replace(b"\n", b"\r\n")), ("8bit", fields)):
        text = crlf(dsn(FAILED, status_header=f"Content-Transfer-Encoding: {encoding}\n"))
        begin = text.index(b"Reporting-MTA")
        [i] = send(d, text[:begin] + coded + text[text.index(b"--=_limit 1", begin):])
        [r] = about(d, i)
        assert (r["recipient"], r["response"]["content"]) == ("jürgen@far.example", "Ärger")


# --- complaints ---

FIELDS = """Original-Mail-From: <news@sender.example>
Original-Rcpt-To: <jane@far.example>
Arrival-Date: Tue, 3 Mar 2026 10:20:30 +0100
Reporting-MTA: dns; mx.far.example
Source-IP: 192.0.2.7
Authentication-Results: mx.far.example;
 spf=pass smtp.mail=news@sender.example
Reported-Domain: sender.example
Reported-Uri: http://sender.example/october
Reported-Uri: mailto:news@sender.example
Removal-Recipient: jane@far.example
Incidents: 2
"""


def test_complaint(d):
    [i] = send(d, arf(FIELDS), to="fbl@drop.example", sender="feedback@far.example")
    [r] = about(d, i)
    assert r["type"] == "Feedback"
    assert r["sender"] == "feedback@far.example" and r["recipient"] == "fbl@drop.example" and r["queue"] == "drop.example" and r["site"] == ""
    assert r["response"] == {"code": 250, "enhanced_code": None, "content": "", "command": None}
    assert r["peer_address"] == {"name": "mx.far.example", "addr": "127.0.0.1"} and r["reception_protocol"] == "ESMTP"
    assert r["size"] > 0 and r["headers"] == {"Subject": "FW: The October letter"} and r["timestamp"] >= r["created"]
    assert r["feedback_report"] == {
        "feedback_type": "abuse", "user_agent": "Complaints/2.1", "version": "1", "arrival_date": "2026-03-03T09:20:30Z", "incidents": 2,
        "original_envelope_id": None, "original_mail_from": "<news@sender.example>", "reporting_mta": {"mta_type": "dns", "name": "mx.far.example"},
        "source_ip": "192.0.2.7", "authentication_results": ["mx.far.example; spf=pass smtp.mail=news@sender.example"],
        "original_rcpto_to": ["<jane@far.example>"], "reported_domain": ["sender.example"],
        "reported_uri": ["http://sender.example/october", "mailto:news@sender.example"], "extensions": {"removal-recipient": ["jane@far.example"]},
        "original_message": ORIGINAL, "supplemental_trace": None}


def test_least_complaint(d):
    [i] = send(d, arf(original_type="text/plain"))
    [r] = about(d, i)
    report = r["feedback_report"]
    assert report["original_message"] is None and report["supplemental_trace"] is None and report["incidents"] is None and report["source_ip"] is None
    assert report["original_rcpto_to"] == [] and report["extensions"] == {}


@pytest.mark.parametrize("encoding", ["7bit", "base64", "quoted-printable"])
@pytest.mark.parametrize("kind", ["message/rfc822", "text/rfc822-headers"])
def test_trace_in_a_complaint(d, encoding, kind):
    """The trace field may have any name that begins with X-."""
    trace = base64.b64encode(json.dumps({"_@_": "\\_/", "recipient": "jane@far.example", "campaign": "october"}).encode()).decode()
    original = f"X-Mailer: {base64.b64encode(b'{}').decode()}\nx-ours: {trace[:40]}\n\t{trace[40:]}\n" + (ORIGINAL if kind == "message/rfc822" else "Subject: x\n")
    plain, coded = original, original
    if encoding == "base64":
        coded = base64.encodebytes(original.encode()).decode()
    elif encoding == "quoted-printable":
        coded = original.replace("=", "=3D")
    [i] = send(d, arf(original=coded, original_type=kind, original_header=f"Content-Transfer-Encoding: {encoding}\n"))
    [r] = about(d, i)
    assert r["feedback_report"]["supplemental_trace"] == {"recipient": "jane@far.example", "campaign": "october"}
    assert r["feedback_report"]["original_message"].rstrip("\n") == plain.rstrip("\n")


def test_8bit_original(d):
    """Text that is UTF-8 is text; what is not is a list of its bytes."""
    [i] = send(d, arf(original="Subject: ä\n\n€\n"))
    assert about(d, i)[0]["feedback_report"]["original_message"] == "Subject: ä\n\n€\n"
    [i] = send(d, crlf(arf(original="Subject: @\n")).replace(b"@\r\n\r\n--part--", b"\xe4\r\n\r\n--part--"))
    assert about(d, i)[0]["feedback_report"]["original_message"] == list(b"Subject: \xe4\n")


def test_trace_of_a_message_of_ours(where):
    """In by HTTP, out to a mailbox provider, whose user complains; and its report comes back."""
    with Sink() as sink:
        extra = DOMAINS + "kumo.on('http_message_generated', function(msg) msg:set_meta('campaign', 'october') end)"
        with Smtp(where, "", queue=smtp_queue(sink.port), path="enable_tls = 'Disabled'", extra=extra) as d:
            d.accept(to=["jane@far.example"], content=ORIGINAL.replace("\n", "\r\n"),
                     trace_headers={"supplemental_header": True, "include_meta_names": ["campaign", "unset"]})
            d.wait_record("Delivery")
            [copy] = sink.messages
            [i] = send(d, arf(original=copy.data.decode().replace("\r\n", "\n")))
            [r] = about(d, i)
            assert r["feedback_report"]["supplemental_trace"] == {"recipient": "jane@far.example", "campaign": "october", "unset": None}
            assert r["feedback_report"]["original_message"].startswith("X-KumoRef: ")


# --- what becomes of the message ---

@pytest.mark.parametrize("domain", ["relay.example", "true.example"])
@pytest.mark.parametrize("kind,text", [("OOB", dsn(FAILED)), ("Feedback", arf())])
def test_log_then_relay(d, domain, kind, text):
    [i] = send(d, text, to=f"r@{domain}")
    d.wait_record("Delivery", id=i)
    assert sorted(r["type"] for r in about(d, i)) == (["Delivery", "OOB", "Reception"] if kind == "OOB" else ["Delivery", "Feedback"])
    assert any(m.endswith(crlf(text)) for m in d.maildir.messages())


@pytest.mark.parametrize("to,text,kinds", [
    ("r@false.example", dsn(FAILED), ["Delivery", "Reception"]),
    ("r@open.example", arf(), ["Delivery", "Reception"]),
    ("r@oob.example", dsn(FAILED), ["OOB"]),
    ("r@arf.example", arf(), ["Feedback"]),
    ("r@both.example", dsn(FAILED), ["OOB"]),
    ("r@both.example", arf(), ["Delivery", "Feedback"]),
    ("r@both.example", "Subject: something else\n\n", ["Delivery", "Reception"]),
])
def test_modes(d, to, text, kinds):
    [i] = send(d, text, to=to)
    if "Delivery" in kinds:
        d.wait_record("Delivery", id=i)
    assert sorted(r["type"] for r in about(d, i)) == kinds


def test_of_a_host_that_may_relay(d):
    """Whoever sends it: it is a report, and is dropped; what is none goes on."""
    [i] = send(d, dsn(FAILED), source=("127.0.0.9", 0))
    assert [r["type"] for r in about(d, i)] == ["OOB"]
    [i] = send(d, "Subject: x\n\n", source=("127.0.0.9", 0))
    d.wait_record("Delivery", id=i)


MALFORMED = {
    "no report": ("r@drop.example", "Subject: x\n\nhello\n"),
    "other report": ("r@drop.example", dsn(FAILED, kind="disposition-notification")),
    "bounce where complaints are logged": ("r@arf.example", dsn(FAILED)),
    "complaint where bounces are logged": ("r@oob.example", arf()),
    "no multipart": ("r@drop.example", dsn(FAILED).replace("multipart/report", "text/plain")),
    "no report-type": ("r@drop.example", dsn(FAILED).replace("report-type=delivery-status;", "")),
    "no boundary": ("r@drop.example", dsn(FAILED).replace("boundary=", "border=")),
    "no status part": ("r@drop.example", dsn(FAILED).replace("message/delivery-status", "text/plain")),
    "no reporting MTA": ("r@drop.example", dsn(FAILED, mta="")),
    "no recipients": ("r@drop.example", dsn()),
    "recipient without a status": ("r@drop.example", dsn(FAILED, "Final-Recipient: rfc822; a@b.example\nAction: failed\n")),
    "no feedback part": ("r@drop.example", arf().replace("message/feedback-report", "text/plain")),
    "no feedback type": ("r@drop.example", arf(required="User-Agent: x\nVersion: 1\n")),
    "cut off": ("r@drop.example", dsn(FAILED)[:dsn(FAILED).index("Action:")]),
    "fields beyond measure": ("r@drop.example", dsn(*[recipient(f"r{i}@far.example") for i in range(20000)])),
    "a field beyond measure": ("r@drop.example", arf("X: " + "\n ".join(["x" * 900] * 1200) + "\n")),
}


def test_no_report(d):
    """What is no report, or not of the kind, has no place in a domain that has only reports. The refusal is a record."""
    senders = {name.replace(" ", ".") + "@far.example": case for name, case in MALFORMED.items()}
    for sender, (to, text) in senders.items():
        assert send(d, text, to=to, sender=sender) == (550, "5.7.1 relaying not permitted"), sender
    fence(d)
    records = [r for r in d.records() if r["sender"] in senders]
    assert [(r["type"], r["sender"], r["recipient"], r["response"]["command"]) for r in records] == \
        [("Rejection", sender, to, "DATA") for sender, (to, _) in senders.items()]
    assert not [r for r in d.records() if r["type"] in ("OOB", "Feedback") and r["recipient"].startswith("r0@")]


def test_malformed_where_mail_may_be_relayed(d):
    """Then it is mail like any other, and the operator can read what was wrong with it."""
    [i] = send(d, arf(required="User-Agent: x\nVersion: 1\n"), to="r@both.example")
    d.wait_record("Delivery", id=i)
    assert sorted(r["type"] for r in about(d, i)) == ["Delivery", "Reception"]


def test_why_it_is_no_report_is_told(where):
    with Smtp(where, "relay_hosts = {}", extra=DOMAINS, env={"CIRRUS_LOG": "kumod=info"}) as d:
        assert send(d, arf(required="User-Agent: x\nVersion: 1\n"), to=["a@drop.example", "b@drop.example"])[0] == 550
        lines = [line for line in d.stderr().splitlines() if "is not taken for the report" in line]
        assert len(lines) == 1  # the recipients share the message
        assert "a message for a@drop.example is not taken for the report that it says it is: malformed feedback report: Feedback-Type is missing" in lines[0]


def test_trace_of_a_session(where):
    with Smtp(where, "relay_hosts = {}", extra=DOMAINS, env={"CIRRUS_LOG": "kumod=trace"}) as d:
        for to, text in (("r@drop.example", arf()), ("r@relay.example", dsn(FAILED)), ("r@open.example", arf()), ("r@drop.example", "Subject: x\n\n")):
            send(d, text, to=to)
        assert re.findall(r" disposition: (.*)", d.stderr()) == ["a report, dropped", "a report, relayed", "relayed", "refused"]


# --- transactions ---

def test_recipients_of_several_kinds(d):
    """Each is a message of its own; those that may not have one are left out, as long as there is another."""
    ids = send(d, dsn(FAILED), to=["a@drop.example", "b@arf.example", "c@relay.example", "d@open.example"])
    assert len(ids) == 3
    d.wait_record("Delivery", id=ids[0])
    d.wait_record("Delivery", id=ids[1])
    got = {i: sorted((r["type"], r["sender"] if r["type"] == "OOB" else r["recipient"]) for r in about(d, i)) for i in ids}
    assert got == {ids[0]: [("Delivery", "c@relay.example"), ("OOB", "c@relay.example"), ("Reception", "c@relay.example")],
                   ids[1]: [("Delivery", "d@open.example"), ("Reception", "d@open.example")],
                   ids[2]: [("OOB", "a@drop.example")]}


def test_batches(where):
    """A message for several recipients is one report."""
    with Smtp(where, "relay_hosts = {}, batch_handling = 'BatchByDomain'", extra=DOMAINS) as d:
        [i] = send(d, arf(), to=["a@drop.example", "b@drop.example"])
        [r] = about(d, i)
        assert r["type"] == "Feedback" and r["recipient"] == ["a@drop.example", "b@drop.example"]


def test_a_refused_transaction_leaves_no_record(where):
    """It comes again."""
    extra = DOMAINS + """local n = 0
kumo.on('smtp_server_message_received', function(msg) if msg:recipient().user == 'last' then kumo.reject(451, '4.3.0 later') end end)"""
    with Smtp(where, "relay_hosts = {}", extra=extra) as d:
        assert send(d, dsn(FAILED), to=["a@drop.example", "last@drop.example"]) == (451, "4.3.0 later")
        assert send(d, arf(), to=["a@drop.example", "last@drop.example"]) == (451, "4.3.0 later")
        d.wait_record("Rejection", 2)
        fence(d)
        assert not d.records("OOB") and not d.records("Feedback")


def test_a_report_that_cannot_be_stored_leaves_no_record(where):
    """One recipient's copy is dropped, the other's is to be stored: both or neither."""
    with Smtp(where, "relay_hosts = {}", extra=DOMAINS, env={"CIRRUS_FAULTS": "spool_write=1"}) as d:
        assert send(d, dsn(FAILED), to=["a@drop.example", "b@relay.example"])[0] in (451, 452)
        ids = send(d, dsn(FAILED), to=["a@drop.example", "b@relay.example"])
        d.wait_record("Delivery", id=ids[0])
        fence(d)
        assert sorted((r["id"], r["sender"]) for r in d.records("OOB")) == sorted([(ids[0], "b@relay.example"), (ids[1], "a@drop.example")])


def test_the_policy_may_change_the_report(where):
    """What the policy leaves of the message is looked at, and its metadata are in the record."""
    extra = DOMAINS + """kumo.on('smtp_server_message_received', function(msg)
  msg:set_meta('tenant', 'ours')
  if msg:recipient().user == 'none' then msg:set_data('Subject: x\\r\\n\\r\\n') end
  if msg:recipient().user == 'saved' then msg:save() msg:shrink() end
end)"""
    with Smtp(where, "relay_hosts = {}", extra=extra) as d:
        [i] = send(d, arf(), to=["none@drop.example", "some@drop.example"])
        [r] = about(d, i)
        assert r["type"] == "Feedback" and r["recipient"] == "some@drop.example" and r["meta"] == {"tenant": "ours"}
        assert send(d, arf(), to="none@drop.example")[0] == 550
        [i] = send(d, arf(), to="saved@drop.example")
        assert [r["type"] for r in about(d, i)] == ["Feedback"]
        received = d.metric('total_messages_received{service="esmtp_listener"}')
    with Smtp(where, "relay_hosts = {}", extra=extra) as d:  # a report that was dropped is not in the spool
        fence(d)
        assert received >= 3 and [r["recipient"] for r in d.records("Delivery") if r["recipient"] != "fence@open.example"] == []


def test_a_large_complaint(d):
    """The whole mail may be in it. The record has its header and its beginning."""
    original = "Subject: large\n\n" + ("ä" * 400 + "\n") * 4000
    [i] = send(d, arf(original=original))
    [r] = about(d, i)
    text = r["feedback_report"]["original_message"]
    assert len(text.encode()) in (1 << 18, (1 << 18) - 1) and original.startswith(text)


def test_an_unreasonable_complaint(d):
    """As large as a message may be, and nothing but bytes that take more room in a record."""
    junk = (b"\xff" * 900 + b"\r\n") * 20000
    head, tail = crlf(arf("X-Note: \x01" + "\x02" * 900 + "\n", original="@")).split(b"@\r\n--part--")
    [i] = send(d, head + b"X-Junk: " + base64.b64encode(b"x" * 500) + b"\r\n\r\n" + junk + b"--part--" + tail)
    [r] = about(d, i)
    text = r["feedback_report"]["original_message"]
    assert len(text) == 1 << 18 and bytes(text[-3:]) == b"\xff\xff\xff"


def test_many_bounces_in_one_report(d):
    [i] = send(d, dsn(*[recipient(f"r{n}@far.example") for n in range(2000)]))
    found = d.wait_record("OOB", 2000, id=i)
    assert [r["recipient"] for r in found] == [f"r{n}@far.example" for n in range(2000)]


def test_many_reports_at_a_time(d):
    ids = []

    def run(n):
        for k in range(25):
            ids.extend(send(d, dsn(recipient(f"{n}.{k}@many.example")) if k % 2 else arf(f"Original-Rcpt-To: {n}.{k}@many.example\n")))
    Threads(8, run).join()
    fence(d)
    records = [r for r in d.records() if r["id"] in set(ids)]
    assert len(ids) == len(set(ids)) == len(records) == 200
    assert sorted(r["recipient"] if r["type"] == "OOB" else r["feedback_report"]["original_rcpto_to"][0] for r in records) == \
        sorted(f"{n}.{k}@many.example" for n in range(8) for k in range(25))
