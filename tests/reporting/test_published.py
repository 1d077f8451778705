"""The papers' figures: read whole, and refused without a source; their tables in four formats."""

import csv
import html.parser
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

from harness.errors import UserError
from harness.experiment.schema import Experiment
from harness.reporting.published import FOLDER, ablations, baseline_of, figures, training_settings, zoo_figures
from harness.reporting.tables import write_tables

FIGURES = [
    "boundary_miou_cityscapes.csv",
    "cost_cityscapes.csv",
    "miou_by_class_frequency.csv",
    "miou_by_object_size.csv",
    "miou_cityscapes_test.csv",
    "miou_main.csv",
    "miou_other_backbones.csv",
]
HEADER = "dataset,split,model,method,metric,value,source\n"
GOOD = "camvid,test,hrnet_w48,contextrast,miou,84.33,a paper\n"


@pytest.mark.parametrize("name", FIGURES)
def test_every_committed_figure_is_read(name):
    with (FOLDER / name).open(newline="") as file:
        expected = [(row["model"], row["method"], row["metric"], float(row["value"])) for row in csv.DictReader(file)]
    found = figures(FOLDER / name)
    assert [(each.model, each.method, each.metric, each.value) for each in found] == expected
    assert all(each.source for each in found)


def test_no_committed_file_is_without_a_reader():
    read = {*FIGURES, "ablations_contextrast_pp_cityscapes_hrnet.csv", "training_settings.csv"}
    assert {path.name for path in FOLDER.glob("*.csv")} == read | {"modelzoo_cityscapes.csv"}
    assert len(ablations(FOLDER / "ablations_contextrast_pp_cityscapes_hrnet.csv")) == 27
    settings = training_settings(FOLDER / "training_settings.csv")
    assert settings["camvid", "hrnet_w48"].crop == (360, 480)
    assert settings["cityscapes", "segformer_b0"].optimizer == "adamw"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEADER + GOOD + GOOD.replace("a paper", ""), "line 3: it has no source"),
        (HEADER + GOOD.replace("a paper", "  "), "line 2: it has no source"),
        (HEADER + GOOD.replace(",a paper", ""), "line 2: it must have a field"),
        (HEADER + GOOD.replace("a paper", "a paper,more"), "line 2: it must have a field"),
        (HEADER + GOOD.replace("84.33", "high"), "line 2: value must be a number, not 'high'"),
        (HEADER + GOOD.replace("84.33", "nan"), "line 2: value must be a number"),
        (HEADER.replace(",source", "") + GOOD, "its columns must be"),
        ("", "its columns must be"),
    ],
)
def test_a_row_without_a_source_or_number_is_refused_with_file_and_line(tmp_path, text, said):
    path = tmp_path / "figures.csv"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        figures(path)
    assert str(path) in str(error.value)
    assert said in str(error.value)


def test_a_missing_file_is_a_users_mistake(tmp_path):
    with pytest.raises(UserError, match=r"there is no .*nothing\.csv"):
        figures(tmp_path / "nothing.csv")


def test_the_baseline_of_a_gain_is_of_the_same_table_row():
    rows = figures(FOLDER / "miou_by_object_size.csv")
    for row in rows:
        base = baseline_of(rows, row)
        assert base.method == "multiscale_contrast"  # the table has no cross entropy
        assert (base.dataset, base.model, base.metric) == (row.dataset, row.model, row.metric)


def test_the_model_zoos_figures_are_those_of_its_own_files():
    configs = Path(importlib.util.find_spec("mmseg").origin).parent / ".mim" / "configs"
    for row in zoo_figures(FOLDER / "modelzoo_cityscapes.csv"):
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
def tables(request, tmp_path_factory):
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


class Cells(html.parser.HTMLParser):
    """The text and the attributes of every cell of a body, by row."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.inside, self.body = [], False, False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag in ("tbody", "thead"):
            self.body = tag == "tbody"
        if self.body and tag == "tr":
            self.rows.append([])
        if self.body and tag in ("td", "th"):
            self.rows[-1].append(["", dict(attributes)])
            self.inside = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1][0] += f" {data}"


NUMBER = re.compile(r"[+-]?\d+\.\d+|(?<![\w.+-])\d+(?![\w.])")


def numbers_of_markdown(text):
    tokens = Cells(MarkdownIt("commonmark").enable("table").render(text.replace("<br>", " ")))
    return [[NUMBER.findall(cell) for cell, _ in row] for row in tokens.rows]


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
def test_every_published_table_has_the_same_numbers_in_every_format(tables, name):
    path = tables / f"papers_{name}"
    shown = numbers_of_markdown(path.with_suffix(".md").read_text())
    assert len(shown) == PAPERS[name]
    assert numbers_of_latex(path.with_suffix(".tex").read_text()) == shown


@pytest.mark.parametrize("name", [name for name in PAPERS if name not in ("verdicts", "training_settings")])
def test_the_csv_has_the_published_numbers_that_are_shown(tables, name):
    path = tables / f"papers_{name}"
    with path.with_suffix(".csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    column = "published_baseline" if name == "cityscapes_baselines" else "published"
    rows = [row for row in rows if row.get("protocol", "ms_flip") == "ms_flip"]
    if "dataset" in rows[0]:  # printed data set by data set
        order = list(dict.fromkeys(row["dataset"] for row in rows))
        rows.sort(key=lambda row: order.index(row["dataset"]))
    shown = numbers_of_markdown(path.with_suffix(".md").read_text())
    for row, cells in zip(rows, shown, strict=True):
        assert [f"{float(row[column]):.2f}"] in [cell[:1] for cell in cells]
    gains = [f"{float(row['published_gain']):+.2f}" for row in rows if row.get("published_gain")]
    everything = [number for row in shown for cell in row for number in cell]
    assert all(gain in everything for gain in gains)


def test_the_question_of_the_baselines_is_answered_in_figures(tables):
    with (tables / "papers_cityscapes_baselines.csv").open(newline="") as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    like = {model: round(float(row["gain_like_for_like"]), 2) for model, row in rows.items()}
    assert (like["deeplabv3_r101"], like["hrnet_w48"]) == (-0.26, 2.51)
    equals = {model: row["equals"] for model, row in rows.items()}
    assert equals["deeplabv3_r101"] == equals["hrnet_w48"] == "single scale"
    assert equals["segformer_b0"] == "multi-scale, flip"
    assert equals["mobilenet_v2_d8"] == "neither"


def test_changed_training_settings_are_shown_as_different(tables):
    with (tables / "papers_training_settings.csv").open(newline="") as file:
        rows = {(row["dataset"], row["model"], row["setting"]): row for row in csv.DictReader(file)}
    changed = rows["cityscapes", "hrnet_w48", "iterations"]
    assert (changed["published"], changed["ours"], changed["agrees"]) == ("40000", "1234", "no")
    assert rows["cityscapes", "mobilenet_v2_d8", "weight_decay"]["agrees"] == "printed oddity"
    assert rows["cityscapes", "segformer_b0", "momentum"]["agrees"] == "printed oddity"
    assert rows["camvid", "hrnet_w48", "learning_rate"]["agrees"] == "yes"


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
        "assert not {'torch', 'pandas', 'matplotlib', 'mmseg'} & sys.modules.keys()\n"
    )
    config = request.config.rootpath / "config" / "paper.yaml"
    result = subprocess.run(
        [sys.executable, "-c", code, str(config), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "reports/paper/tables/papers_main.md").is_file()
