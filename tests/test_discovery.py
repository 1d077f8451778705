import ast
import subprocess
import sys

import pytest

from harness import discovery
from harness.errors import UserError


def test_methods_are_found_by_file_and_parts_are_not():
    names = discovery.names()
    assert {"cross_entropy", "pixel_contrast", "contextrast"} <= set(names)
    assert not {"method", "info_nce", "heads"} & set(names)


def test_options_are_the_keywords_of_the_class():
    import inspect

    for name in discovery.names():
        parameters = inspect.signature(discovery.load(name).__init__).parameters.values()
        keywords = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        assert discovery.options(name).items() >= keywords.items()


def test_options_are_read_without_importing_torch(repository):
    code = (
        "import sys; from harness import discovery; discovery.options('contextrast'); "
        "discovery.source_fingerprint('contextrast'); from pathlib import Path; "
        "from harness.experiment import Experiment; "
        "experiment = Experiment.load(Path('config/smoke.yaml')); "
        "[experiment.settings(run) for run in experiment.runs()]; "
        "print({'torch', 'mmseg', 'pandas', 'matplotlib', 'scipy'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def test_an_unknown_method_names_the_nearest():
    with pytest.raises(UserError, match="did you mean contextrast"):
        discovery.options("contextrasst")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(discovery, "FOLDER", tmp_path)
    discovery.source_fingerprint.cache_clear()
    yield tmp_path
    discovery.source_fingerprint.cache_clear()


def test_the_source_fingerprint_changes_with_code_of_parts_but_not_with_comments(folder):
    (folder / "part.py").write_text("def f():\n    return 1\n")
    (folder / "mine.py").write_text("from methods.part import f\nclass Mine(Base):\n    '''Doc.'''\n    x = 1\n")
    first = discovery.source_fingerprint("mine")

    def changed() -> bool:
        discovery.source_fingerprint.cache_clear()
        return discovery.source_fingerprint("mine") != first

    (folder / "mine.py").write_text("# why\nfrom methods.part import f\nclass Mine(Base):\n    '''New.'''\n    x = 1\n")
    assert not changed()
    (folder / "part.py").write_text("def f():\n    return 2\n")
    assert changed()


def test_inherited_options_are_found_through_the_import(folder):
    (folder / "first.py").write_text("class First(Base):\n    def __init__(self, c, n, i=255, *, a=1, b=2): ...\n")
    (folder / "second.py").write_text(
        "from methods.first import First\n"
        "class Second(First):\n    def __init__(self, c, n, i=255, *, b=3, d=(4, 5), **options): ...\n"
    )
    assert discovery.options("second") == {"a": 1, "b": 3, "d": (4, 5)}


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
    assert discovery._dump(ast.parse(source)) == dumped
    if sys.version_info[:2] == (3, 11):
        assert ast.dump(ast.parse(source)) == dumped
