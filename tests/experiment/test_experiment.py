import itertools
import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UserError
from harness.experiment.schema import Experiment, Schedule, discovery
from harness.runs.record import fingerprint


def test_runs_are_the_product_with_the_baseline_first(experiment_file):
    path = experiment_file(
        arms={"contextrast": {}, "cross_entropy": {}},
        seeds=[0, 3],
        baseline_seeds=2,
        models=["hrnet_tiny", "lite0_fpn"],
    )
    runs = [(run.model, run.seed, run.arm) for run in Experiment.load(path).runs()]
    arms = ["cross_entropy", "contextrast"]
    assert runs == [(m, s, a) for m, s, a in itertools.product(["hrnet_tiny", "lite0_fpn"], [0, 3], arms)]


def test_an_arm_is_a_method_with_options(experiment_file):
    arms = {"cross_entropy": {}, "random": {"method": "contextrast", "negatives": "random"}}
    experiment = Experiment.load(experiment_file(arms=arms))
    assert experiment.arms["random"].method == "contextrast"
    settings = experiment.settings(experiment.run("scenes", "hrnet_tiny", "random", 0))
    assert settings["options"]["negatives"] == "random"
    assert (
        settings["options"]["temperature"] == discovery.options("contextrast")["temperature"]
    )  # defaults are recorded


def test_an_arm_may_start_to_count_later(experiment_file):
    arms = {"cross_entropy": {}, "late": {"method": "contextrast", "starts_at": 0.125}}
    experiment = Experiment.load(experiment_file(arms=arms))
    runs = {run.arm: experiment.settings(run) for run in experiment.runs()}
    assert runs["late"]["starts_at"] == 0.125
    assert "starts_at" not in runs["cross_entropy"] | runs["late"]["options"]


def test_an_arm_may_count_in_a_first_part_alone(experiment_file):
    arms = {"cross_entropy": {}, "early": {"method": "contextrast", "starts_at": 0.25, "ends_at": 0.5}}
    experiment = Experiment.load(experiment_file(arms=arms))
    runs = {run.arm: experiment.settings(run) for run in experiment.runs()}
    assert (runs["early"]["starts_at"], runs["early"]["ends_at"]) == (0.25, 0.5)
    assert "ends_at" not in runs["cross_entropy"] | runs["early"]["options"]
    arms["early"]["starts_at"] = 0.5
    with pytest.raises(UserError, match=r"ends_at \(0.5\) must be after starts_at \(0.5\)"):
        Experiment.load(experiment_file(arms=arms))


def test_a_control_has_more_iterations(experiment_file):
    arms = {"cross_entropy": {}, "longer": {"method": "cross_entropy", "longer": 2.5}}
    experiment = Experiment.load(experiment_file(arms=arms), ["seeds=[0, 2]", "schedule.iterations=7"])
    runs = {(run.arm, run.seed): experiment.settings(run) for run in experiment.runs()}
    longer = runs["cross_entropy", 2]["schedule"] | {"iterations": 18}  # 17.5, rounded to the even number
    assert runs["longer", 2] == runs["cross_entropy", 2] | {"schedule": longer}


@pytest.mark.parametrize(
    ("seeds", "baseline_seeds", "expected"),
    [
        ([0, 1, 2], None, [0, 1, 2, 3, 4, 5]),  # twice the arms'
        ([4, 2], None, [4, 2, 5, 6]),
        ([3], None, [3]),  # shows no interval: a second would be for nothing
        ([3], 2, [3, 4]),
        ([0, 1, 2], 3, [0, 1, 2]),
        ([0, 1, 2], 4, [0, 1, 2, 3]),
    ],
)
def test_the_baseline_has_more_seeds_than_the_arms(experiment_file, seeds, baseline_seeds, expected):
    more = {} if baseline_seeds is None else {"baseline_seeds": baseline_seeds}
    experiment = Experiment.load(experiment_file(seeds=seeds, **more))
    assert experiment.seeds_of(experiment.baseline) == expected
    runs = [(run.arm, run.seed) for run in experiment.runs()]
    assert len(runs) == len(set(runs))
    assert [seed for arm, seed in runs if arm == experiment.baseline] == expected
    for arm in experiment.arms.keys() - {experiment.baseline}:
        assert [seed for name, seed in runs if name == arm] == seeds
    assert {experiment.settings(run)["seed"] for run in experiment.runs()} == set(expected)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"arms": {"contextrast": {"longer": 0}}}, ["arms.contextrast.longer", "must be above 0"]),
        ({"seeds": [0, 1, 2], "baseline_seeds": 2}, ["baseline_seeds", "3 or more", "2"]),
        ({"baseline_seeds": 0}, ["baseline_seeds", "must be above 0"]),
        ({"arms": {"contextrast": {"starts_at": 1}}}, ["arms.contextrast.starts_at", "must be below 1", "1"]),
        ({"arms": {"contextrast": {"start_at": 0.5}}}, ["unknown option 'start_at'", "did you mean starts_at?"]),
        ({"arms": {"contextrasd": {}}}, ["unknown method 'contextrasd'", "did you mean contextrast?"]),
        ({"arms": {"contextrast": {"wieght": 1}}}, ["unknown option 'wieght'", "did you mean weight?"]),
        ({"datasets": ["camvit"]}, ["unknown data set 'camvit'", "did you mean camvid?"]),
        ({"models": ["hrnet_w47"]}, ["unknown model 'hrnet_w47'", "did you mean hrnet_w48?"]),
        ({"baseline": "nothing"}, ["unknown arm 'nothing'", "cross_entropy"]),
        ({"sedes": [0]}, ["unknown key 'sedes'", "did you mean seeds?"]),
        ({"protocols": ["hole"]}, ["protocols.0", "whole"]),
        ({"seeds": [-1]}, ["seeds.0", "-1"]),
        ({"seeds": [2**64]}, ["seeds.0", "4294967296"]),
        ({"seeds": [0, 0]}, ["seeds", "twice"]),
        ({"arms": {"../up": {"method": "contextrast"}}}, ["../up"]),
        ({"arms": []}, ["arms"]),
        ({"datasets": []}, ["datasets"]),
        ({"name": "other"}, ["name"]),
        ({"schedule": {"iterations": 5}}, ["schedule.batch"]),
        ({"arms": {"contextrast": {"temperature": "hello"}}}, ["arms.contextrast.temperature is 'hello'", "above 0"]),
        ({"arms": {"contextrast": {"temperature": -1}}}, ["arms.contextrast.temperature is -1", "above 0"]),
        ({"arms": {"contextrast": {"temperature": math.inf}}}, ["arms.contextrast.temperature", "inf"]),
        ({"arms": {"contextrast": {"layer_weights": [1, 1, 1, math.nan]}}}, ["contextrast.layer_weights[3]", "nan"]),
        ({"arms": {"contextrast": {"dim": 1.5}}}, ["arms.contextrast.dim is 1.5", "whole number"]),
        ({"arms": {"contextrast": {"layer_weights": [0.1, -1, 1, 1]}}}, ["arms.contextrast.layer_weights[1] is -1"]),
        ({"arms": {"late": {"method": "contextrast", "alpha": -1}}}, ["arms.late.weight is -1"]),
        ({"arms": {"contextrast": {"alpha": 1, "weight": 1}}}, ["contextrast", "twice", "alpha"]),
        ({"arms": {"contextrast_pp": {"detach_anchors": True}}}, ["arms.contextrast_pp.detach_anchors", "fusion"]),
        (
            {"arms": {"cross_entropy": {}, "contextrast": {"layer_weights": [1]}}},
            ["arms.contextrast.layer_weights", "hrnet_tiny"],
        ),
        ({"arms": {"cross_entropy": {}, "pne": {"layers": [4]}}}, ["arms.pne.layers is [4]", "hrnet_tiny"]),
        ({"arms": {"contextrast": {"longer": True}}}, ["arms.contextrast.longer", "True"]),
        ({"seeds": [True]}, ["seeds.0", "True"]),
        ({"seeds": [1.0]}, ["seeds.0", "1.0"]),
        ({"roots": {"camvid": 5}}, ["roots.camvid", "path", "5"]),
        ({"roots": "data"}, ["roots", "must hold keys"]),
        ({"only": {"hrnet_tiny": "scenes"}}, ["only.hrnet_tiny", "list"]),
        ({"schedules": [{"batch": "four"}]}, ["schedules", "batch", "'four'"]),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_file_and_the_key(experiment_file, keys, words):
    path = experiment_file(**keys)
    with pytest.raises(UserError) as error:
        Experiment.load(path)
    message = str(error.value)
    assert "\n" not in message
    for word in [path.name, *words]:
        assert word in message


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("class_weights=[0,0,0,0,0,0,0,0,0,0,0]", ["class_weights", "all 0"]),
        ("class_weights=[.inf,1,1,1,1,1,1,1,1,1,1]", ["class_weights.0", "finite"]),
        ("weight_decay=.nan", ["weight_decay"]),
        ("scale=[0.5,.inf]", ["scale.1", "finite"]),
        ("batch=true", ["batch", "True"]),
        ("batch='2'", ["batch", "'2'"]),
        ("iterations=50.5", ["iterations", "50.5"]),
        ("channels_last=yes please", ["channels_last", "yes please"]),
        ("channels_last=1", ["channels_last", "1"]),
        ("learning_rate=.inf", ["learning_rate", "inf"]),
        ("learning_rate=.nan", ["learning_rate", "nan"]),
        ("learning_rate=fast", ["learning_rate", "fast"]),
        ("crop=64", ["crop", "64"]),
        ("crop=[64, '64']", ["crop.1", "'64'"]),
        ("scale=[2, 0.5]", ["scale", "low, high"]),
        ("photometric.contrast_range=[1.5, 0.5]", ["photometric.contrast_range", "low, high"]),
        ("photometric=true", ["photometric", "True"]),
        ("undecayed=norm", ["undecayed", "norm"]),
        ("class_weights=[1, 2]", ["class_weights has 2 numbers", "scenes has 11 classes"]),
        ("slide_stride=[64, 16]", ["slide_stride [64, 16]", "window"]),
        ("optimizer=adam", ["optimizer", "adam"]),
        ("flip=1.5", ["flip", "1.5"]),
    ],
)
def test_a_schedule_value_of_another_type_or_range_is_refused_with_its_key(experiment_file, setting, words):
    with pytest.raises(UserError) as error:
        Experiment.load(experiment_file(), [f"schedule.{setting}"])
    assert "\n" not in str(error.value)
    for word in ["tiny.yaml", "schedule", *words]:
        assert word in str(error.value)


@pytest.mark.parametrize("written", ["1e-3", "1E-3", "+1e-3", "0.001", "1.e-3"])
def test_powers_of_ten_are_numbers_with_or_without_a_dot(experiment_file, tmp_path, written):
    path = experiment_file()
    assert Experiment.load(path, [f"schedule.learning_rate={written}"]).schedule.learning_rate == 0.001
    path.write_text(path.read_text().replace("learning_rate: 0.1", f"learning_rate: {written}"))
    assert Experiment.load(path).schedule.learning_rate == 0.001


def test_former_names_of_options_are_read_as_the_current_ones(experiment_file):
    former = {"contextrast_pp": {"memory": 7, "alpha": 1}, "region_contrast": {"queue": 5, "gather_queues": False}}
    current = {"contextrast_pp": {"memory_size": 7, "weight": 1}, "region_contrast": {"memory_size": 5}}
    current["region_contrast"]["gather_memory"] = False
    one, other = (Experiment.load(experiment_file(arms={"cross_entropy": {}, **arms})) for arms in (former, current))
    assert one.arms == other.arms
    assert [one.settings(run) for run in one.runs()] == [other.settings(run) for run in other.runs()]


def test_settings_do_not_depend_on_how_a_number_is_written(experiment_file):
    found = []
    for weights in ([1, 0, 0, 1], [1.0, 0.0, 0.0, 1.0]):
        experiment = Experiment.load(
            experiment_file(arms={"cross_entropy": {}, "contextrast": {"layer_weights": weights, "weight": weights[0]}})
        )
        found.append(fingerprint(experiment.settings(experiment.runs()[1])))
    assert found[0] == found[1]


def test_misspelt_schedule_keys_are_refused_with_the_nearest(experiment_file):
    with pytest.raises(UserError, match=r"unknown key 'iteration' in schedule: did you mean iterations"):
        Experiment.load(experiment_file(), ["schedule.iteration=3"])


def test_an_experiment_that_is_not_there_has_a_nearest(repository, monkeypatch):
    monkeypatch.chdir(repository)
    with pytest.raises(UserError, match=r"no experiment file .*did you mean camvid-small\? pass one"):
        Experiment.load(Path("camvid-smal"))


def test_a_key_given_twice_is_refused(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("arms:\n  contextrast: {}\n  contextrast: {weight: 1}\n")
    with pytest.raises(UserError, match="'contextrast' appears twice at line"):
        Experiment.load(path)


def test_overrides_are_validated_like_the_file(experiment_file):
    experiment = Experiment.load(
        experiment_file(), ["schedule.iterations=7", "arms.contextrast.weight=0.5", "seeds=[4]"]
    )
    assert experiment.schedule.iterations == 7
    assert experiment.arms["contextrast"].options == {"weight": 0.5}
    assert experiment.seeds == [4]
    for wrong in ("schedule.iterations=-1", "schedule.iterations", "seeds.first=1", "models=[hrnet_w48"):
        with pytest.raises(UserError):
            Experiment.load(experiment_file(), [wrong])


def test_checkpoints_fall_on_log_rows(experiment_file):
    with pytest.raises(UserError, match="checkpoint_every"):
        Experiment.load(experiment_file(), ["schedule.checkpoint_every=5"])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    key=st.sampled_from(
        ["arms", "baseline", "datasets", "models", "schedule", "protocols", "seeds", "roots", "absent"]
    ),
    value=json_values,
)
def test_any_value_for_any_key_loads_or_is_refused_in_one_sentence(experiment_file, key, value):
    path = experiment_file()
    content = yaml.safe_load(path.read_text()) | {key: value}
    path.write_text(yaml.safe_dump(content))
    try:
        Experiment.load(path)
    except UserError as error:
        assert path.name in str(error)


@pytest.mark.parametrize("name", ["smoke", "camvid-small", "camvid", "ablations"])
def test_the_experiments_that_come_with_the_project_load(repository, name):
    experiment = Experiment.load(repository / "config" / f"{name}.yaml")
    assert {"cross_entropy", "contextrast"} <= set(experiment.arms)


def test_the_example_of_the_page_loads_and_shows_every_key(repository, tmp_path):
    page = (repository / "config" / "README.md").read_text()
    example = page.partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "example.yaml").write_text(example)
    experiment = Experiment.load(tmp_path / "example.yaml")
    assert experiment.pairs() == [("camvid", "lite0_fpn"), ("camvid", "hrnet_w48"), ("cityscapes", "lite0_fpn")]
    assert [experiment.schedule_of(*pair).iterations for pair in experiment.pairs()] == [1500, 6000, 1500]
    assert yaml.safe_load(example).keys() == Experiment.model_fields.keys() - {"name"}
    assert yaml.safe_load(example)["schedule"].keys() == Schedule.model_fields.keys()


def test_the_page_says_which_methods_an_experiment_leaves_out(repository):
    def methods(name):
        return {arm.method for arm in Experiment.load(repository / "config" / f"{name}.yaml").arms.values()}

    page = (repository / "config" / "README.md").read_text().splitlines()
    for name in ("camvid-small", "camvid", "paper"):
        (row,) = [line for line in page if line.startswith(f"| `{name}.yaml`")]
        names = sorted(methods("smoke") - methods(name))
        assert f"all methods of `smoke.yaml` but {' and '.join(f'`{each}`' for each in names)}" in row


def test_the_single_run_of_the_faq_is_one_of_the_small_setting(repository):
    part = (repository / "docs/faq.md").read_text()
    train = next(line for line in part.splitlines() if "harness train" in line).split()
    evaluate = next(line for line in part.splitlines() if "harness evaluate" in line).split()
    given = dict(itertools.pairwise(train))
    assert f"make run EXPERIMENT={given['train']}" in (repository / "README.md").read_text()  # it needs no GPU
    experiment = Experiment.load(repository / given["train"])
    run = experiment.run(given["--dataset"], given["--model"], given["--arm"], int(given["--seed"]))
    assert evaluate[-1] == str(run.folder(Path("results")))
