import hashlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from harness.errors import UserError
from harness.models import build, load_spec, weights
from harness.models.building import from_spec
from harness.models.spec import WeightsSource


@pytest.fixture
def server():
    """Serves `content` under any path on this machine, and lists the paths asked for."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            self.send_response(self.server.status)
            self.send_header("Content-Length", str(len(self.server.content)))
            self.end_headers()
            self.wfile.write(self.server.content)

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.content, http.status, http.asked = b"", 200, []
    http.url = f"http://127.0.0.1:{http.server_address[1]}"
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield http
    http.shutdown()
    http.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONTEXTRAST_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def model_from(url):
    return load_spec("hrnet_tiny").model_copy(update={"weights": WeightsSource(url=url)})


def test_a_model_starts_from_a_downloaded_file_and_its_hash_is_kept(server, cache, tmp_path):
    state = build("hrnet_tiny", 5).state_dict()
    torch.save({k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}, tmp_path / "f")
    server.content = (tmp_path / "f").read_bytes()
    digest = hashlib.sha256(server.content).hexdigest()
    for _ in range(2):
        segmenter = from_spec(model_from(f"{server.url}/pretrain/tiny-{digest[:8]}.pth"), 7)
        assert segmenter.initial_weights_sha256 == digest
        assert segmenter.state_dict()["backbone.conv1.weight"].equal(state["backbone.conv1.weight"])
    assert server.asked == [f"/pretrain/tiny-{digest[:8]}.pth"]
    assert [path.name for path in cache.iterdir()] == [f"tiny-{digest[:8]}.pth"]


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [("tiny-01234567.pth", 200, "invalid hash"), ("tiny.pth", 404, "404")],
)
def test_another_file_or_none_is_refused_and_leaves_nothing(server, cache, name, status, words):
    server.content, server.status = b"other content", status
    with pytest.raises(UserError, match=rf"could not be downloaded \(.*{words}"):
        from_spec(model_from(f"{server.url}/{name}"), 5)
    assert list(cache.iterdir()) == []


def test_a_silent_server_is_given_up(cache, monkeypatch):
    monkeypatch.setattr(weights, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(UserError, match="timed out"):
        from_spec(model_from(f"http://127.0.0.1:{silent.getsockname()[1]}/a.pth"), 5)
    assert socket.getdefaulttimeout() is None


def test_the_cache_is_where_the_user_says(monkeypatch, tmp_path, cache):
    assert weights.cache_folder() == cache
    monkeypatch.delenv("CONTEXTRAST_BENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert weights.cache_folder() == tmp_path / "xdg" / "contextrast-bench"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights.cache_folder() == tmp_path / ".cache" / "contextrast-bench"
