import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import psutil
import pytest

from harness.datasets import load
from harness.datasets.cache import Cached, cache_path, open_cache
from harness.datasets.dataset import Dataset
from harness.errors import UserError

SIZE = 3 * 10 * 12 * 4  # bytes of the three training samples
KINDS = pytest.mark.parametrize("kind", ["ram", "disk"])


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def no_decoding(*_):
    raise AssertionError("a sample was decoded")


def assert_reads_as(tree, reader, samples):
    for sample in samples:
        for found, expected in zip(reader.read(sample), tree.read(sample), strict=True):
            assert found.dtype == np.uint8
            assert np.array_equal(found, expected)


def sum_of(reader, sample, queue):
    queue.put(int(reader.read(sample)[0].sum()))


@KINDS
def test_samples_are_decoded_once_and_read_only(tree, folder, kind, monkeypatch):
    samples = tree.samples("train")
    expected = [tree.read(sample) for sample in samples]
    reader = open_cache(tree, samples, kind, folder)
    assert reader.pixels.nbytes == SIZE
    assert_reads_as(tree, reader, tree.samples("val"))  # others come from their files
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=sum_of, args=(reader, samples[2], queue))
    process.start()
    assert queue.get(timeout=30) == int(expected[2][0].sum())
    process.join()
    monkeypatch.setattr(Dataset, "read", no_decoding)
    for sample, pair in zip(samples, expected, strict=True):
        for held, array in zip(reader.read(sample), pair, strict=True):
            assert np.array_equal(held, array)
            with pytest.raises(ValueError, match="read-only"):
                held[0, 0] = 0


def test_no_cache_is_the_data_set_itself(tree, folder):
    assert open_cache(tree, tree.samples("train"), None, folder) is tree
    assert not folder.exists()


@KINDS
def test_images_of_many_sizes_and_kinds(tree, folder, kind):
    samples, rng = tree.samples("train"), np.random.default_rng(0)
    for sample, shape in zip(samples, [(1, 1), (7, 300), (64, 3)], strict=True):
        cv2.imwrite(str(sample.image_path), rng.integers(0, 256, shape, dtype=np.uint8))  # grey
        cv2.imwrite(str(sample.label_path), rng.integers(0, 12, shape, dtype=np.uint8))
    reader = open_cache(tree, samples, kind, folder)
    assert reader.pixels.nbytes == 4 * (1 + 2100 + 192)
    assert_reads_as(tree, reader, samples)


@pytest.mark.parametrize("kind", ["ram", "disk", "auto"])
@pytest.mark.parametrize("part", ["image_path", "label_path"])
def test_a_bad_file_stops_the_filling_with_its_name(tree, folder, kind, part):
    samples = tree.samples("train")
    path = getattr(samples[1], part)
    content = path.read_bytes()
    path.write_bytes(b"")
    with pytest.raises(UserError, match=path.name):
        open_cache(tree, samples, kind, folder)
    assert {left.suffix for left in folder.glob("*")} <= {".lock"}
    path.write_bytes(content)
    assert_reads_as(tree, open_cache(tree, samples, kind, folder), samples)


# room


def little_memory(monkeypatch, free):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free))


def little_disk(monkeypatch, free):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))


@pytest.mark.parametrize(("kind", "lacking"), [("ram", little_memory), ("disk", little_disk)])
def test_too_little_room_is_said_before_anything_is_decoded(tree, folder, monkeypatch, kind, lacking):
    monkeypatch.setattr(Dataset, "read", no_decoding)
    lacking(monkeypatch, SIZE - 1)
    with pytest.raises(UserError, match=f"--cache {kind} needs .* are free"):
        open_cache(tree, tree.samples("train"), kind, folder)


def test_a_disk_that_fills_up_leaves_nothing(tree, folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(UserError, match=r"\.pixels cannot be written: No space left"):
        open_cache(tree, tree.samples("train"), "disk", folder)
    assert [path.suffix for path in folder.iterdir()] == [".lock"]


def test_auto_is_a_file_if_it_pays_and_there_is_room(tree, folder, monkeypatch):
    samples = tree.samples("train")
    assert open_cache(tree, samples, "auto", folder, reads=2) is tree
    folder.write_text("in its place")
    assert open_cache(tree, samples, "auto", folder) is tree
    folder.unlink()
    for lacking in (little_memory, little_disk):
        with monkeypatch.context() as patched:
            lacking(patched, 2 * SIZE - 1)
            assert open_cache(tree, samples, "auto", folder) is tree
    assert isinstance(open_cache(tree, samples, "auto", folder, reads=3), Cached)
    little_memory(monkeypatch, 0)  # a file that is there is used
    assert isinstance(open_cache(tree, samples, "auto", folder), Cached)


# the file


def test_the_file_is_found_again_and_not_touched(tree, folder, monkeypatch):
    samples = tree.samples("train")
    open_cache(tree, samples, "disk", folder)
    path = cache_path(tree, samples, folder)
    before = path.stat()
    path.with_suffix(".lock").unlink()
    with monkeypatch.context() as patched:
        patched.setattr(Dataset, "read", no_decoding)
        again = open_cache(tree, samples, "disk", folder)
    assert path.stat() == before
    assert not path.with_suffix(".lock").exists()  # a complete file needs no lock
    assert_reads_as(tree, again, samples)
    assert cache_path(tree, samples[:2], folder) != path


def alter_label(tree):
    sample = tree.samples("train")[1]
    label = cv2.imread(str(sample.label_path), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(sample.label_path), (label + 1) % 12)
    return tree


def alter_image_and_keep_its_size(tree):
    path = tree.samples("train")[1].image_path
    image, size = cv2.imread(str(path)), path.stat().st_size
    cv2.imwrite(str(path), image[::-1])
    with path.open("ab") as file:
        file.write(b"\0" * max(0, size - path.stat().st_size))
    return tree


def alter_the_meaning(tree):
    entries = list(tree.spec.classes)
    entries[0], entries[1] = entries[1], entries[0]
    return Dataset(tree.spec.model_copy(update={"classes": tuple(entries)}), tree.root)


@pytest.mark.parametrize("alter", [alter_label, alter_image_and_keep_its_size, alter_the_meaning])
def test_changed_data_is_decoded_again(tree, folder, alter):
    samples = tree.samples("train")
    stale = open_cache(tree, samples, "disk", folder)
    old = [tree.read(sample) for sample in samples]
    changed = alter(tree)
    assert_reads_as(changed, open_cache(changed, samples, "disk", folder), samples)
    assert len(list(folder.glob("*.pixels"))) == 1
    for sample, pair in zip(samples, old, strict=True):  # who has it open keeps what it had
        assert all(np.array_equal(held, array) for held, array in zip(stale.read(sample), pair, strict=True))


@pytest.mark.parametrize("suffix", [".pixels", ".json"])
@pytest.mark.parametrize("spoil", [lambda content: b"", lambda content: content[:-1], lambda content: b"{}"])
def test_a_damaged_file_is_replaced(tree, folder, suffix, spoil):
    samples = tree.samples("train")
    open_cache(tree, samples, "disk", folder)
    path = cache_path(tree, samples, folder).with_suffix(suffix)
    path.write_bytes(spoil(path.read_bytes()))
    assert_reads_as(tree, open_cache(tree, samples, "disk", folder), samples)


# two processes

PROGRAM = """
import json, sys, time
from pathlib import Path
from harness.datasets import load
from harness.datasets.cache import open_cache
from harness.datasets.dataset import Dataset

root, folder, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
dataset = Dataset(load("camvid").spec.model_copy(update={"class_pixels": {}}), root)
read, decoded = Dataset.read, []

def slow(self, sample):
    decoded.append(sample.id)
    print("decoding\\n", end="", flush=True)
    time.sleep(seconds)
    return read(self, sample)

Dataset.read = slow
samples = dataset.samples("train")
cached = open_cache(dataset, samples, "disk", folder)
Dataset.read = None
sums = [[int(array.sum()) for array in cached.read(sample)] for sample in samples]
print(json.dumps({"decoded": len(decoded), "sums": sums}))
"""


def start(tree, folder, seconds):
    command = [sys.executable, "-c", PROGRAM, str(tree.root), str(folder), str(seconds)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=Path(__file__).parents[2], text=True, **pipes)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_a_second_process_waits_for_the_first_or_takes_over_when_it_is_killed(tree, folder, killed):
    first = start(tree, folder, 60 if killed else 0.5)
    assert first.stdout.readline() == "decoding\n"
    second = start(tree, folder, 0)
    if killed:
        first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    output, _ = second.communicate(timeout=60)
    found = json.loads(output.splitlines()[-1])
    assert found["sums"] == [[int(array.sum()) for array in tree.read(sample)] for sample in tree.samples("train")]
    assert found["decoded"] == (3 if killed else 0)
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".lock", ".pixels"]


@pytest.mark.slow
@KINDS
def test_real_camvid_is_held_as_it_is_read(camvid_root, tmp_path, kind):
    camvid = load("camvid", camvid_root)
    samples = camvid.samples("val")
    reader = open_cache(camvid, samples, kind, tmp_path)
    assert_reads_as(camvid, reader, samples)
    assert reader.pixels.nbytes == 101 * 480 * 360 * 4
