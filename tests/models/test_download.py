import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.errors import UserError
from harness.models import WeightsSource, build, download, load_spec
from harness.models.segmenter import from_spec

CONTENT = np.random.default_rng(0).bytes(3_000_000)
NAME = f"weights-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


class Server:
    """Serves `content` under any path on this machine and notes each request's Range header.

    cuts: how many bytes each of the first requests gets before its connection is closed.
    """

    def __init__(self) -> None:
        self.content, self.cuts, self.ranges, self.status = CONTENT, [], [], 200
        self.knows_ranges = True
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.knows_ranges else 0
        body = self.content[start:]
        if start >= len(self.content):
            request.send_error(416)
            return
        request.send_response(206 if start else self.status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if self.status == 200:
            request.wfile.write(body[: self.cuts.pop(0)] if self.cuts else body)
        request.close_connection = True


@pytest.fixture
def server():
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "cache" / NAME


def part_of(path: Path) -> Path:
    return path.with_name(f"{NAME}.part")


def test_a_file_comes_whole_and_leaves_nothing_beside_it(server, path, capfd):
    download.download(f"{server.url}/a/{NAME}", path)
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]
    assert server.ranges == [None]
    assert f"download {NAME} (MiB): 3/3" in capfd.readouterr().err


def test_a_cut_download_goes_on_where_it_broke(server, path):
    server.cuts = [1_000_000, 1_500_001]
    download.download(f"{server.url}/{NAME}", path)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000000-", "bytes=2500001-"]


def test_what_an_earlier_process_left_is_continued(server, path):
    path.parent.mkdir()
    part_of(path).write_bytes(CONTENT[:1234])
    download.download(f"{server.url}/{NAME}", path)
    assert path.read_bytes() == CONTENT
    assert server.ranges == ["bytes=1234-"]


def test_a_server_without_ranges_is_asked_for_all_of_it(server, path):
    server.knows_ranges, server.cuts = False, [1_000_000]
    download.download(f"{server.url}/{NAME}", path)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000000-"]


def test_more_than_the_server_has_is_thrown_away(server, path):
    path.parent.mkdir()
    part_of(path).write_bytes(b"x" * (len(CONTENT) + 1))
    download.download(f"{server.url}/{NAME}", path)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT) + 1}-", None]


def test_a_connection_that_brings_nothing_more_ends_the_attempts_and_keeps_what_came(server, path):
    server.cuts = [1_000_000, 0]
    with pytest.raises(ConnectionError, match="the connection was cut"):
        download.download(f"{server.url}/{NAME}", path)
    assert not path.exists()
    assert part_of(path).read_bytes() == CONTENT[:1_000_000]


def test_a_wrong_hash_is_refused_and_the_next_attempt_begins_anew(server, path):
    server.content = CONTENT[:-1] + b"!"
    found = hashlib.sha256(server.content).hexdigest()[:8]
    with pytest.raises(UserError, match=rf"{NAME} came with sha256 {found}\.\.\., not {NAME[8:16]}"):
        download.download(f"{server.url}/{NAME}", path)
    assert not path.exists()
    server.content = CONTENT
    download.download(f"{server.url}/{NAME}", path)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, None]


def test_a_name_without_a_hash_is_taken_as_it_comes(server, path):
    download.download(f"{server.url}/20220317.pth", path.with_name("20220317.pth"))
    assert path.with_name("20220317.pth").read_bytes() == CONTENT


def test_a_missing_file_is_said_with_the_servers_answer(server, path):
    server.status = 404
    with pytest.raises(ConnectionError, match="404"):
        download.download(f"{server.url}/{NAME}", path)


def test_a_silent_server_is_given_up(path, monkeypatch):
    import socket

    monkeypatch.setattr(download, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ConnectionError, match="timed out"):
        download.download(f"http://127.0.0.1:{silent.getsockname()[1]}/{NAME}", path)


def test_two_at_once_download_once(server, path):
    threads = [threading.Thread(target=download.download, args=(f"{server.url}/{NAME}", path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]
    assert server.ranges == [None]


def test_the_cache_is_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("CONTEXTRAST_BENCH_CACHE", str(tmp_path / "own"))
    assert download.cache_folder() == tmp_path / "own"
    monkeypatch.delenv("CONTEXTRAST_BENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert download.cache_folder() == tmp_path / "xdg" / "contextrast-bench"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert download.cache_folder() == tmp_path / ".cache" / "contextrast-bench"


def test_a_model_starts_from_a_downloaded_file_and_its_hash_is_kept(server, tmp_path, monkeypatch):
    state = build("hrnet_tiny", 5).state_dict()
    torch.save({k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}, tmp_path / "f")
    server.content = (tmp_path / "f").read_bytes()
    digest = hashlib.sha256(server.content).hexdigest()
    monkeypatch.setenv("CONTEXTRAST_BENCH_CACHE", str(tmp_path / "cache"))
    spec = load_spec("hrnet_tiny").model_copy(
        update={"weights": WeightsSource(url=f"{server.url}/pretrain/tiny-{digest[:8]}.pth")}
    )
    for _ in range(2):
        segmenter = from_spec(spec, 7)
        assert segmenter.initial_weights_sha256 == digest
        assert segmenter.state_dict()["backbone.conv1.weight"].equal(state["backbone.conv1.weight"])
    assert server.ranges == [None]
