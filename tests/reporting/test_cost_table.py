import csv

import pytest

from harness import models
from harness.experiment.schema import Experiment
from harness.reporting.costs import networks as table
from harness.reporting.costs.networks import cases, costs, write_cost_table


def counted(model, method, dataset, size, **changes):
    """A row as `cost_rows` gives it, with the published network's counts."""
    added = {"cross_entropy": 0, "contextrast": 382624}[method]
    row = {"model": model, "method": method, "dataset": dataset, "size": size, "inference_parameters": 65858659}
    row |= {"auxiliary_parameters": 0, "method_parameters": added, "training_parameters": 65858659 + added}
    return row | {"gmacs": 187.866660864, "gflops": 373.756526592} | changes


@pytest.fixture
def write(experiment_file, tmp_path, monkeypatch):
    """Writes the table of two models with chosen counts in place of real ones, and reads it back."""

    def run(**changes):
        def rows(names, size, dataset):
            size_name = f"{size[0]}x{size[1]}"
            methods = ("contextrast", "cross_entropy")
            return [counted(name, method, dataset, size_name, **changes) for name in names for method in methods]

        monkeypatch.setattr(table, "cost_rows", rows)
        monkeypatch.setattr(models, "names", lambda: ["hrnet_tiny", "hrnet_w48"])
        experiment = Experiment.load(experiment_file(datasets=["camvid"], models=["hrnet_w48"]))
        folder = write_cost_table(experiment, tmp_path)
        assert folder == tmp_path / "reports" / "cost"
        with (folder / "cost.csv").open(newline="") as file:
            return list(csv.DictReader(file)), (folder / "cost.md").read_text()

    return run


def test_cases_are_an_experiments_crops_and_every_model_at_cityscapes_size(repository):
    experiment = Experiment.load(repository / "config" / "paper.yaml")
    found = cases(experiment)
    assert found["cityscapes", (512, 1024)] == models.names()
    assert found["cityscapes", (1024, 1024)] == ["segformer_b0"]
    assert found["camvid", (360, 480)] == ["deeplabv3_r101", "hrnet_w48", "ocrnet_hrnet_w48"]
    flat = {(dataset, model, size) for (dataset, size), names in found.items() for model in names}
    assert {(*pair, experiment.schedule_of(*pair).crop) for pair in experiment.pairs()} <= flat


def test_the_csv_holds_every_digit_beside_the_published_figures(write):
    rows, _ = write()
    assert len(rows) == 2 * (2 + 1)  # methods x (both models at Cityscapes' size, one at CamVid's crop)
    (row,) = [r for r in rows if (r["model"], r["method"], r["size"]) == ("hrnet_w48", "contextrast", "512x1024")]
    assert (row["gmacs"], row["training_parameters"]) == ("187.866660864", "66241283")
    assert row["published_inference_GFLOPs_as_published"] == "187.87"
    assert (row["published_training_memory_MiB"], row["published_training_time_h"]) == ("27788.0", "10.017")
    others = [r for r in rows if (r["model"], r["size"]) != ("hrnet_w48", "512x1024")]
    assert len(others) == 4
    assert all(row[column] == "" for row in others for column in row if column.startswith("published_"))


def test_equal_figures_are_called_equal_and_others_are_named_with_their_difference(write):
    _, text = write()
    assert "| hrnet\\_w48 | Contextrast | parameters in training, M | 66.24 | 66.24 | equal |" in text
    assert "All are equal to the two decimals printed" in text
    assert "187.867 G" in text
    assert "373.76 G" in text
    _, text = write(gmacs=190.0)
    assert "| hrnet\\_w48 | Contextrast | multiply-adds of inference, G | 190.00 | 187.87 | +2.13 |" in text
    assert "Not equal to two decimals: hrnet\\_w48, Contextrast: multiply-adds of inference, G; hrnet" in text


def test_each_network_stands_once_in_the_readable_tables(write):
    _, text = write()
    inference, training = text.split("### Inference")[1].split("### Training")
    assert inference.count("| hrnet\\_w48 |") == 2  # for Cityscapes and CamVid
    assert "| hrnet\\_w48 | camvid | 32x32 | 65.86 | 187.87 | 373.76 |" in inference
    assert training.count("| hrnet\\_w48 |") == 2
    assert "| hrnet\\_tiny | cityscapes | 65.86 | 0.00 | 0.38 | 0.00 |" in training
    assert "cityscapes 19, camvid 11" in inference


def test_the_committed_table_holds_the_published_network(repository):
    with (repository / "results" / "reports" / "cost" / "cost.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    ours = {row["method"]: row for row in rows if (row["model"], row["size"]) == ("hrnet_w48", "512x1024")}
    assert {f"{float(row['gmacs']):.2f}" for row in ours.values()} == {"187.87"}
    training = {name: f"{int(row['training_parameters']) / 1e6:.2f}" for name, row in ours.items()}
    published = costs().query("metric == 'training_parameters_M'").set_index("method")["value"]
    assert published["contextrast_pp"] == 67.82
    assert len(published) == 4
    assert published.map("{:.2f}".format).to_dict().items() <= training.items()
