"""Sums and means of vectors per class, and per class of each image."""

import torch
from torch import Tensor

from methods.processes import all_sum


def class_sums(vectors: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Sums [K, d] and numbers [K], both floating, of the vectors [N, d] of each class; labels int64 [N], 0..K-1."""
    sums = vectors.new_zeros(num_classes, vectors.shape[1]).index_add(0, labels, vectors)
    counts = vectors.new_zeros(num_classes).index_add(0, labels, vectors.new_ones(len(labels)))
    return sums, counts


def class_means(vectors: Tensor, labels: Tensor, num_classes: int, sync: bool = False) -> tuple[Tensor, Tensor]:
    """Mean [K, d] of the vectors [N, d] of each class (0 where there are none) and the number [K] it was taken over.

    `sync` takes the mean over the vectors of all processes, if there are several; gradients flow back to each of them.
    """
    sums, counts = class_sums(vectors, labels, num_classes)
    if sync:
        sums, counts = all_sum(sums), all_sum(counts)
    return sums / counts.clamp(min=1)[:, None], counts


def image_class_means(embedding: Tensor, labels: Tensor, num_classes: int, ignore_index: int) -> tuple[Tensor, Tensor]:
    """The mean of each class present in each image, [R, d] for R (image, class) pairs, and their classes int64 [R].

    embedding [B, d, H, W]; labels int64 [B, H, W], 0..K-1 or ignore_index.
    """
    valid = labels != ignore_index
    pairs = (torch.arange(len(labels), device=labels.device)[:, None, None] * num_classes + labels)[valid]
    means, counts = class_means(embedding.movedim(1, -1)[valid], pairs, len(labels) * num_classes)
    present = counts.nonzero().squeeze(1)
    return means[present], present % num_classes
