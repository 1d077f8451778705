"""Finds JPEGs whose coded pixels are damaged, which decoders repair as well as they can without an error.

libjpeg says so on the standard error stream alone, which all threads of a process share. So this file is also a program
of its own: it decodes one file after the other and answers with what was said of each.
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
from queue import SimpleQueue

import cv2
import numpy as np

FEW = 0.01  # share of a file's bytes that may be left over before its end marker: some writers leave a few


HOLE = 1024  # bytes


def has_hole(path: Path) -> bool:
    """Whether the file is a JPEG with a long run of zero bytes, whose pixels decode without a word in some places."""
    content = path.read_bytes()
    return content.startswith(b"\xff\xd8") and bytes(HOLE) in content[: content.rfind(b"\xff\xd9")]


class Inspectors:
    """Processes that look at JPEGs, for threads to share. Use `inspectors`."""

    def __init__(self, number: int) -> None:
        self._free: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()
        self._all = [
            subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
            )
            for _ in range(number)
        ]
        for process in self._all:
            self._free.put(process)

    def fault(self, path: Path) -> str:
        """What is wrong with the pixels of the JPEG at `path`, to follow its name; "" if nothing is, or it is none."""
        process = self._free.get()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(str(path)) + "\n")
            process.stdin.flush()
            return str(json.loads(process.stdout.readline()))
        finally:
            self._free.put(process)

    def close(self) -> None:
        """End the processes."""
        for process in self._all:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.wait()
            process.stdout.close()


@contextmanager
def inspectors(number: int) -> Iterator[Inspectors]:
    """`number` processes that look at JPEGs, until the block ends."""
    opened = Inspectors(number)
    try:
        yield opened
    finally:
        opened.close()


def _fault(path: str, errors: int) -> str:
    """What libjpeg says on the stream `errors` of the file at `path`, as `Inspectors.fault` gives it."""
    content = Path(path).read_bytes()
    start = os.fstat(errors).st_size
    cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8)  # all is read, little is computed
    said = " ".join(os.pread(errors, 200, start).decode("utf-8", "replace").split())
    left = re.search(r"(\d+) extraneous bytes before marker 0xd9", said)
    if not said or (left and int(left[1]) < FEW * len(content)):
        return ""
    return f"is damaged ({said.removeprefix('Corrupt JPEG data: ')}): copy or download it again"


def _main() -> None:
    cv2.setNumThreads(1)
    with tempfile.TemporaryFile() as errors:
        os.dup2(errors.fileno(), 2)
        for line in sys.stdin:
            path = json.loads(line)
            try:
                answer = _fault(path, errors.fileno())
            except (OSError, ValueError, cv2.error):  # which reading the file says better
                answer = ""
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _main()
