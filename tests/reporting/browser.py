"""A headless Chromium for tests: pages without a network, real key presses, and what the browser complains of."""

import json
import os
import select
import shutil
import subprocess
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next((found for name in NAMES if (found := shutil.which(name))), None)
OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
KEYS = {
    "Enter": (13, "\r"),
    "Escape": (27, ""),
    "Tab": (9, ""),
    " ": (32, " "),
    "ArrowDown": (40, ""),
    "ArrowUp": (38, ""),
    "ArrowRight": (39, ""),
    "End": (35, ""),
}
DIALOG = "Page.javascriptDialogOpening"  # alert() and the like, which stop the page until somebody answers
COMPLAINTS = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", DIALOG)
SECONDS = 60


class Browser:
    """Speaks the DevTools protocol over a pair of pipes, messages ended by a zero byte."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing, self._read = reading, writing, bytearray()
        self._number, self._session = 0, ""
        self.complaints: list[dict[str, Any]] = []
        self.requests: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send(
            "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What the browser answers; complaints and requests that come before it are kept."""
        number = self._write(method, parameters)
        while True:
            found = self._next()
            if found.get("id") == number:
                assert "error" not in found, found
                return found["result"]
            if found.get("method") in COMPLAINTS:
                self.complaints.append(found["params"])
            if found.get("method") == DIALOG:
                self._write("Page.handleJavaScriptDialog", {"accept": False})
            if found.get("method") == "Network.requestWillBeSent":
                self.requests.append(found["params"]["request"]["url"])

    def open(self, page: Path, width: int = 1280, height: int = 900) -> None:
        """Show a page from its file in a window of that size; a narrow one is a phone's."""
        self.complaints, self.requests = [], []
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        self.send("Page.navigate", url=page.as_uri())
        until = time.monotonic() + SECONDS
        while not self.run(f"document.readyState === 'complete' && location.href === {json.dumps(page.as_uri())}"):
            assert time.monotonic() < until, "the page does not load"
            time.sleep(0.05)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, of plain values."""
        found = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def image_widths(self) -> list[int]:
        """The width in pixels of every image of the page, once all are decoded; fails if one cannot be."""
        self.run("document.querySelectorAll('[hidden]').forEach((each) => each.hidden = false)")
        return self.run("Promise.all([...document.images].map((each) => each.decode().then(() => each.naturalWidth)))")

    def prefer(self, scheme: str) -> None:
        """Make the browser ask for "light" or "dark" pages."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", features=features)

    def without_scripts(self, off: bool) -> None:
        """Whether pages that are opened from now on run without their scripts."""
        self.send("Emulation.setScriptExecutionDisabled", value=off)

    def printed(self) -> bytes:
        """The page as a PDF, as a person would print it."""
        return b64decode(self.send("Page.printToPDF", preferCSSPageSize=True)["data"])

    def press(self, *keys: str) -> None:
        """Press keys as a person does: names of `KEYS`, or letters."""
        for key in keys:
            code, text = KEYS.get(key, (ord(key.upper()[0]), key))
            event = {"key": key, "windowsVirtualKeyCode": code, "text": text}
            self.send("Input.dispatchKeyEvent", type="keyDown", **event)
            self.send("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def _write(self, method: str, parameters: dict[str, Any]) -> int:
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": self._number, "method": method, "params": parameters} | session
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        return self._number

    def _next(self) -> dict[str, Any]:
        while (end := self._read.find(b"\0")) < 0:
            assert select.select([self._reading], [], [], SECONDS)[0], "the browser does not answer"
            more = os.read(self._reading, 1 << 16)
            assert more, "the browser has ended"
            self._read += more
        message = self._read[:end]
        del self._read[: end + 1]
        return json.loads(message)


@contextmanager
def browsing(profile: Path) -> Iterator[Browser]:
    """A browser with an empty profile in that folder, ended with the block."""
    to_read, its_output = os.pipe()
    its_input, to_write = os.pipe()
    command = [str(CHROMIUM), *OPTIONS, f"--user-data-dir={profile}", "--remote-debugging-pipe"]
    # The browser reads its descriptor 3 and writes to 4.
    shell = ["bash", "-c", f'exec "$@" 3<&{its_input} 4>&{its_output}', "bash", *command]
    process = subprocess.Popen(shell, pass_fds=(its_input, its_output), stderr=subprocess.DEVNULL)
    os.close(its_input)
    os.close(its_output)
    try:
        yield Browser(to_read, to_write)
    finally:
        process.terminate()
        process.wait()
        os.close(to_read)
        os.close(to_write)
