import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.datasets.readers import FolderLayout, ListLayout, Sample
from harness.errors import UserError

LAYOUT = ListLayout(kind="list")


def write_list(root, text):
    (root / "test.txt").write_text(text, encoding="utf-8")


def two_pairs(root):
    """Empty files A and B, which is all that a layout looks at."""
    for folder, suffix in (("test", ".jpg"), ("testannot", ".png")):
        (root / folder).mkdir(exist_ok=True)
        for name in "AB":
            (root / folder / (name + suffix)).touch()
    first, second = (Sample(root / f"test/{name}.jpg", root / f"testannot/{name}.png", name) for name in "AB")
    return first, second


def test_samples_come_in_the_lists_order(tmp_path):
    first, second = two_pairs(tmp_path)
    write_list(tmp_path, "test/B.jpg testannot/B.png\ntest/A.jpg testannot/A.png\n")
    assert LAYOUT.scan(tmp_path, "test").samples == [second, first]


def test_blank_lines_windows_line_ends_and_a_byte_order_mark_are_taken(tmp_path):
    expected = list(two_pairs(tmp_path))
    (tmp_path / "test.txt").write_bytes(
        b"\xef\xbb\xbftest/A.jpg testannot/A.png\r\n\r\n  test/B.jpg\ttestannot/B.png\r\n"
    )
    listing = LAYOUT.scan(tmp_path, "test")
    assert listing.samples == expected
    assert listing.problems == []


part = st.text(st.characters(categories=["L", "N"], include_characters="-_."), min_size=1).filter(lambda s: s != "..")


@given(parts=st.lists(part, max_size=4), absolute=st.booleans(), suffix=st.sampled_from([".png", ".jpg", ".JPG", ""]))
def test_a_foreign_prefix_and_another_suffix_change_nothing(tmp_path, parts, absolute, suffix):
    first, _ = two_pairs(tmp_path)
    prefix = "".join(["/" if absolute else "", *(f"{name}/" for name in parts)])
    write_list(tmp_path, f"{prefix}test/A{suffix} {prefix}testannot/A.png\n")
    assert LAYOUT.scan(tmp_path, "test").samples == [first]


@given(
    text=st.text() | st.lists(st.sampled_from(["/", ".", "..", "test/A.jpg", "x" * 300, "\n", " ", "\0"])).map("".join)
)
def test_any_text_gives_samples_or_problems(tmp_path, text):
    two_pairs(tmp_path)
    (tmp_path / "test.txt").write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        listing = LAYOUT.scan(tmp_path, "test")
    except UserError as error:
        assert "test.txt cannot be read" in str(error)
    else:
        assert bool(listing.samples or listing.problems) == bool(text.split())


def test_a_path_that_exists_under_the_root_is_taken_as_it_is(tmp_path):
    two_pairs(tmp_path)
    (tmp_path / "deep").mkdir()
    deep, _ = two_pairs(tmp_path / "deep")
    write_list(tmp_path, "deep/test/A.jpg deep/testannot/A.png\n")
    assert LAYOUT.scan(tmp_path, "test").samples == [deep]


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
def test_a_wrong_line_is_a_problem_and_no_sample(tmp_path, text, problem):
    _, second = two_pairs(tmp_path)
    write_list(tmp_path, f"{text}\ntest/B.jpg testannot/B.png\n")
    listing = LAYOUT.scan(tmp_path, "test")
    assert listing.problems == [problem]
    assert listing.samples == [second]


def test_an_image_listed_twice_is_a_problem(tmp_path):
    first, _ = two_pairs(tmp_path)
    write_list(tmp_path, "test/A.jpg testannot/A.png\n\ntest/A.png testannot/A.png\n")
    listing = LAYOUT.scan(tmp_path, "test")
    assert listing.problems == ["test.txt names A twice, in the lines 1 and 3"]
    assert listing.samples == [first]


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(UserError, match=f"the list {tmp_path}/test.txt does not exist: check that --root"):
        LAYOUT.scan(tmp_path, "test")


def test_a_binary_list_is_refused(tmp_path):
    (tmp_path / "test.txt").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match=r"test\.txt cannot be read"):
        LAYOUT.scan(tmp_path, "test")


# folders


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def folders(**keys):
    patterns = {"images": "image/{split}/{id}.jpg", "labels": "label/{split}/{id}.png"}
    return FolderLayout.model_validate({"kind": "folders", **patterns, **keys})


CITIES = folders(images="left/{split}/{folder}/{id}_left.png", labels="gt/{split}/{folder}/{id}_gt.png")


def test_pairs_are_found_by_id_and_come_in_order(tmp_path):
    touch(tmp_path, "left/val/b/b_1_left.png", "left/val/a/a_2_left.png", "left/val/a/a_1_left.png")
    touch(tmp_path, "gt/val/a/a_1_gt.png", "gt/val/b/b_1_gt.png", "gt/val/a/a_2_gt.png")
    # What else lies in such folders: other label files, hidden files, another split.
    touch(tmp_path, "gt/val/a/a_1_color.png", "gt/val/a/a_1_polygons.json", "gt/val/a/._a_1_gt.png", "gt/val/.DS_Store")
    touch(tmp_path, "left/val/a/._a_1_left.png", "left/train/a/a_9_left.png", "left/val/readme.txt")
    listing = CITIES.scan(tmp_path, "val")
    assert listing.problems == []
    assert listing.samples == [
        Sample(tmp_path / f"left/val/{city}/{key}_left.png", tmp_path / f"gt/val/{city}/{key}_gt.png", key)
        for city, key in (("a", "a_1"), ("a", "a_2"), ("b", "b_1"))
    ]


def test_an_image_and_a_label_without_the_other_are_problems(tmp_path):
    touch(tmp_path, "left/val/a/a_1_left.png", "left/val/a/a_2_left.png", "gt/val/a/a_1_gt.png", "gt/val/a/a_3_gt.png")
    touch(tmp_path, "gt/val/b/a_2_gt.png")  # in the folder of another city
    listing = CITIES.scan(tmp_path, "val")
    assert [sample.id for sample in listing.samples] == ["a_1"]
    assert listing.problems == [
        "gt/val/a/a_3_gt.png has no image",
        "gt/val/b/a_2_gt.png has no image",
        "left/val/a/a_2_left.png has no label gt/val/a/a_2_gt.png",
    ]


def test_one_id_in_two_folders_is_a_problem(tmp_path):
    touch(tmp_path, *(f"{kind}/val/{city}/x_{kind}.png" for kind in ("left", "gt") for city in "ab"))
    assert CITIES.scan(tmp_path, "val").problems == [
        "left/val/b/x_left.png has the name of another image: ids must differ"
    ]


@pytest.mark.parametrize(
    ("there", "missing"), [((), "image image/val/*.jpg"), (("image/val/a.jpg",), "label label/val/*.png")]
)
def test_an_empty_split_is_one_problem(tmp_path, there, missing):
    touch(tmp_path, *there)
    listing = folders().scan(tmp_path, "val")
    assert listing.samples == []
    assert listing.problems == [f"there is no {missing}: the split is empty, or this is not the root"]


def test_ids_that_choose_no_image_are_named(tmp_path):
    touch(tmp_path, "image/val/a.jpg", "label/val/a.png")
    (problem,) = folders(ids={"val": (("b", "c"),)}).scan(tmp_path, "val").problems
    assert problem.startswith("there is no image image/val/*.jpg with an id in layout.ids: ")


def test_converted_images_of_another_suffix_are_found(tmp_path):
    touch(tmp_path, "image/val/a.png", "label/val/a.png", "image/test/a.jpg", "label/test/a.png")
    assert folders().scan(tmp_path, "val").samples[0].image_path.name == "a.png"
    (tmp_path / "ids.txt").write_text("a\n")
    listed = folders(lists="ids.txt")
    assert listed.scan(tmp_path, "val").samples[0].image_path.name == "a.png"
    assert listed.scan(tmp_path, "test").samples[0].image_path.name == "a.jpg"


def test_runs_of_ids_make_splits_of_one_folder(tmp_path):
    layout = folders(
        images="all/{id}.png",
        labels="gt/{id}_L.png",
        ids={"train": (("a_1", "a_3"), ("b_1", "b_9")), "val": (("a_4", "a_5"),)},
    )
    keys = ("a_1", "a_3", "a_4", "b_1", "c_1")
    touch(tmp_path, *(f"all/{key}.png" for key in keys), *(f"gt/{key}_L.png" for key in keys))
    assert [sample.id for sample in layout.scan(tmp_path, "train").samples] == ["a_1", "a_3", "b_1"]
    assert [sample.id for sample in layout.scan(tmp_path, "val").samples] == ["a_4"]


names = st.text(st.characters(categories=["L", "N"], include_characters="-_ []*?{}"), min_size=1, max_size=12)


@given(keys=st.sets(names.map(str.strip).filter(bool), min_size=1, max_size=6))
def test_every_name_without_a_leading_dot_is_found(tmp_path_factory, keys):
    root = tmp_path_factory.mktemp("names")
    touch(root, *(f"image/val/{key}.jpg" for key in keys), *(f"label/val/{key}.png" for key in keys))
    listing = folders().scan(root, "val")
    assert listing.problems == []
    assert [sample.id for sample in listing.samples] == sorted(keys)


# folders with a list of ids

LISTED = folders(lists="sets/{split}.txt", images="image/{id}.jpg", labels="label/{id}.mat", encoding="mat", field="S")


def test_a_list_of_ids_says_what_a_split_holds_and_in_which_order(tmp_path):
    touch(tmp_path, *(f"image/{key}.jpg" for key in "abc"), *(f"label/{key}.mat" for key in "abc"))
    touch(tmp_path, "sets/val.txt")
    (tmp_path / "sets/val.txt").write_text("c\n\na\r\n")
    listing = LISTED.scan(tmp_path, "val")
    assert listing.problems == []
    assert listing.samples == [Sample(tmp_path / f"image/{k}.jpg", tmp_path / f"label/{k}.mat", k) for k in "ca"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x", "sets/val.txt line 1 names x, but there is no image image/x.jpg"),
        ("b", "sets/val.txt line 1 names b, but there is no label label/b.mat"),
        ("a 1", "sets/val.txt line 1 holds 'a 1', but must hold one id"),
        ("image/a", "sets/val.txt line 1 holds 'image/a', but must hold one id"),
        ("a\na", "sets/val.txt names a twice, in the lines 1 and 2"),
        ("", "sets/val.txt names no image: the split is empty"),
        ("..", "sets/val.txt line 1 names .., but there is no image image/...jpg"),
    ],
)
def test_a_wrong_line_of_ids_is_a_problem(tmp_path, text, problem):
    touch(tmp_path, "image/a.jpg", "image/b.jpg", "label/a.mat", "sets/val.txt")
    (tmp_path / "sets/val.txt").write_text(text)
    assert LISTED.scan(tmp_path, "val").problems[0] == problem


# is a layout there?


def test_a_layout_is_found_by_image_label_and_list_of_any_split(tmp_path):
    splits = ("train", "val")
    assert not folders().found(tmp_path, splits)
    touch(tmp_path, "image/val/a.png")
    assert not folders().found(tmp_path, splits)
    touch(tmp_path, "label/val/a.png")
    assert folders().found(tmp_path, splits)
    assert not folders().found(tmp_path, ["train"])
    assert not folders(lists="{split}.txt").found(tmp_path, splits)
    touch(tmp_path, "val.txt")
    assert folders(lists="{split}.txt").found(tmp_path, splits)
    assert not LAYOUT.found(tmp_path, ["train"])
    assert LAYOUT.found(tmp_path, splits)
