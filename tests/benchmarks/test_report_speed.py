"""CPU seconds for the tables of 300 records, in a process of its own. Run with `--benchmark-enable -s`.

The records are those of a part of config/paper.yaml at the data sets' real numbers of classes and 200 images each, two
protocols, every table of counts. The reference is reading the 300 files of counts once: the ratio says how much more
than that the tables take.
"""

import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from harness import datasets
from harness.evaluation.counts import DEFAULT_WIDTHS, Counts
from harness.evaluation.objects import SIZES
from harness.experiment import Experiment
from harness.run import write_json

IMAGES = 200
RECORDS = 300
SETTINGS = ["datasets=[camvid, cityscapes]", "models=[deeplabv3_r101, hrnet_w48, ocrnet_hrnet_w48, upernet_swin_t]"]
SETTINGS += ["seeds=[0, 1, 2, 3, 4, 5]"]
TABLES = [
    "region",
    *(f"{kind}@{width}" for kind in ("boundary", "trimap") for width in DEFAULT_WIDTHS),
    *(f"objects@{size}" for size in SIZES),
]


def write_records(experiment, results):
    """300 runs with counts at random, the same images for all; returns the files."""
    written = []
    for run in experiment.runs()[:RECORDS]:
        folder, classes = run.folder(results), datasets.load(run.dataset).classes
        folder.mkdir(parents=True)
        luck = np.random.default_rng(len(written))
        sizes = np.random.default_rng(7).integers(50, 2000, (IMAGES, len(classes)))
        hits, false = luck.binomial(sizes, 0.7), luck.binomial(sizes, 0.1)
        table = np.stack([hits, false, sizes - hits], axis=-1)
        counts = {protocol: dict.fromkeys(TABLES, table) for protocol in experiment.protocols}
        Counts([f"a_{number}" for number in range(IMAGES)], classes, counts).save(folder / "counts.npz")
        write_json(folder / "record.json", {"status": "done", "settings": experiment.settings(run)})
        written.append(folder / "counts.npz")
    return written


@pytest.mark.benchmark(group="tables of 300 records")
def test_tables_of_300_records(benchmark, request, tmp_path):
    if not request.config.getoption("benchmark_enable"):
        pytest.skip("a measurement: run with --benchmark-enable")
    config = Path(request.config.rootpath) / "config" / "paper.yaml"
    written = write_records(Experiment.load(config, SETTINGS), tmp_path)
    start = time.process_time()
    for path in written:
        Counts.load(path)
    reading = time.process_time() - start
    command = [sys.executable, "-m", "harness", "report", "--part", "tables", "--config", str(config)]
    command += ["--results", str(tmp_path), *(part for each in SETTINGS for part in ("--set", each))]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    benchmark.pedantic(lambda: subprocess.run(command, check=True), rounds=1)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    benchmark.extra_info |= {"records": len(written), "cpu_seconds": seconds, "ratio": seconds / reading}
    print(f"\n{len(written)} records: {seconds:.1f} CPU seconds, {seconds / reading:.1f} times reading them")
