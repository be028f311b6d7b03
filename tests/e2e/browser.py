"""A headless Chromium for tests, spoken to over a pipe (the DevTools protocol). It can reach this machine only."""
import fcntl
import json
import os
import shutil
import subprocess
import threading
import time

FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-default-browser-check",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps",
         "--disable-extensions", "--disable-domain-reliability", "--metrics-recording-only", "--mute-audio", "--password-store=basic",
         "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--remote-debugging-pipe"]


def find():
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Page:
    """One page. console: what it wrote, errors and violations of its policy among it; requests: every address that it asked for."""

    def __init__(self, directory, timeout=60):
        self.timeout = timeout
        self.console, self.requests = [], []
        self.n, self.answers, self.condition, self.is_over = 0, {}, threading.Condition(), False
        to_read, self.to = os.pipe()
        self.came, to_write = os.pipe()
        ends = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (to_read, to_write)]  # above the two numbers that it wants

        def place():
            for number, fd in zip((3, 4), ends):
                os.dup2(fd, number)
        self.process = subprocess.Popen([find(), *FLAGS, f"--user-data-dir={directory}", "about:blank"], preexec_fn=place,
                                        pass_fds=(3, 4), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for fd in ends:
            os.close(fd)
        os.close(to_read)
        os.close(to_write)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        target = self.call("Target.getTargets", session=None)["targetInfos"]
        page = next(t for t in target if t["type"] == "page")
        self.session = self.call("Target.attachToTarget", {"targetId": page["targetId"], "flatten": True}, session=None)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.call(domain + ".enable")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        try:
            self.call("Browser.close", session=None)
        except (AssertionError, OSError):
            self.process.kill()
        self.process.wait(self.timeout)
        os.close(self.to)
        self.reader.join(self.timeout)
        os.close(self.came)

    def read(self):
        data = b""
        while piece := os.read(self.came, 65536):
            *messages, data = (data + piece).split(b"\0")
            for m in map(json.loads, messages):
                self.take(m)
        with self.condition:
            self.is_over = True
            self.condition.notify_all()

    def take(self, message):
        with self.condition:
            if "id" in message:
                self.answers[message["id"]] = message
                self.condition.notify_all()
            elif message["method"] == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
            elif message["method"] in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"):
                self.console.append(json.dumps(message["params"]))

    def call(self, method, params=None, session=""):
        with self.condition:
            self.n += 1
            number = self.n
        message = {"id": number, "method": method, "params": params or {}}
        if session is not None:
            message["sessionId"] = session or self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        with self.condition:
            assert self.condition.wait_for(lambda: number in self.answers or self.is_over, self.timeout), f"{method}: no answer"
            answer = self.answers.pop(number, {"error": "the browser has ended"})
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def go(self, url):
        self.call("Page.navigate", {"url": url})

    def run(self, script):
        """The value of a JavaScript expression; promises are waited for."""
        r = self.call("Runtime.evaluate", {"expression": script, "awaitPromise": True, "returnByValue": True})
        assert "exceptionDetails" not in r, r["exceptionDetails"]
        return r["result"].get("value")

    def wait(self, script):
        deadline = time.monotonic() + self.timeout
        while not (value := self.run(script)):
            assert time.monotonic() < deadline, f"waited in vain for {script}\n{self.console}"
            time.sleep(0.05)
        return value

    def accessible(self, role):
        """(name, description) of every element of that role, as assistive technology is told."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return [n.get("name", {}).get("value", "") for n in nodes if not n.get("ignored") and n.get("role", {}).get("value") == role]
