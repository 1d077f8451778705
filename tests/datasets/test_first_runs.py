"""The pages of docs/datasets and the experiments for a first run fit each other, the sets, and the papers' grid."""

import re
from pathlib import Path

import pytest

from harness import datasets
from harness.experiment.schema import Experiment

FIRST = ("camvid", "cityscapes", "ade20k", "pascal-context", "coco-stuff")


@pytest.mark.parametrize("name", FIRST)
def test_a_first_run_has_the_crop_and_optimizer_of_its_set(repository: Path, name: str) -> None:
    first = Experiment.load(repository / "config" / f"first-{name}.yaml")
    (dataset,) = first.datasets
    papers = Experiment.load(repository / "config" / "paper.yaml").schedule_of(dataset, "hrnet_w48")
    for key in ("batch", "crop", "fit", "scale", "optimizer", "learning_rate", "weight_decay", "policy"):
        assert getattr(first.schedule, key) == getattr(papers, key), key
    assert first.schedule.iterations <= papers.iterations / 2
    assert len(first.runs()) == 2


@pytest.mark.parametrize("name", FIRST)
def test_a_page_names_the_variable_the_experiment_and_a_known_data_set(repository: Path, name: str) -> None:
    page = (repository / "docs" / "datasets" / f"{name}.md").read_text()
    experiment = Experiment.load(repository / "config" / f"first-{name}.yaml")
    assert f"make run EXPERIMENT=config/first-{name}.yaml" in page
    for dataset in experiment.datasets:
        assert f"export {datasets.load(dataset).root_variable}=" in page
    for dataset in re.findall(r"verify --dataset (\w+)", page):
        assert dataset in datasets.names()
    for path in re.findall(r"config/[\w-]+\.yaml", page):
        assert (repository / path).is_file()


def test_the_overview_links_every_page(repository: Path) -> None:
    overview = (repository / "docs" / "datasets.md").read_text()
    for page in (repository / "docs" / "datasets").glob("*.md"):
        assert f"(datasets/{page.name})" in overview
