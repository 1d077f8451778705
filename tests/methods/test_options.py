import dataclasses
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Gt, Interval, Le, Lt, MinLen

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
