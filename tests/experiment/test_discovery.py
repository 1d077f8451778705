import ast
import dataclasses
import itertools
import os
import sys

import pytest

import methods
from harness.compute.source import _dump
from harness.errors import UserError
from harness.experiment import discovery


def test_methods_are_found_by_file_and_parts_are_not():
    names = discovery.names()
    assert {"cross_entropy", "pixel_contrast", "contextrast"} <= set(names)
    assert not {"method", "template", "info_nce", "heads"} & set(names)


@pytest.mark.parametrize("name", [*discovery.names(), discovery.TEMPLATE])
def test_options_read_without_torch_are_those_of_the_imported_class(name):
    imported = discovery.load(name).Options
    assert discovery.options(name) == dataclasses.asdict(imported())
    assert discovery.options_class(name).former_names == imported.former_names
    assert set(imported.former_names.values()) <= discovery.options(name).keys()
    assert not set(imported.former_names) & discovery.options(name).keys()


@pytest.mark.parametrize("name", [*discovery.names(), discovery.TEMPLATE])
def test_what_a_method_says_of_itself_is_read_without_torch_and_complete(name):
    about, imported = discovery.about(name), discovery.load(name)
    assert {key: getattr(imported, key) for key in about._fields} == about._asdict()
    assert about.title
    assert about.idea.endswith(".")
    assert len({bool(about.paper), bool(about.venue), bool(about.year)}) == 1
    assert about.url.startswith("https://") or not about.url
    assert about.left_open.endswith(".") or not about.paper


def test_no_two_methods_have_the_same_title():
    titles = [discovery.about(name).title for name in discovery.names()]
    assert len(set(titles)) == len(titles)


def test_a_method_that_says_nothing_of_itself_has_its_name_in_words(folder):
    (folder / "mine_too.py").write_text("class MineToo(Method):\n    pass\n")
    assert discovery.about("mine_too") == discovery.About("mine too")
    (folder / "mine_too.py").write_text("class MineToo(Method):\n    year = int('2024')\n")
    with pytest.raises(UserError, match=r"methods/mine_too.py: year must be a plain text or number"):
        discovery.about("mine_too")


def test_an_unknown_method_names_the_nearest():
    with pytest.raises(UserError, match="did you mean contextrast"):
        discovery.options("contextrasst")


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("my_loss.py", "class MyLos(Method): ...\n", r"methods/my_loss\.py defines no class MyLoss\(Method\)"),
        (
            "my-loss.py",
            "class MyLoss(Method): ...\n",
            r"methods/my-loss\.py: name the file with letters, digits and '_'",
        ),
        ("my_loss.py", "class MyLoss(Method):\n    class Options:\n        a = 1\n", r"above `class Options\(Method"),
        (
            "my_loss.py",
            "class MyLoss(Method):\n    class Options(Method.Options):\n        a: int = 1\n",
            "dataclass.frozen",
        ),
    ],
)
def test_a_methods_file_that_does_not_fit_its_name_or_options_is_named(folder, file, text, words):
    (folder / file).write_text(text)
    with pytest.raises(UserError, match=words):
        discovery.options(file.removesuffix(".py"))


def test_a_method_that_imports_what_is_not_there_is_named_with_its_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("methods.__path__", [*methods.__path__])
    (tmp_path / "methods").mkdir()
    for package in ("no_such_package", "methods.no_such_part"):
        (tmp_path / "methods" / "my_loss.py").write_text(f"\nimport {package}\nclass MyLoss(Method): ...\n")
        with pytest.raises(UserError, match=rf"methods/my_loss\.py cannot .*{package}' at my_loss.py, line 2"):
            discovery.load("my_loss")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(discovery, "FOLDER", tmp_path)
    return tmp_path


def test_the_source_fingerprint_changes_with_code_of_parts_but_not_with_comments(folder):
    (folder / "part.py").write_text("def f():\n    return 1\n")
    first_lines = "from methods.part import f\nclass Mine(Base):\n    '''Doc.'''\n"
    (folder / "mine.py").write_text(f"{first_lines}    x = 1\n")
    first = discovery.source_fingerprint("mine")

    seconds = itertools.count(1)

    def changed(file, text) -> bool:
        """Whether an edit changes the fingerprint, in this same process."""
        (folder / file).write_text(text)
        os.utime(folder / file, (next(seconds),) * 2)
        return discovery.source_fingerprint("mine") != first

    assert not changed("mine.py", "# why\nfrom methods.part import f\nclass Mine(Base):\n    '''New.'''\n    x = 1\n")
    said = first_lines + "    title = 'Mine'\n    year: int = 2024\n    x = 1\n"
    assert not changed("mine.py", said)
    assert changed("mine.py", said + "    titles = 2\n")
    assert not changed("mine.py", said)
    assert changed("part.py", "def f():\n    return 2\n")


def write_method(folder, name, options, before="", base="Method"):
    """A method's file that needs a package that is not there, as torch must not be needed."""
    body = "".join(f"        {line}\n" for line in options.splitlines())
    (folder / f"{name}.py").write_text(
        "from no_such_package import network\nfrom dataclasses import dataclass\n"
        "from typing import Annotated, ClassVar\nfrom annotated_types import Ge\n"
        f"from methods.options import BaseOptions\n{before}"
        f"class {name.title()}({base}):\n    @dataclass(frozen=True, kw_only=True)\n"
        f"    class Options({'BaseOptions' if base == 'Method' else f'{base}.Options'}):\n{body}"
    )


def test_a_file_is_parsed_once_until_it_is_edited(folder, monkeypatch):
    parsed, parse = [], ast.parse
    monkeypatch.setattr(ast, "parse", lambda text: parsed.append(text) or parse(text))
    path = folder / "mine.py"
    for title in ("First", "Second, edited"):
        path.write_text(f'class Mine(Method):\n    title = "{title}"\n')
        for _ in range(3):
            assert discovery.names() == ["mine"]
            assert discovery.about("mine").title == title
    assert len(parsed) == 2


def test_inherited_options_are_found_through_the_import(folder):
    write_method(folder, "first", "a: int = 1\nb: int = 2\nformer_names: ClassVar = {'z': 'a'}")
    inherited = "from methods.first import First\n"
    write_method(folder, "second", "b: int = 3\nd: tuple[int, ...] = (4, 5)", inherited, "First")
    (folder / "third.py").write_text("from methods.second import Second\nclass Third(Second): ...\n")
    assert discovery.options("second") == discovery.options("third") == {"a": 1, "b": 3, "d": (4, 5)}
    assert discovery.options("third", {"z": 7, "d": [1]}) == {"a": 7, "b": 3, "d": (1,)}


def test_options_may_check_each_other_with_constants_of_the_file(folder):
    check = "def __post_init__(self):\n    if self.a > MOST:\n        raise ValueError('a is too large')"
    write_method(folder, "mine", f"a: int = 1\n{check}", "MOST = 2\n")
    assert discovery.options("mine", {"a": 2}) == {"a": 2}
    with pytest.raises(UserError, match="a is too large"):
        discovery.options("mine", {"a": 3})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("a: int = network", "cannot be read.*network"),  # needs the package that is not there
        ("a: Annotated[int, Ge(0)]", "missing.*'a'"),  # no default
        ("a: dict = None", "no type of an option"),
    ],
)
def test_an_options_class_that_cannot_be_read_is_one_sentence_with_the_file(folder, options, words):
    write_method(folder, "mine", options)
    with pytest.raises(UserError, match=f"methods/mine.py: .*{words}"):
        discovery.options("mine")


def test_keyword_only_arguments_would_be_options_that_nobody_checks_or_records(folder):
    (folder / "mine.py").write_text("class Mine(Method):\n    def __init__(self, c, n, i=255, *, dim=64): ...\n")
    with pytest.raises(UserError, match=r"methods/mine.py: .* Options"):
        discovery.options("mine")


def test_a_former_name_stands_for_the_current_one():
    assert discovery.current_names("contextrast_pp", {"alpha": 1, "memory": 7}) == {"weight": 1, "memory_size": 7}
    assert discovery.options("contextrast", {"alpha": 2})["weight"] == 2


def test_the_source_fingerprint_is_the_same_whatever_the_python():
    """Later ones print more fields of a syntax tree (type_params) or fewer (empty lists)."""
    source = "class Mine(Base):\n    def a(self, *, b=None, c=[]):\n        return f'{b!r}' if c else (yield)\n"
    dumped = (
        "Module(body=[ClassDef(name='Mine', bases=[Name(id='Base', ctx=Load())], keywords=[], "
        "body=[FunctionDef(name='a', args=arguments(posonlyargs=[], args=[arg(arg='self')], "
        "kwonlyargs=[arg(arg='b'), arg(arg='c')], kw_defaults=[Constant(value=None), List(elts=[], "
        "ctx=Load())], defaults=[]), body=[Return(value=IfExp(test=Name(id='c', ctx=Load()), "
        "body=JoinedStr(values=[FormattedValue(value=Name(id='b', ctx=Load()), conversion=114)]), "
        "orelse=Yield()))], decorator_list=[])], decorator_list=[])], type_ignores=[])"
    )
    assert _dump(ast.parse(source)) == dumped
    if sys.version_info[:2] == (3, 11):
        assert ast.dump(ast.parse(source)) == dumped
