import math
from typing import get_args

import pytest
import torch

from methods.anchor_fusions import AnchorFusion, ChannelAttention
from methods.contextrast_pp import HEADS, ContextrastPP
from methods.unit_vectors import unit

DIM, LOW = 8, 0.3
FUSIONS = [kind for kind in get_args(ContextrastPP.Options.__annotations__["fusion"]) if kind != "static"]
PUBLISHED = 526_080  # a module: (67.82 M - 66.24 M) / 3, rounded there


def linear(layer, x):
    """A linear map of a list of numbers, by its definition."""
    return [
        sum(w * v for w, v in zip(row, x, strict=True)) + b
        for row, b in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
    ]


def scaled(x):
    """To a mean square of 1."""
    size = math.sqrt(sum(v * v for v in x) / len(x))
    return [v / size for v in x]


def attend(attention, x, context, heads=1):
    """out_i = sum_j softmax_j(q_i k_j) v_j over the channels j of i's head, of scaled vectors."""
    x, context = scaled(x), scaled(context)
    query, key, value = (linear(layer, v) for layer, v in zip(attention.maps, (x, context, context), strict=True))
    width = len(x) // heads
    out = []
    for i, q in enumerate(query):
        head = range(i // width * width, (i // width + 1) * width)
        weights = [math.exp(q * key[j]) for j in head]
        out.append(sum(w * value[j] for w, j in zip(weights, head, strict=True)) / sum(weights))
    return out


def closed_form(fusion, own, coarsest):
    """The fused anchor of one class."""
    kind, pick = fusion.kind, lambda g, a, b: [u * x + (1 - u) * y for u, x, y in zip(g, a, b, strict=True)]
    if kind == "cross_attention":
        f_own, f_coarsest = (
            attend(fusion.own_attention, own, coarsest),
            attend(fusion.coarsest_attention, coarsest, own),
        )
    elif kind == "adaptive" or "attention" in kind:
        heads = 8 if kind.startswith("multi_head") else 1
        f_own = attend(fusion.own_attention, own, own, heads)
        f_coarsest = attend(fusion.coarsest_attention, coarsest, coarsest, heads)
    if kind == "concat_mlp":
        return linear(fusion.mlp, coarsest + own)
    if kind == "self_attention_weighted_sum":
        return pick([LOW] * DIM, f_own, f_coarsest)
    if kind == "self_attention_sum_mlp":
        return linear(fusion.mlp, [x + y for x, y in zip(f_own, f_coarsest, strict=True)])
    if kind.startswith("gated"):
        gate = [1 / (1 + math.exp(-g)) for g in linear(fusion.mlp, coarsest + own)]
        return pick(gate if kind == "gated_channel" else gate * DIM, own, coarsest)
    return linear(fusion.mlp, f_coarsest + f_own)


@pytest.mark.parametrize("kind", FUSIONS)
def test_fusion_equals_the_closed_form(kind):
    torch.manual_seed(0)
    fusion = AnchorFusion(kind, DIM, LOW, HEADS).double()
    own, coarsest = torch.randn(2, 3, DIM, dtype=torch.float64)
    expected = [closed_form(fusion, a, c) for a, c in zip(own.tolist(), coarsest.tolist(), strict=True)]
    torch.testing.assert_close(fusion(own, coarsest), torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=0)


@pytest.mark.parametrize("kind", FUSIONS)
def test_gradient_is_right(kind):
    torch.manual_seed(1)
    fusion = AnchorFusion(kind, DIM, LOW, HEADS).double()
    own, coarsest = (torch.randn(2, DIM, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(fusion, (own, coarsest))
    fusion(own, coarsest).sum().backward()
    assert all(p.grad is not None for p in fusion.parameters())


def test_adaptive_fusion_has_the_published_number_of_parameters():
    fusion = AnchorFusion("adaptive", 256, 0.5, HEADS)
    assert sum(p.numel() for p in fusion.parameters()) == PUBLISHED == 2 * 197_376 + 131_328


def test_heads_must_share_the_channels():
    with pytest.raises(ValueError, match="dim is 12, but must be a multiple of 8"):
        AnchorFusion("multi_head_self_attention", 12, LOW, HEADS)


def test_channels_attend_inside_their_head_only():
    torch.manual_seed(2)
    attention = ChannelAttention(DIM, heads=4)
    with torch.no_grad():
        for layer in attention.maps:  # the identity, so that channels keep their place
            layer.weight.copy_(torch.eye(DIM))
            layer.bias.zero_()
    x = torch.randn(1, DIM)
    others, own = x[:, [5, 0, 2, 3, 7, 6, 1, 4]], x[:, [0, 1, 3, 2, 4, 5, 6, 7]]  # the same length, another order
    torch.testing.assert_close(attention(others, others)[0, 2:4], attention(x, x)[0, 2:4])
    torch.testing.assert_close(attention(own, own)[0, 2:4], attention(x, x)[0, [3, 2]])
    assert not torch.allclose(attention(own, own)[0, 2:4], attention(x, x)[0, 2:4])


@pytest.mark.parametrize("kind", ["adaptive", "cross_attention", "multi_head_self_attention", "self_attention_sum_mlp"])
def test_attention_tells_the_anchors_of_classes_apart(kind):
    # Anchors are means of unit vectors, whose channels are small: without a scale every softmax is flat, every channel
    # of the attention's output the same number, and the fused anchors of all classes are one vector.
    torch.manual_seed(3)
    fusion = AnchorFusion(kind, 256, LOW, HEADS)
    own, coarsest = 0.7 * unit(torch.randn(2, 19, 256))
    fused = fusion(own, coarsest)
    similarity = unit(fused) @ unit(fused).T
    assert similarity[~torch.eye(19, dtype=torch.bool)].mean() < 0.8  # it was 0.99
    fused[:, 0].sum().backward()
    queries, _, values = (layer.weight.grad.norm() for layer in fusion.own_attention.maps)
    assert queries > 0.1 * values  # it was 1/500
