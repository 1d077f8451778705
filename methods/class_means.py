"""Sums and means of vectors per class, and per class of each image."""

import torch
from torch import Tensor

from methods.processes import all_sum


def one_hot(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """One-hot vectors [..., K] of labels int64 [...]; all 0 for a label outside 0..K-1."""
    return (labels[..., None] == torch.arange(num_classes, device=labels.device)).to(dtype)


def class_sums(vectors: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Sums [K, d] and counts [K] (both floating point) of the vectors [N, d] of each class.

    labels int64 [N]; vectors with a label outside 0..K-1 are ignored.
    """
    of_class = one_hot(labels, num_classes, vectors.dtype)
    return of_class.T @ vectors, of_class.sum(0)


def class_means(vectors: Tensor, labels: Tensor, num_classes: int, sync: bool = False) -> tuple[Tensor, Tensor]:
    """Mean [K, d] of the vectors [N, d] of each class (0 without any) and their number [K].

    `sync`: mean over the vectors of all ranks; gradients flow back to each rank.
    """
    return mean_of(*class_sums(vectors, labels, num_classes), sync)


def mean_of(sums: Tensor, counts: Tensor, sync: bool = False) -> tuple[Tensor, Tensor]:
    """The result of `class_means` from this rank's sums [K, d] and counts [K]."""
    if sync:
        sums, counts = all_sum(sums), all_sum(counts)
    return sums / counts.clamp(min=1)[:, None], counts


def image_class_means(embedding: Tensor, labels: Tensor, num_classes: int, ignore_index: int) -> tuple[Tensor, Tensor]:
    """The mean of each class in each image, [B K, d], and the classes int64 [B K], K for a class absent from the image.

    embedding [B, d, H, W]; labels int64 [B, H, W], 0..K-1 or ignore_index. An absent class has mean 0.
    """
    labels = torch.where(labels == ignore_index, num_classes, labels)
    of_class = one_hot(labels.flatten(1), num_classes, embedding.dtype)
    means, counts = mean_of((embedding.flatten(2) @ of_class).mT.flatten(0, 1), of_class.sum(1).flatten())
    classes = torch.arange(num_classes, device=labels.device).repeat(len(embedding))
    return means, torch.where(counts > 0, classes, num_classes)
