import pytest
import torch

from harness.training import checkpoint


def test_the_last_two_are_kept_and_the_newest_is_loaded(tmp_path):
    for iteration in (1, 2, 10):
        checkpoint.save(tmp_path, iteration, {"iteration": iteration, "tensor": torch.arange(iteration)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["iteration_0000002.pt", "iteration_0000010.pt"]
    state = checkpoint.load_newest(tmp_path)
    assert state["iteration"] == 10
    assert torch.equal(state["tensor"], torch.arange(10))


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[: len(content) // 2]])
def test_a_damaged_newest_falls_back_with_a_warning(tmp_path, capsys, damage):
    for iteration in (1, 2):
        checkpoint.save(tmp_path, iteration, {"iteration": iteration, "tensor": torch.rand(1000)})
    newest = tmp_path / "iteration_0000002.pt"
    newest.write_bytes(damage(newest.read_bytes()))
    assert checkpoint.load_newest(tmp_path)["iteration"] == 1
    assert "iteration_0000002.pt is damaged" in capsys.readouterr().err


def test_nothing_is_loaded_from_an_empty_folder(tmp_path):
    assert checkpoint.load_newest(tmp_path / "absent") is None


def test_a_checkpoint_that_is_not_plain_tensors_is_not_run(tmp_path):
    marker = tmp_path / "ran"

    class Harm:
        def __reduce__(self):
            return marker.touch, ()

    torch.save({"iteration": Harm()}, tmp_path / "iteration_0000001.pt")
    assert checkpoint.load_newest(tmp_path) is None
    assert not marker.exists()
