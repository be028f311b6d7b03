"""SMTP servers for the tests, on aiosmtpd: an independent implementation that takes mail, or misbehaves as told."""
import asyncio
import threading

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP


class Message:
    def __init__(self, envelope, session):
        self.sender = envelope.mail_from
        self.recipients = list(envelope.rcpt_tos)
        self.data = envelope.original_content
        self.options = list(envelope.mail_options)
        self.helo = session.host_name
        self.peer = session.peer


class Handler:
    """Keeps what arrives. `rules` maps the local part of a recipient to a behaviour:
    an answer ("450 4.2.1 later") to RCPT; "data:ANSWER" to the end of the data; "drop" closes in DATA; "stall" never answers it."""

    def __init__(self, rules=None):
        self.rules = rules or {}
        self.messages = []
        self.attempts = []
        self.connections = 0
        self.lock = threading.Lock()

    def rule(self, address):
        return self.rules.get(address.split("@")[0])

    async def handle_RCPT(self, server, session, envelope, address, options):
        with self.lock:
            self.attempts.append(address)
        rule = self.rule(address)
        if rule and rule[0].isdigit():
            if rule.startswith("421"):
                asyncio.get_running_loop().call_later(0.05, server.transport.close)
            return rule
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        for address in envelope.rcpt_tos:
            rule = self.rule(address)
            if rule == "drop":
                server.transport.abort()
                return "451 gone"
            if rule == "stall":
                await asyncio.sleep(600)
            if rule and rule.startswith("data:"):
                return rule[5:]
        with self.lock:
            self.messages.append(Message(envelope, session))
        return "250 2.0.0 OK queued"


class Server(SMTP):
    def connection_made(self, transport):
        self.event_handler.connections += 1
        super().connection_made(transport)


class Sink(Controller):
    def __init__(self, rules=None, hostname="127.0.0.1", **kwargs):
        self.kwargs_server = dict(enable_SMTPUTF8=True, data_size_limit=64 << 20, timeout=300, **kwargs)
        super().__init__(Handler(rules), hostname=hostname, port=0, ready_timeout=30)

    def factory(self):
        return Server(self.handler, **self.kwargs_server)

    def _create_server(self):
        return self.loop.create_server(self._factory_invoker, host=self.hostname, port=self.port)

    def _trigger_server(self):
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.stop(no_assert=True)

    @property
    def messages(self):
        with self.handler.lock:
            return list(self.handler.messages)

    @property
    def attempts(self):
        with self.handler.lock:
            return list(self.handler.attempts)
