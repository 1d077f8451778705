"""Stand-ins for the files that training and evaluation leave in a run's folder beside its records."""

from harness.runs.record import inference_weights
from harness.runs.state import EVALUATION_FILES, TRAINING_FILES


def leave_files(folder):
    """Put an empty file wherever a finished run has one and this folder has none; records are the caller's."""
    label_map = folder / "predictions" / "whole" / "image.png"
    files = [folder / name for name in (*TRAINING_FILES, *EVALUATION_FILES)]
    for path in (*files, inference_weights(folder), label_map):
        if path.suffix != ".json":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
