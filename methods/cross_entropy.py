"""The baseline: nothing is added to the cross entropy."""

from collections.abc import Sequence

from torch import Tensor

from methods.method import Method


class CrossEntropy(Method):
    """Cross entropy only: no embeddings, no parameters, no terms."""

    title = "Cross entropy"
    idea = "The network's own cross entropy and nothing else."

    def loss(self, embeddings: Sequence[Tensor], logits: Tensor, labels: Tensor, iteration: int) -> dict[str, Tensor]:
        """No terms."""
        return {}
