import dataclasses
from typing import Annotated, Literal

import pytest
import yaml
from annotated_types import Ge, Gt, Interval, Le, Lt, MinLen

from harness.experiment import discovery
from methods.contextrast import Contextrast
from methods.contextrast_pp import ContextrastPP
from methods.options import BaseOptions
from methods.pixel_contrast import PixelContrast


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(BaseOptions):
    switch: bool = True
    count: Annotated[int, Ge(1)] = 3
    number: float = 1.0
    positive: Annotated[float, Gt(0)] = 0.1
    below: Annotated[float, Lt(1), Ge(-1)] = 0.0
    share: Annotated[float, Interval(gt=0, le=1)] = 0.5
    word: str = "a"
    choice: Literal["one", "two"] = "one"
    weights: tuple[Annotated[float, Ge(0)], ...] = (1.0,)
    some: Annotated[tuple[int, ...], MinLen(1)] | None = None
    most: Annotated[int, Le(9)] | None = None


def test_values_of_yaml_become_those_of_the_fields():
    made = Options(number=2, positive=1, weights=[0, 1], some=[-1], most=None)
    assert (made.number, made.positive, made.weights, made.some, made.most) == (2.0, 1.0, (0.0, 1.0), (-1,), None)
    assert [type(each) for each in (made.number, made.positive, *made.weights)] == [float] * 4
    assert Options() == Options(**dataclasses.asdict(Options()))
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.number = 3.0


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("switch", 1, "true or false"),
        ("switch", "yes", "true or false"),
        ("switch", None, "true or false"),
        ("count", True, "whole number of at least 1"),
        ("count", 0, "whole number of at least 1"),
        ("count", 2.0, "whole number"),
        ("count", "3", "whole number"),
        ("number", "hello", "a number"),
        ("number", True, "a number"),
        ("number", float("nan"), "a number"),
        ("number", float("inf"), "a number"),
        ("positive", 0, "number above 0"),
        ("below", 1, "below 1 and of at least -1"),
        ("share", 0, "above 0 and at most 1"),
        ("share", 1.01, "above 0 and at most 1"),
        ("word", 3, "text"),
        ("choice", "three", "one of one, two"),
        ("choice", ["one"], "one of one, two"),
        ("weights", 0.5, "a list, each of them a number of at least 0"),
        ("weights", "0.5", "a list"),
        ("weights", {0: 1}, "a list"),
        ("some", [], "list of at least 1, each of them a whole number or null"),
        ("most", 10, "at most 9 or null"),
    ],
)
def test_a_wrong_value_is_one_sentence_that_begins_with_the_option(option, value, words):
    with pytest.raises(ValueError, match=f"^{option} is ") as error:
        Options(**{option: value})
    assert words in str(error.value)
    assert repr(value) in str(error.value)


def test_a_wrong_item_is_named_by_its_place():
    with pytest.raises(ValueError, match=r"^weights\[1\] is -1, .* at least 0"):
        Options(weights=(1, -1))


@pytest.mark.parametrize("hint", [dict, int | str, Annotated[int, "odd"], tuple[dict, ...]])
def test_a_field_of_another_kind_is_a_mistake_of_the_methods_author(hint):
    made = dataclasses.make_dataclass(
        "Odd", [("odd", hint, ((1,) if hint == tuple[dict, ...] else 1))], bases=(BaseOptions,), frozen=True
    )
    with pytest.raises(TypeError, match="of an option"):
        made()


def test_options_that_a_network_does_not_allow_are_named_when_its_method_is_built():
    assert PixelContrast([4, 5], 3, layers=[-2, 1]).options.layers == (-2, 1)
    with pytest.raises(ValueError, match=r"^layers is \[2\], but .* 2 feature maps"):
        PixelContrast([4, 5], 3, layers=[2])
    with pytest.raises(ValueError, match=r"^layer_weights has 1 values, .* 2 feature maps"):
        Contextrast([4, 5], 3, layer_weights=[1.0])


def test_a_subclass_takes_its_base_classs_options_and_former_names():
    assert dataclasses.asdict(ContextrastPP.Options()).items() >= dataclasses.asdict(Contextrast.Options()).items()
    assert ContextrastPP.Options.former_names.items() >= Contextrast.Options.former_names.items()


WRONG = """
car: {variant: code, dim: 0, intra_weight: -1, centre_to_centre_weight: no, centre_to_pixel_weight: -1,
      centre_margin: -0.5, pixel_margin: null, sync_means: 1, layers: []}
contextrast: {temperature: warm, weight: -1, dim: 1.5, low_weight: 1.2, keep: 0, negatives: hardest, ties: first,
              max_positives: 0, layer_weights: [1], normalize: sometimes}
contextrast_pp: {fusion: sum, stored: class_prioritised, memory_size: 0, detach_anchors: true, low_weight: 0.3}
multiscale_contrast: {variant: released, temperature: 0, weight: -0.1, dim: 0, samples: 0, max_views: 2.5,
                      min_pixels: 0, cross_scale: sometimes, scale_weights: [1]}
pixel_contrast: {temperature: 0, weight: -0.1, dim: 0, anchors_per_image: 0, max_views: 2.5, min_pixels: -1,
                 layers: [2], variant: released, memory: sometimes, semi_hard: 1.1, pixel_memory_size: 0,
                 region_memory_size: 0, pixels_enqueued: 0, drawn_positives: 0, drawn_negatives: 1.5, gather_memory: 1}
pixel_contrast_synthetic: {memory: false, variant: official, hardest: 0, pair_mixes: 1.5, anchor_mixes: 0,
                           anchor_share: 0.6, semi_hard: 2}
pne: {variant: code, dim: 0, temperature: 0, weight: -1, size: 0, max_pixels: 0, layers: [2]}
region_contrast: {temperature: 0, weight: -0.1, dim: 0, memory_size: 0, centres: all, gather_memory: maybe, layers: [7]}
"""
TOGETHER = [
    ("contextrast_pp", {"dim": 12, "fusion": "multi_head_self_attention"}),
    ("pixel_contrast", {"variant": "official", "memory": True}),
]


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, {key: value}) for name, wrong in yaml.safe_load(WRONG).items() for key, value in wrong.items()] + TOGETHER,
)
def test_a_method_names_the_option_that_is_wrong(name, options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))} (is|has) "):
        discovery.load(name)([3, 5], 4, **options)
