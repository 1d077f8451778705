"""Finds JPEGs with damaged pixels, which decoders conceal without an error.

libjpeg reports damage only on stderr, which all threads of a process share. This file is therefore also a program that
decodes files one after the other and returns libjpeg's message about each.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import LifoQueue

import cv2
import numpy as np

JPEG_START = b"\xff\xd8\xff"
HOLE = 1024  # bytes
FEW = 0.01  # share of a file's bytes that may be unused before the end marker; some programs write a few


def has_hole(path: Path) -> bool:
    """Whether the file is a JPEG with a long run of zero bytes, which can decode without a warning."""
    content = path.read_bytes()
    return content.startswith(JPEG_START) and bytes(HOLE) in content[: content.rfind(b"\xff\xd9")]


class Inspectors:
    """A pool of processes that check JPEGs, started on demand and shared by threads. Use `inspectors`."""

    def __init__(self, number: int) -> None:
        self._places: LifoQueue[subprocess.Popen[str] | None] = LifoQueue()  # last used first
        self._number = number
        for _ in range(number):
            self._places.put(None)

    def fault(self, path: Path) -> str:
        """What is wrong with a JPEG's pixels, as text that follows its name; "" if nothing is, or for other files."""
        if not _is_jpeg(path):
            return ""
        process = self._places.get()
        try:
            process = process or _start()
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(str(path)) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            if not answer:
                raise RuntimeError(f"the process that checks {path} died: start again")
            return str(json.loads(answer))
        finally:
            self._places.put(process)

    def close(self) -> None:
        """End the processes."""
        for _ in range(self._number):
            if process := self._places.get():
                process.communicate()


def _start() -> subprocess.Popen[str]:
    command = [sys.executable, __file__]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")


def _is_jpeg(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(JPEG_START)) == JPEG_START
    except OSError:  # reading the file reports it
        return False


@contextmanager
def inspectors(number: int) -> Iterator[Inspectors]:
    """`number` processes that check JPEGs within the block."""
    opened = Inspectors(number)
    try:
        yield opened
    finally:
        opened.close()


def _fault(path: str, errors: int) -> str:
    """The result of `Inspectors.fault` from libjpeg's messages about `path` in the file descriptor `errors`."""
    content = Path(path).read_bytes()
    start = os.fstat(errors).st_size
    cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8)  # reads all data, but is fast
    message = " ".join(os.pread(errors, 200, start).decode("utf-8", "replace").split())
    left = re.search(r"(\d+) extraneous bytes before marker 0xd9", message)
    if not message or (left and int(left[1]) < FEW * len(content)):
        return ""
    return f"is damaged ({message.removeprefix('Corrupt JPEG data: ')}): copy or download it again"


def _main() -> None:
    cv2.setNumThreads(1)
    with tempfile.TemporaryFile() as errors:
        os.dup2(errors.fileno(), 2)
        for line in sys.stdin:
            path = json.loads(line)
            try:
                answer = _fault(path, errors.fileno())
            except (OSError, ValueError, cv2.error):  # reading the file reports it
                answer = ""
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _main()
