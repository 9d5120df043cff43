"""`advkit export`: what goes out is the same net, and comes back as it was."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path

import pytest
import torch

from advkit import models
from advkit.doors import card, graphs
from advkit.errors import NumericalError
from tests.doors import planted

ONNX = [name for name in graphs.NEEDED if importlib.util.find_spec(name) is None]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def exported(cli, to: str, *more: str):
    net = planted.written(Path("a.safetensors"))
    outcome = cli("export", "a.safetensors", "--to", to, *more)
    assert outcome.code == 0, outcome.err
    return net, outcome


def test_a_state_dict_goes_out_and_comes_back_bit_for_bit(cli):
    net, outcome = exported(cli, "state-dict")
    assert outcome.record["path"] == "a.state-dict/state_dict.pt"
    back = cli("import", *planted.ARCH, "--data", "digits", "-o", "b.safetensors",
               stdin=outcome.out)  # fmt: skip
    assert back.code == 0, back.err
    model, _ = models.load("b.safetensors")
    assert torch.equal(planted.logits(model), planted.logits(net))


def test_equal_exports_are_equal_bytes_and_found_done(cli):
    _, first = exported(cli, "state-dict")
    again = cli("export", "a.safetensors", "--to", "state-dict")
    assert "already done" in again.err
    assert {**again.record, "seconds": 0} == {**first.record, "seconds": 0}
    other = cli("export", "a.safetensors", "--to", "state-dict", "-o", "b")
    assert other.record["digest"] == first.record["digest"]
    wrong = cli("export", "a.safetensors", "--to", "hf", "-o", "b")
    assert (wrong.code, wrong.out) == (4, "")
    assert "to: state-dict -> hf" in wrong.err
    Path("c").mkdir()
    Path("c/notes.txt").write_text("mine")
    Path(".b.1.tmp").mkdir()  # of an export that was killed
    assert cli("export", "a.safetensors", "--to", "hf", "-o", "c").code == 4
    assert cli("export", "a.safetensors", "--to", "hf", "-o", "b", "--overwrite").code == 0
    assert sorted(path.name for path in Path().iterdir() if path.name.startswith(".")) == []


@pytest.mark.parametrize("where", ["run", ".", "run/../run"])
def test_a_folder_that_holds_more_than_an_export_is_never_removed(cli, where):
    """`-o` of the run itself, of what it lies in, and of any folder of somebody's."""
    Path("run").mkdir()
    planted.written(Path("run/best.safetensors"))
    export = ["export", "run/best.safetensors", "--to", "state-dict", "--overwrite"]
    done = cli(*export, "-o", where)
    assert done.code == 2, done.err
    assert "lies in it" in done.err
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    assert cli(*export, "-o", "mine").code == 4
    assert Path("mine/notes.txt").read_text() == "mine"
    assert Path("run/best.safetensors").exists()


def test_a_hugging_face_folder_goes_out_and_comes_back(cli):
    net = planted.written(Path("a.safetensors"))
    attacked = cli("attack", "a.safetensors", "--attack", "fgsm", "--limit", "20", "-o", "a.h5")
    outcome = cli("export", "a.safetensors", "--to", "hf", "--results", "a.h5")
    assert outcome.code == 0, outcome.err
    config = json.loads(Path("a.hf/config.json").read_text())
    assert config["num_classes"] == 10
    assert config["pretrained_cfg"]["mean"] == [0.3]
    text = Path("a.hf/README.md").read_text()
    robust = attacked.record["robust_accuracy"]
    assert "| digits | fgsm | loss scaled-ce | linf | 8/255 | 20 | " in text
    assert f"{100 * robust:.2f} [" in text
    back = cli("import", "a.hf", *planted.ARCH, "--data", "digits", "-o", "b.safetensors")
    assert back.code == 0, back.err
    model, info = models.load("b.safetensors")
    assert torch.equal(planted.logits(model), planted.logits(net))
    assert info["source"]["format"] == "hf"


def test_results_of_another_checkpoint_are_refused(cli):
    planted.written(Path("a.safetensors"))
    assert (
        cli("attack", "a.safetensors", "--attack", "none", "--limit", "20", "-o", "a.h5").code == 0
    )
    torch.manual_seed(0)
    other = cli("import", "a.safetensors", *planted.ARCH, "--data", "digits", "-o", "b.safetensors")
    assert other.code == 0, other.err
    outcome = cli("export", "b.safetensors", "--to", "hf", "--results", "a.h5")
    assert (outcome.code, outcome.out) == (4, "")
    assert "another checkpoint" in outcome.err
    assert not Path("b.hf").exists()


def test_robustbench_has_its_entry_and_its_names(cli):
    net, _ = exported(cli, "robustbench", "-o", "rb")
    entry = json.loads(Path("rb/model_info/digits/Linf/natural_small-cnn_digits.json").read_text())
    assert (entry["eps"], entry["dataset"], entry["additional_data"]) == ("8/255", "digits", False)
    state = torch.load("rb/models/digits/Linf/natural_small-cnn_digits.pt", weights_only=True)
    assert state["normalize.mean"].shape == (1, 1, 1, 1)
    assert torch.equal(state["model.conv1.weight"], net.state_dict()["conv1.weight"])


def test_an_entry_tells_accuracies_in_percent_with_two_decimals():
    row = {"attack": "autoattack", "clean_accuracy": 0.8492, "robust_accuracy": 0.5, "n": 7,
           "data": "cifar10", "norm": "linf", "eps": 8 / 255,
           "settings": {"version": "standard"}}  # fmt: skip
    others = [
        {**row, "eps": 0.01},
        {**row, "norm": "l2"},
        {**row, "data": "npz"},
        {**row, "settings": {"version": "rand"}},
        {**row, "attack": "fast", "settings": {}},
    ]
    rows = [*({**each, "clean_accuracy": 0.1, "robust_accuracy": 0.9} for each in others), row]
    info = {"config": {"norm": "linf", "eps": "8/255"}, "data": {"name": "cifar10", "classes": []},
            "model": {"arch": "wrn-34-10"}}  # fmt: skip
    entry = card.model_info(info, rows, "x")
    assert (entry["clean_acc"], entry["autoattack_acc"]) == ("84.92", "50.00")
    assert "autoattack_acc" not in card.model_info(info, others, "x")


def test_an_imported_net_is_entered_under_the_attacks_threat():
    """It does not say what it was trained against; the attack says what it stood."""
    row = {"attack": "autoattack", "clean_accuracy": 0.8, "robust_accuracy": 0.5, "n": 7,
           "data": "cifar10", "norm": "l2", "eps": 0.5, "eps_text": "1/2",
           "settings": {"version": "standard"}}  # fmt: skip
    info = {"config": {"norm": None, "eps": None}, "data": {"name": "cifar10", "classes": []},
            "model": {"arch": "resnet18"}, "imported": True}  # fmt: skip
    entry = card.model_info(info, [row], "x")
    assert (entry["eps"], entry["autoattack_acc"], entry["additional_data"]) == ("1/2", "50.00", "")
    assert card.board(info, [row]) == ("cifar10", "L2")
    assert card.board(info, []) == ("cifar10", "unknown")


def test_torch_export_gives_the_nets_logits(cli):
    net, outcome = exported(cli, "torch-export")
    module = torch.export.load(outcome.record["path"]).module()
    for n in (1, 3):
        x = torch.rand(n, 1, 8, 8)
        with torch.no_grad():
            assert torch.allclose(module(x), net(x), atol=1e-5)


def test_a_graph_that_gives_other_logits_is_not_written():
    net = planted.net()
    with pytest.raises(NumericalError, match="gives other logits than the net"):
        graphs._judge(net, (1, 8, 8), lambda x: net(x) + 1e-3, "a judge")
    with pytest.raises(NumericalError, match="gives other logits than the net"):
        graphs._judge(net, (1, 8, 8), lambda x: net(x) * float("nan"), "a judge")


@pytest.mark.skipif(bool(ONNX), reason=f"the extra [onnx] is not installed: {', '.join(ONNX)}")
def test_onnx_gives_the_nets_logits_in_onnxruntime(cli):
    net, outcome = exported(cli, "onnx")
    session = graphs.require_onnx().InferenceSession(outcome.record["path"])
    for n in (1, 3):
        x = torch.rand(n, 1, 8, 8)
        (logits,) = session.run(["logits"], {"pixels": x.numpy()})
        with torch.no_grad():
            assert torch.allclose(torch.from_numpy(logits), net(x), atol=1e-5)


def test_a_missing_package_is_named_with_its_extra(cli, monkeypatch):
    planted.written(Path("a.safetensors"))

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    outcome = cli("export", "a.safetensors", "--to", "onnx")
    assert (outcome.code, outcome.out) == (2, "")
    assert "the package onnx: python -m pip install onnx onnxscript" in outcome.err
    assert not Path("a.onnx").exists()


def test_formats_are_named(cli):
    planted.written(Path("a.safetensors"))
    for more in ([], ["--to", "onyx"]):
        outcome = cli("export", "a.safetensors", *more)
        assert (outcome.code, outcome.out) == (2, "")
        assert "onnx" in outcome.err
