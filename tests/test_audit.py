import io
import json
import re
import urllib.error
import urllib.request

import pytest

from harness import audit

LOCK = "# all of it\naiohttp==3.1.0\ntorch==2.13.0+cpu ; python_version > '3'\n    # via x\nzipp==1.0\n"


@pytest.fixture
def osv(monkeypatch):
    """Answers as OSV does: faults for aiohttp 3.1.0, an empty result for the others; keeps what was asked."""
    asked = []

    def answer(request, timeout):
        asked.extend(json.loads(request.data)["queries"])
        of = [{"vulns": [{"id": "A-1"}, {"id": "A-2"}]} if q["package"]["name"] == "aiohttp" else {} for q in asked]
        return io.BytesIO(json.dumps({"results": of}).encode())

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    return asked


def test_every_locked_package_is_asked_about_and_faults_end_with_status_1(osv, tmp_path, capsys):
    lock = tmp_path / "lock.txt"
    lock.write_text(LOCK)
    assert audit.main(lock) == 1
    assert [(q["package"]["name"], q["version"]) for q in osv] == [
        ("aiohttp", "3.1.0"),
        ("torch", "2.13.0"),
        ("zipp", "1.0"),
    ]
    assert {q["package"]["ecosystem"] for q in osv} == {"PyPI"}
    out = capsys.readouterr().out
    assert "aiohttp 3.1.0: A-1, A-2\n" in out
    assert "3 packages" in out
    assert "1 with known faults" in out
    lock.write_text("zipp==1.0\n")
    osv.clear()
    assert audit.main(lock) == 0


@pytest.mark.parametrize("answer", [urllib.error.URLError("no network"), TimeoutError("slow"), io.BytesIO(b"<html>")])
def test_without_an_answer_it_says_not_run(monkeypatch, tmp_path, capsys, answer):
    def none(request, timeout):
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(urllib.request, "urlopen", none)
    (tmp_path / "lock.txt").write_text(LOCK)
    assert audit.main(tmp_path / "lock.txt") == 0
    assert capsys.readouterr().out.startswith("audit: not run (")


def test_all_of_our_lock_is_read(repository):
    text = (repository / "requirements" / "lock.txt").read_text()
    assert len(audit.locked(text)) == len(re.findall("^[^#\\s].*==", text, re.MULTILINE)) > 50
