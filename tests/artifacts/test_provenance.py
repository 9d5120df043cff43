"""Descriptions and digests: one spelling, every change seen, every fault an input error."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advkit.artifacts import analysis, artifact, provenance, schema
from advkit.artifacts.descriptions import DEFINITIONS
from advkit.artifacts.provenance import Array, canonical, check, digest, parse
from advkit.errors import InputError, MismatchError
from tests.described import OWN, described

ARRAYS = [Array("b", "|u1", (2,), b"\x01\x02"), Array("a", "<f4", (1,), b"\0\0\0\0")]
BARE = {"schema": 1, "kind": "logits", "lr": 0.1, "name": "é"}
INFO = described("logits", lr=0.1, name="é")
SAID = {*INFO, "implementation", "target_classes", "fab_target_classes", "trained", "digest"}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False,
              allow_infinity=False), TEXT),
    lambda each: st.one_of(st.lists(each, max_size=3), st.dictionaries(TEXT, each, max_size=3)),
    max_leaves=8,
)  # fmt: skip


def nested(depth: int) -> list[dict]:
    """Return parents with parents, that deep."""
    found: list[dict] = []
    for _ in range(depth):
        found = [{"kind": "data", "digest": "x", "name": "a", "split": "b", "parents": found}]
    return found


def whole_but(value: str) -> str:
    """Return a whole description with one more value, spelt as no writer of ours does."""
    return canonical({**INFO, "digest": "x", "a": 0}).replace('"a":0', f'"a":{value}')


def signed(info: dict, arrays: list[Array] = ARRAYS) -> str:
    return canonical({**info, "digest": digest(info, arrays)})


@given(st.dictionaries(TEXT, JSON))
def test_canonical_json_has_one_spelling(value):
    text = canonical(value)
    shuffled = dict(reversed(value.items()))
    assert canonical(shuffled) == text
    assert json.loads(text) == value
    assert canonical(json.loads(text)) == text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_canonical_json_has_no_nan(value):
    with pytest.raises(ValueError, match="JSON"):
        canonical({"a": value})


def test_the_digest_is_the_documented_hash():
    """Each array in name order as header and bytes, then the description but for its digest."""
    content = b'["a","<f4",[1]]\0\0\0\0["b","|u1",[2]]\x01\x02'
    rest = '{"kind":"logits","lr":0.1,"name":"é","schema":1}'.encode()
    expected = f"sha256:{hashlib.sha256(content + rest).hexdigest()}"
    assert digest({**BARE, "digest": "anything"}, ARRAYS) == expected
    assert digest(BARE, ARRAYS[::-1]) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"name": "c"},
        {"dtype": "|i1"},
        {"shape": (1, 2)},
        {"data": b"\x01\x03"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_any_change_of_an_array_changes_the_digest(change):
    changed = [ARRAYS[0]._replace(**change), ARRAYS[1]]
    assert digest(INFO, changed) != digest(INFO, ARRAYS)


@pytest.mark.parametrize("change", [{"lr": 0.2}, {"kind": "labels"}, {"more": None}])
def test_any_change_of_the_description_changes_the_digest(change):
    assert digest({**INFO, **change}, ARRAYS) != digest(INFO, ARRAYS)


@given(st.dictionaries(TEXT.filter(lambda key: key not in SAID), JSON))
def test_what_was_signed_is_read_back(more):
    info = {**INFO, **more}
    assert check(signed(info), ARRAYS, "x", "logits") == {**info, "digest": digest(info, ARRAYS)}


DEEP = [{"kind": "data", "digest": "x", "name": "a", "split": "b", "parents": []}]


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"config": []}, "config is no object"),
        ({"arch": None}, "arch is no text"),
        ({"arch": ""}, "arch is empty"),
        ({"arch": "x" * 5000}, "arch has 5000 entries, over 4096"),
        ({"attacks": "pgd"}, "attacks is no list"),
        ({"attacks": ["pgd", 3]}, "attacks.1 is no text"),
        ({"attacks": []}, "attacks is empty"),
        ({"data": {"name": "a", "classes": {"a": 1}}}, "data.classes is no list"),
        ({"data": {"name": "a", "classes": []}}, "data.classes is empty"),
        ({"data": {"name": 7, "classes": ["a"]}}, "data.name is no text"),
        ({"data": {"name": "a"}}, "data.classes is missing"),
        ({"zero_gradient": 1.5}, "zero_gradient is not in 0..1"),
        ({"zero_gradient": True}, "zero_gradient is no number"),
        ({"seed": 10**30}, "seed is not in"),
        ({"environment": {"threads": [1, "x"]}}, "environment.threads is no whole number"),
        ({"parents": []}, "parents are not a checkpoint first and data last"),
        ({"parents": [{"kind": "data"}]}, "parents.0.digest is missing"),
        ({"parents": [{"kind": "data", "digest": "x"}]}, "parents.0.name is missing"),
        ({"parents": ["x"]}, "parents.0 is no object"),
        (
            {"parents": [{**DEEP[0], "parents": [{"kind": 1, "digest": "x"}]}]},
            "parents.0.parents.0.kind is no text",
        ),
        ({"parents": [{"kind": "a", "digest": "x", "parents": 3}]}, "parents.0.parents is no list"),
        ({"parents": nested(30)}, "parents(.0.parents)+.0 is more than 16 generations deep"),
        ({"config": {**INFO["config"], "shard": [1, 2, 3]}}, "config.shard has 3 entries, over 2"),
        ({"config": {**INFO["config"], "shard": [3, 2]}}, "config.shard is no shard I of N"),
        ({"config": {**INFO["config"], "shard": "1/3"}}, "config.shard is no list"),
        ({"config": {**INFO["config"], "norm": "l3"}}, "config.norm is none of linf, l2, l1"),
        ({"config": {**INFO["config"], "eps": "8"}}, "config.eps is not in 0..1"),
        ({"config": {**INFO["config"], "eps": "1e999999999"}}, "config.eps is no number"),
        ({"config": {**INFO["config"], "eps": "8/0"}}, "config.eps is no number"),
        ({"trained": {"step_size": "eps/x"}}, "trained.step_size is no step size"),
        ({"trained": {"tau": "2:1:0"}}, "trained.tau is no range START:END"),
    ],
)
def test_what_readers_rest_on_is_checked_though_the_digest_is_right(more, what):
    with pytest.raises(InputError, match=f"^x: corrupt: in its description {what}"):
        check(signed({**INFO, **more}), ARRAYS, "x", "logits")


@pytest.mark.parametrize("kind", [*OWN])
def test_every_required_key_is_missed(kind):
    """And the description is whole as it is, so that each refusal is about the key."""
    info = described(kind)
    parse(canonical({**info, "digest": "x"}), "x", kind)
    needed = [key for key, (_, required) in schema.fields(DEFINITIONS[kind]).items() if required]
    assert len(needed) > 5
    for key in {*needed} - {"schema", "kind"}:
        rest = {name: value for name, value in {**info, "digest": "x"}.items() if name != key}
        with pytest.raises(InputError, match=f"x: corrupt: in its description {key} is missing"):
            parse(canonical(rest), "x", kind)


def test_a_writer_that_forgets_a_key_fails():
    parts = {"config": {"analysis": "x"}, "seed": 3, "parents": [], "environment": {}}
    with pytest.raises(ValueError, match=r"a labels file in which config\.data is miss"):
        provenance.describe("labels", **parts)


def test_a_changed_array_is_corrupt():
    changed = [ARRAYS[0]._replace(data=b"\x01\x03"), ARRAYS[1]]
    with pytest.raises(InputError, match=r"^x: corrupt: the content does not match its digest"):
        check(signed(INFO), changed, "x", "logits")


def test_a_missing_digest_is_corrupt():
    with pytest.raises(InputError, match="in its description digest is missing"):
        check(canonical(INFO), ARRAYS, "x", "logits")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (None, "x: not made by advkit"),
        ("", "x: corrupt: its description is not JSON"),
        ("{", "not JSON"),
        ("[1]", "lacks kind and schema"),
        ('{"kind":"logits"}', "lacks kind and schema"),
        ('{"schema":1,"kind":"labels"}', r"x: this is .*labels.*; wanted: .*logits"),
        (whole_but("NaN"), "corrupt"),
        (whole_but("1e999"), "corrupt"),
        (whole_but('"\\ud800"'), "corrupt"),
        ("[" * 100_000, "corrupt"),
        (whole_but("[" * 50_000 + "]" * 50_000), "corrupt"),
    ],
    ids=["none", "empty", "brace", "list", "no schema", "kind", "nan", "inf", "surrogate", "deep",
         "deep object"],
)  # fmt: skip
def test_impossible_descriptions_are_input_errors(text, what):
    with pytest.raises(InputError, match=what):
        check(text, ARRAYS, "x", "logits")


@pytest.mark.parametrize("schema", [0, 2, "1", None])
def test_another_format_version_says_so(schema):
    with pytest.raises(MismatchError, match=rf"format version {schema}, this advkit reads 1: use"):
        parse(canonical({**INFO, "schema": schema}), "x", "logits")


def test_a_description_holds_what_equal_work_shares():
    config = {"analysis": "x"}
    parts = {"config": config, "seed": 3, "parents": [], "environment": {"threads": 1}}
    first, second = (provenance.describe("analysis", **parts, views=8) for _ in "ab")
    assert canonical(first) == canonical(second)
    assert {"schema", "kind", "config", "seed", "versions", "environment", "parents", "views"} == {
        *first
    }
    assert first["versions"].keys() == {"advkit", "torch"}


def test_a_parent_keeps_its_own_parents_and_drops_the_rest():
    data = provenance.data_parent("digits", "train", "sha256:9")
    info = {**BARE, "kind": "checkpoint", "digest": "sha256:1", "parents": [data], "seed": 0}
    assert provenance.parent(info) == {
        "kind": "checkpoint", "digest": "sha256:1", "seed": 0, "parents": [data],
    }  # fmt: skip
    assert data == {"kind": "data", "name": "digits", "split": "train", "digest": "sha256:9"}


@pytest.mark.parametrize(
    "content", ["{", "[]", "3", '{"a": 1}', '{"advkit": 5}', '{"advkit": [1]}', "\xff"]
)
def test_foreign_json_is_not_an_artifact(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=r"x\.json"):
        artifact.read_info(path)


def written(path: Path) -> dict:
    """Write a small analysis; return its description with the digest."""
    description = provenance.describe(
        "analysis", config={"analysis": "x"}, seed=0, parents=[], environment={}
    )
    rows = ((1.5, "p"), (2.5, "q"))
    table = SimpleNamespace(numbers={"n": 2}, columns=("a", "b"), rows=rows, groups=(), more={})
    analysis.write(path, table, description)
    return {**description, "digest": analysis.digest(table, description)}


@pytest.mark.parametrize("suffix", [".json", ".h5"])
def test_an_analysis_is_an_artifact(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    assert written(path) == artifact.read_info(path)


def test_a_changed_analysis_is_corrupt(tmp_path):
    path = tmp_path / "x.json"
    written(path)
    path.write_text(path.read_text().replace("1.5", "1.6"))
    with pytest.raises(InputError, match="corrupt"):
        artifact.read_info(path)


@pytest.mark.parametrize(
    ("content", "what"),
    [(None, "no such file"), (b"", "empty file"), (b"hello world", "not safetensors")],
)
def test_what_is_no_artifact_is_an_input_error(tmp_path, content, what):
    path = tmp_path / "x"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=what):
        artifact.read_info(path)
