"""A folder of predictions holds whatever it holds: it is scored, or refused in one sentence."""

import shutil

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import damaged, examples, outcome

pytestmark = pytest.mark.slow
NAMES = ["test_0", "test_1", "test_2"]
ODD_NAMES = ["test_0_pred", "test_3", "TEST_0", "", "_", ".test_0", "test_0.png", "é", "a" * 200]


@pytest.fixture
def predictions(tiny_data, tmp_path):
    return tmp_path / "predictions"


def whole() -> bytes:
    return cv2.imencode(".png", np.zeros((32, 48), np.uint8))[1].tobytes()


@st.composite
def pictures(draw):
    """PNG bytes of any size, depth, number of channels and values; more often than not those of the labels."""
    height, width = draw(st.sampled_from([(32, 48)] * 4 + [(48, 32), (1, 1), (31, 48)]))
    channels = draw(st.sampled_from([(), (), (), (3,), (4,)]))
    dtype = draw(st.sampled_from([np.uint8, np.uint8, np.uint16]))
    some = draw(st.lists(st.integers(0, 255) | st.sampled_from([0, 1, 2, 11, 255]), min_size=1, max_size=4))
    values = np.array(some, dtype) * draw(st.sampled_from([1, 1, 1, 257 if dtype is np.uint16 else 1]))
    random = np.random.default_rng(draw(st.integers(0, 9)))
    return cv2.imencode(".png", random.choice(values, (height, width, *channels)).astype(dtype))[1].tobytes()


contents = pictures() | damaged(whole()) | st.just(whole())


def check(predictions, *options):
    results = predictions.parent / "results"
    status, _ = outcome("score", "--predictions", predictions, "--dataset", "tiny", "--results", results, *options)
    assert status in (0, 2)
    return status


def write(predictions, files):
    shutil.rmtree(predictions, ignore_errors=True)
    predictions.mkdir()
    for name, content in files.items():
        path = predictions / f"{name}.png"
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content)


def test_whole_predictions_are_scored(predictions):
    write(predictions, dict.fromkeys(NAMES, whole()))
    assert check(predictions) == 0


@examples(250)
@given(files=st.fixed_dictionaries(dict.fromkeys(NAMES, contents)))
def test_pictures_of_any_kind(predictions, files):
    write(predictions, files)
    check(predictions)


@examples(100)
@given(
    files=st.dictionaries(st.sampled_from(NAMES + ODD_NAMES), contents | st.none(), max_size=4),
    form=st.sampled_from([(), ("--format", "train_ids"), ("--format", "colors"), ("--format", "raw_ids")]),
)
def test_files_of_any_name(predictions, files, form):
    write(predictions, files)
    check(predictions, *form)


@examples(150)
@given(
    options=st.fixed_dictionaries(
        {},
        optional={
            f"--{name}": st.sampled_from(["", "..", "/tmp", "\x00", "<b>", "tiny", "external", "x"])
            | st.text(max_size=5)
            for name in ("arm", "experiment", "model", "seed", "protocol", "absent", "format", "split")
        },
    )
)
def test_options_of_any_kind(predictions, options):
    write(predictions, dict.fromkeys(NAMES, whole()))
    check(predictions, *(f"{name}={value}" for name, value in options.items()))
    assert {path.name for path in predictions.parent.iterdir()} <= {"tiny", "datasets", "predictions", "results"}
