import errno

import pytest
import torch

from harness.errors import UserError
from harness.training import checkpoint


def test_the_last_two_are_kept_and_the_newest_is_loaded(tmp_path):
    for iteration in (1, 2, 10):
        checkpoint.save(tmp_path, iteration, {"iteration": iteration, "tensor": torch.arange(iteration)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["iteration_0000002.pt", "iteration_0000010.pt"]
    state = checkpoint.load_newest(tmp_path)
    assert state["iteration"] == 10
    assert torch.equal(state["tensor"], torch.arange(10))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The bytes of a checkpoint that holds what a run's does: tensors of several types, plain values, nesting."""
    folder = tmp_path_factory.mktemp("good")
    checkpoint.save(folder, 2, STATE)
    return (folder / "iteration_0000002.pt").read_bytes()


STATE = {
    "iteration": 2,
    "seconds": 1.5,
    "history": [{"iteration": 2, "loss": 0.25}],
    "network": {"weight": torch.arange(24, dtype=torch.float32).reshape(2, 3, 4), "steps": torch.tensor(7)},
}


def same(found):
    return (
        found.keys() == STATE.keys()
        and all(found[key] == STATE[key] for key in ("iteration", "seconds", "history"))
        and all(torch.equal(found["network"][name], tensor) for name, tensor in STATE["network"].items())
        and found["network"].keys() == STATE["network"].keys()
    )


def load_damaged(folder, content):
    """The newest of two checkpoints, the older good, the newer with these bytes."""
    if not (folder / "iteration_0000001.pt").exists():
        checkpoint.save(folder, 1, {"iteration": 1})
    (folder / "iteration_0000002.pt").write_bytes(content)
    return checkpoint.load_newest(folder)


def test_a_checkpoint_torn_at_any_offset_falls_back_with_a_warning(tmp_path, capsys, good):
    offsets = sorted({0, 1, len(good) - 1, *range(0, len(good), 101)})
    for offset in offsets:
        assert load_damaged(tmp_path, good[:offset])["iteration"] == 1
        assert "iteration_0000002.pt is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("bit", [0x01, 0x80])
def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing(tmp_path, capsys, good, bit):
    refused = 0
    for offset in range(0, len(good), 11):
        content = bytearray(good)
        content[offset] ^= bit
        found = load_damaged(tmp_path, content)
        refused += found["iteration"] == 1
        assert found["iteration"] == 1 or same(found), offset
        assert ("is damaged" in capsys.readouterr().err) == (found["iteration"] == 1)
    assert refused > 30


def test_a_flipped_bit_of_a_tensor_is_refused(tmp_path, good):
    content = bytearray(good)
    values = STATE["network"]["weight"].numpy().tobytes()
    content[good.index(values) + 5] ^= 0x10
    assert load_damaged(tmp_path, content)["iteration"] == 1
    assert load_damaged(tmp_path, good)["iteration"] == 2


def test_what_is_no_checkpoint_is_passed_over(tmp_path, capsys):
    torch.save([1, 2], tmp_path / "iteration_0000003.pt")
    assert checkpoint.load_newest(tmp_path) is None
    assert "not a checkpoint" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_whole_leaves_the_checkpoint_before_it(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, {"iteration": 1})

    def full(self, content):
        with self.open("wb") as file:
            file.write(bytes(content)[:100])
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(type(tmp_path), "write_bytes", full)
    with pytest.raises(UserError, match=r"iteration_0000002\.pt cannot be written \(No space left on device\)"):
        checkpoint.save(tmp_path, 2, {"iteration": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["iteration_0000001.pt"]
    assert checkpoint.load_newest(tmp_path)["iteration"] == 1


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
