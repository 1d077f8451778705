"""What starts fast: verbs that need no network import no torch, and each library is imported only where it is used."""

import subprocess
import sys

TORCH = {"torch", "mmseg", "mmcv"}
TABLES = TORCH | {"pandas", "matplotlib", "seaborn", "scipy"}
# (code, what it must not have imported), in one process: the lightest first.
STEPS = [
    ("import harness.datasets; harness.datasets.load('camvid')", TORCH | {"cv2", "PIL", "pandas", "scipy"}),
    ("sys.argv = ['harness', '--help']; from harness.cli import main; main()", TABLES),
    (
        "from harness.experiment import discovery; [discovery.options(name) for name in discovery.names()];"
        "discovery.source_fingerprint('contextrast')",
        TABLES,
    ),
    (
        "from harness.experiment.schema import Experiment; from pathlib import Path;"
        "experiment = Experiment.load(Path('config/smoke.yaml'));"
        "[experiment.settings(run) for run in experiment.runs()]",
        TABLES,
    ),
    ("from harness.models import names, load_spec; load_spec(names()[0])", TABLES),
    ("import harness.evaluation.external_predictions", TORCH | {"scipy"}),
    ("import harness.runs.status, harness.runs.failures, harness.runs.unlock, harness.checks.records", TORCH),
    ("import harness.reporting.tables", TORCH | {"pandas", "matplotlib", "seaborn"}),
    ("import harness.reporting.examples, harness.reporting.page", TORCH),
    ("import harness.reporting.figures.embeddings, harness.reporting.figures.gains", TORCH),
    ("import harness.reporting.figures.negatives, harness.reporting.figures.training", TORCH),
]


def test_torch_and_plotting_are_imported_only_where_they_are_used(repository):
    lines = ["import sys"]
    for code, heavy in STEPS:
        lines += [code, f"found = {heavy} & sys.modules.keys()", f"assert not found, ({code!r}, found)"]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(verb in done.stdout for verb in ("list", "verify", "train", "evaluate", "report"))  # of --help
