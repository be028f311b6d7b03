"""What the tests of the SMTP service share: a daemon with an SMTP listener that delivers to a maildir, and a client that sends
exactly the bytes that it is told to, and nothing else."""
import re
import socket
import ssl

from cirrus import Daemon, Maildir, policy, wait_for

SIMPLE = b"Subject: x\r\n\r\nhello\r\n"


class Reply:
    def __init__(self, lines):
        self.lines = lines                       # decoded, without line ends
        self.code = int(lines[0][:3])
        self.text = "\n".join(line[4:] for line in lines)

    def __repr__(self):
        return repr(self.lines)

    @property
    def ids(self):
        """The ids of a message that was taken."""
        return [i for found in re.findall(r"ids=(.*)", self.text) for i in found.split()]


class Client:
    """A connection to a port, or to a socket in the file system. With `banner` the greeting is read and must be 220."""

    def __init__(self, port, banner=True, host="127.0.0.1", timeout=60, source=None):
        if isinstance(port, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(timeout)
            self.socket.connect(port)
        else:
            self.socket = socket.create_connection((host, port), timeout=timeout, source_address=source)
        self.buffer = b""
        self.banner = self.reply() if banner else None
        assert not banner or self.banner.code == 220, self.banner

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode())

    def line(self):
        while b"\r\n" not in self.buffer:
            data = self.socket.recv(65536)
            assert data, f"the connection ended; left: {self.buffer!r}"
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line.decode(errors="surrogateescape")

    def reply(self):
        lines = [self.line()]
        while lines[-1][3:4] == "-":
            lines.append(self.line())
        assert all(re.match(r"\d\d\d([ -]|$)", line) and line[:3] == lines[0][:3] for line in lines), lines
        return Reply(lines)

    def cmd(self, line):
        """Sends a command and returns its reply."""
        self.send((line if isinstance(line, bytes) else line.encode()) + b"\r\n")
        return self.reply()

    def must(self, line, code=250):
        r = self.cmd(line)
        assert r.code == code, (line, r)
        return r

    def hello(self, name="client.example"):
        return self.must(f"EHLO {name}")

    def begin(self, to=("b@maildir.example",), sender="a@example.com"):
        self.must(f"MAIL FROM:<{sender}>")
        for address in to:
            self.must(f"RCPT TO:<{address}>")

    def data(self, content=SIMPLE):
        """The message must be dot-stuffed already and end in CRLF."""
        self.must("DATA", 354)
        self.send(content + b".\r\n")
        return self.reply()

    def deliver(self, to=("b@maildir.example",), sender="a@example.com", content=SIMPLE):
        self.begin(to, sender)
        r = self.data(content)
        assert r.code == 250, r
        return r

    def ended(self):
        """Whether the server has closed, with nothing more to say."""
        try:
            return self.buffer == b"" and self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def starttls(self, context=None):
        self.must("STARTTLS", 220)
        self.socket = (context or ssl._create_unverified_context()).wrap_socket(self.socket, server_hostname="localhost")
        self.buffer = b""

    def tls(self, context=None):
        self.socket = (context or ssl._create_unverified_context()).wrap_socket(self.socket, server_hostname="localhost")


class Smtp(Daemon):
    """`listener`: the Lua table body of the SMTP listener, or a list of several. `queue` and the rest as in policy()."""

    def __init__(self, directory, listener="", queue=None, extra="", init="", env=None, path=""):
        self.listeners = [listener] if isinstance(listener, str) else listener
        lines = "\n  ".join(f"kumo.start_esmtp_listener {{ listen = '127.0.0.1:0', hostname = 'mx.example', {one} }}" if "listen =" not in one
                            else f"kumo.start_esmtp_listener {{ {one} }}" for one in self.listeners)
        if queue is None:
            queue = f"protocol = {{ maildir_path = '{directory}/maildir' }}"
        super().__init__(directory, policy(directory, queue=queue, path=path, init=lines + "\n  " + init, extra=extra), env=env)
        self.maildir = Maildir(self.dir / "maildir")

    def start(self, timeout=None):
        super().start(timeout)
        self.smtp_ports = [int(p) for p in re.findall(r"smtp listener on \S+:(\d+)", self.stderr())]
        self.smtp_port = self.smtp_ports[0]
        return self

    def client(self, index=0, **kwargs):
        return Client(self.smtp_ports[index], **kwargs)

    def received(self, n=1):
        """The next messages in the maildir, when there are n."""
        return wait_for(f"{n} messages in the maildir", lambda: (lambda m: m if len(m) >= n else None)(self.maildir.messages()))


def split(message):
    """Header lines that the service has added, and the message as it was sent."""
    added = []
    while True:
        found = re.match(rb"(X-KumoRef|Received): (?:[^\r]|\r\n[ \t])*\r\n", message)
        if not found:
            return added, message
        added.append(found.group(0))
        message = message[found.end():]
