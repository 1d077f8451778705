"""What files of settings have in common: the strict base class of their models, and pairs of numbers."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, PositiveFloat, PositiveInt
from pydantic import Strict as StrictType


class Strict(BaseModel):
    """A frozen model that refuses unknown keys and values of another type: no "7" or true for 7, no infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _ascending(given: tuple[float, float]) -> tuple[float, float]:
    if given[0] > given[1]:
        raise ValueError(f"must be given as low, high, not {list(given)}")
    return given


Listed = StrictType(False)  # on a tuple: it may be given as a list, as in YAML; its items are checked all the same
Size = Annotated[tuple[PositiveInt, PositiveInt], Listed]  # height, width in pixels
Range = Annotated[tuple[PositiveFloat, PositiveFloat], Listed, AfterValidator(_ascending)]  # low, high
