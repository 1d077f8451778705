"""That training and prediction on a GPU do what they do on the CPU. Where nothing is drawn at random, values agree."""

import pytest
import torch

from harness.cost.arms import generated_batch, schedule, trainer
from harness.experiment import discovery
from harness.models.inference import scores

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CLASSES, BATCH, SIZE = 5, 2, (64, 128)
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
# Methods that take no pixel at random: their terms are the same on both devices. The others draw from each device's own
# generator.
DRAWS_NOTHING = {"cross_entropy", "car", "deep_supervision", "jaccard_metric", "lovasz_softmax", "ohem"}


def _trainer(method, device):
    return trainer("hrnet_tiny", method, CLASSES, device, schedule(BATCH, SIZE, channels_last=True))


@pytest.fixture
def exact():
    """Convolutions in float32, not in its short form TF32, which torch lets cuDNN take by default."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


@pytest.mark.parametrize("method", discovery.names())
def test_a_step_of_every_method(method, exact):
    images, labels = generated_batch(CLASSES, BATCH, SIZE)
    found = {}
    for device in (CPU, CUDA):
        made = _trainer(method, device)
        found[device] = made.step(images, labels, 0, 0.01)
        for iteration in (1, 2):
            made.step(images, labels, iteration, 0.01)
        assert made.diverged_at() is None
        assert made.method_was_active()
    assert list(found[CUDA]) == list(found[CPU])
    same = [name for name in found[CPU] if method in DRAWS_NOTHING or name.startswith("cross_entropy")]
    assert same
    for name in same:
        torch.testing.assert_close(found[CUDA][name].double().cpu(), found[CPU][name].double(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("protocol", ["whole", "ms_flip"])
def test_predictions_are_those_of_the_cpu(protocol, exact):
    images, labels = generated_batch(CLASSES, BATCH, SIZE)
    made = _trainer("cross_entropy", CPU)
    made.step(images, labels, 0, 0.01)  # after more steps it knows one class alone
    image = images[0].permute(1, 2, 0).numpy()
    network = made.network.eval()
    ours = scores(network.to(CPU), image, protocol)
    theirs = scores(network.to(CUDA), image, protocol).cpu()
    assert len(ours.argmax(1).unique()) > 1
    torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-4)
    assert (theirs.argmax(1) == ours.argmax(1)).double().mean() > 0.99
