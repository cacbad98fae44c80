"""A real headless Chromium, told what to do over a pipe in the browser's own DevTools protocol.

The pipe needs neither a port nor a library: a message is JSON that ends with a zero byte.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # as root, where it is refused otherwise
    "--remote-debugging-pipe",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-sync",
    "--enable-unsafe-swiftshader",  # surfaces are drawn without a GPU
    "--hide-scrollbars",
    "--no-first-run",
)
PATIENCE = 60.0  # seconds for one answer
# The browser listens on descriptor 3 and answers on 4: both are moved out of the way first.
AS_THREE_AND_FOUR = """
import fcntl, os, sys
told, heard = (fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3])
os.dup2(told, 3)
os.dup2(heard, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def chromium():
    """Return the path of the browser; skip where there is none."""
    found = [path for name in NAMES if (path := shutil.which(name))]
    if not found:
        pytest.skip(f"needs one of the browsers {', '.join(NAMES)} (Debian: apt install chromium)")
    return found[0]


class Browser:
    """One browser with one page. `events` holds what it told that was no answer."""

    def __init__(self):
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        path = chromium()
        told, to_tell = os.pipe()
        to_hear, heard = os.pipe()

        self._process = subprocess.Popen(
            [
                *(sys.executable, "-c", AS_THREE_AND_FOUR, str(told), str(heard)),
                *(path, *FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(told, heard),
        )
        os.close(told)
        os.close(heard)
        self._to_tell, self._to_hear = to_tell, to_hear
        self._buffer, self._number, self._session, self.events = b"", 0, None, []
        targets = self.call("Target.getTargets")["targetInfos"]
        (page,) = [target for target in targets if target["type"] == "page"]
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """Send a command and return its result; events on the way are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to_tell, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def _next(self):
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._to_hear], [], [], PATIENCE)
            assert ready, "the browser does not answer"
            read = os.read(self._to_hear, 1 << 20)
            assert read, "the browser has ended"
            self._buffer += read
        line, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(line)

    def run(self, script):
        """Return the value of an expression in the page; of a promise once it is kept."""
        found = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script, seconds=PATIENCE / 3):
        """Wait until an expression in the page is true, and return it."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"in vain: {script}"
            time.sleep(0.05)
        return value

    def open(self, address, width=1280, height=800, dark=False, scale=1, mobile=False):
        """Open a page in a window of a size, in light or dark colours."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            **dict(width=width, height=height, deviceScaleFactor=scale, mobile=mobile),
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def mouse(self, kind, x, y, button="left"):
        """Send an event of the mouse: "mousePressed", "mouseMoved", "mouseReleased"."""
        pressed = 0 if kind == "mouseReleased" else 1
        self.call(
            "Input.dispatchMouseEvent",
            **dict(type=kind, x=x, y=y, button=button, buttons=pressed, clickCount=1),
        )

    def screenshot(self, path, whole=False):
        """Write the window, or the whole page, as PNG."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))
        return path

    def printed(self, path):
        """Write the page as PDF, as a printer gets it."""
        found = self.call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
        path.write_bytes(base64.b64decode(found["data"]))
        return path

    def errors(self):
        """Return what the console and the page's scripts said that is an error."""
        found = []
        for event in self.events:
            parameters = event.get("params", {})
            if event["method"] == "Runtime.exceptionThrown":
                found.append(parameters["exceptionDetails"])
            elif event["method"] == "Log.entryAdded" and parameters["entry"]["level"] == "error":
                found.append(parameters["entry"])
            elif event["method"] == "Runtime.consoleAPICalled":
                if parameters["type"] in ("error", "assert"):
                    found.append(parameters)
        return found

    def requests(self):
        """Return the addresses that were asked for, without those that a page carries itself."""
        sent = [e for e in self.events if e["method"] == "Network.requestWillBeSent"]
        addresses = [event["params"]["request"]["url"] for event in sent]
        return [address for address in addresses if not address.startswith(("data:", "blob:"))]

    def close(self):
        """End the browser."""
        try:
            self._session = None
            self.call("Browser.close")
            self._process.wait(10)
        except (AssertionError, OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._to_tell)
        os.close(self._to_hear)
        self._profile.cleanup()
