#!/usr/bin/env python3
"""What taking a message costs: CPU per recipient and messages/s of POST /api/inject/v1, without delivery.

usage: bench/inject.py [--recipients N] [--only MODE] [--no-flush] [--logs]
Modes: raw (one recipient a request, content as text), shared (1,000 recipients, content as a table without templates), text (1,000
recipients, content as a templated text), parts (1,000 recipients, subject, text and HTML templated), policy (text, with a handler of
http_message_generated that sets metadata). The messages stay in their queue: its peer takes one connection and says nothing.
Needs the release build (tools/run --build makes it).
"""
import argparse
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from http_to_smtp import ROOT, cpu_seconds, memory, wait_for_port

POLICY = """
local kumo = require 'kumo'
kumo.on('init', function()
  for _, name in ipairs { 'data', 'meta' } do
    kumo.define_spool { name = name, path = '%(dir)s/' .. name, kind = 'Journal', flush = %(flush)s, min_free_space = '1%%' }
  end
  if %(logs)s then
    kumo.configure_local_logs { log_dir = '%(dir)s/logs', min_free_space = '1%%' }
  end
  kumo.start_http_listener { listen = '127.0.0.1:0', request_body_limit = 100000000 }
end)
kumo.on('get_queue_config', function(domain)
  return kumo.make_queue_config { protocol = { smtp = { mx_list = { { name = 'sink', addr = '127.0.0.1:%(port)d' } } } } }
end)
kumo.on('get_egress_path_config', function()
  return kumo.make_egress_path { prohibited_hosts = {}, connection_limit = 1, banner_timeout = '1h' }
end)
%(handler)s
"""
HANDLER = """
kumo.on('http_message_generated', function(msg)
  msg:set_meta('campaign', 'c')
  msg:set_meta('tenant', 'bench')
end)
"""
WORDS = "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et dolore.\n"
GREETING = ("Dear {{ name | default('customer') }},\n\nyour order {{ order }} has shipped:\n"
            "{% for item in items %}  {{ loop.index }}. {{ item.title }}, {{ item.price }}\n{% endfor %}\n"
            "{% if is_member %}Thank you for being a member, {{ name | upper }}.{% endif %}\n")
TEXT = GREETING + WORDS * 12
HTML = "<html><body><p>" + GREETING.replace("\n", "<br>\n") + "</p>" + ("<p>" + WORDS + "</p>\n") * 12 + "</body></html>\n"


def recipient(i):
    return {"email": f"user{i}@bench.example", "name": f"User {i}",
            "substitutions": {"order": f"A-{i}", "is_member": i % 2 == 0,
                              "items": [{"title": "A thing", "price": 9.5}, {"title": "Another & more", "price": 12}]}}


def request(mode, at, n):
    sender = {"email": "shop@example.com", "name": "The Shop"}
    if mode == "raw":
        content = "From: shop@example.com\r\nTo: a@b.example\r\nSubject: hello\r\n\r\n" + WORDS.replace("\n", "\r\n") * 18
        to = [{"email": f"user{at}@bench.example"}]
    else:
        to = [recipient(at + i) for i in range(n)]
        content = {"shared": {"from": sender, "subject": "News", "text_body": WORDS * 12, "html_body": "<p>" + WORDS * 12},
                   "parts": {"from": sender, "subject": "Your order {{ order }}", "text_body": TEXT, "html_body": HTML}}.get(
                       mode, "From: shop@example.com\r\nTo: {{ to_header }}\r\nSubject: Your order {{ order }}\r\n\r\n" + TEXT)
    return json.dumps({"envelope_sender": "bounce@example.com", "recipients": to, "content": content}).encode()


def post_all(port, bodies):
    c = http.client.HTTPConnection("127.0.0.1", port)
    for body in bodies:
        c.request("POST", "/api/inject/v1", body, {"Content-Type": "application/json"})
        r = c.getresponse()
        answer = r.read()
        if r.status != 200 or b'"fail_count":0' not in answer:
            raise SystemExit(f"{r.status} {answer[:500]}")
    c.close()


def measure(mode, a, peer):
    n = 1 if mode == "raw" else 1000
    n_requests = max(1, a.recipients // n) if mode != "raw" else a.recipients // 5
    work = tempfile.mkdtemp(prefix="bench-", dir=os.path.join(ROOT, "build"))
    try:
        with open(f"{work}/policy.lua", "w") as f:
            f.write(POLICY % {"dir": work, "port": peer, "flush": "false" if a.no_flush else "true", "logs": "true" if a.logs else "false",
                              "handler": HANDLER if mode == "policy" else ""})
        path = f"{a.build}/cirrusd" if os.path.exists(f"{a.build}/cirrusd") else f"{a.build}/src/app/cirrusd"
        with open(f"{work}/stderr", "wb") as err:
            daemon = subprocess.Popen([path, "--policy", f"{work}/policy.lua"], stderr=err, env=dict(os.environ, KUMO_NODE_ID_PATH=f"{work}/nodeid"))
        port = wait_for_port(daemon, f"{work}/stderr")
        n_threads = 16 if mode == "raw" else 2
        bodies = [[request(mode, i * n, n) for i in range(k, n_requests, n_threads)] for k in range(n_threads)]
        post_all(port, [request(mode, 10**8, n)])  # the queue is there, the states are warm
        cpu, begun = cpu_seconds(daemon.pid), time.monotonic()
        threads = [threading.Thread(target=post_all, args=(port, b)) for b in bodies]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        cpu, took, total = cpu_seconds(daemon.pid) - cpu, time.monotonic() - begun, n_requests * n
        print(f"{mode:7s} {total} recipients in {n_requests} requests: {cpu / total * 1e6:6.2f} us CPU per recipient, {total / took:8.0f} messages/s, "
              f"{memory(daemon.pid, 'VmHWM'):.0f} MB", flush=True)
        if a.wait:
            input(f"pid {daemon.pid}, port {port}; return ends it")
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()
    finally:
        shutil.rmtree(work, ignore_errors=True)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--recipients", type=int, default=100000)
    p.add_argument("--only", choices=["raw", "shared", "text", "parts", "policy"])
    p.add_argument("--no-flush", action="store_true")
    p.add_argument("--logs", action="store_true")
    p.add_argument("--wait", action="store_true", help="leave the daemon running after the measurement")
    p.add_argument("--build", default=os.path.join(ROOT, "build/release"))
    a = p.parse_args()
    with socket.socket() as peer:
        peer.bind(("127.0.0.1", 0))
        peer.listen()
        for mode in [a.only] if a.only else ["raw", "shared", "text", "parts", "policy"]:
            measure(mode, a, peer.getsockname()[1])


if __name__ == "__main__":
    main()
