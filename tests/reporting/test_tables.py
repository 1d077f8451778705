import csv
import re

import numpy as np
import pytest

from harness.reporting.tables import csv_text, write_tables

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
    signed = {"difference", "low", "high"}
    return [f"{float(row[column]):{'+' if column in signed else ''}.2f}" for column in columns if row[column]]


@pytest.mark.parametrize("table", ["miou", "boundary"])
def test_all_formats_show_the_numbers_of_the_csv(make_experiment, write_all, tmp_path, table):
    experiment = make_experiment(seeds=[0, 1, 2])
    write_all(experiment, tmp_path)
    write_tables(experiment, tmp_path)
    path = folder(experiment, tmp_path) / table
    rows = read_csv(path.with_suffix(".csv"))
    widths = ("3px", "5px", "7px", "10px", "20px", "0.02")
    # What stands side by side: both protocols, or the widths of boundary and then of trimap.
    families = {
        "miou": [[("whole", "miou"), ("ms_flip", "miou")]],
        "boundary": [[("whole", f"{kind}_miou@{width}") for width in widths] for kind in ("boundary", "trimap")],
    }[table]
    assert len(rows) == 3 * sum(map(len, families))
    by_key = {(row["protocol"], row["metric"], row["arm"]): row for row in rows}
    arms = {"plain": "plain (baseline)", "rival_one": "rival one", "cross_entropy": "cross entropy"}
    in_order = [(family, arm) for family in families for arm in arms]
    for shown in (rows_of_markdown(path.with_suffix(".md")), rows_of_latex(path.with_suffix(".tex"))):
        assert [row[0] for row in shown] == [arms[arm] for _, arm in in_order]
        for (family, arm), row in zip(in_order, shown, strict=True):
            for key, cell in zip(family, row[1:], strict=True):
                expected = two_decimals(by_key[(*key, arm)], "mean", "min", "max", "difference", "low", "high")
                assert NUMBER.findall(cell.replace("$-$", "-")) == expected
                assert "n 3" in cell


def test_the_csv_keeps_every_digit(make_experiment, write_all, tmp_path):
    experiment = make_experiment(protocols=["whole"])
    counts = write_all(experiment, tmp_path)
    write_tables(experiment, tmp_path)
    rows = {row["arm"]: row for row in read_csv(folder(experiment, tmp_path) / "miou.csv")}

    def score(arm, seed):
        sums = counts[*RUN, arm, seed].tables["whole"]["region"].sum(0)[:3]  # the fourth class is in no image
        return float(np.mean([100 * int(tp) / (int(tp) + int(fp) + int(fn)) for tp, fp, fn in sums]))

    for arm, row in rows.items():
        assert float(row["mean"]) == pytest.approx((score(arm, 0) + score(arm, 1)) / 2, rel=1e-13)
        assert (row["seeds"], row["status"], row["metric"]) == ("2", "done", "miou")
    difference = sum(score("rival_one", seed) - score("plain", seed) for seed in (0, 1)) / 2
    assert float(rows["rival_one"]["difference"]) == pytest.approx(difference, rel=1e-10)
    assert rows["rival_one"]["unit"] == "image"
    assert rows["plain"]["difference"] == rows["plain"]["low"] == ""


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
                "rival one: the source of its method was not the same for all seeds (commits c0ffeec).",
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
    assert "- Trained on A with torch 2.13.0: scenes with lite0\\_fpn.\n" in text
    assert "- Trained on B with torch 2.13.0: scenes with hrnet\\_w48.\n" in text


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
    shown = {row[0]: row[1:] for row in rows_of_markdown(path / "miou.md")}
    assert shown["rival one"] == ["diverged", "not run"]
    assert shown["plain (baseline)"][1] == "not run"
    reason = "Missing: rival one on scenes with lite0\\_fpn, seed 0: diverged: a\\_loss "
    assert reason + r"\| is not finite at iteration 120." in (path / "miou.md").read_text()
    assert reason + r"\textbar{} is not finite at iteration 120." in (path / "miou.tex").read_text()


def test_without_any_run_there_are_tables_of_holes(make_experiment, tmp_path):
    experiment = make_experiment()
    write_tables(experiment, tmp_path)
    for name in ("miou.csv", "miou.md", "miou.tex", "boundary.csv", "boundary.md", "boundary.tex"):
        assert "not run" in (folder(experiment, tmp_path) / name).read_text()
    assert (folder(experiment, tmp_path) / "per_class.md").read_text()


def test_only_what_is_outside_the_noise_is_bold_and_the_note_says_so(make_experiment, write_run, tmp_path):
    arms = {name: {"method": "cross_entropy"} for name in ("plain", "far_better", "the_same")}
    for seeds in ([0, 1, 2], [0]):
        experiment = make_experiment(arms=arms, seeds=seeds, protocols=["whole"])
        for seed in seeds:
            write_run(experiment, tmp_path, "plain", seed, skill=0.6)
            write_run(experiment, tmp_path, "far_better", seed, skill=0.9)
            write_run(experiment, tmp_path, "the_same", seed, skill=0.6)
        write_tables(experiment, tmp_path)
        text = (folder(experiment, tmp_path) / "miou.md").read_text()
        shown = {row[0]: row[1] for row in rows_of_markdown(folder(experiment, tmp_path) / "miou.md")}
        rows = {row["arm"]: row for row in read_csv(folder(experiment, tmp_path) / "miou.csv")}
        assert float(rows["far_better"]["low"]) > 0  # with one seed too: that alone makes nothing bold
        assert ("**" in shown["far better"]) == (len(seeds) == 3)
        assert "**" not in shown["the same"] + shown["plain (baseline)"]
        assert "Nothing is bold that is inside the noise." in text
        assert ("images only, one seed" in text) == (len(seeds) == 1)


def test_the_note_names_protocol_rule_images_seeds_and_unit(make_experiment, write_all, tmp_path):
    experiment = make_experiment(datasets=["camvid"], seeds=[0, 3], absent="require_ground_truth")
    write_all(experiment, tmp_path)
    write_tables(experiment, tmp_path)
    for suffix in ("md", "tex"):
        text = (folder(experiment, tmp_path) / f"miou.{suffix}").read_text()
        assert r"Protocol ms\_flip: scales 0.75 to 2.0" in text
        assert r"Absent classes (require\_ground\_truth): a class without ground truth is left out" in text
        assert "camvid: 30 images; the interval resamples them by block of 10 frames." in text
        assert "asked for: 0, 3" in text
        assert "the difference to plain in percentage points, paired by seed and by image" in text


def test_the_note_names_the_box_that_images_are_scaled_into(make_experiment, write_all, tmp_path):
    schedule = {"iterations": 50, "batch": 2, "crop": [32, 32], "learning_rate": 0.1, "fit": [80, 60]}
    experiment = make_experiment(schedule=schedule, seeds=[0])
    write_all(experiment, tmp_path)
    write_tables(experiment, tmp_path)
    text = (folder(experiment, tmp_path) / "miou.md").read_text()
    assert "resamples them by image; they are scaled into 80x60 first." in text


def test_a_wide_table_is_split_between_models(make_experiment, tmp_path):
    experiment = make_experiment(datasets=["scenes", "camvid"], models=["lite0_fpn", "hrnet_w48"])
    write_tables(experiment, tmp_path)
    lines = (folder(experiment, tmp_path) / "miou.md").read_text().splitlines()
    headings = [line for line in lines if line.startswith("|  |")]
    assert [heading.count("|") - 2 for heading in headings] == [6, 2]
    assert [heading.count(r"hrnet\_w48") for heading in headings] == [2, 0]  # of the second table in its title
    labels = re.findall(r"\\label\{.*?\}", (folder(experiment, tmp_path) / "boundary.tex").read_text())
    assert len(labels) == len(set(labels)) == 8


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
                assert (cell, rows[arm, name]["mean"], rows[arm, name]["seeds"]) == ("–", "", "0")
                continue
            ious = []
            for seed in (0, 1):
                tp, fp, fn = map(int, counts[*RUN, arm, seed].tables["whole"]["region"][:, place].sum(0))
                ious.append(100 * tp / (tp + fp + fn))
            assert float(rows[arm, name]["mean"]) == pytest.approx(sum(ious) / 2, rel=1e-13)
            assert cell == f"{sum(ious) / 2:.2f} (n 2)"


def test_csv_fields_survive_commas_quotes_and_nothing():
    text = csv_text(("a", "b", "c"), [('x, "y"', None, 0.1 + 0.2)])
    assert list(csv.reader(text.splitlines())) == [["a", "b", "c"], ['x, "y"', "", "0.30000000000000004"]]


def test_differences_with_pooled_scatter_stand_under_the_mious(make_experiment, write_run, tmp_path):
    arms = {
        "plain": {"method": "cross_entropy"},
        "better": {"method": "contextrast"},
        "again": {"method": "cross_entropy"},
    }
    arms |= {"same": {"method": "region_contrast"}, "one_seed": {"method": "pne"}}
    experiment = make_experiment(arms=arms, baseline="plain", seeds=[0, 1, 2])
    for run in experiment.runs():
        if run.arm != "one_seed" or run.seed == 0:
            write_run(experiment, tmp_path, run.arm, run.seed, skill=0.9 if run.arm == "better" else 0.6)
    write_tables(experiment, tmp_path)
    text = (folder(experiment, tmp_path) / "miou.md").read_text()
    table = text[text.index("### mIoU, differences to plain with the seeds' scatter pooled") :]
    rows = {line.split(" | ")[0].strip("| "): line for line in table.splitlines() if line.startswith("| ")}
    assert list(rows) == ["", ":--", "better", "same"]  # neither the control nor the arm with a single seed
    csv = {(row["arm"], row["protocol"]): row for row in read_csv(folder(experiment, tmp_path) / "miou.csv")}
    for arm in ("better", "same"):
        for protocol in ("whole", "ms_flip"):
            row = csv[arm, protocol]
            bounds = [f"{float(row[name]):+.2f}" for name in ("difference", "pooled_low", "pooled_high")]
            assert f"{bounds[0]} \\[{bounds[1]}, {bounds[2]}\\]" in rows[arm]
            middle = (float(row["pooled_low"]) + float(row["pooled_high"])) / 2
            assert middle == pytest.approx(float(row["difference"]))
    assert rows["better"].count("**") == 4 and "**" not in rows["same"]
    assert csv["one_seed", "whole"]["pooled_low"] == csv["again", "whole"]["pooled_low"] == ""
    assert "4 degrees of freedom" in table


def test_one_arm_has_no_table_of_pooled_differences(make_experiment, write_all, tmp_path):
    experiment = make_experiment(arms={"plain": {"method": "cross_entropy"}, "rival_one": {"method": "contextrast"}})
    write_all(experiment, tmp_path)
    write_tables(experiment, tmp_path)
    assert "pooled" not in (folder(experiment, tmp_path) / "miou.md").read_text()
    rows = [row for row in read_csv(folder(experiment, tmp_path) / "miou.csv") if row["arm"] == "rival_one"]
    for row in rows:  # the interval that it has anyway
        assert float(row["pooled_low"]) == pytest.approx(float(row["low"]), abs=0.02)
    assert len(rows) == 2
