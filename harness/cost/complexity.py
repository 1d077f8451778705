"""Parameters, multiply-adds and FLOPs of models and methods, without data, weights or a GPU."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from harness import datasets
from harness.compute.progress import track
from harness.config import size_name
from harness.datasets import IGNORE_INDEX
from harness.experiment import discovery
from harness.models import build
from harness.models.segmenter import Segmenter

AUXILIARY = "auxiliary_head."
GIGA = 1e9


@dataclass(frozen=True)
class Network:
    """Parameters of a model, and multiply-adds and FLOPs for one image."""

    inference_parameters: int
    auxiliary_parameters: int
    gmacs: float
    gflops: float


def cost_rows(
    models: Sequence[str], size: tuple[int, int], dataset: str = "cityscapes", methods: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """One row for each model and method (default: all methods, with default options).

    size: (height, width) of one image in pixels. dataset: determines the number of classes. The columns are
    model, method, dataset, size ("512x1024")
    inference_parameters    of the evaluated network, the same for every method
    auxiliary_parameters    of heads that are dropped after training, the same for every method
    method_parameters       added by the method in training
    training_parameters     the sum of these three
    gmacs                   1e9 multiply-adds by mmengine's counter: one per multiply-add of convolutions and matrix
                            products, 2 per value of a batch norm, 5 of a layer norm, 4 of a bilinear resize
    gflops                  1e9 FLOPs by torch's counter: two per multiply-add of convolutions and matrix products

    The forward pass of each model is counted once, up to the logits on its grid, since methods do not change the
    network (tests/cost). Raises UserError for an unknown model, method or data set.
    """
    num_classes = len(datasets.load(dataset).classes)
    classes = {name: discovery.load(name) for name in (discovery.names() if methods is None else methods)}
    rows = []
    for model in track(models, f"count for {dataset} at {size_name(size)}", len(models)):
        network = build(model, num_classes, weights="none").eval()
        counted = count(network, size)
        for name, method_class in classes.items():
            added = parameters(method_class(network.channels, num_classes, IGNORE_INDEX))
            rows.append(
                {
                    "model": model,
                    "method": name,
                    "dataset": dataset,
                    "size": size_name(size),
                    "inference_parameters": counted.inference_parameters,
                    "auxiliary_parameters": counted.auxiliary_parameters,
                    "method_parameters": added,
                    "training_parameters": counted.inference_parameters + counted.auxiliary_parameters + added,
                    "gmacs": counted.gmacs,
                    "gflops": counted.gflops,
                }
            )
    return rows


def count(network: Segmenter, size: tuple[int, int]) -> Network:
    """Counts of `network`, in eval mode on the CPU, for one image of `size` (height, width)."""
    images = torch.zeros(1, 3, *size)
    auxiliary = sum(p.numel() for name, p in network.named_parameters() if name.startswith(AUXILIARY))
    return Network(
        inference_parameters=parameters(network) - auxiliary,
        auxiliary_parameters=auxiliary,
        gmacs=multiply_adds(network, images) / GIGA,
        gflops=flops(network, images) / GIGA,
    )


def parameters(module: nn.Module) -> int:
    """The number of parameters, without buffers such as running statistics and memory banks."""
    return sum(parameter.numel() for parameter in module.parameters())


def multiply_adds(network: nn.Module, images: torch.Tensor) -> int:
    """Multiply-adds of a forward pass by mmengine's counter, which runs it: seconds on a CPU."""
    from mmengine.analysis import FlopAnalyzer

    analyzer = FlopAnalyzer(network, (images,)).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with torch.no_grad():
        return int(analyzer.total())


def flops(network: nn.Module, images: torch.Tensor) -> int:
    """FLOPs of a forward pass by torch's dispatcher-level counter, on tensors without values."""
    without_values = copy.deepcopy(network).to("meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        without_values(images.to("meta"))
    return int(counter.get_total_flops())
