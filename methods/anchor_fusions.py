"""Learned fusions of a class's anchor at one layer with its anchor at the coarsest layer, for Contextrast++."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ATTENTIVE = (
    "adaptive",
    "multi_head_self_attention",
    "cross_attention",
    "self_attention_weighted_sum",
    "self_attention_sum_mlp",
)


class ChannelAttention(nn.Module):
    """Attention over the channels of single vectors: every channel is a token of one value.

    With q, k, v linear maps of the channels (197,376 parameters with d = 256): out_i = sum_j softmax_j(q_i k_j) v_j.
    With several heads, channels attend only to channels of the same head. Vectors are first scaled so that their
    channels have a mean square of 1, which the paper does not mention: the channels of unit vectors are about
    1/sqrt(d), so with d = 256 every softmax would be flat, all output channels equal, and q and k would get no
    gradient.
    """

    def __init__(self, dim: int, heads: int = 1) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim is {dim}, but must be a multiple of {heads} for attention with {heads} heads")
        self.heads = heads
        self.maps = nn.ModuleList(nn.Linear(dim, dim) for _ in range(3))  # to queries, keys and values

    def forward(self, vectors: Tensor, context: Tensor) -> Tensor:
        """Attention from the channels of the vectors [N, d] (queries) to those of the context [N, d] -> [N, d]."""
        shape = (len(vectors), self.heads, vectors.shape[1] // self.heads)
        vectors, context = (F.rms_norm(x, x.shape[-1:]) for x in (vectors, context))
        query, key, value = (f(x).view(shape) for f, x in zip(self.maps, (vectors, context, context), strict=True))
        weights = (query[..., :, None] * key[..., None, :]).softmax(-1)
        return (weights @ value[..., None]).flatten(1)


class AnchorFusion(nn.Module):
    """Fuses the anchors [K, d] of one layer, a_i, with those of the coarsest layer, a_I.

    adaptive                     MLP( F(a_I) ++ F(a_i) ), equation (3): F is self-attention over channels, one for each
                                 of the two; the MLP is one layer, as the published number of parameters says
    concat_mlp                   MLP( a_I ++ a_i )
    multi_head_self_attention    as adaptive, with `heads` heads
    cross_attention              as adaptive, but the channels of each anchor attend to those of the other
    self_attention_weighted_sum  w_l F(a_i) + w_h F(a_I)
    self_attention_sum_mlp       MLP( F(a_i) + F(a_I) )
    gated_scalar                 g a_i + (1 - g) a_I with g = sigmoid(linear(a_I ++ a_i)), one number per class
    gated_channel                the same with one g per channel

    The paper defines only the first. It gives names for the others (table XI); these definitions are our reading.
    Raises ValueError if `dim` is not a multiple of the number of heads.
    """

    def __init__(self, kind: str, dim: int, low_weight: float, heads: int) -> None:
        super().__init__()
        self.kind, self.low_weight = kind, low_weight
        if kind in ATTENTIVE:
            heads = heads if kind == "multi_head_self_attention" else 1
            self.own_attention, self.coarsest_attention = ChannelAttention(dim, heads), ChannelAttention(dim, heads)
        if kind != "self_attention_weighted_sum":
            inputs = dim if kind == "self_attention_sum_mlp" else 2 * dim
            self.mlp = nn.Linear(inputs, 1 if kind == "gated_scalar" else dim)

    def forward(self, own: Tensor, coarsest: Tensor) -> Tensor:
        """a_i and a_I, [K, d] -> the fused anchors [K, d]."""
        if self.kind in ATTENTIVE:
            crossed = self.kind == "cross_attention"
            own, coarsest = (
                self.own_attention(own, coarsest if crossed else own),
                self.coarsest_attention(coarsest, own if crossed else coarsest),
            )
        if self.kind == "self_attention_weighted_sum":
            return self.low_weight * own + (1 - self.low_weight) * coarsest
        if self.kind == "self_attention_sum_mlp":
            return self.mlp(own + coarsest)
        mixed = self.mlp(torch.cat([coarsest, own], dim=1))
        if self.kind in ("gated_scalar", "gated_channel"):
            gate = mixed.sigmoid()
            return gate * own + (1 - gate) * coarsest
        return mixed
