import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from harness.evaluation import pipeline
from harness.evaluation.pipeline import counting, predicted
from harness.evaluation.record import count_pair
from harness.models.inference import Window, predict, scores

CLASSES = 5
WINDOW = Window.of((24, 24))
PROTOCOLS = ("whole", "slide", "ms_flip")
SIZES = [(37, 50), (37, 50), (40, 48), (37, 50), (40, 48), (37, 50), (37, 50), (32, 32)]


class Network(nn.Module):
    """Stands for a Segmenter: logits at stride 4."""

    align_corners = False
    num_classes = CLASSES

    def __init__(self, holds=1000):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, CLASSES, 5, stride=4, padding=2)
        self.holds, self.batches = holds, []

    def forward(self, images):
        if len(images) > self.holds:
            raise torch.OutOfMemoryError("as torch says it")
        self.batches.append(len(images))
        return self.layer(images.float() / 255)


@pytest.fixture
def images():
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


@pytest.fixture
def labels():
    generator = np.random.default_rng(1)
    found = [generator.integers(0, CLASSES, size).astype(np.uint8) for size in SIZES]
    for label in found:
        label[:3] = 255
    return found


def shortfall(network, image, protocol, labels):
    """How far the scores of the chosen classes lie below the highest, at most: 0 up to ties."""
    found = scores(network, image, protocol, WINDOW)[0].cpu()
    chosen = found.gather(0, torch.from_numpy(labels.astype(np.int64))[None])[0]
    return float((found.amax(0) - chosen).max())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_on_a_cpu_every_image_is_predicted_as_it_is_alone_and_in_order(images, protocol):
    network = Network().eval()
    found = list(predicted(network, range(len(images)), lambda i: (images[i], f"label {i}"), protocol, WINDOW))
    assert [(each.place, each.item, each.extra) for each in found] == [
        (place, place, f"label {place}") for place in range(len(images))
    ]
    assert set(network.batches) == {1}
    for each, image in zip(found, images, strict=True):
        np.testing.assert_array_equal(each.labels, predict(network, image, protocol, WINDOW))
        assert each.labels.dtype == np.uint8


@pytest.mark.parametrize("holds", [1000, 2, 1])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_images_of_one_size_go_through_the_network_together(images, protocol, holds, monkeypatch):
    monkeypatch.setitem(pipeline.MOST_IMAGES, "cpu", 4)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    network = Network(holds).eval()
    found = list(predicted(network, range(len(images)), lambda i: (images[i], i), protocol, WINDOW))
    assert max(network.batches) == min(4, holds)
    assert sorted(each.place for each in found) == list(range(len(images)))
    assert all(each.place == each.item == each.extra for each in found)
    plain = Network().eval()
    for each in found:
        assert shortfall(plain, images[each.place], protocol, each.labels) <= 1e-5


def test_an_image_that_fits_no_memory_is_an_error(images):
    with pytest.raises(torch.OutOfMemoryError):
        list(predicted(Network(holds=0).eval(), images, lambda image: (image, None), "whole"))


def test_scores_bound_the_batch(images, monkeypatch):
    monkeypatch.setitem(pipeline.MOST_IMAGES, "cpu", 16)
    same = images[:2] * 4
    monkeypatch.setattr(pipeline, "SCORE_BYTES", 3 * 4 * CLASSES * 37 * 50)
    network = Network().eval()
    list(predicted(network, same[:6], lambda image: (image, None), "whole"))
    assert network.batches == [3, 3]


def test_no_more_images_are_read_than_are_needed_soon(images):
    read, most = [0], 0
    network = Network().eval()

    def reading(image):
        read[0] += 1
        return image, None

    for handed_out, _ in enumerate(predicted(network, images * 10, reading, "whole"), start=1):
        time.sleep(0.001)
        most = max(most, read[0] - handed_out)
    assert most <= 3 * pipeline.MOST_READERS + 2
    assert read[0] == 10 * len(images)


def test_what_reading_raises_comes_out_and_nothing_goes_on(images):
    def reading(place):
        if place == 5:
            raise ValueError("this one is damaged")
        return images[0], None

    before = threading.active_count()
    with pytest.raises(ValueError, match="this one is damaged"):
        list(predicted(Network().eval(), range(100), reading, "whole"))
    assert threading.active_count() == before


def of_processes_too():
    return [torch.device("cpu"), pytest.param(torch.device("cuda"), id="processes")]  # no GPU is asked for anything


@pytest.mark.slow
@pytest.mark.parametrize("device", of_processes_too())
def test_counts_are_those_of_a_plain_loop(images, labels, device):
    guesses = [label[::-1] % CLASSES for label in labels]
    with counting(device) as counters:
        found = [counters.start(count_pair, *pair, CLASSES) for pair in zip(guesses, labels, strict=True)]
        found = [future.result() for future in found]
    for (tables, confusion), guess, label in zip(found, guesses, labels, strict=True):
        expected, expected_confusion = count_pair(guess, label, CLASSES)
        np.testing.assert_array_equal(confusion, expected_confusion)
        assert tables.keys() == expected.keys()
        for name in expected:
            np.testing.assert_array_equal(tables[name], expected[name])


@pytest.mark.slow
@pytest.mark.parametrize("device", of_processes_too())
def test_what_counting_raises_comes_out(labels, device):
    with counting(device) as counters, pytest.raises(ValueError, match=r"outside the train ids 0\.\.1"):
        counters.start(count_pair, labels[0], labels[0], 2).result()


@pytest.mark.parametrize(("processors", "threads", "counters"), [(16, 1, 14), (4, 4, 2), (1, 1, 1), (200, 8, 32)])
def test_on_a_gpu_its_part_of_the_processors_counts_whatever_torchs_threads(monkeypatch, processors, threads, counters):
    monkeypatch.setattr(pipeline, "processors_of_a_run", lambda: processors)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    asked = []
    monkeypatch.setattr(
        pipeline, "ProcessPoolExecutor", lambda number, *_: asked.append(number) or ThreadPoolExecutor(1)
    )
    with counting(torch.device("cuda")):
        assert asked == [counters]


def test_few_results_are_unfinished_at_a_time():
    running, most, lock = [0], [0], threading.Lock()

    def work():
        with lock:
            running[0] += 1
        time.sleep(0.002)
        with lock:
            running[0] -= 1

    with counting(torch.device("cpu")) as counters:
        for _ in range(100):
            counters.start(work)
            most[0] = max(most[0], counters._pool._work_queue.qsize() + running[0])
    assert most[0] <= pipeline.WAITING * 4


ENDLESS = """
    import time, torch
    from harness.evaluation.pipeline import counting

    if __name__ == "__main__":
        with counting(torch.device("cuda")) as counters:
            print(counters.start(pow, 2, 3).result(), flush=True)
            counters.start(time.sleep, 60).result()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(
    "sent", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.exhaustive), signal.SIGINT]
)
def test_processes_that_count_end_with_the_one_that_started_them(sent, tmp_path):
    script = tmp_path / "endless.py"
    script.write_text(textwrap.dedent(ENDLESS))
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    process = subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert process.stdout.readline() == "8\n"
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    if sent == signal.SIGINT:
        for child in children:
            child.send_signal(sent)  # as a terminal does, to all of them
        time.sleep(0.5)
        assert all(child.is_running() for child in children)
        sent = signal.SIGKILL
    process.send_signal(sent)
    process.wait(10)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_on_a_gpu_label_maps_are_the_cpus_up_to_ties(images, protocol):
    on_cpu, on_gpu = Network().eval(), Network().eval().cuda()
    found = list(predicted(on_gpu, range(len(images)), lambda i: (images[i], i), protocol, WINDOW))
    assert max(on_gpu.batches) > 1, on_gpu.batches
    assert sorted(each.place for each in found) == list(range(len(images)))
    for each in found:
        # Of one image alone on the GPU, and on the CPU, whose float32 has 13 bits more than TF32.
        assert shortfall(on_gpu, images[each.place], protocol, each.labels) <= 5e-3, each.place
        assert shortfall(on_cpu, images[each.place], protocol, each.labels) <= 2e-2, each.place
