"""A table whose runs were not made on the published data set says so."""

from harness.comparison import Cell
from harness.evaluation.groups import Origin
from harness.experiment.schema import Experiment
from harness.reporting.notes import notes


def cell(data: str) -> Cell:
    origin = Origin("a machine with torch 2", "source", "c" * 7, data=data)
    return Cell(
        dataset="scenes", model="hrnet_tiny", protocol="whole", arm="cross_entropy", metric="miou", values={0: 50.0},
        gain=None, missing={}, is_baseline=True, images=2, origins={0: origin},
    )  # fmt: skip


def test_the_note_under_a_table_says_that_data_are_a_part(experiment_file) -> None:
    experiment = Experiment.load(experiment_file())
    said = " ".join(notes(experiment, [cell("as is: 6 train, 2 val images")]))
    assert "scenes 2 images (NOT the published data set: as is: 6 train, 2 val images)" in said
    assert "NOT the published" not in " ".join(notes(experiment, [cell("")]))
