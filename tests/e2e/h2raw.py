"""HTTP/2 frame by frame, for what no decent client does (RFC 9113). Frames are (type, flags, stream, payload)."""
import socket
import struct

import hpack

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL = range(9)
COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM = 9, 10, 11
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def settings(**values):
    ids = {"header_table_size": 1, "enable_push": 2, "max_concurrent_streams": 3, "initial_window_size": 4, "max_frame_size": 5}
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", ids[k], v) for k, v in values.items()))


def window_update(stream, n):
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", n))


def reset(stream, code=CANCEL):
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


class H2:
    """A connection. Frames that arrive are kept until somebody asks for them; PING and SETTINGS are not answered."""

    def __init__(self, port, timeout=20, begin=True, **our_settings):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.buffer, self.next_stream = b"", 1
        if begin:
            self.send(PREFACE + settings(**our_settings))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def try_send(self, data):
        """False: the peer is gone."""
        try:
            self.socket.sendall(data)
            return True
        except OSError:
            return False

    def block(self, headers, plain=False):
        """A header block; `plain`: without the dynamic table, every field a literal."""
        if not plain:
            return self.encoder.encode(headers)
        out = b""
        for name, value in headers:
            name = name if isinstance(name, bytes) else name.encode("latin-1")
            value = value if isinstance(value, bytes) else value.encode("latin-1")
            out += b"\0" + length(len(name)) + name + length(len(value)) + value
        return out

    def request_headers(self, method="GET", path="/api/check-liveness/v1", *more):
        return [(":method", method), (":scheme", "http"), (":path", path), (":authority", "x"), *more]

    def request(self, method="GET", path="/api/check-liveness/v1", *more, body=None, end=True, send=True):
        """Begins a stream; returns its number, or with send=False number and bytes."""
        stream = self.next_stream
        self.next_stream += 2
        has_end = END_STREAM if body is None and end else 0
        block = self.block(self.request_headers(method, path, *more))
        blocks = [block[i:i + 16384] for i in range(0, len(block), 16384)]
        out = b""
        for i, piece in enumerate(blocks):
            last = END_HEADERS if i + 1 == len(blocks) else 0
            out += frame(CONTINUATION, last, stream, piece) if i else frame(HEADERS, last | has_end, stream, piece)
        if body is not None:
            pieces = [body[i:i + 16384] for i in range(0, len(body), 16384)] or [b""]
            for i, piece in enumerate(pieces):
                out += frame(DATA, END_STREAM if end and i + 1 == len(pieces) else 0, stream, piece)
        if not send:
            return stream, out
        self.send(out)
        return stream

    def read_frame(self):
        """The next frame, or None at the end of the connection (a reset is an end, too)."""
        while len(self.buffer) < 9 or len(self.buffer) < 9 + int.from_bytes(self.buffer[:3], "big"):
            try:
                data = self.socket.recv(65536)
            except ConnectionError:
                data = b""
            if not data:
                assert not self.buffer, "the connection ended inside a frame"
                return None
            self.buffer += data
        n = int.from_bytes(self.buffer[:3], "big")
        kind, flags, stream = self.buffer[3], self.buffer[4], int.from_bytes(self.buffer[5:9], "big")
        payload, self.buffer = self.buffer[9:9 + n], self.buffer[9 + n:]
        if kind == HEADERS:
            payload = self.decoder.decode(payload)
        return kind, flags, stream, payload

    def answer(self, stream):
        """(status, headers, body) of a stream, or ("reset", code), or None at the end of the connection."""
        status, headers, body = None, {}, b""
        while True:
            f = self.read_frame()
            if f is None:
                return None
            kind, flags, at, payload = f
            if at != stream:
                continue
            if kind == RST_STREAM:
                return "reset", struct.unpack(">I", payload)[0]
            if kind == HEADERS:
                fields = dict(payload)
                assert len(fields) == len(payload), "a field twice"
                status = int(fields.pop(":status"))
                if status < 200:
                    assert not flags & END_STREAM
                    continue
                headers = fields
            if kind == DATA:
                body += payload
            if flags & END_STREAM:
                return status, headers, body

    def goaway(self):
        """Reads to the end: the error code of the last GOAWAY; None: there was none."""
        code = None
        while (f := self.read_frame()) is not None:
            if f[0] == GOAWAY:
                code = struct.unpack(">I", f[3][4:8])[0]
        return code

    def is_alive(self):
        self.send(frame(PING, 0, 0, b"12345678"))
        while (f := self.read_frame()) is not None:
            if f[0] == PING and f[1] & ACK and f[3] == b"12345678":
                return True
        return False


def length(n, bits=7):
    """An HPACK integer (RFC 7541 section 5.1) with nothing in the bits above."""
    most = (1 << bits) - 1
    if n < most:
        return bytes([n])
    out, n = bytes([most]), n - most
    while n >= 128:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])
