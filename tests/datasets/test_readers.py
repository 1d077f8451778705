from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.datasets.dataset import Dataset
from harness.datasets.readers import ListLayout, Sample
from harness.errors import UserError

LAYOUT = ListLayout(kind="list")


def write_list(root: Path, text: str) -> None:
    (root / "test.txt").write_text(text, encoding="utf-8")


def two_pairs(root: Path) -> tuple[Sample, Sample]:
    """Empty files A and B, which is all that a layout looks at."""
    for folder, suffix in (("test", ".jpg"), ("testannot", ".png")):
        (root / folder).mkdir(exist_ok=True)
        for name in "AB":
            (root / folder / (name + suffix)).touch()
    first, second = (Sample(root / f"test/{name}.jpg", root / f"testannot/{name}.png", name) for name in "AB")
    return first, second


def test_samples_come_in_the_lists_order(tmp_path: Path) -> None:
    first, second = two_pairs(tmp_path)
    write_list(tmp_path, "test/B.jpg testannot/B.png\ntest/A.jpg testannot/A.png\n")
    assert LAYOUT.scan(tmp_path, "test").samples == [second, first]


def test_blank_lines_windows_line_ends_and_a_byte_order_mark_are_taken(tmp_path: Path) -> None:
    expected = list(two_pairs(tmp_path))
    (tmp_path / "test.txt").write_bytes(
        b"\xef\xbb\xbftest/A.jpg testannot/A.png\r\n\r\n  test/B.jpg\ttestannot/B.png\r\n"
    )
    listing = LAYOUT.scan(tmp_path, "test")
    assert listing.samples == expected
    assert listing.problems == []


part = st.text(st.characters(categories=["L", "N"], include_characters="-_."), min_size=1).filter(lambda s: s != "..")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(parts=st.lists(part, max_size=4), absolute=st.booleans(), suffix=st.sampled_from([".png", ".jpg", ".JPG", ""]))
def test_a_foreign_prefix_and_another_suffix_change_nothing(
    tmp_path: Path, parts: list[str], absolute: bool, suffix: str
) -> None:
    first, _ = two_pairs(tmp_path)
    prefix = "".join(["/" if absolute else "", *(f"{name}/" for name in parts)])
    write_list(tmp_path, f"{prefix}test/A{suffix} {prefix}testannot/A.png\n")
    assert LAYOUT.scan(tmp_path, "test").samples == [first]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(
    text=st.text() | st.lists(st.sampled_from(["/", ".", "..", "test/A.jpg", "x" * 300, "\n", " ", "\0"])).map("".join)
)
def test_any_text_gives_samples_or_problems(tmp_path: Path, text: str) -> None:
    two_pairs(tmp_path)
    (tmp_path / "test.txt").write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        listing = LAYOUT.scan(tmp_path, "test")
    except UserError as error:
        assert "test.txt cannot be read" in str(error)
    else:
        assert bool(listing.samples or listing.problems) == bool(text.split())


def test_a_path_above_the_root_is_looked_for_under_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    two_pairs(tmp_path)
    inside, _ = two_pairs(root)
    write_list(root, "../test/A.jpg ../testannot/A.png\n")
    assert LAYOUT.scan(root, "test").samples == [inside]


def test_a_path_that_exists_under_the_root_is_taken_as_it_is(tmp_path: Path) -> None:
    two_pairs(tmp_path)
    (tmp_path / "deep").mkdir()
    deep, _ = two_pairs(tmp_path / "deep")
    write_list(tmp_path, "deep/test/A.jpg deep/testannot/A.png\n")
    assert LAYOUT.scan(tmp_path, "test").samples == [deep]


def test_a_listed_suffix_wins_over_the_others(tmp_path: Path) -> None:
    two_pairs(tmp_path)
    (tmp_path / "test/A.png").touch()
    write_list(tmp_path, "test/A.jpg testannot/A.png\n")
    assert LAYOUT.scan(tmp_path, "test").samples[0].image_path.name == "A.jpg"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("test/C.png testannot/A.png", "test.txt line 1 names the image test/C.png, which does not exist"),
        ("test/A.png testannot/C.png", "test.txt line 1 names the label testannot/C.png, which does not exist"),
        ("test/A.png testannot/A.jpg", "test.txt line 1 names the label testannot/A.jpg, which does not exist"),
        ("test/A.png", 'test.txt line 1 has 1 words, but "image label" has 2'),
        ("test/A.png testannot/A.png 0", 'test.txt line 1 has 3 words, but "image label" has 2'),
        ("test/A.png testannot/B.png", "test.txt line 1 pairs A.jpg with another image's label, B.png"),
    ],
)
def test_a_wrong_line_is_a_problem_and_no_sample(tmp_path: Path, text: str, problem: str) -> None:
    _, second = two_pairs(tmp_path)
    write_list(tmp_path, f"{text}\ntest/B.jpg testannot/B.png\n")
    listing = LAYOUT.scan(tmp_path, "test")
    assert listing.problems == [problem]
    assert listing.samples == [second]


def test_an_image_listed_twice_is_a_problem(tmp_path: Path) -> None:
    first, _ = two_pairs(tmp_path)
    write_list(tmp_path, "test/A.jpg testannot/A.png\n\ntest/A.png testannot/A.png\n")
    listing = LAYOUT.scan(tmp_path, "test")
    assert listing.problems == ["test.txt names A twice, in the lines 1 and 3"]
    assert listing.samples == [first]


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"the list {tmp_path}/test.txt does not exist: check that --root"):
        LAYOUT.scan(tmp_path, "test")


def test_a_binary_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match=r"test\.txt cannot be read"):
        LAYOUT.scan(tmp_path, "test")


def test_original_lists_find_converted_images(tmp_path: Path, make_tree: Callable[..., Dataset]) -> None:
    dataset = make_tree(tmp_path / "camvid", suffix=".jpg", prefix="/SegNet/CamVid/")
    assert [sample.image_path for sample in dataset.samples("val")] == [
        tmp_path / "camvid/val/Seq0_val000.jpg",
        tmp_path / "camvid/val/Seq1_val001.jpg",
    ]
