import csv
import re

import numpy as np
import pytest
from scipy import stats

from harness.comparison import Cell
from harness.reporting.notes import aa_text
from harness.reporting.tables import write_tables
from harness.reporting.writing import csv_text
from harness.statistics.interval import Gain

RUN = ("scenes", "lite0_fpn")
NUMBER = re.compile(r"[+-]?\d+\.\d\d")


def read_csv(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def folder(experiment, results):
    return results / "reports" / experiment.name / "tables"


def rows_of_markdown(path):
    """Every table row but headings and rules: [first cell, other cells ...]."""
    rows = [line[2:-2].split(" | ") for line in path.read_text().splitlines() if line.startswith("| ")]
    return [row for row in rows if row[0] not in ("", ":--")]


def rows_of_latex(path):
    """Every arm's rows of a table put together: [first cell, all numbers of a column ...]."""
    found, in_body = [], False
    for line in path.read_text().splitlines():
        in_body = (in_body or line == r"\midrule") and line != r"\bottomrule"
        if in_body and line.endswith(r" \\"):
            first, *cells = line.removesuffix(r" \\").split(" & ")
            if first.strip():
                found.append([first, *cells])
            else:
                found[-1] = [found[-1][0], *(f"{a} {b}" for a, b in zip(found[-1][1:], cells, strict=True))]
    return found


def two_decimals(row, *columns):
    signed = {"gain", "low", "high"}
    return [f"{float(row[column]):{'+' if column in signed else ''}.2f}" for column in columns if row[column]]


ARMS = {"plain": "plain (baseline)", "rival_one": "rival one", "cross_entropy": "Cross entropy"}


@pytest.mark.slow
def test_the_main_table_has_a_row_an_arm_by_gain_with_the_numbers_of_the_csv(make_experiment, write_all, tmp_path):
    experiment = make_experiment(seeds=[0, 1, 2])
    write_all(experiment, tmp_path)
    write_tables(experiment, tmp_path)
    path = folder(experiment, tmp_path) / "miou"
    rows = {(row["protocol"], row["arm"]): row for row in read_csv(path.with_suffix(".csv"))}
    assert len(rows) == 6
    for shown in (rows_of_markdown(path.with_suffix(".md")), rows_of_latex(path.with_suffix(".tex"))):
        for protocol, of_protocol in (("whole", shown[:3]), ("ms_flip", shown[3:])):
            assert of_protocol[0][0] == "plain (baseline)"
            gains = [float(NUMBER.search(row[3].replace("$-$", "-"))[0]) for row in of_protocol[1:]]
            assert gains == sorted(gains, reverse=True)
            by_name = {row[0]: row[1:] for row in of_protocol}
            for arm, name in ARMS.items():
                row, (level, runs, gain) = rows[protocol, arm], by_name[name]
                assert NUMBER.findall(level) == two_decimals(row, "mean", "sd")
                assert runs == row["runs"] == ("6" if arm == "plain" else "3")
                assert NUMBER.findall(gain.replace("$-$", "-")) == two_decimals(row, "gain", "low", "high")
    text = path.with_suffix(".md").read_text()
    assert text.count("no verdicts here") == 1  # of ms_flip, which is folded
    assert "| **" not in text.partition("no verdicts here")[2]


@pytest.mark.slow
def test_details_show_the_numbers_of_the_csv_folded_and_without_bold(make_experiment, write_all, tmp_path):
    experiment = make_experiment(seeds=[0, 1, 2])
    write_all(experiment, tmp_path, step=20)
    write_tables(experiment, tmp_path)
    path = folder(experiment, tmp_path) / "boundary"
    rows = read_csv(path.with_suffix(".csv"))
    widths = ("3px", "5px", "7px", "10px", "20px", "0.02")
    families = [[("whole", f"{kind}_miou@{width}") for width in widths] for kind in ("boundary", "trimap")]
    assert len(rows) == 3 * sum(map(len, families))
    by_key = {(row["protocol"], row["metric"], row["arm"]): row for row in rows}
    assert any(row["low"] and float(row["low"]) > 0 for row in rows)
    in_order = [(family, arm) for family in families for arm in ARMS]
    for shown in (rows_of_markdown(path.with_suffix(".md")), rows_of_latex(path.with_suffix(".tex"))):
        assert [row[0] for row in shown] == [ARMS[arm] for _, arm in in_order]
        for (family, arm), row in zip(in_order, shown, strict=True):
            for key, cell in zip(family, row[1:], strict=True):
                expected = two_decimals(by_key[(*key, arm)], "mean", "sd", "gain", "low", "high")
                assert NUMBER.findall(cell.replace("$-$", "-")) == expected
    for name in ("boundary", "frequency", "per_class"):
        path = folder(experiment, tmp_path) / f"{name}.md"
        if path.exists():
            assert "**" not in path.read_text()
            assert path.read_text().startswith("<details>")


def test_the_csv_keeps_every_digit(make_experiment, write_all, tmp_path):
    experiment = make_experiment(protocols=["whole"])
    counts = write_all(experiment, tmp_path)
    write_tables(experiment, tmp_path)
    rows = {row["arm"]: row for row in read_csv(folder(experiment, tmp_path) / "miou.csv")}

    def score(arm, seed):
        sums = counts[*RUN, arm, seed].tables["whole"]["region"].sum(0)[:3]  # the fourth class is in no image
        return float(np.mean([100 * int(tp) / (int(tp) + int(fp) + int(fn)) for tp, fp, fn in sums]))

    for arm, row in rows.items():
        scores = [score(arm, seed) for seed in range(int(row["runs"]))]
        assert float(row["mean"]) == pytest.approx(np.mean(scores), rel=1e-13)
        assert float(row["sd"]) == pytest.approx(np.std(scores, ddof=1), rel=1e-9)
        assert (row["status"], row["metric"]) == ("done", "miou")
    assert {arm: row["runs"] for arm, row in rows.items()} == {"plain": "4", "rival_one": "2", "cross_entropy": "2"}
    means = [np.mean([score(arm, seed) for seed in range(runs)]) for arm, runs in (("rival_one", 2), ("plain", 4))]
    assert float(rows["rival_one"]["gain"]) == pytest.approx(means[0] - means[1], rel=1e-10)
    assert (rows["rival_one"]["unit"], rows["rival_one"]["baseline_runs"], rows["rival_one"]["dof"]) == (
        "image",
        "4",
        "5",
    )
    assert rows["plain"]["gain"] == rows["plain"]["low"] == ""


@pytest.mark.parametrize(
    ("devices", "sources", "expected"),
    [
        (["A", "A", "A", "A"], "ssss", ["Trained on A with torch 2.13.0."]),
        (
            ["A", "A", "A", "B"],
            "ssss",
            [
                "Not all trained on one kind of machine, scenes with lite0\\_fpn: A with torch 2.13.0 (plain, "
                "rival one); B with torch 2.13.0 (rival one)."
            ],
        ),
        (
            ["A", "A", "A", "A"],
            "ssst",
            [
                "Trained on A with torch 2.13.0.",
                "rival one: the source of its method was not the same for all seeds (commits c0ffee1).",
            ],
        ),
        (["", "", "", ""], "ssss", []),
    ],
)
def test_a_table_says_where_its_runs_were_trained_and_whether_by_one_code(
    make_experiment, write_run, tmp_path, devices, sources, expected
):
    experiment = make_experiment(protocols=["whole"])
    runs = [(arm, seed) for arm in ("plain", "rival_one") for seed in (0, 1)]
    for (arm, seed), device, source in zip(runs, devices, sources, strict=True):
        write_run(experiment, tmp_path, arm, seed, device=device, source=source)
    write_tables(experiment, tmp_path)
    lines = (folder(experiment, tmp_path) / "miou.md").read_text().splitlines()
    assert [line[2:] for line in lines if "rained on" in line or "source of its method" in line] == expected


@pytest.mark.parametrize("left", ["unused", "unfilled"])
def test_a_table_says_what_of_its_runs_initial_weights_did_not_fit(make_experiment, write_run, tmp_path, left):
    experiment = make_experiment(protocols=["whole"])
    names = {"unused": [], "unfilled": [], left: ["head.one", "head.two", "head.three", "head.four"]}
    for seed in (0, 1):
        write_run(experiment, tmp_path, "plain", seed, device="A", initial_weights={"file": "a.pth", **names})
    write_run(experiment, tmp_path, "rival_one", 0, device="A", initial_weights=None)
    write_tables(experiment, tmp_path)
    text = (folder(experiment, tmp_path) / "miou.md").read_text()
    (line,) = [line for line in text.splitlines() if "a.pth" in line]
    assert "head.one, head.two, head.three and 1 more" in line
    assert ("at random" in line) == (left == "unfilled")


def test_tables_of_several_models_say_which_was_trained_where(make_experiment, write_run, tmp_path):
    experiment = make_experiment(models=["lite0_fpn", "hrnet_w48"], seeds=[0], protocols=["whole"])
    for model, device in (("lite0_fpn", "A"), ("hrnet_w48", "B")):
        write_run(experiment, tmp_path, "plain", 0, model=model, device=device)
    write_tables(experiment, tmp_path)
    text = (folder(experiment, tmp_path) / "miou.md").read_text()
    first, second = text.split("### ")[1:]
    assert ("Trained on A" in first, "Trained on B" in first) == (True, False)
    assert ("Trained on A" in second, "Trained on B" in second) == (False, True)


def test_a_partial_grid_gives_a_partial_table_that_shows_its_holes(make_experiment, write_run, tmp_path):
    experiment = make_experiment(models=["lite0_fpn", "hrnet_w48"], seeds=[0], protocols=["whole"])
    write_run(experiment, tmp_path, "plain", 0)
    write_run(experiment, tmp_path, "rival_one", 0, status="diverged", reason="a_loss | is not finite at iteration 120")
    write_tables(experiment, tmp_path)
    path = folder(experiment, tmp_path)
    rows = {(row["model"], row["arm"]): row for row in read_csv(path / "miou.csv")}
    assert {key: row["status"] for key, row in rows.items()} == {
        ("lite0_fpn", "plain"): "done",
        ("lite0_fpn", "rival_one"): "diverged",
        ("lite0_fpn", "cross_entropy"): "not run",
        **{("hrnet_w48", arm): "not run" for arm in ("plain", "rival_one", "cross_entropy")},
    }
    assert rows["lite0_fpn", "rival_one"]["note"] == "seed 0 diverged: a_loss | is not finite at iteration 120"
    assert rows["lite0_fpn", "rival_one"]["mean"] == ""
    shown = rows_of_markdown(path / "miou.md")
    assert [row[1] for row in shown if row[0] == "rival one"] == ["diverged", "not run"]
    assert [row[2] for row in shown if row[0] == "plain (baseline)"] == ["1", "0 of 1"]
    reason = "Missing: rival one on scenes with lite0\\_fpn, seed 0: diverged: a\\_loss "
    assert reason + r"\| is not finite at iteration 120." in (path / "miou.md").read_text()
    assert reason + r"\textbar{} is not finite at iteration 120." in (path / "miou.tex").read_text()


def test_without_any_run_there_are_tables_of_holes(make_experiment, tmp_path):
    experiment = make_experiment()
    write_tables(experiment, tmp_path)
    for name in ("miou.csv", "miou.md", "miou.tex", "boundary.csv", "boundary.md", "boundary.tex"):
        assert "not run" in (folder(experiment, tmp_path) / name).read_text()
    assert (folder(experiment, tmp_path) / "per_class.md").read_text()


@pytest.mark.slow
def test_only_a_gain_that_is_told_from_zero_is_bold_and_never_one_of_single_runs(make_experiment, write_run, tmp_path):
    arms = {name: {"method": "cross_entropy"} for name in ("plain", "far_better", "the_same")}
    for seeds in ([0, 1, 2], [0]):
        experiment = make_experiment(arms=arms, seeds=seeds, protocols=["whole"])
        for run in experiment.runs():
            write_run(experiment, tmp_path, run.arm, run.seed, skill=0.9 if run.arm == "far_better" else 0.6)
        write_tables(experiment, tmp_path)
        shown = {row[0]: row[3] for row in rows_of_markdown(folder(experiment, tmp_path) / "miou.md")}
        rows = {row["arm"]: row for row in read_csv(folder(experiment, tmp_path) / "miou.csv")}
        several = len(seeds) == 3
        assert (rows["far_better"]["low"] != "", "[" in shown["far better"]) == (several, several)
        assert ("**" in shown["far better"]) == several
        assert "**" not in shown["the same"] + shown["plain (baseline)"]
        text = (folder(experiment, tmp_path) / "miou.md").read_text()
        assert ("single run" in text) == (not several)
        assert ("seeds 0, 1, 2 and 3, 4, 5 differ by" in text) == several


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        (
            [[0, 1, 2], [0, 1, 2]],
            " Over seeds 0, 1, 2 alone, the other arms' own, all gains are 1.50 points lower.",
        ),
        ([[4, 5], [4, 5]], " Over seeds 4, 5 alone, the other arms' own, all gains are 1.50 points higher."),
        ([[0, 1, 2], [0, 1]], ""),
        ([range(6), range(6)], ""),
        ([], ""),
    ],
)
def test_what_the_baselines_further_seeds_do_to_the_gains_is_said(seeds, words):
    def cell(arm, values, gain=None):
        return Cell("camvid", "lite0_fpn", "whole", "miou", arm, values, {}, gain, gain is None)

    baseline = cell(
        "plain", {0: 60.0, 1: 61.0, 2: 62.0, 3: 58.0, 4: 59.0, 5: 57.0}
    )  # 59.5; of 0, 1, 2: 61; of 4, 5: 58
    rivals = [cell(str(number), dict.fromkeys(each, 60.0), Gain(0.5)) for number, each in enumerate(seeds)]
    said = "A/A: the baseline's seeds 0, 1, 2 and 3, 4, 5 differ by 3.00 points."
    assert aa_text(baseline, [baseline, *rivals]) == said + words


@pytest.mark.slow
def test_short_notes_and_the_facts_folded(make_experiment, write_all, tmp_path):
    experiment = make_experiment(datasets=["camvid"], seeds=[0, 3], absent="require_ground_truth")
    write_all(experiment, tmp_path)
    write_tables(experiment, tmp_path)
    text = (folder(experiment, tmp_path) / "miou.md").read_text()
    notes, facts = text.split("<details>")[:2]
    lines = [line for line in notes.splitlines() if line.startswith("- ")]
    assert len(lines) == 4
    assert max(map(len, lines)) < 150
    assert "gain over plain in points" in lines[0]
    assert "seeds 0, 3 and 4, 5" in lines[1] and "Over seeds 0, 3 alone" in lines[1]
    assert "camvid 30 images" in lines[2]
    assert "docs/metrics.md" in lines[3]
    assert r"Absent classes (require\_ground\_truth): a class without ground truth is left out" in facts
    assert "camvid: 30 images; resampled by block of 10 frames." in facts
    assert r"Protocol ms\_flip: scales 0.75 to 2.0" in text
    assert "scales 0.75 to 2.0" in (folder(experiment, tmp_path) / "miou.tex").read_text()


def test_the_facts_name_the_box_that_images_are_scaled_into(make_experiment, write_all, tmp_path):
    schedule = {"iterations": 50, "batch": 2, "crop": [32, 32], "learning_rate": 0.1, "fit": [80, 60]}
    experiment = make_experiment(schedule=schedule, seeds=[0])
    write_all(experiment, tmp_path)
    write_tables(experiment, tmp_path)
    text = (folder(experiment, tmp_path) / "miou.md").read_text()
    assert "resampled by image; scaled into 80x60 first." in text


@pytest.mark.slow
def test_what_more_runs_would_see_stands_in_a_table(make_experiment, write_all, tmp_path):
    from harness.statistics.interval import foreseen

    experiment = make_experiment(seeds=[0, 1, 2], protocols=["whole"])
    write_all(experiment, tmp_path)
    write_tables(experiment, tmp_path)
    rows = read_csv(folder(experiment, tmp_path) / "seeds.csv")
    of_miou = read_csv(folder(experiment, tmp_path) / "miou.csv")
    sds = [(float(row["sd"]), int(row["runs"])) for row in of_miou]
    variance = sum(sd**2 * (runs - 1) for sd, runs in sds) / sum(runs - 1 for _, runs in sds)
    for row in rows:
        assert float(row["sd_of_seeds"]) == pytest.approx(variance**0.5)
        expected = foreseen(
            variance, float(row["sd_of_images"]) ** 2, 2, float(row["runs"]), float(row["baseline_runs"])
        )
        assert float(row["gain_seen"]) == pytest.approx(expected)
    seen = [float(row["gain_seen"]) for row in rows]
    assert seen == sorted(seen, reverse=True)
    shown = rows_of_markdown(folder(experiment, tmp_path) / "seeds.md")[1:]
    assert [row[2] for row in shown] == [f"{gain:.2f}" for gain in seen]
    single = make_experiment(seeds=[0], baseline_seeds=1)
    write_tables(single, tmp_path / "single")
    assert not (folder(single, tmp_path / "single") / "seeds.csv").exists()


@pytest.mark.slow
def test_several_data_sets_and_networks_have_a_line_an_arm(make_experiment, write_all, tmp_path):
    experiment = make_experiment(datasets=["scenes", "camvid"], models=["lite0_fpn", "hrnet_w48"], seeds=[0, 1, 2])
    write_all(experiment, tmp_path, step=10)
    write_tables(experiment, tmp_path)
    path = folder(experiment, tmp_path)
    rows = {row["arm"]: row for row in read_csv(path / "settings.csv")}
    single = [row for row in read_csv(path / "miou.csv") if row["protocol"] == "whole"]
    for arm, row in rows.items():
        gains = [float(each["gain"]) for each in single if each["arm"] == arm]
        assert float(row["gain"]) == pytest.approx(np.mean(gains))
        assert (float(row["smallest"]), float(row["largest"])) == (pytest.approx(min(gains)), pytest.approx(max(gains)))
        reach = stats.t.ppf(0.975, 3) * np.std(gains, ddof=1) / 2
        assert float(row["high_like"]) == pytest.approx(np.mean(gains) + reach)
        assert row["settings"] == "4"
        widths = [float(each["high"]) - float(each["low"]) for each in single if each["arm"] == arm]
        assert float(row["high"]) - float(row["low"]) < min(widths)  # four settings know more than one
    assert set(rows) == {"rival_one", "cross_entropy"}
    text = (path / "miou.md").read_text()
    assert text.startswith("### Mean gain in mIoU over all data sets and networks")
    assert text.count("\n### ") == 4


def test_a_wide_table_is_split_between_models(make_experiment, tmp_path):
    experiment = make_experiment(datasets=["scenes", "camvid"], models=["lite0_fpn", "hrnet_w48"])
    write_tables(experiment, tmp_path)
    lines = (folder(experiment, tmp_path) / "boundary.md").read_text().splitlines()
    headings = [line for line in lines if line.startswith("|  |")]
    assert [heading.count("|") - 2 for heading in headings] == [6] * 8
    labels = re.findall(r"\\label\{.*?\}", (folder(experiment, tmp_path) / "boundary.tex").read_text())
    assert len(labels) == len(set(labels)) == 8


@pytest.mark.slow
def test_the_per_class_table_is_the_iou_of_every_class(make_experiment, write_all, tmp_path):
    experiment = make_experiment(protocols=["whole"])
    classes = ("Sky", "<script>&%", "Sign_Symbol", "Never")
    counts = write_all(experiment, tmp_path, classes=classes)
    write_tables(experiment, tmp_path)
    path = folder(experiment, tmp_path) / "per_class"
    rows = {(row["arm"], row["class"]): row for row in read_csv(path.with_suffix(".csv"))}
    shown = {row[0]: row[1:] for row in rows_of_markdown(path.with_suffix(".md"))}
    assert list(shown) == ["Sky", "&lt;script&gt;&amp;%", r"Sign\_Symbol", "Never"]
    for place, (name, cells) in enumerate(zip(classes, shown.values(), strict=True)):
        for arm, cell in zip(("plain", "rival_one", "cross_entropy"), cells, strict=True):
            if name == "Never":
                assert (cell, rows[arm, name]["mean"], rows[arm, name]["runs"]) == ("–", "", "0")
                continue
            ious, runs = [], 4 if arm == "plain" else 2
            for seed in range(runs):
                tp, fp, fn = map(int, counts[*RUN, arm, seed].tables["whole"]["region"][:, place].sum(0))
                ious.append(100 * tp / (tp + fp + fn))
            assert float(rows[arm, name]["mean"]) == pytest.approx(sum(ious) / runs, rel=1e-13)
            assert float(rows[arm, name]["sd"]) == pytest.approx(np.std(ious, ddof=1), rel=1e-9)
            assert cell == f"{sum(ious) / runs:.2f} (n {runs})"


def test_csv_fields_survive_commas_quotes_and_nothing():
    text = csv_text(("a", "b", "c"), [('x, "y"', None, 0.1 + 0.2)])
    assert list(csv.reader(text.splitlines())) == [["a", "b", "c"], ['x, "y"', "", "0.30000000000000004"]]
