"""Configuration: what wins over what, where it came from, and what is refused."""

import re
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advkit import registry
from advkit.config import methods
from advkit.config import resolve as config
from advkit.config.coercion import coerced
from advkit.config.resolve import differences
from advkit.config.resolve import resolve as resolve_layers
from advkit.config.stored import SINCE, read, unasked
from advkit.errors import AdvkitError, InputError, UsageError

CIFAR = {"data": "cifar10", "arch": "resnet18"}


def resolve(flags, *, file=None, preset=None):
    """Resolve as the command line does: a file below the flags."""
    return resolve_layers((file or {}, "my file"), (flags, "flag"), preset=preset)


def test_plain_default():
    found = resolve({"data": "digits"})
    assert found.settings.momentum == 0.9
    assert "momentum" not in found.origins


LAYERS = [
    ({}, {}, None, 0.995, None),
    ({"data": "digits"}, {}, None, 0.95, "digits"),
    ({}, {}, "paper", 0.995, "section 5.1"),
    ({}, {"ema_decay": 0.9}, "paper", 0.9, "my file"),
    ({"ema_decay": 0.8}, {"ema_decay": 0.9}, "paper", 0.8, "flag"),
    ({"data": "digits", "ema_decay": 0.8}, {"ema_decay": 0.9}, None, 0.8, "flag"),
    ({"data": "digits"}, {"ema_decay": 0.9}, None, 0.9, "my file"),
    ({"ema_decay": None}, {"ema_decay": 0.9}, None, 0.9, "my file"),
]
"""Flags, file, preset → γ and where it comes from: default < rule < preset < file < flag."""


@pytest.mark.parametrize(("flags", "file", "preset", "value", "origin"), LAYERS)
def test_precedence(flags, file, preset, value, origin):
    found = resolve({**CIFAR, **flags}, file=file, preset=preset)
    assert found.settings.ema_decay == value
    if origin is None:
        assert "ema_decay" not in found.origins
    else:
        assert origin in found.origins["ema_decay"]
        line = next(row for row in found.toml().splitlines() if row.startswith("ema_decay"))
        assert origin in line


def test_preset_wins_over_default_rules(monkeypatch):
    """A preset that speaks of digits beats the default rules that do."""
    rule = methods.Rule("the preset", {"data": ("digits",)}, {"epochs": 7})
    rules = methods.rules
    monkeypatch.setattr(
        methods, "rules", lambda name: (rule,) if name == "paper" else rules.__wrapped__(name)
    )
    found = resolve({"data": "digits"}, preset="paper")
    assert (found.settings.epochs, found.origins["epochs"]) == (7, "the preset")
    assert found.settings.batch_size == 64, "the default rule's"


def test_flag_method_replaces_the_file_s_parts():
    file = {"data": "digits", "method": "trades", "objective": "trades", "wa": True}
    found = resolve({"method": "at"}, file=file).settings
    assert (found.objective, found.labels, found.wa, found.method) == ("at", "onehot", False, "at")


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ({"method": "at", "labels": "adr"}, "adr"),
        ({"method": "trades", "labels": "smoothing"}, "trades+smoothing"),
        ({"method": "adr", "wa": True}, "adr-wa"),
        ({"method": "trades-adr-wa", "wa": False}, "trades-adr"),
    ],
)
def test_explicit_part_beats_the_method(flags, name):
    assert resolve({"data": "digits", **flags}).settings.method == name


def test_origin_of_a_replaced_part():
    """A value that the flag's method decides is not said to come from the file."""
    file = {"data": "digits", "method": "trades", "objective": "trades"}
    found = resolve({"method": "at"}, file=file)
    assert found.settings.objective == "at"
    assert found.origins.get("objective") != "my file"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"lrr": 0.1}, "did you mean 'lr"),
        ({"taw": "1:2"}, "did you mean 'tau'"),
        ({"method": "adrr"}, "did you mean 'adr'"),
        ({"objective": "trade"}, "did you mean 'trades'"),
        ({"labels": "smooting"}, "did you mean 'smoothing'"),
        ({"arch": "resnet81"}, "did you mean 'resnet"),
        ({"data": "digit"}, "did you mean 'digits'"),
        ({"norm": "linff"}, "did you mean 'linf'"),
        ({"lr_schedule": "cosin"}, "did you mean 'cosine'"),
        ({"attack_bn": "evil"}, "did you mean 'eval'"),
        ({"labels": "adr", "anneal": "cosin"}, "did you mean 'cosine'"),
    ],
)
def test_unknown_names_have_neighbours(flags, message):
    with pytest.raises(UsageError, match=message):
        resolve({"data": "digits", **flags})


def test_unknown_key_in_a_file():
    with pytest.raises(UsageError, match="did you mean 'epochs'"):
        resolve({"data": "digits"}, file={"epoch": 3})


def test_unknown_preset():
    with pytest.raises(UsageError, match="did you mean 'paper'"):
        resolve(CIFAR, preset="papers")


def test_data_is_needed():
    with pytest.raises(UsageError, match="--data is needed"):
        resolve({})


@pytest.mark.parametrize(
    ("flags", "option"),
    [
        ({"method": "at", "tau": "1:2"}, "tau"),
        ({"method": "at", "beta": 3}, "beta"),
        ({"method": "trades", "smoothing": 0.1}, "smoothing"),
        ({"method": "adr", "image_size": 32}, "image-size"),
        ({"method": "adr", "depth": 10}, "depth"),
        ({"arch": "wrn-16-2", "depth": 10}, "depth"),
    ],
)
def test_option_without_meaning(flags, option):
    with pytest.raises(UsageError, match=f"{option} has no meaning"):
        resolve({"data": "digits", **flags})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", 0), ("epochs", 2.5), ("epochs", True), ("epochs", "many"), ("batch_size", 0),
        ("lr", 0), ("lr", -1), ("lr", float("nan")), ("lr", float("inf")), ("lr", "fast"),
        ("momentum", -0.1), ("weight_decay", -1), ("attack_steps", -1), ("nesterov", "yes"),
        ("nesterov", 1), ("lr_drops", "1,x"), ("lr_drops", [1.5]), ("lr_drops", 5),
        ("eps", "8"), ("eps", "-1/255"), ("eps", "eps"), ("eps", "1/0"), ("step_size", "fast"),
        ("epochs", float("inf")), ("epochs", float("nan")), ("lr_drops", [float("inf")]),
        ("step_size", "eps/0"), ("step_size", "1.2.3*eps"), ("eps", "1e999"),
    ],
)  # fmt: skip
def test_impossible_value(key, value):
    with pytest.raises(UsageError) as refused:
        resolve({"data": "digits", key: value})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("key", "value", "fitted"),
    [
        ("epochs", "12", 12),
        ("epochs", 12.0, 12),
        ("lr", 1, 1.0),
        ("lr", "1e-2", 0.01),
        ("eps", 0.5, "0.5"),
        ("eps", "8/255", "8/255"),
        ("lr_drops", "100,150", [100, 150]),
        ("lr_drops", [1, 2], [1, 2]),
        ("lr_drops", "", []),
        ("lambda", 0.7, "0.7"),
    ],
)
def test_coerced(key, value, fitted):
    found = coerced(key, value)
    assert found == fitted
    assert type(found) is type(fitted)


@pytest.mark.parametrize(
    ("text", "message"), [(None, "no such"), (b"a = ", "TOML"), (b"\xff\xfe", "TOML")]
)
def test_unreadable_file(tmp_path, text, message):
    if text is not None:
        (tmp_path / "it.toml").write_bytes(text)
    with pytest.raises(InputError, match=message):
        read(tmp_path / "it.toml")


def test_drops_follow_the_epochs():
    assert resolve({"data": "digits", "epochs": 40}).settings.drops == (20, 30)
    assert resolve({"data": "digits", "lr_drops": []}).settings.drops == ()


unit = st.floats(0, 1, width=32)
spans = st.tuples(unit, unit).map(lambda ends: f"{ends[0]}:{ends[1]}")
words = st.text(st.characters(codec="utf-8", exclude_characters=":"), max_size=8)
OPTIONS = {
    "method": st.sampled_from(methods.names()),
    "labels": st.sampled_from(sorted(registry.parts("labels"))),
    "objective": st.sampled_from(sorted(registry.parts("objectives"))),
    "data": st.one_of(st.just("digits"), words.map(lambda word: f"digits:{word}")),
    "arch": st.sampled_from(["small-cnn", "resnet18", "wrn-10-2", "wrn", "small-cnn-7"]),
    "wa": st.booleans(),
    "nesterov": st.booleans(),
    "epochs": st.integers(1, 10**6),
    "limit": st.integers(1, 10**6),
    "val_size": st.integers(1, 10**6),
    "lr": st.floats(1e-12, 1e3),
    "momentum": unit,
    "weight_decay": st.floats(0, 1e30),
    "lr_drops": st.lists(st.integers(0, 200)),
    "eps": st.one_of(unit.map(str), st.just("8/255")),
    "step_size": st.sampled_from(["eps/4", "0.5*eps", "2/255", "0.01"]),
    "attack_start": st.sampled_from(["uniform", "normal", "positive", "none"]),
    "tau": spans,
    "lambda": spans,
    "beta": st.floats(0, 1e6),
    "smoothing": unit,
    "width": st.integers(1, 512),
    "seed": st.integers(0, 2**63 - 1),
}


@given(st.fixed_dictionaries({"data": OPTIONS.pop("data")}, optional=OPTIONS))
def test_toml_round_trip(flags):
    try:
        found = resolve(flags)
    except AdvkitError:
        return  # an option that the parts at hand do not have
    again = resolve({}, file=tomllib.loads(found.toml()))
    assert again.settings == found.settings
    assert differences(again.settings, found.settings) == ""


@pytest.mark.parametrize("name", methods.names())
@pytest.mark.parametrize("preset", [None, "paper", "repo"])
def test_every_method_round_trips(name, preset):
    arch = {"arch": "wrn-34-10"} if "ltd" in name else {}
    coded = ("mart", "rslad", "ard", "iad", "saad", "te", "hat", "adaad")
    # No preset at all, or one for another net.
    elsewhere = ("score", "igdm", "kd", "sat", "ikl")
    absent = {
        None: (),
        "paper": (*coded, *elsewhere),
        "repo": ("ls", "natural", *elsewhere),
    }
    # None of these codes perturbs weights.
    lacks_awp = preset == "repo" and name.startswith(tuple(f"{base}-awp" for base in coded))
    if name.split("-")[0] in absent[preset] or lacks_awp:
        with pytest.raises(UsageError, match=f"--preset {preset} has no numbers"):
            resolve({**CIFAR, **arch, "method": name}, preset=preset)
        return
    found = resolve({**CIFAR, **arch, "method": name}, preset=preset)
    assert found.settings.method == name
    assert resolve({}, file=tomllib.loads(found.toml())).settings == found.settings


def test_toml_tells_where_the_other_preset_differs():
    """Typed in from reference-behaviour, section 3: Tiny's AWP radius and λ, Nesterov."""
    flags = {"data": "tinyimagenet", "arch": "resnet18", "method": "adr-awp"}
    paper, repo = (resolve(flags, preset=preset).toml() for preset in ("paper", "repo"))
    assert re.search(r"^awp = 0.005  # ADR.*; --preset repo: 0.001$", paper, re.MULTILINE)
    assert re.search(
        r'^lambda = "0.5:0.9"  # ADR.*; --preset repo: "0.3:0.9"$', paper, re.MULTILINE
    )
    assert re.search(r"^nesterov = true  # ADR.*; --preset repo: false$", paper, re.MULTILINE)
    assert re.search(r"^awp = 0.001  # ADR.*; --preset paper: 0.005$", repo, re.MULTILINE)
    assert re.search(r'^tau = "2.0:1.5"  # ADR[^;]*$', paper, re.MULTILINE)  # they agree there
    given = resolve({**flags, "awp": 0.002}, preset="paper").toml()
    assert re.search(r"^awp = 0.002  # flag$", given, re.MULTILINE)


def test_toml_lists_what_is_open():
    text = resolve({"data": "digits"}).toml()
    assert "# limit is not set" in text
    assert "limit" not in tomllib.loads(text)


def test_differences_names_both_values():
    old, new = (resolve({"data": "digits", "lr": lr}).settings for lr in (0.1, 0.2))
    assert differences(old, new) == "lr: 0.1 -> 0.2"


def test_description_has_no_path():
    settings = resolve({"data": "folder:/home/me/photos"}).settings
    assert settings.described()["data"] == "folder"
    assert "/home" not in str(settings.described())
    assert settings.run_name == "folder-photos-resnet18-at-s0"


def test_option_names_are_unique():
    names = [option.name for option in config.options()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("file", "flags"),
    [
        ({}, {"norm": "l1"}),
        ({}, {"norm": "l2"}),
        ({"norm": "l2", "eps": "0.5"}, {"norm": "linf"}),
        ({"norm": "linf", "eps": "8/255"}, {"norm": "l1"}),
    ],
)
@pytest.mark.parametrize("preset", [None, "paper"])
def test_a_norm_does_not_take_over_the_eps_of_another(file, flags, preset):
    with pytest.raises(UsageError, match="give --eps too"):
        resolve({**CIFAR, **flags}, file=file, preset=preset)


@pytest.mark.parametrize(
    ("file", "flags"),
    [
        ({}, {"norm": "l1", "eps": "12"}),
        ({"norm": "l2", "eps": "0.5"}, {}),
        ({"norm": "l2", "eps": "0.5"}, {"norm": "l2"}),
        ({"norm": "l2", "eps": "0.5"}, {"eps": "1"}),
        ({}, {"norm": "linf"}),
    ],
)
def test_a_norm_that_has_its_eps_is_fine(file, flags):
    wanted = {**file, **flags}
    found = resolve({**CIFAR, **flags}, file=file).settings
    assert found.norm == wanted["norm"]
    assert found.eps == wanted.get("eps", "8/255")


# --- options that the first runs did not have ---


@pytest.mark.parametrize(
    ("flags", "passes", "clip"),
    [
        ({"method": "at"}, None, True),
        ({"method": "adr-awp-wa"}, None, True),
        ({"method": "mart"}, None, False),
        ({"method": "trades"}, "cac", False),
        ({"method": "trades-wa"}, "cac", False),
        ({"method": "trades-awp"}, "acc", False),
        ({"method": "trades-awp", "awp_form": "adr"}, "cac", False),
        ({"method": "trades", "joint_batch": True}, "ca", False),
        ({"method": "trades-adr"}, "ca", True),
        ({"method": "trades+smoothing"}, "ca", True),
        ({"method": "ltd"}, "acc", False),
        ({"method": "ltd-awp"}, "acc", False),
        ({"method": "trades", "bn_passes": "ca", "clip_start": True}, "ca", True),
    ],
)
def test_methods_step_as_their_originals(flags, passes, clip):
    found = resolve({"data": "digits", **flags}).settings
    assert found.flat().get("bn_passes") == passes
    assert found.clip_start is clip
    assert (found.last_batch, found.logging_pass) == ("drop", False)


def earlier(tmp_path, **flags):
    """Write a run's configuration as before the options of this section were there."""
    lines = resolve({"data": "digits", **flags}).toml().splitlines()
    kept = [line for line in lines if line.split(" =")[0] not in SINCE]
    assert len(lines) - len(kept) in (4, 5)
    path = tmp_path / "config.toml"
    path.write_text("\n".join(kept))
    return path


@pytest.mark.parametrize("method", ["at", "trades", "trades-awp", "mart", "ltd"])
def test_a_run_of_then_does_what_it_did_then(tmp_path, method):
    found = resolve({}, file=read(earlier(tmp_path, method=method))).settings
    then = {key: value for key, value in found.flat().items() if key in SINCE}
    had = {"bn_passes": "ca"} if method in ("trades", "trades-awp", "ltd") else {}
    same = {"augment": "crop-flip", "clip_start": True, "last_batch": "drop"}
    assert then == {**had, **same, "logging_pass": False}


def test_what_people_write_is_no_run_of_then(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('method = "trades"\ndata = "digits"\n')
    assert read(path) == {"method": "trades", "data": "digits"}


def test_the_same_command_goes_on_with_a_run_of_then(tmp_path):
    flags = {"data": "digits", "method": "trades"}
    before = unasked(earlier(tmp_path, method="trades"))
    then = resolve({}, file=read(tmp_path / "config.toml")).settings
    assert differences(then, resolve(flags).settings) != ""
    assert differences(then, resolve(flags).as_begun(before).settings) == ""
    typed = resolve({**flags, "clip_start": False}).as_begun(before)
    assert differences(then, typed.settings) == "clip_start: True -> False"


def test_a_kept_last_batch_and_extra_data():
    with pytest.raises(UsageError, match="--last-batch keep is for training without --extra-data"):
        resolve({"data": "digits", "last_batch": "keep", "extra_data": "x.npz"})


def test_passes_of_a_joint_batch_have_no_order():
    flags = {"data": "digits", "method": "trades", "joint_batch": True, "bn_passes": "cac"}
    with pytest.raises(UsageError, match="--bn-passes has no effect with --joint-batch"):
        config.refuse_idle(flags, resolve(flags).settings)
