"""Evaluation of a run on a CPU, compared with one image at a time and counting in four threads.

hrnet_tiny on 24 images of CamVid if CAMVID_ROOT is set, otherwise of the rendered scenes, with two threads: reading,
network and counting run concurrently; the reference reads and predicts one image after the other and only counts in
threads. The counts are equal. The ratio is of wall-clock time, measured in turns, with the lowest and highest turn. On
a CPU the network keeps the cores busy either way; the gain on a GPU is in the table of `make bench-gpu`.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from harness import datasets, models
from harness.datasets.dataset import Dataset
from harness.evaluation.evaluate import measure, ready
from harness.evaluation.pipeline import counting
from harness.evaluation.record import count_pair
from harness.models.inference import predict

DATASET = "camvid" if "CAMVID_ROOT" in os.environ else "scenes"
CPU = torch.device("cpu")
IMAGES, TURNS = 24, 5


def test_evaluation_speed(benchmark, tmp_path, monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    dataset = datasets.load(DATASET, datasets.resolve_root(DATASET, None, tmp_path))
    datasets.prepare(dataset)
    samples = dataset.samples(dataset.evaluation_split)[:IMAGES]
    monkeypatch.setattr(Dataset, "samples", lambda *_: samples)
    network = ready(models.build("hrnet_tiny", len(dataset.classes), weights="none"), CPU)

    def one_at_a_time():
        with ThreadPoolExecutor(4) as pool:
            pending = []
            for sample in samples:
                image, label = dataset.read(sample)
                pending.append(pool.submit(count_pair, predict(network, image, "whole"), label, network.num_classes))
            return [future.result() for future in pending]

    def together():
        with counting(CPU) as counters:
            return measure(network, dataset, ["whole"], None, counters)

    def turns():
        ratios, seconds = [], []
        for _ in range(TURNS):
            start = time.perf_counter()
            plain = one_at_a_time()
            middle = time.perf_counter()
            counts, confusions = together()
            end = time.perf_counter()
            ratios.append((middle - start) / (end - middle))
            seconds.append(end - middle)
            assert (confusions["whole"] == sum(confusion for _, confusion in plain)).all()
            for name, table in counts.tables["whole"].items():
                np.testing.assert_array_equal(table, [tables[name] for tables, _ in plain])
        return ratios, seconds

    ratios, seconds = benchmark.pedantic(turns, rounds=1)
    torch.set_num_threads(threads)
    benchmark.extra_info["times as fast as one image at a time"] = float(np.median(ratios))
    benchmark.extra_info["of the turns"] = f"{min(ratios):.2f} to {max(ratios):.2f}"
    benchmark.extra_info["ms an image"] = 1000 * float(np.median(seconds)) / len(samples)
    print(f"\n{benchmark.extra_info}")
