# Names and paths that the rules of the Snakefile share, and what is left to do.

import os
import re
import shlex
import sys
import time
from functools import cache
from pathlib import Path

sys.path.insert(0, workflow.basedir)

from harness import datasets
from harness.compute import devices
from harness.compute.progress import duration
from harness.errors import UserError
from harness.experiment.project import experiment_path
from harness.experiment.run import Run
from harness.experiment.schema import Experiment, as_told
from harness.reporting.figures import figure_names
from harness.reporting.made_from import is_current
from harness.reporting.summary import summary
from harness.runs import planning, sharing, state
from harness.runs.external_arms import external_records

EXPERIMENT_FILE = str(experiment_path(config.get("experiment", f"{workflow.basedir}/config/quick.yaml")))
RESULTS = config.get("results", "results")
# KEY=VALUE as for --set, several separated by spaces: --config set="schedule.iterations=50 seeds=[0,1]"
_SET = shlex.split(str(config.get("set", "")))
ENVIRONMENT = {
    "PYTHONPATH": workflow.basedir,
    "RESULTS": RESULTS,
}
# A scheduler that takes a job away sends SIGTERM to all of its processes. The one that trains writes a checkpoint then;
# the shell and its log must outlive it, or its end is taken for the job's and it is killed at its work.
SURVIVE = """trap : TERM; log() {{ trap '' TERM; exec tee "$1"; }}; """
EXPORTS = f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"; '
EXPORTS += "".join(f"export {name}={shlex.quote(str(value))}; " for name, value in ENVIRONMENT.items())
# `harness VERB ...` in a rule knows the experiment and what is set over it.
_TOLD = shlex.join(as_told(EXPERIMENT_FILE, _SET))
_FUNCTIONS = f'harness() {{ verb=$1; shift; python -m harness "$verb" {_TOLD} "$@"; }}; '
_SPOKEN = (EXPORTS + _FUNCTIONS).replace("{", "{{").replace("}", "}}")  # the prefix is a format string
shell.prefix(f"set -euo pipefail; {SURVIVE}{_SPOKEN}")
# A run takes one GPU where there is one and leases it (harness/compute/devices.py). As many go at a time as there are
# here, times those that share one: --config share=N, by default what the planner proposes (harness/runs/sharing.py).
# Elsewhere the cores are the limit, and on a cluster its scheduler.
TRAIN_THREADS = int(config.get("threads", 1))

try:
    EXPERIMENT = Experiment.load(Path(EXPERIMENT_FILE), _SET)
    SHARE = sharing.settled(str(config.get("share", "auto")), EXPERIMENT, Path(RESULTS))
    PLACES = len(devices.visible()) * SHARE
except UserError as error:
    sys.exit(f"error: {error}")
if SHARE > 1:
    os.environ[devices.SHARE] = str(SHARE)  # for the jobs, which decide nothing themselves
GPU = min(PLACES, 1)
if PLACES:
    workflow.global_resources.setdefault("gpu", PLACES)  # --resources gpu=N goes before it

NAME = EXPERIMENT.name
RUNS = f"{RESULTS}/runs/{NAME}"
REPORT = f"{RESULTS}/reports/{NAME}"
VERIFIED = [f"{RESULTS}/data/{dataset}/verify.json" for dataset in EXPERIMENT.datasets]
RECORDS = [f"{run.folder(RESULTS)}/record.json" for run in EXPERIMENT.runs()]
# Nothing makes the records of external arms; a new one makes the report again.
EXTERNAL_RECORDS = [str(path) for path in external_records(EXPERIMENT, Path(RESULTS))]
FORMATS = ("csv", "md", "tex")
TABLES = [f"{REPORT}/tables/{name}.{suffix}" for name in ("miou", "per_class", "boundary") for suffix in FORMATS]
CAPTIONS = figure_names(EXPERIMENT)
FIGURES = [f"{REPORT}/figures/{name}.{suffix}" for name in CAPTIONS for suffix in ("png", "pdf", "svg")]
EXAMPLES = f"{REPORT}/figures/examples.png"
PAGE = f"{REPORT}/report.html"
# What `snakemake --report` shows of each file name; of its formats those that a browser shows.
SHOWN = (".html", ".png")
ABOUT = CAPTIONS | {
    "examples": "Test images and what each arm gets wrong.",
    "report": "The ranking, examples, tables, figures and runs.",
}


def in_report(category, paths):
    """Mark `paths` for the report of snakemake: where they stand, their caption, and what each shows."""
    caption = f"{workflow.basedir}/workflow/report/{category.lower()}.rst"
    found = []
    for path in map(Path, paths):
        labels = {"name": path.stem.replace("_", " "), "shows": ABOUT[path.stem]}
        shown = path.suffix in SHOWN
        found.append(report(str(path), caption=caption, category=category, labels=labels) if shown else str(path))
    return found


def run_of(wildcards):
    """The run that a job's wildcards name."""
    return Run(NAME, wildcards.dataset, wildcards.model, wildcards.arm, int(wildcards.seed))


@cache
def missing(name):
    """Why a data set is not there: when it arrives, it is verified and its runs are made. Once it was, they stay."""
    if datasets.is_verified(name, Path(RESULTS)):
        return ""
    return datasets.missing(name, EXPERIMENT.roots.get(name), Path(RESULTS))


@cache
def work_left(run):
    """What is left to do for a run: "train", "evaluate" or "". Its folder says so, not when its files were written."""
    return state.work_left(EXPERIMENT, run, Path(RESULTS))


@cache
def mark(name, is_set):
    """Set or remove a mark, a file newer than what it makes again; returns it as the input of a rule.

    No two marks are alike, since Snakemake takes a newer file with the content of the last time for unchanged.
    """
    path = Path(RESULTS) / "logs" / NAME / "again" / name
    if workflow.is_main_process:  # a job on another machine finds what was decided here
        if is_set:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{time.time_ns()}\n")
        else:
            path.unlink(missing_ok=True)
    return str(path) if path.exists() else []


def data_of_run(wildcards):
    """The check of its data, of a run that is to be made. A finished one is not made again for a newer check."""
    return f"{RESULTS}/data/{wildcards.dataset}/verify.json" if work_left(run_of(wildcards)) else []


def mark_of_run(wildcards):
    """Makes a run again whose record is there and is not what the experiment asks for, however new it is."""
    run = run_of(wildcards)
    is_set = bool(work_left(run)) and (run.folder(RESULTS) / "record.json").exists()
    return mark(f"{run.dataset}-{run.model}-{run.arm}-seed{run.seed}", is_set)


@cache
def report_is_current():
    """Whether the report was made from the experiment and the records that there are now."""
    return is_current(EXPERIMENT, Path(RESULTS))


def mark_of_report(wildcards):
    """Makes a report again that is there and not current, however new it is."""
    return mark("report", Path(PAGE).exists() and not report_is_current())


@cache
def planned():
    """{run: its plan}. A cluster's GPUs are not seen from where the workflow starts."""
    rows = planning.plan(EXPERIMENT, Path(RESULTS), on_gpu=True if PLACES else None)
    return {Run(NAME, row.dataset, row.model, row.arm, row.seed): row for row in rows}


def longest_first(wildcards):
    """A job's priority: the seconds that its run is expected to take, so that the last one to end is a short one."""
    row = planned().get(run_of(wildcards))
    return int(3600 * row.hours) if row and row.hours else 0


def training_minutes(wildcards):
    """What a cluster's scheduler grants a training."""
    row = planned().get(run_of(wildcards))
    return planning.time_limit(row) if row else planning.UNKNOWN_MINUTES


def outlook():
    """What is to be done, and how long it takes as far as such runs were timed here before."""
    at_a_time = PLACES or max(1, (workflow.cores or 1) // TRAIN_THREADS)
    left = [row for run, row in planned().items() if work_left(run)]
    hours = planning.summary(left, at_a_time)["wall_hours"]
    timed = all(row.hours is not None and row.hours_from.startswith(planning.MEASURED) for row in left)
    seconds = f"about {duration(3600 * hours)}" if timed else "such runs were not timed on this machine yet"
    return f"{NAME}: {len(left)} of {len(RECORDS)} runs to make, {at_a_time} at a time; {seconds}"


def last_screen():
    """Print what there is now and why runs were skipped, each reason once; if all were, that is no success."""
    print("\n" + summary(EXPERIMENT, Path(EXPERIMENT_FILE), Path(RESULTS), _SET), flush=True)
    found = [state.read_record(EXPERIMENT, run, Path(RESULTS)) for run in EXPERIMENT.runs()]
    skipped = [each for each in found if isinstance(each, state.Missing) and each.status == "skipped"]
    for reason in dict.fromkeys(each.reason for each in skipped):
        number = sum(each.reason == reason for each in skipped)
        print(f"skipped, {number} of {len(found)} runs: {reason}", file=sys.stderr)
    if len(skipped) == len(found):
        sys.exit("error: every run was skipped, so the report holds no result")


# Snakemake runs no hook when nothing is to be done, and then too the last screen shall say what there is.
LOOKING = {"-n", "--dry-run", "--dryrun", "--lint", "--report", "--unlock", "--dag", "--rulegraph", "--list-rules"}
if (
    not LOOKING & set(sys.argv)
    and workflow.is_main_process
    and not any(map(work_left, EXPERIMENT.runs()))
    and report_is_current()
    and all(Path(path).exists() for path in (*TABLES, *FIGURES, EXAMPLES, PAGE))
):
    last_screen()


wildcard_constraints:
    seed=r"\d+",
    dataset="|".join(EXPERIMENT.datasets),
    model="|".join(EXPERIMENT.models),
    arm="|".join(map(re.escape, EXPERIMENT.arms)),
