import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from harness.datasets import cache, load
from harness.datasets.cache import Cached, DiskCache, decoded_bytes, open_cache
from harness.datasets.dataset import Dataset
from harness.datasets.readers import Sample
from harness.errors import UserError

SIZE = 3 * 10 * 12 * 4  # bytes of the three training samples


def no_decoding(*_: object) -> None:
    raise AssertionError("a sample was decoded")


def assert_reads_as(tree: Dataset, reader: cache.Reads, samples: list[Sample]) -> None:
    for sample in samples:
        for found, expected in zip(reader.read(sample), tree.read(sample), strict=True):
            assert found.dtype == np.uint8
            assert np.array_equal(found, expected)


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_what_was_decoded_once_is_not_decoded_again(
    tree: Dataset, tmp_path: Path, kind: cache.Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = tree.samples("train")
    expected = [tree.read(sample) for sample in samples]
    reader = open_cache(tree, samples, kind, tmp_path / "cache")
    monkeypatch.setattr(Dataset, "read", no_decoding)
    for sample, (image, label) in zip(samples, expected, strict=True):
        held_image, held_label = reader.read(sample)
        assert np.array_equal(held_image, image)
        assert np.array_equal(held_label, label)


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_other_samples_are_read_from_their_files(tree: Dataset, tmp_path: Path, kind: cache.Kind) -> None:
    reader = open_cache(tree, tree.samples("train"), kind, tmp_path / "cache")
    assert_reads_as(tree, reader, tree.samples("val"))


def test_no_cache_is_the_data_set_itself(tree: Dataset, tmp_path: Path) -> None:
    assert open_cache(tree, tree.samples("train"), None, tmp_path / "cache") is tree
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("kind", [Cached, DiskCache])
def test_the_size_is_four_bytes_a_pixel_and_known_before(tree: Dataset, tmp_path: Path, kind: type) -> None:
    samples = tree.samples("train")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Dataset, "read", no_decoding)
        assert decoded_bytes(tree, samples) == SIZE
    if kind is Cached:
        cached = Cached(tree)
        assert cached.nbytes == 0
        cached.fill(samples)
        assert cached.nbytes == SIZE
    else:
        assert DiskCache(tree, samples, tmp_path / "cache").nbytes == SIZE


def test_images_of_many_sizes_and_kinds(tree: Dataset, tmp_path: Path) -> None:
    samples, rng = tree.samples("train"), np.random.default_rng(0)
    for sample, shape in zip(samples, [(1, 1), (7, 300), (64, 3)], strict=True):
        cv2.imwrite(str(sample.image_path), rng.integers(0, 256, shape, dtype=np.uint8))  # grey
        cv2.imwrite(str(sample.label_path), rng.integers(0, 12, shape, dtype=np.uint8))
    assert decoded_bytes(tree, samples) == 4 * (1 + 2100 + 192)
    for kind in ("ram", "disk"):
        assert_reads_as(tree, open_cache(tree, samples, kind, tmp_path / "cache"), samples)


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_held_arrays_cannot_be_altered(tree: Dataset, tmp_path: Path, kind: cache.Kind) -> None:
    image, label = open_cache(tree, tree.samples("train"), kind, tmp_path / "cache").read(tree.samples("train")[0])
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0] = 0
    with pytest.raises(ValueError, match="read-only"):
        label[0, 0] = 0


@pytest.mark.parametrize("kind", ["ram", "disk"])
@pytest.mark.parametrize("part", ["image_path", "label_path"])
def test_a_bad_file_stops_the_filling_with_its_name(tree: Dataset, tmp_path: Path, kind: cache.Kind, part: str) -> None:
    samples = tree.samples("train")
    path: Path = getattr(samples[1], part)
    content = path.read_bytes()
    path.write_bytes(b"")
    with pytest.raises(UserError, match=path.name):
        open_cache(tree, samples, kind, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.pixels"))
    assert not list((tmp_path / "cache").glob(".*"))
    path.write_bytes(content)
    assert_reads_as(tree, open_cache(tree, samples, kind, tmp_path / "cache"), samples)


# room


def test_too_little_memory_is_said_before_anything_is_decoded(tree: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dataset, "read", no_decoding)
    monkeypatch.setattr(cache, "_free_memory", lambda: SIZE - 1)
    with pytest.raises(UserError, match=r"--cache ram needs 0\.0 MB for camvid, .* use --cache disk, or none"):
        Cached(tree).fill(tree.samples("train"))


def test_free_memory_is_known_on_linux() -> None:
    free = cache._free_memory()
    assert free is not None
    assert 2**20 < free <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_too_little_room_on_the_disk_is_said_before_anything_is_written(
    tree: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Dataset, "read", no_decoding)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=SIZE))  # and the index has none
    with pytest.raises(UserError, match=r"--cache disk needs .* in .*/cache, but 0\.0 MB are free: make room"):
        DiskCache(tree, tree.samples("train"), tmp_path / "cache")
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_disk_that_fills_up_meanwhile_leaves_nothing(
    tree: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(UserError, match=r"--cache disk: .*\.pixels cannot be written: No space left on device"):
        DiskCache(tree, tree.samples("train"), tmp_path / "cache")
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_writes_that_the_system_cuts_are_continued(
    tree: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda handle, content, start: pwrite(handle, content[:7], start))
    samples = tree.samples("train")
    assert_reads_as(tree, DiskCache(tree, samples, tmp_path / "cache"), samples)


# the file


def test_the_file_is_found_again_and_not_touched(
    tree: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = tree.samples("train")
    first = DiskCache(tree, samples, tmp_path / "cache")
    before = first.path.stat()
    first.path.with_suffix(".lock").unlink()
    with monkeypatch.context() as patched:
        patched.setattr(Dataset, "read", no_decoding)
        again = DiskCache(tree, samples, tmp_path / "cache")
    assert again.path.stat() == before
    assert list(again.path.parent.iterdir()) == [again.path]  # a complete file needs no lock
    assert_reads_as(tree, again, samples)


def alter_label(tree: Dataset) -> Dataset:
    sample = tree.samples("train")[1]
    label = cv2.imread(str(sample.label_path), cv2.IMREAD_UNCHANGED)
    assert label is not None
    cv2.imwrite(str(sample.label_path), (label + 1) % 12)
    return tree


def alter_image_and_keep_its_size(tree: Dataset) -> Dataset:
    path = tree.samples("train")[1].image_path
    image = cv2.imread(str(path))
    assert image is not None
    size = path.stat().st_size
    cv2.imwrite(str(path), image[::-1])
    with path.open("ab") as file:
        file.write(b"\0" * max(0, size - path.stat().st_size))
    return tree


def alter_the_meaning(tree: Dataset) -> Dataset:
    entries = list(tree.spec.classes)
    entries[0], entries[1] = entries[1], entries[0]
    return Dataset(tree.spec.model_copy(update={"classes": tuple(entries)}), tree.root)


@pytest.mark.parametrize("alter", [alter_label, alter_image_and_keep_its_size, alter_the_meaning])
def test_changed_data_is_decoded_again(tree: Dataset, tmp_path: Path, alter: Callable[[Dataset], Dataset]) -> None:
    samples = tree.samples("train")
    stale = DiskCache(tree, samples, tmp_path / "cache")
    old = [tree.read(sample) for sample in samples]
    changed = alter(tree)
    fresh = DiskCache(changed, samples, tmp_path / "cache")
    assert fresh.path == stale.path  # one file for these samples, not one for every state
    assert_reads_as(changed, fresh, samples)
    for sample, (image, label) in zip(samples, old, strict=True):  # whoever has it open goes on with what it had
        assert np.array_equal(stale.read(sample)[0], image)
        assert np.array_equal(stale.read(sample)[1], label)


def test_another_choice_of_samples_has_a_file_of_its_own(tree: Dataset, tmp_path: Path) -> None:
    samples = tree.samples("train")
    whole, part = (DiskCache(tree, chosen, tmp_path / "cache") for chosen in (samples, samples[:2]))
    assert whole.path != part.path
    assert_reads_as(tree, whole, samples)
    assert_reads_as(tree, part, samples)


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"\x02\0\0\0\0\0\0\0{}"], ids=["empty", "zeros", "no_index"])
def test_a_damaged_file_is_replaced(tree: Dataset, tmp_path: Path, content: bytes) -> None:
    samples = tree.samples("train")
    DiskCache(tree, samples, tmp_path / "cache").path.write_bytes(content)
    assert_reads_as(tree, DiskCache(tree, samples, tmp_path / "cache"), samples)


def test_a_file_that_was_cut_is_replaced(tree: Dataset, tmp_path: Path) -> None:
    samples = tree.samples("train")
    path = DiskCache(tree, samples, tmp_path / "cache").path
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1])
    assert_reads_as(tree, DiskCache(tree, samples, tmp_path / "cache"), samples)


# two processes

PROGRAM = """
import json, sys, time
from pathlib import Path
from harness.datasets import load
from harness.datasets.cache import DiskCache
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
cached = DiskCache(dataset, samples, folder)
Dataset.read = None
sums = [[int(array.sum()) for array in cached.read(sample)] for sample in samples]
print(json.dumps({"decoded": len(decoded), "sums": sums}))
"""


def start(tree: Dataset, folder: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(tree.root), str(folder), str(seconds)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=Path(__file__).parents[2], text=True, **pipes)


def test_of_two_processes_at_once_one_decodes_and_both_read(tree: Dataset, tmp_path: Path) -> None:
    processes = [start(tree, tmp_path / "cache", 0.4) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]
    found = [json.loads(output.splitlines()[-1]) for output, _ in outputs]
    expected = [[int(array.sum()) for array in tree.read(sample)] for sample in tree.samples("train")]
    assert [result["sums"] for result in found] == [expected, expected]
    assert sorted(result["decoded"] for result in found) == [0, 3]
    assert len(list((tmp_path / "cache").glob("*.pixels"))) == 1


def test_a_killed_process_leaves_no_lock_and_no_rest(tree: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    killed = start(tree, folder, 60)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "decoding\n"
    waiting = start(tree, folder, 0)
    time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    output, _ = waiting.communicate(timeout=60)
    assert json.loads(output.splitlines()[-1])["decoded"] == 3
    assert sorted(path.suffix for path in folder.iterdir()) == [".lock", ".pixels"]
    killed.communicate()


def test_a_process_that_waits_says_for_what(tree: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    samples, folder = tree.samples("train"), tmp_path / "cache"
    other = start(tree, folder, 1.0)
    assert other.stdout is not None
    assert other.stdout.readline() == "decoding\n"
    assert_reads_as(tree, DiskCache(tree, samples, folder), samples)
    assert "waiting for the process that decodes into" in capfd.readouterr().err
    other.communicate(timeout=60)


def _sum_of(reader: cache.Reads, sample: Sample, queue: "multiprocessing.Queue[int]") -> None:
    queue.put(int(reader.read(sample)[0].sum()))


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_forked_workers_read_what_is_held(tree: Dataset, tmp_path: Path, kind: cache.Kind) -> None:
    samples = tree.samples("train")
    reader = open_cache(tree, samples, kind, tmp_path / "cache")
    context = multiprocessing.get_context("fork")
    queue: multiprocessing.Queue[int] = context.Queue()
    process = context.Process(target=_sum_of, args=(reader, samples[2], queue))
    process.start()
    assert queue.get(timeout=30) == int(tree.read(samples[2])[0].sum())
    process.join()


@pytest.mark.slow
def test_real_camvid_is_held_as_it_is_read(camvid_root: Path, tmp_path: Path) -> None:
    camvid = load("camvid", camvid_root)
    samples = camvid.samples("val")
    for kind in ("ram", "disk"):
        reader = open_cache(camvid, samples, kind, tmp_path)
        assert_reads_as(camvid, reader, samples)
    assert decoded_bytes(camvid, samples) == 101 * 480 * 360 * 4


# chosen by the machine


def test_auto_is_one_file_of_all_runs_where_it_pays(tree: Dataset, tmp_path: Path) -> None:
    samples, folder = tree.samples("train"), tmp_path / "cache"
    assert open_cache(tree, samples, "auto", folder, reads=2) is tree
    assert not folder.exists()
    first, second = (open_cache(tree, samples, "auto", folder, reads) for reads in (3, None))
    assert isinstance(first, DiskCache)
    assert isinstance(second, DiskCache)
    assert first.path == second.path
    assert_reads_as(tree, second, samples)


@pytest.mark.parametrize("lacking", ["memory", "disk", "folder"])
def test_auto_reads_the_files_where_there_is_no_room(
    tree: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    samples, folder = tree.samples("train"), tmp_path / "cache"
    if lacking == "memory":
        monkeypatch.setattr(cache, "_free_memory", lambda: 2 * SIZE - 1)
    elif lacking == "disk":
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * SIZE - 1))
    else:
        folder.write_text("in its place")
    assert open_cache(tree, samples, "auto", folder) is tree
    monkeypatch.undo()
    if lacking != "folder":
        assert isinstance(open_cache(tree, samples, "auto", folder), DiskCache)


def test_auto_says_what_is_wrong_with_a_file(tree: Dataset, tmp_path: Path) -> None:
    samples = tree.samples("train")
    samples[1].label_path.write_bytes(b"no image")
    with pytest.raises(UserError, match=samples[1].label_path.name):
        open_cache(tree, samples, "auto", tmp_path / "cache")
