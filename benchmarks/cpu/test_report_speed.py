"""CPU seconds for the whole report of 300 records, in a separate process.

The records are a part of config/paper.yaml, with the data sets' real numbers of classes, 200 images each, two
protocols, every table of counts, curves of 100 rows and confusion matrices. One command without torch writes tables,
figures and the page; the data sets, which examples need, are missing. The reference is reading the 300 files of counts
once; the ratio is the report's time over that.
"""

import resource
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from harness import datasets
from harness.evaluation.counts import DEFAULT_WIDTHS, Counts
from harness.evaluation.objects import SIZES
from harness.experiment.schema import Experiment
from harness.runs.record import Record

IMAGES = 200
RECORDS = 300
LIMIT = 60.0  # CPU seconds, on a machine that does nothing else
SETTINGS = ["datasets=[camvid, cityscapes]", "models=[deeplabv3_r101, hrnet_w48, ocrnet_hrnet_w48, upernet_swin_t]"]
SETTINGS += ["seeds=[0, 1, 2, 3, 4, 5]"]
TABLES = [
    "region",
    *(f"{kind}@{width}" for kind in ("boundary", "trimap") for width in DEFAULT_WIDTHS),
    *(f"objects@{size}" for size in SIZES),
]


def write_curve(path, rng):
    """A curve.csv of 100 rows with three losses and ten diagnostics."""
    names = ["loss", "cross_entropy", "contrast", "gradient_norm", *(f"diagnostic_{number}" for number in range(10))]
    table = pd.DataFrame(rng.random((100, len(names))), columns=names)
    table.insert(0, "iteration", 400 * np.arange(1, 101))
    table.insert(1, "learning_rate", 0.01)
    table.assign(seconds=table["iteration"] * 0.5).to_csv(path, index=False)


def write_records(experiment, results):
    """300 runs with counts, confusions and curves at random, the same images for all; returns the files of counts."""
    written = []
    for run in experiment.runs()[:RECORDS]:
        folder, classes = run.folder(results), datasets.load(run.dataset).classes
        folder.mkdir(parents=True)
        rng = np.random.default_rng(len(written))
        sizes = np.random.default_rng(7).integers(50, 2000, (IMAGES, len(classes)))
        hits, false = rng.binomial(sizes, 0.7), rng.binomial(sizes, 0.1)
        table = np.stack([hits, false, sizes - hits], axis=-1)
        counts = {protocol: dict.fromkeys(TABLES, table) for protocol in experiment.protocols}
        Counts([f"a_{number}" for number in range(IMAGES)], classes, counts).save(folder / "counts.npz")
        confusion = rng.integers(1, 10**6, (len(classes), len(classes)))
        np.savez_compressed(folder / "confusion.npz", **dict.fromkeys(experiment.protocols, confusion))
        write_curve(folder / "curve.csv", rng)
        record = Record(key=run, method="", status="done", settings=experiment.settings(run))
        record.save(folder / "record.json")
        written.append(folder / "counts.npz")
    return written


REPORT = """
import sys
from harness import cli
sys.argv = ["harness", "report", *sys.argv[1:]]
status = cli.main()
assert "torch" not in sys.modules
sys.exit(status)
"""


@pytest.mark.benchmark(group="report of 300 records")
def test_report_of_300_records(benchmark, repository, tmp_path):
    config = repository / "config" / "paper.yaml"
    written = write_records(Experiment.load(config, SETTINGS), tmp_path)
    start = time.process_time()
    for path in written:
        Counts.load(path)
    reading = time.process_time() - start
    command = [sys.executable, "-c", REPORT, str(config), "--results", str(tmp_path)]
    command += [part for each in SETTINGS for part in ("--set", each)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    benchmark.pedantic(lambda: subprocess.run(command, check=True, cwd=repository), rounds=1)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    benchmark.extra_info |= {"records": len(written), "cpu_seconds": seconds, "ratio": seconds / reading}
    print(f"\n{len(written)} records: {seconds:.1f} CPU seconds, {seconds / reading:.1f} times reading them")
    report = tmp_path / "reports" / "paper"
    assert (report / "report.html").is_file()
    assert len(list((report / "tables").glob("*.csv"))) >= 10
    assert len(list((report / "figures").glob("*.png"))) >= 25
    assert seconds < LIMIT
