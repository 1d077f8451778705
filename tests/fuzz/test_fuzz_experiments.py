"""Experiment files of any content load, or are refused in one sentence."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from mutations import ODD_YAML, damaged, examples, mutated, outcome, values

CONTENT = {
    "arms": {
        "cross_entropy": {},
        "contextrast": {"temperature": 0.1},
        "late": {"method": "contextrast", "starts_at": 0.5},
    },
    "baseline": "cross_entropy",
    "datasets": ["scenes", "camvid"],
    "models": ["hrnet_tiny", "lite0_fpn"],
    "only": {"lite0_fpn": ["camvid"]},
    "roots": {"camvid": "/nowhere"},
    "protocols": ["whole", "ms_flip"],
    "seeds": [0, 1],
    "absent": "skip",
    "schedule": {
        "iterations": 10,
        "batch": 2,
        "crop": [32, 32],
        "scale": [0.5, 2.0],
        "learning_rate": 0.1,
        "photometric": {"contrast_range": [0.5, 1.5]},
        "class_weights": [1, 2.5] + 9 * [0.5],
        "slide_window": [64, 64],
        "log_every": 2,
        "checkpoint_every": 4,
    },
    "schedules": [{"datasets": ["camvid"], "iterations": 20}, {"models": ["lite0_fpn"], "batch": 4}],
}
TEXT = yaml.safe_dump(CONTENT)
pytestmark = pytest.mark.slow


@pytest.fixture
def path(tmp_path):
    return tmp_path / "fuzzed.yaml"


def check(path, *overrides):
    given = [part for item in overrides for part in ("--set", item)]
    status, last = outcome("plan", path, "--results", path.parent / "none", *given)
    assert status in (0, 2)
    if status and not overrides:
        assert "fuzzed.yaml" in last
    return status


def test_the_unchanged_file_loads(path):
    path.write_text(TEXT)
    assert check(path) == 0


@examples(500)
@given(content=mutated(CONTENT))
def test_keys_and_values_of_any_kind(path, content):
    path.write_text(yaml.dump(content, allow_unicode=True), encoding="utf-8")
    check(path)


def test_an_option_whose_name_is_no_text(path):
    path.write_text(TEXT.replace("cross_entropy: {}", "cross_entropy: {~: 1}"))
    assert check(path) == 2


@examples(150)
@given(content=damaged(TEXT.encode()))
def test_damaged_text(path, content):
    path.write_bytes(content)
    check(path)


@examples(150)
@given(key=st.sampled_from([*CONTENT, *(f"schedule.{key}" for key in CONTENT["schedule"])]), data=st.data())
def test_values_that_only_yaml_knows(path, key, data):
    odd = data.draw(st.sampled_from(ODD_YAML))
    path.write_text(TEXT + f"\n{key.rpartition('.')[2]}: {odd}\n" if data.draw(st.booleans()) else odd)
    check(path)
    path.write_text(TEXT)
    check(path, f"{key}={odd}")


@examples(100)
@given(key=st.text(max_size=12) | st.sampled_from(["schedule", "schedule.", "a.b.c", ".", "schedules.0"]), value=values)
def test_overrides_of_any_kind(path, key, value):
    path.write_text(TEXT)
    check(path, f"{key}={yaml.dump(value, default_flow_style=True)}".replace("\x00", "0"))
