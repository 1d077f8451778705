"""What share of a workflow is the start of its processes; run with `--benchmark-enable -s`. Wanted: below 15 %.

Every run is one process, which trains and evaluates: it imports torch and mmsegmentation, builds the network and reads
the data. The shortest runs are those of config/smoke.yaml, and cross entropy's the shortest of them, so its share is
the upper bound. Measured is the time of the processor, on which other programs have little influence, of whole
processes with one thread, as the workflow starts them.

The process with one iteration and no evaluation is the start; what 20 more iterations take, 20 times less, is one, and
the run has 300. The evaluation: a process of its own, less one that does its imports and builds the network. Snakemake:
what 20 more jobs that do nothing take by the wall clock, a 20th of it for each job. Where a workflow has run
(results/logs/smoke), the share of the same starts in the processor's time that Snakemake's own benchmark files have for
all its jobs stands beside it.
"""

import csv
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.experiment.schema import Experiment

FEW = 21  # iterations
JOBS = 20
CASE = ("--dataset", "scenes", "--model", "hrnet_tiny", "--arm", "cross_entropy")
RULES = """
rule all:
    input: [f"{{number}}.txt" for number in range({jobs})]
rule each:
    output: "{{number}}.txt"
    log: "{{number}}.log"
    benchmark: "{{number}}.tsv"
    shell: "echo done 2>&1 | tee {{log}} > {{output}}"
"""


def processor_seconds(*command, folder=None):
    """Of a process and all its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], check=True, cwd=folder, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def snakemake_seconds(folder, jobs):
    """By the wall clock, since it mostly waits."""
    folder.mkdir()
    (folder / "Snakefile").write_text(RULES.format(jobs=jobs))
    start = time.perf_counter()
    processor_seconds("-m", "snakemake", "--cores", "1", "--quiet", "all", folder=folder)
    seconds = time.perf_counter() - start
    assert len(list(folder.glob("*.tsv"))) == jobs
    return seconds


def share_of_a_workflow(logs, start, job):
    """The share of the starts in the processor's time of all runs; None where none has run."""
    taken = []
    for path in logs.glob("run/*.tsv"):
        with path.open(newline="") as file:
            taken += [float(row["cpu_time"]) for row in csv.DictReader(file, delimiter="\t")]
    return len(taken) * (start + job) / (sum(taken) + len(taken) * job) if taken else None


def test_the_share_is_of_all_jobs(tmp_path):
    """Not a measurement: 10 + 30 seconds of two jobs, whose starts take 2 each, and 0.5 of Snakemake's for each."""
    assert share_of_a_workflow(tmp_path, 2.0, 0.5) is None
    (tmp_path / "run").mkdir()
    for name, seconds in (("a", 10), ("b", 30)):
        (tmp_path / "run" / f"{name}.tsv").write_text(f"s\tcpu_time\n99\t{seconds}\n")
    assert share_of_a_workflow(tmp_path, 2.0, 0.5) == pytest.approx(5 / 41)


def test_process_start(benchmark, repository, tmp_path, monkeypatch):
    if benchmark.disabled:
        pytest.skip("a measurement: run with --benchmark-enable")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(repository), os.environ.get("PYTHONPATH", "")]))
    config = repository / "config" / "smoke.yaml"
    experiment = Experiment.load(config)
    harness = ("-m", "harness")
    results = ("--results", str(tmp_path))
    processor_seconds(*harness, "verify", *CASE[:2], *results, folder=repository)  # renders the scenes
    options = ("--config", str(config), *results, "--threads", "1", "--keep-going", "--device", "cpu")
    train = (*harness, "train", *CASE, *options, "--set", f"schedule.iterations={FEW}")
    trial = Experiment.load(config, [f"schedule.iterations={FEW}"])  # which has folders of its own
    run = trial.run("scenes", "hrnet_tiny", "cross_entropy", 0).folder(tmp_path)
    protocols = [part for protocol in experiment.protocols for part in ("--protocol", protocol)]
    evaluate = (*harness, "evaluate", str(run), "--threads", "1", *protocols)
    alone = "import harness.evaluation.evaluate; from harness import models; models.build('hrnet_tiny', 11, 'none')"

    def measure():
        few = processor_seconds(*train, folder=repository)
        evaluated = processor_seconds(*evaluate, folder=repository)
        one = processor_seconds(*train, "--restart", "--timeout", "0", folder=repository)
        evaluation_starts = processor_seconds("-c", alone, folder=repository)
        job = (snakemake_seconds(tmp_path / "more", JOBS + 1) - snakemake_seconds(tmp_path / "one", 1)) / JOBS
        return few, one, evaluated, evaluation_starts, max(0.0, job)

    few, one, evaluated, evaluation_starts, job = benchmark.pedantic(measure, rounds=1)
    iteration = (few - one) / (FEW - 1)
    start = one - iteration
    whole = one + (experiment.schedule.iterations - 1) * iteration + evaluated - evaluation_starts + job
    benchmark.extra_info |= {"start of a run, s": round(start, 1), "snakemake, s a job": round(job, 2)}
    benchmark.extra_info |= {"one run, s": round(whole, 1)}
    benchmark.extra_info["% of a run of cross entropy"] = round(100 * (start + job) / whole, 1)
    if (found := share_of_a_workflow(Path("results/logs/smoke"), start, job)) is not None:
        benchmark.extra_info["% of all runs in results/"] = round(100 * found, 1)
    print(f"\n{benchmark.extra_info}")
