"""SMTP out against peers that misbehave: a scripted server that drops, stalls, lies or talks too much, at each step."""
import collections
import socket
import threading
import time

import pytest

from cirrus import Daemon, policy, smtp_queue, wait_for

FAST = "retry_interval = '1s', max_retry_interval = '1s'"
TIMEOUTS = "connect_timeout = '2s', banner_timeout = '2s', ehlo_timeout = '2s', mail_from_timeout = '2s', rcpt_to_timeout = '2s', " \
           "data_timeout = '2s', data_dot_timeout = '2s', rset_timeout = '2s', "


class Gone(Exception):
    pass


class Peer:
    """An SMTP server after a script: rules maps a step (banner, EHLO, HELO, MAIL, RCPT, DATA, body, RSET, QUIT) to what happens there instead of the
    usual answer: a text to send ("!close" at its end closes, "!stall" waits for the end of the connection), or a function of the
    connection that returns such a text or None. With `first` they hold for that many connections only."""

    def __init__(self, rules=None, first=None, extensions=("PIPELINING", "8BITMIME", "SIZE 10000000")):
        self.rules, self.first, self.extensions = rules or {}, first, extensions
        self.lock = threading.Lock()
        self.connections = []
        self.messages = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.listener.shutdown(socket.SHUT_RDWR)  # ends the accept that waits; a mere close leaves it waiting on a number
        self.thread.join()
        self.listener.close()
        for c in self.connections:
            c.shut()

    def accept(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            c = Connection(self, s, len(self.connections))
            self.connections.append(c)
            threading.Thread(target=c.run, daemon=True).start()

    def commands(self):
        return [c.commands for c in self.connections]

    def delivered(self):
        with self.lock:
            return list(self.messages)


class Connection:
    def __init__(self, peer, s, index):
        self.peer, self.socket, self.index = peer, s, index
        self.buffer = b""
        self.commands = []
        self.mail, self.rcpt = None, []
        self.n_messages = 0
        s.settimeout(60)

    def shut(self):
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()

    def read_line(self):
        while b"\n" not in self.buffer:
            data = self.socket.recv(65536)
            if not data:
                raise Gone
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        assert line.endswith(b"\r"), line
        return line[:-1].decode()

    def read_data(self):
        """Up to CRLF.CRLF and nothing else."""
        while not (self.buffer.startswith(b".\r\n") or b"\r\n.\r\n" in self.buffer):
            data = self.socket.recv(65536)
            if not data:
                raise Gone
            self.buffer += data
        if self.buffer.startswith(b".\r\n"):
            self.buffer = self.buffer[3:]
            return b""
        data, self.buffer = self.buffer.split(b"\r\n.\r\n", 1)
        return data + b"\r\n"

    def text_of(self, step, usual):
        text = None
        if self.peer.first is None or self.index < self.peer.first:
            text = self.peer.rules.get(step)
            if callable(text):
                text = text(self)
        return usual if text is None else text

    def say(self, step, usual):
        return self.send(self.text_of(step, usual))

    def send(self, text):
        text, _, end = text.partition("!")
        if text:
            self.socket.sendall(text.encode("latin-1") + b"\r\n")
        if end == "close":
            raise Gone
        if end == "stall":
            while self.socket.recv(65536):
                pass
            raise Gone
        return text

    def run(self):
        try:
            self.say("banner", "220 peer ESMTP")
            while self.command(self.read_line()):
                pass
        except (Gone, OSError):
            pass
        self.shut()

    def command(self, line):
        verb = line.split(" ")[0].split(":")[0].upper()
        self.commands.append(line)
        if verb == "EHLO":
            lines = ["peer", *self.peer.extensions]
            self.say("EHLO", "\r\n".join(f"250{' ' if i == len(lines) - 1 else '-'}{t}" for i, t in enumerate(lines)))
        elif verb == "MAIL":
            usual = "250 sender ok" if self.mail is None else "503 nested MAIL"
            if self.say("MAIL", usual).startswith("250"):
                self.mail, self.rcpt = line, []
        elif verb == "RCPT":
            if self.say("RCPT", "250 recipient ok" if self.mail else "503 need MAIL").startswith("25"):
                self.rcpt.append(line)
        elif verb == "DATA":
            self.data()
        elif verb == "RSET":
            if self.say("RSET", "250 reset").startswith("250"):
                self.mail, self.rcpt = None, []
        elif verb == "QUIT":
            self.say("QUIT", "221 bye")
            return False
        else:
            self.say(verb, "250 ok")
        return True

    def data(self):
        usual = "354 go ahead" if self.mail and self.rcpt else "554 no valid recipients"
        if not self.say("DATA", usual).startswith("354"):
            return
        early = self.peer.rules.get("early")
        if early is not None:
            self.socket.recv(1000)
            self.say("early", "")
        data = self.read_data()
        answer = self.text_of("body", "250 2.0.0 queued")
        if answer.startswith("250 ") and self.rcpt:
            with self.peer.lock:
                self.peer.messages.append((self.rcpt, data))
            self.n_messages += 1
        self.mail, self.rcpt = None, []
        self.send(answer)


PIPELINING = {"grouped": ("PIPELINING", "8BITMIME", "SIZE 10000000"), "single": ("8BITMIME",)}
STEPS = ["banner", "EHLO", "MAIL", "RCPT", "DATA", "body"]
COMMAND = {"MAIL": "MAIL FROM:<s@example.com>", "RCPT": "RCPT TO:<r@", "DATA": "DATA", "body": "."}
both = pytest.mark.parametrize("extensions", PIPELINING.values(), ids=PIPELINING)


class Many:
    """A daemon and many peers, each the exchanger of a domain `<name>.example.org`: cases that each take their time go side by side.
    cases: name -> (rules, extensions)."""

    def __init__(self, where, cases, path="", queue=FAST, first=None):
        self.peers = {name: Peer(rules, first=first, extensions=extensions) for name, (rules, extensions) in cases.items()}
        ports = ", ".join(f"['{name}.example.org'] = {peer.port}" for name, peer in self.peers.items())
        extra = f"""
local ports = {{ {ports} }}
kumo.on('get_queue_config', function(domain)
  return kumo.make_queue_config {{ {queue}, protocol = {{ smtp = {{ mx_list = {{ '[127.0.0.1]:' .. ports[domain] }} }} }} }}
end)
"""
        text = policy(where, path=TIMEOUTS + path, extra=extra)
        at, end = text.index("kumo.on('get_queue_config'"), text.index("kumo.on('get_egress_path_config'")
        self.daemon = Daemon(where, text[:at] + text[end:])

    def __enter__(self):
        self.daemon.start()
        return self

    def __exit__(self, *exc):
        for peer in self.peers.values():
            peer.__exit__()
        return self.daemon.__exit__(*exc)

    def accept(self, user="r"):
        self.daemon.accept(to=[f"{user}@{name}.example.org" for name in self.peers])

    def records(self, kind):
        """Of each name, in order."""
        out = {name: [] for name in self.peers}
        for r in self.daemon.records(kind):
            out[r["queue"].removesuffix(".example.org")].append(r)
        return out

    def wait_all(self, kind, n=1):
        for name in self.peers:
            self.daemon.wait_record(kind, n, queue=f"{name}.example.org")
        return self.records(kind)


def failure_then_delivery(where, cases):
    """The first connection of each fails by the script, the next one delivers. Yields name, peer and the record of the failure."""
    with Many(where, cases, first=1) as m:
        m.accept()
        delivered, failed = m.wait_all("Delivery"), m.records("TransientFailure")
    for name, peer in m.peers.items():
        assert len(failed[name]) == 1, (name, failed[name])
        failure, = failed[name]
        assert delivered[name][0]["num_attempts"] == 1 and failure["num_attempts"] == 0, name
        assert len(peer.delivered()) == 1, name
        yield name, peer, failure


def steps_times_extensions(text, steps=STEPS):
    return {f"{step}-{kind}".lower(): ({step: text}, extensions) for step in steps for kind, extensions in PIPELINING.items()}


def step_of(name):
    return {step.lower(): step for step in STEPS}[name.split("-")[0]]


def test_peer_closes(where):
    for name, peer, r in failure_then_delivery(where, steps_times_extensions("!close")):
        step = step_of(name)
        assert r["response"]["code"] == 400 and "onnection closed by peer" in r["response"]["content"], name
        if step in COMMAND:
            assert r["response"]["content"].startswith("KumoMTA internal: failed to send message: "), name
            assert r["response"]["command"].startswith(COMMAND[step]) and r["peer_address"]["addr"] == f"127.0.0.1:{peer.port}", name
        else:
            assert r["response"]["content"].startswith("KumoMTA internal: failed to connect to any candidate hosts: "), name
            assert r["response"]["command"] is None and r["peer_address"] is None, name


def test_peer_is_closing(where):
    """421 and the end of the connection, at once: the answer is what is logged."""
    for name, peer, r in failure_then_delivery(where, steps_times_extensions("421 4.7.0 not now!close")):
        step = step_of(name)
        if step in COMMAND:
            assert r["response"]["code"] == 421 and r["response"]["enhanced_code"] == {"class": 4, "subject": 7, "detail": 0}, name
            assert r["response"]["content"] == "not now" and r["response"]["command"].startswith(COMMAND[step]), name
        else:
            assert r["response"]["code"] == 400 and "421 4.7.0 not now" in r["response"]["content"], name


def test_peer_stalls(where):
    for name, peer, r in failure_then_delivery(where, steps_times_extensions("!stall")):
        step = step_of(name)
        if step in COMMAND:
            assert r["response"]["code"] == 421 and r["response"]["enhanced_code"] == {"class": 4, "subject": 4, "detail": 2}, name
            assert f"Timed Out waiting 2s for response to {COMMAND[step].split(' ')[0]}" in r["response"]["content"], name
        else:
            assert r["response"]["code"] == 400 and "timed out" in r["response"]["content"], name


GARBAGE = ["hello", "25", "250+ok", "999 what", "100 continue", "250-first\r\n251 second", "\xff\xfe\x00\x01", "\r\n", "250-" + "x" * 5000,
           "250-" + "x" * 1000 + ("\r\n250-" + "x" * 1000) * 70]


def test_peer_answers_garbage(where):
    cases = {f"{step}-{i}".lower(): ({step: garbage + "!close"}, PIPELINING["grouped"])
             for step in ("banner", "EHLO", "RCPT", "body") for i, garbage in enumerate(GARBAGE)}
    for name, peer, r in failure_then_delivery(where, cases):
        assert r["response"]["code"] == 400, (name, r)


def test_peer_refuses_and_closes(where):
    """A refusal is final whatever happens to the connection after it."""
    with Many(where, steps_times_extensions("552 5.7.1 never!close", ["MAIL", "RCPT", "DATA", "body"])) as m:
        m.accept()
        for name, (r, ) in m.wait_all("Bounce").items():
            assert r["response"]["code"] == 552 and r["response"]["content"] == "never", name
            assert r["response"]["command"].startswith(COMMAND[step_of(name)]), name
            assert len(m.peers[name].connections) == 1
        assert m.daemon.records("TransientFailure") == []


def test_refusal_while_the_data_is_sent(where):
    with Peer({"early": "552 5.3.4 too much!close"}) as peer, Daemon(where, policy(where, smtp_queue(peer.port, FAST), TIMEOUTS)) as d:
        d.accept("Subject: large\r\n\r\n" + ("x" * 70 + "\r\n") * 20000)
        r = wait_for("a record", lambda: d.records("Bounce") + d.records("TransientFailure"))[0]
        # The peer's reset may overtake its answer; where it does not, the answer is what counts.
        assert (r["type"], r["response"]["code"]) in (("Bounce", 552), ("TransientFailure", 400))


def test_answers_of_many_lines(where):
    def lines(code):
        return f"{code}-2.0.0 one\r\n{code}-2.0.0 two\r\n{code} 2.0.0 three"
    rules = {step: lines(250) for step in ("MAIL", "RCPT", "RSET", "body")}
    rules.update(banner=lines(220), DATA=lines(354), QUIT=lines(221))
    with Peer(rules) as peer, Daemon(where, policy(where, smtp_queue(peer.port, FAST), TIMEOUTS + "connection_limit = 1")) as d:
        d.accept(to=[f"r{i}@example.org" for i in range(5)])
        r = d.wait_record("Delivery", 5)[0]
        assert r["response"]["code"] == 250 and r["response"]["enhanced_code"] == {"class": 2, "subject": 0, "detail": 0}
        assert r["response"]["content"] == "one two three" and len(peer.connections) == 1


def test_answer_that_is_no_utf8(where):
    with Peer({"RCPT": "550 5.1.1 gibt es nicht: \xfc"}) as peer, Daemon(where, policy(where, smtp_queue(peer.port, FAST), TIMEOUTS)) as d:
        d.accept()
        r, = d.wait_record("Bounce")
        assert r["response"]["code"] == 550 and r["response"]["content"].startswith("gibt es nicht: ")


def deliver_two(where, cases, path=""):
    """Two messages to each peer, one after the other was delivered, each over a connection of its own; none is charged."""
    with Many(where, cases, "connection_limit = 1, idle_timeout = '30s', " + path) as m:
        m.accept("a")
        m.wait_all("Delivery")
        time.sleep(0.2)  # what the peers say unasked is on its way
        m.accept("b")
        m.wait_all("Delivery", 2)
        assert m.daemon.records("TransientFailure") == []
        assert collections.Counter(r["num_attempts"] for r in m.daemon.records("Delivery")) == {0: 2 * len(cases)}
    for name, peer in m.peers.items():
        assert len(peer.delivered()) == 2, name
        assert [c.n_messages for c in peer.connections] == [1, 1], name


RECONNECT = ["", "reconnect_strategy = 'TerminateSession'", "reconnect_strategy = 'ReconnectSameHost'"]


@pytest.mark.parametrize("path", RECONNECT)
def test_connection_ends_between_messages(where, path):
    """A kept connection that was closed, or on which the peer has spoken unasked: the next message takes another, uncharged."""
    bodies = {"closed": "!close", "said": "\r\n421 4.4.2 idle!close", "odd": "\r\n250 once more"}
    deliver_two(where, {name: ({"body": f"250 2.0.0 queued{more}"}, PIPELINING["grouped"]) for name, more in bodies.items()}, path)


@pytest.mark.parametrize("path", RECONNECT)
def test_reset_refused(where, path):
    resets = {"unknown": "500 what", "enough": "421 4.7.0 enough!close", "closed": "!close", "stalled": "!stall", "granted": "354 really",
              "garbage": "garbage!close"}
    deliver_two(where, {f"{name}-{kind}": ({"RSET": reset}, extensions) for name, reset in resets.items()
                        for kind, extensions in PIPELINING.items()}, path)


def test_closed_as_the_next_message_begins(where):
    rules = {"MAIL": lambda c: "!close" if c.n_messages > 0 else None}
    deliver_two(where, {name: (rules, extensions) for name, extensions in PIPELINING.items()}, "enable_rset = false")


def test_goodbye(where):
    """Whatever the peer makes of QUIT, it is said, and the messages are delivered once."""
    ends = {"closed": "!close", "stalled": "!stall", "refused": "500 stay", "garbage": "garbage"}
    with Many(where, {name: ({"QUIT": text}, PIPELINING["grouped"]) for name, text in ends.items()}, "idle_timeout = '100ms'") as m:
        m.accept("a")
        m.wait_all("Delivery")
        for peer in m.peers.values():
            wait_for("the goodbye", lambda: peer.commands()[0][-1] == "QUIT")
        m.accept("b")
        m.wait_all("Delivery", 2)
        assert all(len(peer.delivered()) == 2 for peer in m.peers.values())


@both
@pytest.mark.parametrize("data", ["354 go ahead", "554 5.5.1 no valid recipients", "451 4.3.0 hm", "250 ok"])
def test_data_after_all_recipients_were_refused(where, data, extensions):
    """Granted or not: nothing of the message is sent, and the connection stays in step."""
    with Peer({"RCPT": lambda c: "550 5.1.1 no" if len(c.commands) < 5 else None, "DATA": lambda c: None if c.rcpt else data},
              extensions=extensions) as peer:
        with Daemon(where, policy(where, smtp_queue(peer.port, FAST), TIMEOUTS + "connection_limit = 1, idle_timeout = '30s'")) as d:
            d.accept(to=["a@example.org"])
            r, = d.wait_record("Bounce")
            assert r["response"]["code"] == 550 and r["response"]["command"] == "RCPT TO:<a@example.org>\r\n"
            d.accept("Subject: second\r\n\r\nx\r\n", to=["b@example.org"])
            d.wait_record("Delivery")
        assert peer.delivered() == [(["RCPT TO:<b@example.org>"], b"Subject: second\r\n\r\nx\r\n")]
        assert len(peer.connections) == 1 and "RSET" in peer.commands()[0]


@both
def test_sender_refused_but_data_granted(where, extensions):
    with Peer({"MAIL": "550 5.7.1 not you", "RCPT": "250 fine", "DATA": "354 go ahead"}, extensions=extensions) as peer:
        with Daemon(where, policy(where, smtp_queue(peer.port, FAST), TIMEOUTS)) as d:
            d.accept()
            r, = d.wait_record("Bounce")
            assert r["response"]["code"] == 550 and r["response"]["content"] == "not you"
    assert peer.delivered() in ([], [(["RCPT TO:<r@example.org>"], b"")])


def test_answer_that_makes_no_sense_is_no_success_and_no_bounce(where):
    cases = {}
    for code in (252, 334, 503):
        for name, case in steps_times_extensions(f"{code} well", ["MAIL", "DATA", "body"]).items():
            if (step_of(name), code) != ("body", 252):  # any 2xx to the end of the data is a success
                cases[f"{name}-{code}"] = case
    with Many(where, cases, "idle_timeout = '100ms'", first=1) as m:
        m.accept()
        for name, records in m.wait_all("TransientFailure").items():
            assert records[0]["response"]["content"] == "well", name
        m.wait_all("Delivery")
        assert m.daemon.records("Bounce") == []


@pytest.mark.parametrize("banner", ["554 5.7.1 no service", "421 4.3.2 later", "250 odd"])
def test_banner_refuses(where, banner):
    """The next candidate is tried; the refused one hears QUIT, or nothing."""
    with Peer({"banner": banner}) as bad, Peer() as good:
        queue = f"protocol = {{ smtp = {{ mx_list = {{ '[127.0.0.1]:{bad.port}', '[127.0.0.1]:{good.port}' }} }} }}, {FAST}"
        with Daemon(where, policy(where, queue, TIMEOUTS)) as d:
            d.accept()
            r, = d.wait_record("Delivery")
            assert r["peer_address"]["addr"] == f"127.0.0.1:{good.port}" and d.records("TransientFailure") == []
        assert bad.commands() in ([[]], [["QUIT"]])


@pytest.mark.parametrize("ehlo", ["500 what", "502 5.5.1 unknown", "500 what!close"])
def test_helo(where, ehlo):
    """Where EHLO is not known, HELO, on the same connection or, if that was closed, on another."""
    with Peer({"EHLO": ehlo}) as peer, Daemon(where, policy(where, smtp_queue(peer.port, FAST), TIMEOUTS + "ehlo_domain = 'me.example.com'")) as d:
        d.accept()
        d.wait_record("Delivery")
        assert d.records("TransientFailure") == []
        last = peer.commands()[-1]
        assert "HELO me.example.com" in last and "MAIL FROM:<s@example.com>" in last, "and no extensions"


def test_no_helo_where_we_are_refused(where):
    answers = {"blocked": "554 5.7.1 blocked", "later": "421 4.3.2 later", "busy": "450 busy"}
    cases = {name: ({"EHLO": text}, PIPELINING["grouped"]) for name, text in answers.items()}
    for name, peer, r in failure_then_delivery(where, cases):
        assert answers[name] in r["response"]["content"]
        assert not any("HELO" in c.split(" ")[0] for c in peer.commands()[0][1:])


@pytest.mark.parametrize("step", ["MAIL", "body"])
@pytest.mark.parametrize("how", ["421 4.3.2 full!close", "!close", "!stall"])
def test_try_next_host_on_transport_error(where, step, how):
    with Peer({step: how}) as bad, Peer() as good:
        queue = f"protocol = {{ smtp = {{ mx_list = {{ '[127.0.0.1]:{bad.port}', '[127.0.0.1]:{good.port}' }} }} }}, retry_interval = '1h'"
        with Daemon(where, policy(where, queue, TIMEOUTS + "try_next_host_on_transport_error = true")) as d:
            d.accept()
            r, = d.wait_record("Delivery")
            t, = d.records("TransientFailure")
            assert r["peer_address"]["addr"] == f"127.0.0.1:{good.port}" and t["peer_address"]["addr"] == f"127.0.0.1:{bad.port}"
            assert (r["num_attempts"], t["num_attempts"]) == (0, 0)


def test_transport_error_without_another_host_does_not_spin(where):
    with Peer({"MAIL": "421 4.3.2 full!close"}) as peer:
        path = TIMEOUTS + "try_next_host_on_transport_error = true, reconnect_strategy = 'ReconnectSameHost'"
        with Daemon(where, policy(where, smtp_queue(peer.port, "retry_interval = '1h'"), path)) as d:
            d.accept()
            d.wait_record("TransientFailure")
            time.sleep(1)
            assert len(d.records("TransientFailure")) == 1 and len(peer.connections) == 1


@pytest.mark.parametrize("path", RECONNECT)
def test_peer_that_takes_one_message_a_connection(where, path):
    """Each connection ends after a message, each in another way; all arrive, once, and none is charged."""
    ends = ["!close", "\r\n421 4.7.0 one is enough!close", "\r\n421 4.7.0 one is enough"]
    with Peer({"body": lambda c: "250 2.0.0 queued" + ends[c.index % 3]}) as peer:
        with Daemon(where, policy(where, smtp_queue(peer.port, FAST), TIMEOUTS + "connection_limit = 3, " + path)) as d:
            d.accept(to=[f"r{i}@example.org" for i in range(60)])
            d.wait_record("Delivery", 60)
            transient = d.records("TransientFailure")
        seen = collections.Counter(rcpt[0] for rcpt, _ in peer.delivered())
        assert len(seen) == 60 and set(seen.values()) == {1}
        # Closing races with the next transaction: that is charged only where the peer had begun to answer it.
        assert transient == []


CONTENTS = ["Subject: x\r\n\r\n.\r\n", "Subject: x\n\n.\n.\r\n\n.\n", "Subject: x\r\n\r\na\r.\r\nb\r\r\n.\r\n", "Subject: x\r\n\r\nlast line\r", ".\n",
            "Subject: x\r\n\r\n\n.\nMAIL FROM:<evil@example.com>\nRCPT TO:<v@example.org>\nDATA\n", "Subject: x\r\n\r\n..\r\n...\r\n.a\r\n.\r"]


@pytest.mark.parametrize("content", CONTENTS, ids=range(len(CONTENTS)))
def test_content_cannot_end_early(where, content):
    """On the wire there is no bare CR or LF, and no line of a single dot but the last."""
    with Peer() as peer, Daemon(where, policy(where, smtp_queue(peer.port, FAST), TIMEOUTS)) as d:
        d.accept(content)
        d.wait_record("Delivery")
        (rcpt, data), = peer.delivered()
        assert rcpt == ["RCPT TO:<r@example.org>"]
        assert b"\r" not in data.replace(b"\r\n", b"") and b"\n" not in data.replace(b"\r\n", b"")
        lines = data.split(b"\r\n")
        assert b"." not in lines
        plain = b"\r\n".join(x[1:] if x.startswith(b".") else x for x in lines)
        expected = content.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n")
        assert plain.decode() == (expected if expected.endswith("\r\n") else expected + "\r\n")
        assert all(not c.startswith(("MAIL FROM:<evil", "RCPT TO:<v@")) for c in peer.commands()[0])


def test_size_is_respected(where):
    with Peer(extensions=("SIZE 1000",)) as peer, Daemon(where, policy(where, smtp_queue(peer.port, FAST), TIMEOUTS)) as d:
        d.accept("Subject: x\r\n\r\n" + "y" * 2000 + "\r\n")
        r, = d.wait_record("Bounce")
        assert (r["response"]["code"], r["response"]["enhanced_code"]) == (552, {"class": 5, "subject": 3, "detail": 4})
        d.accept()
        d.wait_record("Delivery")
        assert " SIZE=" in [c for c in peer.commands()[0] if c.startswith("MAIL")][0]


def test_dead_site_beside_a_living_one(where):
    """One site stalls at connect, another one flows; each has its own sessions."""
    cases = {"dead": ({"banner": "!stall"}, PIPELINING["grouped"]), "alive": ({}, PIPELINING["grouped"])}
    m = Many(where, cases)
    m.daemon.set_policy(m.daemon.policy_file.read_text().replace("banner_timeout = '2s'", "banner_timeout = '60s'"))
    with m:
        m.daemon.accept(to=[f"r{i}@dead.example.org" for i in range(200)])
        m.daemon.accept(to=[f"r{i}@alive.example.org" for i in range(200)])
        m.daemon.wait_record("Delivery", 200)
        assert 1 <= len(m.peers["dead"].connections) <= 32
        assert m.daemon.records("TransientFailure") == []
        m.daemon.kill()
