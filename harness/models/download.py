"""Weights from a URL: shown, taken up again after a cut, checked by the hash in the file's name, kept in a cache."""

import fcntl
import hashlib
import os
from http import HTTPStatus
from http.client import HTTPException
from io import BufferedRandom
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from harness.compute.progress import Progress
from harness.errors import UserError
from harness.models import HASH_IN_NAME

MIB = 1 << 20
PATIENCE = 30.0  # seconds without a byte before the connection counts as cut


def cache_folder() -> Path:
    """$CONTEXTRAST_BENCH_CACHE, else contextrast-bench in the user's cache folder ($XDG_CACHE_HOME or ~/.cache)."""
    if own := os.environ.get("CONTEXTRAST_BENCH_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "contextrast-bench"


def download(url: str, path: Path) -> None:
    """Put the file at `url` at `path`, unless another process has done so meanwhile.

    What has come stays in PATH.part; a cut download goes on from there as long as each attempt brings something, and
    the next call does the same. Nothing is at `path` before all is there and its sha256 begins with the digits that
    end the file's name, if any do.

    Raises ConnectionError with the reason if the file does not come, UserError if it has another hash.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # a second process waits here, and then finds the file at `path`
            if path.is_file():
                part.unlink(missing_ok=True)
                return
            _fetch(url, file)
            _check(url, file)
            os.fsync(file.fileno())
            part.replace(path)
    except (OSError, HTTPException) as error:
        raise ConnectionError(str(error).removeprefix("<urlopen error ").removesuffix(">")) from None


def _fetch(url: str, file: BufferedRandom) -> None:
    """Append to `file` until it is complete. Raises what cut the last attempt if that one brought nothing."""
    while True:
        had = file.tell()
        try:
            if _complete(url, file):
                return
            cut: Exception = ConnectionError("the connection was cut")
        except HTTPError as error:
            if not had or error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise
            _empty(file)  # it holds more than the server has
            continue
        except (OSError, HTTPException) as error:
            cut = error
        if file.tell() <= had:
            raise cut


def _complete(url: str, file: BufferedRandom) -> bool:
    """One request for what `file` lacks; appends what comes, and says whether that was all."""
    had = file.tell()
    headers = {"User-Agent": "contextrast-bench"} | ({"Range": f"bytes={had}-"} if had else {})
    with urlopen(Request(url, headers=headers), timeout=PATIENCE) as response:
        if had and response.status != HTTPStatus.PARTIAL_CONTENT:
            _empty(file)  # the server begins anew
            had = 0
        length = response.headers["Content-Length"]
        total = None if length is None else had + int(length)
        with Progress(f"download {Path(url).name} (MiB)", -(-(total or 0) // MIB), had // MIB) as progress:
            while block := response.read(MIB):
                file.write(block)
                progress.advance()
    return total is None or file.tell() >= total


def _check(url: str, file: BufferedRandom) -> None:
    mark = HASH_IN_NAME.search(Path(url).name)
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    if mark is not None and not digest.startswith(mark[1]):
        _empty(file)
        raise UserError(
            f"{url} came with sha256 {digest[: len(mark[1])]}..., not {mark[1]} as its name says: try again, or pass "
            f"--weights with a file's path"
        )


def _empty(file: BufferedRandom) -> None:
    file.seek(0)
    file.truncate()
