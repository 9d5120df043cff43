"""What makes a search the same one, in its folder and on another machine."""

import pytest

from advkit.config.resolve import by_machine, resolve
from advkit.search.machine import LATER, defaults, identity

ASKED = {"data": "digits"}


def lines(*layers):
    return identity(resolve(*layers)).splitlines()


def named(text, key):
    return [line for line in text if line.startswith((f"{key} = ", f"# {key} is "))]


def test_a_search_of_before_is_the_same_one():
    """Its `search.toml` names no option that came later, and its chain begins with that text."""
    plain = lines((ASKED, "flag"))
    assert not any(named(plain, key) for key in LATER)
    assert lines(by_machine("cpu"), (ASKED, "flag")) == plain
    assert lines(({**ASKED, "noise": "host"}, "flag")) == plain


@pytest.mark.parametrize(
    ("key", "value"), [("noise", "device"), ("tf32", True), ("compile_mode", "reduce-overhead")]
)
def test_another_value_makes_another_search(key, value):
    assert len(named(lines(({**ASKED, key: value}, "flag")), key)) == 1


@pytest.mark.parametrize("first", ["cpu", "cuda"])
@pytest.mark.parametrize("then", ["cpu", "cuda"])
def test_a_search_that_goes_on_elsewhere_draws_where_it_did(tmp_path, first, then):
    mark = tmp_path / "search.toml"
    assert defaults(mark, first) == by_machine(first)
    begun = identity(resolve(defaults(mark, first), (ASKED, "flag")))
    mark.write_text(f"# grid 1,2\n{begun}# part labels/adr is sha256:0\n")
    layer = defaults(mark, then)
    assert identity(resolve(layer, (ASKED, "flag"))) == begun
    assert (layer == by_machine(then)) is (first == then)


def test_a_damaged_mark_is_left_to_the_ledger(tmp_path):
    mark = tmp_path / "search.toml"
    mark.write_text("no = = TOML")
    assert defaults(mark, "cuda") == by_machine("cuda")
