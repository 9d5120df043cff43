"""Folders of parts, read from the syntax tree: names, help, options, problems."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import advkit
from advkit import registry
from advkit.errors import UsageError
from advkit.options import Option
from advkit.registry import sources
from advkit.registry.declarations import DECLARATIONS

TARGETS = "def targets(batch, context, *, share: float = 0.5): ...\n"
PROPER = '''"""One line of help.

More.
"""

NEEDS = ("ema",)
_COMPUTED = len("x")


def targets(
    batch, context, *, given, share: float = 0.25, lambda_: str = "1:2",
    how: Literal["a", "b"] = "a", size: int | None = None,
):
    """Return rows.

    Args:
        share: the first line
            and the second
        lambda_: trust: in the teacher

    Raises:
        how: not an option's help.
    """
'''


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """Put source files into a folder `labels` of a registry of their own."""

    def fill(**sources: str) -> dict[str, registry.Part]:
        (tmp_path / "labels").mkdir(exist_ok=True)
        for stem, source in sources.items():
            (tmp_path / "labels" / f"{stem}.py").write_text(source, encoding="utf-8")
        registry.forget()
        return registry.parts("labels")

    monkeypatch.setattr(registry, "ROOT", tmp_path)
    yield fill
    registry.forget()


def test_a_new_file_is_a_part_the_day_it_appears(shelf):
    found = shelf(my_source=PROPER, _private="not even python (")
    assert list(found) == ["my-source"]
    part = found["my-source"]
    assert (part.help, part.problems) == ("One line of help.", ())
    assert part.module == "advkit.labels.my_source"
    assert part.constants == {"NEEDS": ("ema",)}
    assert part.path.read_text() == PROPER


def test_options_are_the_keywords_with_defaults(shelf):
    options = {option.name: option for option in shelf(p=PROPER)["p"].options}
    assert list(options) == ["share", "lambda", "how", "size"]
    share, how = options["share"], options["how"]
    assert (share.kind, share.default, share.help) == (
        "float",
        0.25,
        "the first line and the second",
    )
    assert options["lambda"].flag == "--lambda"
    assert options["lambda"].help == "trust: in the teacher"
    assert (how.kind, how.choices, how.help) == ("str", ("a", "b"), "")
    assert (options["size"].kind, options["size"].default) == ("int", None)


def test_what_updates_a_memory_shares_the_options_and_their_help(shelf):
    source = (
        '"""Help."""\ndef memory(y, classes): ...\n'
        "def update(memory, index, y, told, epoch, *, share: float = 0.5): ...\n"
        'def targets(batch, context, *, share: float = 0.5):\n    """Return rows.\n\n'
        '    Args:\n        share: of the memory.\n    """\n'
    )
    (option,) = shelf(mine=source)["mine"].options
    assert (option.name, option.help) == ("share", "of the memory")


def test_flags_use_dashes():
    assert Option("ema_decay", "float", 0.9, "").flag == "--ema-decay"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ('"""Help."""\n', "line 1: it has no function targets"),
        ('"""Help."""\ndef targets(context, batch): ...\n', "line 2: .*not .batch, context"),
        ("def targets(batch, context): ...\n", "line 1: it has no docstring"),
        ('"""Help."""\ndef memory(y, classes): ...\ndef targets(batch, context): ...\n',
         "line 1: it has no function update"),
        ('"""Help."""\n\ndef targets(\n', r"line 3: it is not Python: '\(' was never closed"),
        ('"""Help."""\n\0\n', "it is not Python"),
        ('"""Help."""\nNEED = ("ema",)\n' + TARGETS,
         r"line 2: unknown declaration 'NEED': did you mean 'NEEDS'\? \(known: LIMITS, NEEDS\)"),
        ('"""Help."""\n\nneeds = ("ema",)\n' + TARGETS,
         "line 3: needs declares nothing: write NEEDS"),
        ('"""Help."""\nTABLE = 3\n' + TARGETS, "line 2: unknown declaration 'TABLE'"),
        ('"""Help."""\nif True:\n    LIMIT = {}\n' + TARGETS, "line 3: .*mean 'LIMITS'"),
        ('"""Help."""\nNEEDS, _X = ("ema",), 1\n' + TARGETS, "line 2: NEEDS: this is not a tuple"),
        ('"""Help."""\nNEEDS = ("emma",)\n' + TARGETS,
         r"line 2: NEEDS: \('emma',\) is not a tuple of ema, soft"),
        ('"""Help."""\nNEEDS: str = "ema"\n' + TARGETS, "line 2: NEEDS: 'ema' is not a tuple"),
        ('"""Help."""\nNEEDS = tuple(["ema"])\n' + TARGETS, "line 2: NEEDS: tuple"),
        ('"""Help."""\nNEEDS = ([],)\n' + TARGETS, "line 2: NEEDS"),
        ('"""Help."""\nLIMITS = {"shard": "> 0"}\n' + TARGETS, "line 2: LIMITS"),
        ('"""Help."""\nLIMITS = {"share": "0 to 1"}\n' + TARGETS, "line 2: LIMITS"),
        ('"""Help."""\nLIMITS = ("share",)\n' + TARGETS, "line 2: LIMITS"),
        ('"""Help."""\ndef targets(batch, context, *, eps: float = 8 / 255): ...\n',
         "line 2: the default of eps, 8 / 255, is not a plain literal"),
        ('"""Help."""\ndef targets(batch, context, *, eps: list[str] = ()): ...\n',
         r"line 2: eps is list\[str\], not one of int, float, str, bool"),
        ('"""Help."""\ndef targets(batch, context, *, eps: int = "a"): ...\n',
         "line 2: the default of eps, 'a', is not of kind int"),
        ('"""Help."""\ndef targets(batch, context, *, how: Literal["a", "b"] = "c"): ...\n',
         "line 2: the default of how, 'c', is not one of a, b"),
    ],
)  # fmt: skip
def test_an_improper_part_is_refused_by_file_and_line(shelf, tmp_path, source, problem):
    part = shelf(broken=source)["broken"]
    assert len(part.problems) == 1, part.problems
    file = re.escape(str(tmp_path / "labels" / "broken.py"))
    with pytest.raises(UsageError, match=rf"^{file} is not a proper part: .*{problem}"):
        registry.load("labels", "broken")
    with pytest.raises(UsageError, match=file):
        registry.part("labels", "broken")


def test_a_file_in_other_bytes_is_an_improper_part(shelf, tmp_path):
    shelf(broken="")
    (tmp_path / "labels" / "broken.py").write_bytes(b'"""Help."""\nx = "\xff"\n')
    registry.forget()
    with pytest.raises(UsageError, match=r"labels/broken\.py is not a proper part: line \d"):
        registry.part("labels", "broken")


def misdeclared(folder: str, name: str) -> str:
    """Return the source of a bare part that declares one misspelt name."""
    entries = "".join(
        f"def {entry}({', '.join(expected)}): ...\n"
        for entry, expected in registry.CONTRACTS[folder].items()
    )
    return f'"""Help."""\n{name}X = True\n{entries}'


@pytest.mark.parametrize(
    ("folder", "name"),
    [(folder, name) for folder, rules in DECLARATIONS.items() for name in rules],
)
def test_every_declaration_misspelt_names_the_right_one(tmp_path, monkeypatch, folder, name):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "mine.py").write_text(misdeclared(folder, name))
    monkeypatch.setattr(registry, "ROOT", tmp_path)
    registry.forget()
    try:
        with pytest.raises(UsageError, match=rf"mine\.py .* line 2: .*did you mean.*'{name}'"):
            registry.part(folder, "mine")
    finally:
        registry.forget()


def test_every_declaration_that_the_code_reads_is_known():
    """`constants["X"]` and `constants.get("X")` name some folder's declarations, and no others."""
    package = Path(advkit.__file__).parent
    texts = [path.read_text(encoding="utf-8") for path in package.rglob("*.py")]
    names = {name for text in texts for name in re.findall(r'constants(?:\.get\(|\[)"(\w+)"', text)}
    assert names == {name for rules in DECLARATIONS.values() for name in rules}


@pytest.mark.parametrize(
    ("annotation", "kind", "choices"),
    [
        ('Literal["a", "b"]', "str", ("a", "b")),
        ('Literal["a", "b"] | None', "str", ("a", "b")),
        ('None | Literal["a", "b"]', "str", ("a", "b")),
        ('Optional[Literal["a", "b"]]', "str", ("a", "b")),
        ('Literal["a", "b", None]', "str", ("a", "b")),
        ("int | None", "int", ()),
        ("Optional[float]", "float", ()),
    ],
)
def test_a_choice_that_may_be_left_out_stays_a_choice(shelf, annotation, kind, choices):
    source = f'"""Help."""\ndef targets(batch, context, *, how: {annotation} = None): ...\n'
    part = shelf(mine=source)["mine"]
    (how,) = part.options
    assert (part.problems, how.kind, how.choices) == ((), kind, choices)


def test_an_analysis_refuses_a_word_that_is_no_choice(cli):
    done = cli("analyze", "discrepancy", "--simulate", "x")
    assert done.code == 2
    assert "unknown --simulate 'x' (known: binary, dirichlet)" in done.err
    assert done.out == ""


def test_a_broken_part_spares_the_others(shelf):
    source = '"""Help."""\ndef targets(batch, context, *, eps: float = 8 / 255): ...\n'
    found = shelf(computed=source, proper=PROPER)
    assert found["computed"].problems
    assert not found["proper"].problems


@pytest.mark.parametrize("folder", registry.CONTRACTS)
def test_an_unknown_part_names_the_nearest(folder):
    name = next(iter(registry.parts(folder)))
    with pytest.raises(UsageError, match=rf"unknown {registry.NOUNS[folder]} '{name}x'.*'{name}'"):
        registry.part(folder, f"{name}x")


def test_loading_a_part_imports_its_file():
    assert registry.load("labels", "onehot").__name__ == "advkit.labels.onehot"


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("digits", ("digits", None)),
        ("folder:a b", ("folder", "a b")),
        ("folder:C:/x", ("folder", "C:/x")),
        ("folder:", ("folder", "")),
    ],
)
def test_the_path_of_a_data_set_follows_the_first_colon(text, pair):
    assert registry.split_path(text) == pair


@pytest.mark.parametrize(
    ("arch", "name", "numbers"),
    [
        ("wrn-28-10", "wrn", {"depth": 28, "widen": 10}),
        ("wrn-34-10", "wrn", {"depth": 34, "widen": 10}),
        ("wrn-34-20", "wrn", {"depth": 34, "widen": 20}),
        ("wrn-50-2", "wrn-50-2", {}),  # a file of its own, not wrn.py with numbers
        ("resnet50", "resnet50", {}),
        ("wrn-28", "wrn", {"depth": 28}),
        ("wrn", "wrn", {}),
        ("small-cnn-8", "small-cnn", {"width": 8}),
        ("preact-resnet18", "preact-resnet18", {}),
    ],
)
def test_trailing_numbers_are_the_first_options(arch, name, numbers):
    assert registry.split_numbers(arch) == (name, numbers)


@pytest.mark.parametrize("arch", ["vgg", "wrn-34-x", "34-10", "wrn--1", "", "wrn-²"])
def test_an_unknown_architecture_is_refused(arch):
    with pytest.raises(UsageError, match="unknown architecture"):
        registry.split_numbers(arch)


def test_too_many_numbers_are_refused():
    with pytest.raises(UsageError, match="wrn takes at most 2 numbers"):
        registry.split_numbers("wrn-34-10-3")
    with pytest.raises(UsageError, match="wrn-50-2 takes at most 0 numbers"):
        registry.split_numbers("wrn-50-2-64")


def test_what_a_source_means_is_its_digest(shelf):
    """Comments, docstrings and layout mean nothing; code means something, also imported code."""
    needy = PROPER.replace("NEEDS", "from advkit.labels import _shared\n\nNEEDS")
    shelf(first=PROPER, second=needy, _shared="RATE = 1\n")
    first, second = sources.digest("labels", "first"), sources.digest("labels", "second")
    assert first.startswith("sha256:")
    assert first != second  # the second imports
    quiet = PROPER.replace("One line of help.", "Another.").replace(
        "    return", "  # why\n    return"
    )
    shelf(first=quiet.replace("batch, context, *, given,", "batch,\n    context, *, given,"))
    assert sources.digest("labels", "first") == first
    for old, new in (("0.25", "0.75"), ('len("x")', 'len("y")')):
        shelf(first=PROPER.replace(old, new))
        assert sources.digest("labels", "first") != first
    shelf(_shared="RATE = 2\n")
    assert sources.digest("labels", "second") != second


@pytest.mark.parametrize("folder", [*registry.CONTRACTS])
def test_every_part_has_a_digest_of_its_own(folder):
    digests = [sources.digest(folder, name) for name in registry.parts(folder)]
    assert len(set(digests)) == len(digests)
