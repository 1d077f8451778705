"""The papers' figures: read whole, and refused without a source; their tables in four formats."""

import importlib.util
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import yaml
from markdown_it import MarkdownIt

from harness.errors import UserError
from harness.experiment.schema import Experiment
from harness.reporting.published import FOLDER, figures, methods, metrics, tables, training_settings
from harness.reporting.tables import write_tables

pytestmark = pytest.mark.slow

FIGURES = {
    "ablations_contextrast_pp_cityscapes_hrnet.csv": 27,
    "boundary_miou_cityscapes.csv": 16,
    "cost_cityscapes.csv": 16,
    "miou_by_class_frequency.csv": 48,
    "miou_by_object_size.csv": 24,
    "miou_cityscapes_test.csv": 16,
    "miou_main.csv": 63,
    "miou_other_backbones.csv": 30,
    "modelzoo_cityscapes.csv": 8,
}
HEADER = "dataset,split,model,method,metric,protocol,absent,value,baseline,quoted,source\n"
GOOD = "camvid,test,hrnet_w48,contextrast,miou,ms_flip,skip,84.33,,,a paper\n"


@pytest.mark.parametrize("name", FIGURES)
def test_every_committed_figure_is_read(name):
    found = figures(name)
    assert len(found) == FIGURES[name]
    columns = ["model", "method", "metric", "value", "baseline", "source"]
    assert found[columns].equals(pd.read_csv(FOLDER / name, keep_default_na=False)[columns])
    assert set(found["absent"]) <= {"skip", ""}


def test_no_committed_file_is_without_a_reader():
    others = {"methods.csv", "metrics.csv", "tables.csv", "training_settings.csv"}
    assert {path.name for path in FOLDER.glob("*.csv")} == FIGURES.keys() | others
    assert {row["file"] for row in tables()} == FIGURES.keys() - {"cost_cityscapes.csv", "modelzoo_cityscapes.csv"}
    assert methods()["pixel_contrast"]["options"] == {"memory": True}
    assert metrics()["metric"].value_counts()["boundary_miou@3px"] == 2
    settings = training_settings()
    assert settings["camvid", "hrnet_w48"]["crop"] == (360, 480)
    assert settings["cityscapes", "segformer_b0"]["optimizer"] == "adamw"
    assert settings["cityscapes", "mobilenet_v2_d8"]["instead"] == {"weight_decay": 0.0005}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEADER + GOOD + GOOD.replace("a paper", ""), "line 3: it has no source"),
        (HEADER + GOOD.replace("a paper", "  "), "line 2: it has no source"),
        (HEADER + GOOD.replace(",a paper", ""), "line 2: it must have a field"),
        (HEADER + GOOD.replace("a paper", "a paper,more"), "line 2: it must have a field"),
        (HEADER + GOOD.replace("84.33", "high"), "line 2: value must be a number, not 'high'"),
        (HEADER + GOOD.replace("84.33", "nan"), "line 2: value must be a number"),
        (HEADER + GOOD.replace("84.33,", "84.33,cross_entropy"), "line 2: its baseline 'cross_entropy'"),
        (HEADER.replace(",source", "") + GOOD, "its columns must be"),
        ("", "its columns must be"),
    ],
)
def test_a_row_without_a_source_number_or_baseline_is_refused_with_file_and_line(tmp_path, text, said):
    path = tmp_path / "figures.csv"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        figures(path)
    assert str(path) in str(error.value)
    assert said in str(error.value)


def test_a_missing_file_is_a_users_mistake(tmp_path):
    with pytest.raises(UserError, match=r"there is no .*nothing\.csv"):
        figures(tmp_path / "nothing.csv")


@pytest.mark.parametrize("name", FIGURES)
def test_every_gain_is_over_the_baseline_of_the_same_figure(name):
    found = figures(name)
    same = ["dataset", "split", "model", "metric", "protocol", "ablation"]
    for _, rows in found.groupby(same):
        base = rows[rows["baseline"] == ""]
        assert len(base) == 1
        assert set(rows["baseline"]) == {"", base["row"].item()} or len(rows) == 1
        assert (rows["value"] - base["value"].item()).drop(base.index).equals(rows["gain"].drop(base.index))
    of_sizes = name == "miou_by_object_size.csv"  # which has no cross entropy
    if not found["setting"].any():
        expected = "multiscale_contrast" if of_sizes else "cross_entropy"
        assert set(found.loc[found["baseline"] == "", "method"]) == {expected}


def test_the_model_zoos_figures_are_those_of_its_own_files():
    configs = Path(importlib.util.find_spec("mmseg").origin).parent / ".mim" / "configs"
    for row in figures("modelzoo_cityscapes.csv").itertuples():
        match = re.fullmatch(r"mmsegmentation configs/(\S+): (\S+)", row.source)
        models = yaml.safe_load((configs / match[1]).read_text())["Models"]
        (model,) = [each for each in models if each["Name"] == match[2]]
        (result,) = (
            [each for each in model["Results"] if each["Dataset"] == "Cityscapes"]
            if isinstance(model["Results"], list)
            else [model["Results"]]
        )
        assert result["Metrics"]["mIoU" if row.protocol == "single_scale" else "mIoU(ms+flip)"] == row.value


@pytest.fixture(scope="module")
def written(request, tmp_path_factory):
    """The papers' tables with nothing measured: all of their figures, and every hole."""
    results = tmp_path_factory.mktemp("papers")
    changes = ["seeds=[0]", "schedule.iterations=1234", "name=paper"]
    write_tables(Experiment.load(request.config.rootpath / "config" / "paper.yaml", changes), results)
    return results / "reports" / "paper" / "tables"


PAPERS = {
    "main": 63,
    "cityscapes_test": 16,
    "other_backbones": 30,
    "class_frequency": 48,
    "object_size": 24,
    "boundary": 32,
    "cityscapes_baselines": 4,
    "training_settings": 18,
    "verdicts": 6,
}


NUMBER = re.compile(r"[+-]?\d+\.\d+|(?<![\w.+-])\d+(?![\w.])")


def numbers_of_markdown(text):
    rows = []
    for before, token in pairwise(MarkdownIt("commonmark").enable("table").parse(text.replace("<br>", " "))):
        rows += [[]] if token.type == "tr_open" else []
        if before.type == "td_open":
            rows[-1].append(NUMBER.findall(token.content))
    return [row for row in rows if row]  # a heading has none


def numbers_of_latex(text):
    rows, body = [], False
    for line in text.splitlines():
        body = (body or line == r"\midrule") and line != r"\bottomrule"
        if not body or not line.endswith(r" \\"):
            continue
        cells = line.removesuffix(r" \\").replace("$-$", "-").replace(r"\scriptsize", "").split(" & ")
        if cells[0].strip():
            rows.append(cells)
        else:
            rows[-1] = [f"{above} {below}" for above, below in zip(rows[-1], cells, strict=True)]
    return [[NUMBER.findall(re.sub(r"\\text\w+\{|[{}]|\\", "", cell)) for cell in row] for row in rows]


@pytest.mark.parametrize("name", PAPERS)
def test_every_published_table_has_the_same_numbers_in_every_format(written, name):
    path = written / f"papers_{name}"
    shown = numbers_of_markdown(path.with_suffix(".md").read_text())
    assert len(shown) == PAPERS[name]
    assert numbers_of_latex(path.with_suffix(".tex").read_text()) == shown


@pytest.mark.parametrize("name", [name for name in PAPERS if name not in ("verdicts", "training_settings")])
def test_the_csv_has_the_published_numbers_that_are_shown(written, name):
    path = written / f"papers_{name}"
    rows = pd.read_csv(path.with_suffix(".csv"))
    if "dataset" in rows:  # printed data set by data set
        rows = pd.concat(of_set for _, of_set in rows[rows["protocol"] == "ms_flip"].groupby("dataset", sort=False))
    shown = numbers_of_markdown(path.with_suffix(".md").read_text())
    value = rows["published_baseline" if name == "cityscapes_baselines" else "published"]
    for number, cells in zip(value, shown, strict=True):
        assert [f"{number:.2f}"] in [cell[:1] for cell in cells]
    everything = [number for row in shown for cell in row for number in cell]
    assert all(f"{gain:+.2f}" in everything for gain in rows.get("published_gain", value[:0]).dropna())


def test_the_question_of_the_baselines_is_answered_in_figures(written):
    rows = pd.read_csv(written / "papers_cityscapes_baselines.csv").set_index("model")
    assert rows["gain_like_for_like"].round(2)[["deeplabv3_r101", "hrnet_w48"]].tolist() == [-0.26, 2.51]
    assert rows["equals"].to_dict() == {
        "deeplabv3_r101": "single scale",
        "hrnet_w48": "single scale",
        "mobilenet_v2_d8": "neither",
        "segformer_b0": "multi-scale, flip",
    }


def test_changed_training_settings_are_shown_as_different(written):
    rows = pd.read_csv(written / "papers_training_settings.csv", dtype=str).set_index(["dataset", "model", "setting"])
    changed = rows.loc["cityscapes", "hrnet_w48", "iterations"]
    assert changed[["published", "ours", "agrees"]].tolist() == ["40000", "1234", "no"]
    assert rows.loc[("cityscapes", "mobilenet_v2_d8", "weight_decay"), "agrees"] == "printed oddity"
    assert rows.loc[("cityscapes", "segformer_b0", "momentum"), "agrees"] == "printed oddity"
    assert rows.loc[("camvid", "hrnet_w48", "learning_rate"), "agrees"] == "yes"


def test_an_experiment_on_nothing_published_has_no_papers_tables(make_experiment, tmp_path):
    write_tables(make_experiment(), tmp_path)
    assert not list(tmp_path.rglob("papers_*"))


def test_the_papers_tables_are_made_without_torch(request, tmp_path):
    code = (
        "import sys, pathlib\n"
        "from harness.experiment.schema import Experiment\n"
        "from harness.reporting.tables import write_tables\n"
        "experiment = Experiment.load(pathlib.Path(sys.argv[1]), ['datasets=[camvid]', 'seeds=[0]'])\n"
        "write_tables(experiment, pathlib.Path(sys.argv[2]))\n"
        "assert not {'torch', 'matplotlib', 'mmseg'} & sys.modules.keys()\n"
    )
    config = request.config.rootpath / "config" / "paper.yaml"
    result = subprocess.run(
        [sys.executable, "-c", code, str(config), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "reports/paper/tables/papers_main.md").is_file()
