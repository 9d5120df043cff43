"""Folders of parts, read from the syntax tree: names, help, options, problems."""

from __future__ import annotations

import pytest

from advkit import registry
from advkit.errors import AdvkitError, UsageError
from advkit.options import Option

PROPER = '''"""One line of help.

More.
"""

NEEDS = ("ema",)
COMPUTED = len("x")


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
        registry.parts.cache_clear()
        return registry.parts("labels")

    monkeypatch.setattr(registry, "ROOT", tmp_path)
    yield fill
    registry.parts.cache_clear()


def test_a_new_file_is_a_part_the_day_it_appears(shelf):
    found = shelf(my_source=PROPER, _private="not even python (")
    assert list(found) == ["my-source"]
    part = found["my-source"]
    assert (part.help, part.problems) == ("One line of help.", ())
    assert part.module == "advkit.labels.my_source"
    assert part.constants == {"NEEDS": ("ema",)}


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


def test_flags_use_dashes():
    assert Option("ema_decay", "float", 0.9, "").flag == "--ema-decay"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ('"""Help."""\n', "no function targets"),
        ('"""Help."""\ndef targets(context, batch): ...\n', "not .batch, context"),
        ("def targets(batch, context): ...\n", "no docstring"),
    ],
)
def test_an_improper_part_is_named_and_never_imported(shelf, source, problem):
    assert len(shelf(broken=source)["broken"].problems) == 1
    with pytest.raises(
        AdvkitError, match=rf"advkit\.labels\.broken is not a proper part.*{problem}"
    ):
        registry.load("labels", "broken")


def test_a_computed_default_is_a_problem_of_its_part_alone(shelf):
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
