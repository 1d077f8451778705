import math

import pytest
import torch
from torch import nn

from harness.cost.complexity import cost_rows, flops, multiply_adds, parameters
from harness.errors import UserError
from harness.experiment import discovery


class Small(nn.Module):
    """Two convolutions, a batch norm and a bilinear resize, whose cost is easily written down."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 5, 1)

    def forward(self, images):
        mapped = self.second(self.norm(self.first(images)).relu())
        return nn.functional.interpolate(mapped, images.shape[-2:], mode="bilinear")


def test_counts_equal_the_arithmetic_of_a_network_written_out():
    height, width = 12, 20
    cells = height // 2 * width // 2
    convolutions = cells * 8 * 3 * 9 + cells * 5 * 8
    images, network = torch.zeros(1, 3, height, width), Small().eval()
    assert flops(network, images) == 2 * convolutions
    assert multiply_adds(network, images) == convolutions + 2 * 8 * cells + 4 * 5 * height * width
    assert parameters(network) == 8 * 3 * 9 + 2 * 8 + 5 * 8 + 5


def head(channels, dim=256):
    """Parameters of the head in the paper's count: 1x1 without bias, ReLU, batch norm, 1x1 to `dim` with bias."""
    return channels * channels + 2 * channels + channels * dim + dim


@pytest.mark.slow
def test_a_row_a_method_with_what_the_method_adds():
    channels = [16, 24, 32, 48]  # of hrnet_tiny
    rows = {row["method"]: row for row in cost_rows(["hrnet_tiny"], (64, 96))}
    assert rows.keys() == set(discovery.names())
    heads = sum(map(head, channels))
    fusion = 3 * (2 * 3 * (256 * 256 + 256) + 512 * 256 + 256)  # of three modules: two inputs' q, k, v; one layer
    added = {name: row["method_parameters"] for name, row in rows.items()}
    assert added["cross_entropy"] == 0
    assert (added["contextrast"], added["contextrast_pp"]) == (heads, heads + fusion)
    for row in rows.values():
        assert (row["model"], row["dataset"], row["size"]) == ("hrnet_tiny", "cityscapes", "64x96")
        assert row["auxiliary_parameters"] == 0
        assert row["training_parameters"] == row["inference_parameters"] + row["method_parameters"]
        same = ("inference_parameters", "gmacs", "gflops")
        assert [row[name] for name in same] == [rows["cross_entropy"][name] for name in same]


@pytest.mark.slow
def test_auxiliary_heads_count_in_training_alone_and_classes_are_the_data_sets():
    (wide,) = cost_rows(["mobilenet_v2_d8"], (64, 64), "cityscapes", ["cross_entropy"])
    (narrow,) = cost_rows(["mobilenet_v2_d8"], (64, 64), "camvid", ["cross_entropy"])
    assert wide["training_parameters"] - wide["inference_parameters"] == wide["auxiliary_parameters"]
    # A class is a weight a channel and a bias: mmsegmentation's FCN heads have 256 channels beside and 512 in the main.
    assert wide["auxiliary_parameters"] - narrow["auxiliary_parameters"] == (19 - 11) * (256 + 1)
    assert wide["inference_parameters"] - narrow["inference_parameters"] == (19 - 11) * (512 + 1)
    assert wide["gflops"] > narrow["gflops"]


@pytest.mark.slow
def test_hrnet_w48_costs_what_is_published():
    """Table XV of arXiv 2608.22679: its "187.87 G FLOPs" are multiply-adds; torch's counter gives twice as many."""
    rows = {row["method"]: row for row in cost_rows(["hrnet_w48"], (512, 1024))}
    for row in rows.values():
        assert f"{row['gmacs']:.2f}" == "187.87"
        assert f"{row['inference_parameters'] / 1e6:.2f}" == "65.86"
        assert math.isclose(row["gflops"], 373.76, abs_tol=0.005)
    training = {name: f"{row['training_parameters'] / 1e6:.2f}" for name, row in rows.items()}
    assert training["cross_entropy"] == "65.86"
    assert (training["multiscale_contrast"], training["contextrast"]) == ("66.24", "66.24")
    assert training["contextrast_pp"] == "67.82"


def test_unknown_names_are_refused_with_the_nearest():
    for arguments, words in (
        ((["hrnet_tyni"], (64, 64)), "unknown model 'hrnet_tyni': did you mean hrnet_tiny"),
        ((["hrnet_tiny"], (64, 64), "camvit"), "unknown data set 'camvit': did you mean camvid"),
        ((["hrnet_tiny"], (64, 64), "camvid", ["contextrasd"]), "unknown method 'contextrasd': did you mean contextr"),
    ):
        with pytest.raises(UserError, match=words):
            cost_rows(*arguments)
