"""Training settings by data set and model, and the pairs that run."""

import json

import pytest
import yaml

from harness.errors import UserError
from harness.experiment.schema import Experiment, Schedule

PAIRS = {"datasets": ["scenes", "camvid"], "models": ["hrnet_tiny", "lite0_fpn"]}


def load(experiment_file, overrides=(), **keys):
    return Experiment.load(experiment_file(**(PAIRS | keys)), list(overrides))


def iterations(experiment):
    """Of every pair, in order."""
    return [experiment.schedule_of(*pair).iterations for pair in experiment.pairs()]


def test_entries_are_laid_over_the_schedule_in_order_and_only_on_their_pairs(experiment_file):
    entries = [
        {"datasets": ["camvid"], "iterations": 20, "batch": 4},
        {"models": ["lite0_fpn"], "iterations": 30},
        {"datasets": ["camvid"], "models": ["lite0_fpn"], "photometric": None},
    ]
    experiment = load(experiment_file, schedules=entries)
    assert experiment.pairs() == [
        ("scenes", "hrnet_tiny"), ("scenes", "lite0_fpn"), ("camvid", "hrnet_tiny"), ("camvid", "lite0_fpn")
    ]  # fmt: skip
    assert iterations(experiment) == [10, 30, 20, 30]
    assert [experiment.schedule_of(*pair).batch for pair in experiment.pairs()] == [2, 2, 4, 4]
    assert [experiment.schedule_of(*pair).photometric is None for pair in experiment.pairs()] == [False] * 3 + [True]
    settings = experiment.settings(experiment.run("camvid", "lite0_fpn", "contextrast", 0))
    assert (settings["schedule"]["iterations"], settings["schedule"]["batch"]) == (30, 4)


def test_settings_of_runs_from_before_are_what_they_were(repository):
    """A committed record, made when an experiment had one schedule for all: its fingerprint must still hold."""
    folder = repository / "results" / "reference" / "epyc"
    experiment = Experiment.load(repository / "config" / "camvid-small.yaml", ["models=[lite0_fpn, lite0_fpn_scratch]"])
    records = sorted(folder.glob("runs/camvid-small/**/record.json"))
    assert records
    for record in map(json.loads, (path.read_text() for path in records)):
        run = experiment.run(*(record["key"][name] for name in ("dataset", "model", "arm", "seed")))
        assert experiment.settings(run)["schedule"] == record["settings"]["schedule"]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"schedules": [{"iteratons": 5}]}, ["unknown key 'iteratons' in schedules.0", "did you mean iterations?"]),
        ({"schedules": [{}, {"model": ["lite0_fpn"]}]}, ["'model' in schedules.1", "did you mean models?"]),
        ({"schedules": [{"models": ["lite0_fpm"]}]}, ["unknown model 'lite0_fpm'", "did you mean lite0_fpn?"]),
        ({"schedules": [{"datasets": ["camvit"]}]}, ["unknown data set 'camvit'", "did you mean camvid?"]),
        ({"schedules": [{"models": ["hrnet_w48"], "batch": 1}]}, ["schedules.0", "no pair"]),
        ({"schedules": [{"models": [], "batch": 1}]}, ["schedules.0", "no pair"]),
        ({"schedules": [{"models": "lite0_fpn", "batch": 1}]}, ["schedules.0.models", "list"]),
        ({"schedules": [{"batch": -1, "models": ["lite0_fpn"]}]}, ["lite0_fpn on scenes", "batch", "-1"]),
        ({"schedules": [{"checkpoint_every": 5}]}, ["hrnet_tiny on scenes", "checkpoint_every"]),
        ({"schedules": {"batch": 1}}, ["schedules", "list"]),
        ({"schedules": [5]}, ["schedules", "list"]),
        ({"only": {"lite0_fpn": ["camvit"]}}, ["unknown data set 'camvit'", "did you mean camvid?"]),
        ({"only": {"hrnet_w48": ["camvid"]}}, ["only.hrnet_w48"]),
        ({"only": {"lite0_fpn": ["cityscapes"]}}, ["only.lite0_fpn"]),
        ({"only": {"lite0_fpn": []}}, ["only.lite0_fpn", "at least 1"]),
    ],
)
def test_a_mistake_in_schedules_or_only_is_one_sentence(experiment_file, keys, words):
    with pytest.raises(UserError) as error:
        load(experiment_file, **keys)
    assert "\n" not in str(error.value)
    for word in ["tiny.yaml", *words]:
        assert word in str(error.value)


def test_only_binds_a_model_to_some_data_sets(experiment_file):
    entry = {"datasets": ["camvid"], "models": ["lite0_fpn"], "batch": 1}
    experiment = load(experiment_file, only={"lite0_fpn": ["scenes"]})
    assert experiment.pairs() == [("scenes", "hrnet_tiny"), ("scenes", "lite0_fpn"), ("camvid", "hrnet_tiny")]
    assert {(run.dataset, run.model) for run in experiment.runs()} == set(experiment.pairs())
    with pytest.raises(UserError, match="lite0_fpn runs on scenes alone in experiment tiny"):
        experiment.run("camvid", "lite0_fpn", "contextrast", 0)
    with pytest.raises(UserError, match=r"schedules\.0 matches no pair"):
        load(experiment_file, only={"lite0_fpn": ["scenes"]}, schedules=[entry])


def test_what_set_says_of_the_schedule_holds_for_every_pair(experiment_file):
    entries = [{"datasets": ["camvid"], "iterations": 20, "batch": 4}]
    one_key = load(experiment_file, ["schedule.iterations=7"], schedules=entries)
    assert iterations(one_key) == [7] * 4
    assert one_key.schedule_of("camvid", "lite0_fpn").batch == 4
    whole = "schedule={iterations: 6, batch: 3, crop: [32, 32], learning_rate: 0.1}"
    assert iterations(load(experiment_file, [whole], schedules=entries)) == [6] * 4
    with pytest.raises(UserError, match="must be a list"):
        load(experiment_file, ["schedule.iterations=7"], schedules=5)


def test_set_may_take_out_data_sets_and_models_that_entries_name(experiment_file):
    keys = {"schedules": [{"models": ["lite0_fpn"], "batch": 4}], "only": {"lite0_fpn": ["camvid"]}}
    experiment = load(experiment_file, ["models=[hrnet_tiny]", "datasets=[scenes]"], **keys)
    assert experiment.pairs() == [("scenes", "hrnet_tiny")]
    with pytest.raises(UserError, match="no pair"):
        load(experiment_file, ["models=[lite0_fpn]", "datasets=[scenes]"], **keys)


def test_keys_that_came_later_stand_in_settings_only_where_they_are_used(experiment_file):
    plain = {"iterations": 1, "batch": 1, "crop": [8, 8], "learning_rate": 1}
    later = {"fit": [2048, 512], "undecayed": ["norm"], "head_rate": 10.0}
    assert not later.keys() & Schedule.model_validate(plain).model_dump(mode="json").keys()
    assert (
        not later.keys()
        & Schedule.model_validate(plain | {"fit": None, "undecayed": [], "head_rate": 1}).model_dump(mode="json").keys()
    )
    used = Schedule.model_validate(plain | later)
    assert later.items() <= json.loads(used.model_dump_json()).items()
    assert Schedule.model_validate(json.loads(used.model_dump_json())) == used


def test_a_file_without_schedules_means_what_it_meant(experiment_file):
    path = experiment_file(**PAIRS)
    schedule = yaml.safe_load(path.read_text())["schedule"]
    experiment = Experiment.load(path)
    assert all(experiment.schedule_of(*pair) == Schedule.model_validate(schedule) for pair in experiment.pairs())
