import numpy as np
import pandas as pd
import torch

from harness.training.history import History


def test_rows_are_averages_over_the_iterations_in_which_a_value_was_defined(tmp_path):
    history = History()
    for loss, share in [(1.0, float("nan")), (3.0, 0.5)]:
        history.add({"loss": torch.tensor(loss), "share": torch.tensor(share), "per_class": torch.tensor([loss, 0.0])})
    history.close_row(2, 0.1, 1.5)
    history.add({"loss": torch.tensor(5.0), "share": torch.tensor(float("nan")), "per_class": torch.tensor([5.0, 1.0])})
    history.close_row(3, 0.05, 2.0)
    history.write(tmp_path)

    curve = pd.read_csv(tmp_path / "curve.csv")
    assert list(curve) == ["iteration", "learning_rate", "loss", "share", "seconds"]
    assert curve.loss.tolist() == [2.0, 5.0]
    assert curve.share.tolist()[0] == 0.5
    assert np.isnan(curve.share.tolist()[1])
    with np.load(tmp_path / "diagnostics.npz") as arrays:
        assert arrays["per_class"].tolist() == [[2.0, 0.0], [5.0, 1.0]]
        assert arrays["iteration"].tolist() == [2, 3]


def test_a_continued_history_goes_on_behind_the_checkpoints_rows_and_inside_an_open_one():
    first = History()
    first.add({"loss": torch.tensor(1.0)})
    first.close_row(1, 0.1, 1.0)
    first.add({"loss": torch.tensor(4.0)})
    second = History()
    second.load_state_dict(first.state_dict(), torch.device("cpu"))
    second.add({"loss": torch.tensor(2.0)})
    second.close_row(3, 0.1, 2.0)
    assert [row["loss"] for row in second.rows] == [1.0, 3.0]


def test_a_history_from_before_open_rows_were_kept_is_continued():
    history = History()
    history.load_state_dict({"history": [{"iteration": 1, "loss": 1.0}]}, torch.device("cpu"))
    history.add({"loss": torch.tensor(2.0)})
    history.close_row(2, 0.1, 2.0)
    assert [row["loss"] for row in history.rows] == [1.0, 2.0]


def test_a_vector_that_comes_later_is_nan_in_the_rows_before(tmp_path):
    history = History()
    for iteration, values in enumerate(({"loss": 1.0}, {"loss": 2.0, "by_layer/ratio": [3.0, 4.0]}), start=1):
        history.add({name: torch.tensor(value) for name, value in values.items()})
        history.close_row(iteration, 0.1, 1.0)
    history.write(tmp_path)
    with np.load(tmp_path / "diagnostics.npz") as found:
        np.testing.assert_array_equal(found["by_layer/ratio"], [[np.nan, np.nan], [3.0, 4.0]])
        np.testing.assert_array_equal(found["loss"], [1.0, 2.0])
