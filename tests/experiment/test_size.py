import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config import read_size, size_name
from harness.errors import UserError

pixels = st.integers(1, 10**6)


@given(pixels, pixels)
def test_a_size_is_read_back_from_its_name(height, width):
    assert read_size(size_name((height, width))) == (height, width)


@pytest.mark.parametrize("text", ["512", "512x", "0x8", "8x-1", "512 x 1024", "512X1024", "1e3x2", "", "8x8x8"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UserError, match="512x1024"):
        read_size(text)
