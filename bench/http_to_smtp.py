#!/usr/bin/env python3
"""HTTP in, SMTP out on loopback: messages/s, CPU per message and peak memory of cirrusd, in one command.

usage: bench/http_to_smtp.py [--messages N] [--connections C] [--size BYTES] [--no-flush] [--no-logs] [--keys]
Needs the release build (tools/run --once makes it) with -Dbench=true programs in the same directory.
"""
import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TICK = os.sysconf("SC_CLK_TCK")

POLICY = """
local kumo = require 'kumo'
kumo.on('init', function()
  for _, name in ipairs { 'data', 'meta' } do
    kumo.define_spool { name = name, path = '%(dir)s/' .. name, kind = 'Journal', flush = %(flush)s, min_free_space = '1%%' }
  end
  if %(logs)s then
    kumo.configure_local_logs { log_dir = '%(dir)s/logs', min_free_space = '1%%' }
  end
  kumo.start_http_listener { listen = '127.0.0.1:0' }
end)
kumo.on('get_queue_config', function(domain)
  return kumo.make_queue_config { protocol = { smtp = { mx_list = { { name = 'sink', addr = '127.0.0.1:%(port)d' } } } } }
end)
kumo.on('get_egress_path_config', function()
  return kumo.make_egress_path { prohibited_hosts = {}, connection_limit = 32, max_ready = 20000 }
end)
"""


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory(pid, key):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(rf"^{key}:\s+(\d+) kB", f.read(), re.M).group(1)) / 1024


def metric(port, name):
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    found = re.search(rf"^{re.escape(name)} ([0-9.]+)$", text, re.M)
    return float(found.group(1)) if found else 0.0


def wait_for_port(daemon, path):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and daemon.poll() is None:
        with open(path) as f:
            text = f.read()
        if "initialization complete" in text:
            return int(re.search(r"http listener on 127\.0\.0\.1:(\d+)", text).group(1))
        time.sleep(0.02)
    with open(path) as f:
        sys.exit("cirrusd did not start:\n" + f.read())


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--messages", type=int, default=50000)
    p.add_argument("--connections", type=int, default=64)
    p.add_argument("--size", type=int, default=2048)
    p.add_argument("--no-flush", action="store_true")
    p.add_argument("--no-logs", action="store_true")
    p.add_argument("--keys", action="store_true", help="each request has an Idempotency-Key")
    p.add_argument("--build", default=os.path.join(ROOT, "build/release"))
    p.add_argument("--dir", default=None, help="where the spool lies (default: below build/)")
    a = p.parse_args()
    build = a.build
    os.makedirs(a.dir or os.path.join(ROOT, "build"), exist_ok=True)
    work = tempfile.mkdtemp(prefix="bench-", dir=a.dir or os.path.join(ROOT, "build"))
    procs = []
    try:
        sink = subprocess.Popen([f"{build}/bench/smtp_sink"], stdout=subprocess.PIPE, text=True)
        procs.append(sink)
        sink_port = int(sink.stdout.readline().split()[-1])
        with open(f"{work}/policy.lua", "w") as f:
            f.write(POLICY % {"dir": work, "port": sink_port, "flush": "false" if a.no_flush else "true",
                              "logs": "false" if a.no_logs else "true"})
        daemon_path = f"{build}/cirrusd" if os.path.exists(f"{build}/cirrusd") else f"{build}/src/app/cirrusd"
        env = dict(os.environ, KUMO_NODE_ID_PATH=f"{work}/nodeid")
        with open(f"{work}/stderr", "wb") as err:
            daemon = subprocess.Popen([daemon_path, "--policy", f"{work}/policy.lua"], stderr=err, env=env)
        procs.append(daemon)
        port = wait_for_port(daemon, f"{work}/stderr")
        idle = memory(daemon.pid, "VmRSS")
        cpu0, t0 = cpu_seconds(daemon.pid), time.monotonic()
        load = subprocess.run([f"{build}/bench/http_load", str(port), str(a.messages), str(a.connections), str(a.size), "bench.example",
                               *(["bench"] if a.keys else [])],
                              stdout=subprocess.PIPE, text=True)
        t_in = time.monotonic() - t0
        if load.returncode != 0:
            sys.exit(f"load failed: {load.stdout}")
        name = 'total_messages_delivered{service="smtp_client"}'
        while metric(port, name) < a.messages and time.monotonic() - t0 < 300:
            time.sleep(0.05)
        t_all = time.monotonic() - t0
        cpu = cpu_seconds(daemon.pid) - cpu0
        delivered = metric(port, name)
        peak = memory(daemon.pid, "VmHWM")
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(60)
        sink.send_signal(signal.SIGTERM)
        arrived = int(re.search(r"messages (\d+)", sink.stdout.read()).group(1))
        print(f"accepted {a.messages} in {t_in:.2f} s, delivered {delivered:.0f} (sink: {arrived}) in {t_all:.2f} s")
        print(f"{a.messages / t_all:.0f} messages/s, {cpu / a.messages * 1e6:.1f} us CPU per message, "
              f"idle {idle:.1f} MB, peak {peak:.1f} MB")
        sys.exit(0 if arrived == a.messages else 1)
    finally:
        for proc in procs:
            if proc.poll() is None:
                proc.kill()
                proc.wait()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
