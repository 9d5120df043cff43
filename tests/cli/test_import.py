"""`advkit import`: what comes in serves every stage, and what must not come in does nothing."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from advkit import models
from advkit.artifacts import checkpoint, hdf5
from tests.conftest import Outcome
from tests.doors import planted

DIGITS = ["--data", "digits", "--limit", "50"]
TOLD = ["--mean", "0.3", "--std", "0.37"]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(outcome: Outcome, code: int, *words: str) -> None:
    assert (outcome.code, outcome.out) == (code, ""), outcome.err
    (line,) = outcome.err.splitlines()
    assert line.startswith("advkit import: error:")
    assert not [word for word in words if word not in line], line


def imported(cli, *more: str, name: str = "a.safetensors") -> Outcome:
    return cli("import", name, *planted.ARCH, *more)


def test_a_state_dict_becomes_a_checkpoint(cli):
    net = planted.net()
    save_file(planted.bare(net), "a.safetensors")
    outcome = imported(cli, *DIGITS, *TOLD, "-o", "b.safetensors")
    assert outcome.code == 0, outcome.err
    model, info = models.load("b.safetensors")
    assert torch.equal(planted.logits(model), planted.logits(net))
    record = outcome.record
    shown = {key: record[key] for key in ("kind", "path", "arch", "method", "data", "imported")}
    assert shown == {
        "kind": "checkpoint", "path": "b.safetensors", "arch": "small-cnn", "method": "imported",
        "data": "digits", "imported": True,
    }  # fmt: skip
    assert (record["digest"], record["n"]) == (info["digest"], 50)
    assert info["imported"] is True
    assert info["source"]["format"] == "safetensors"
    config = info["config"]
    assert (config["norm"], config["eps"], config["epochs"], info["seed"]) == (None,) * 4
    assert "metrics" not in info
    assert (info["model"]["mean"], info["model"]["std"]) == ([0.3], [0.37])


def test_its_accuracy_is_told_and_near_chance_what_may_be_wrong(cli):
    state = planted.bare(planted.net())
    state["linear.weight"] = torch.zeros_like(state["linear.weight"])  # one answer for all
    save_file(state, "a.safetensors")
    outcome = imported(cli, *DIGITS, *TOLD)
    assert outcome.code == 0
    assert outcome.record["clean_accuracy"] == pytest.approx(0.1, abs=0.05)
    assert "near chance (0.1000)" in outcome.err
    assert "normalisation" in outcome.err
    assert "order of the classes" in outcome.err


def test_without_data_the_shape_and_the_classes_are_told(cli):
    save_file(planted.bare(planted.net()), "a.safetensors")
    told = ["--classes", "10", "--input-shape", "1x8x8"]
    outcome = imported(cli, *told)
    assert outcome.code == 0
    assert "taken as they are" in outcome.err
    info = checkpoint.read_info("a.imported.safetensors")
    assert info["data"] == {"name": "unknown", "classes": [str(number) for number in range(10)]}
    assert (info["model"]["mean"], info["model"]["std"]) == ([0.0], [1.0])
    attacked = cli("attack", "a.imported.safetensors", "--attack", "none", "--limit", "20")
    assert attacked.code == 2
    assert "give --data" in attacked.err


def test_a_folder_says_classes_shape_and_normalisation(cli):
    net = planted.written(Path("a.safetensors"))
    assert cli("export", "a.safetensors", "--to", "hf").code == 0
    back = cli("import", "a.hf", *planted.ARCH, "-o", "b.safetensors")
    assert back.code == 0, back.err
    model, info = models.load("b.safetensors")
    assert info["model"]["input_shape"] == [1, 8, 8]
    assert torch.equal(planted.logits(model), planted.logits(net))


def test_classes_in_another_order_than_the_datas_are_refused(cli):
    """Each logit would be taken for another class's, and no figure would tell."""
    planted.written(Path("a.safetensors"))
    assert cli("export", "a.safetensors", "--to", "hf").code == 0
    place = Path("a.hf/config.json")
    config = json.loads(place.read_text())
    for names, code, word in (
        (["1", "0", *map(str, range(2, 10))], 4, "in another order"),
        ([f"class {k}" for k in range(10)], 0, "are not called as the data's"),
    ):
        place.write_text(json.dumps({**config, "label_names": names}))
        done = cli("import", "a.hf", *planted.ARCH, "--data", "digits", "-o", f"{code}.safetensors")
        assert done.code == code, done.err
        assert word in done.err


def test_another_way_of_reading_the_data_is_another_import(cli):
    save_file(planted.bare(planted.net()), "a.safetensors")
    assert imported(cli, *DIGITS, *TOLD, "--data", "digits", "-o", "b.safetensors").code == 0
    info = checkpoint.read_info("b.safetensors")
    changed = {**info, "config": {**info["config"], "test_fraction": 0.5}}
    tensors = checkpoint.read("b.safetensors")[0]
    checkpoint.write(Path("b.safetensors"), tensors, changed)
    again = imported(cli, *DIGITS, *TOLD, "--data", "digits", "-o", "b.safetensors")
    assert again.code == 4
    assert "test_fraction" in again.err


def test_a_set_of_corruptions_is_no_data_to_import_with(cli):
    save_file(planted.bare(planted.net()), "a.safetensors")
    done = imported(cli, *planted.ARCH, "--data", "cifar10c:x", "-o", "b.safetensors")
    assert done.code == 2
    assert "name the set itself" in done.err


def test_attacks_need_norm_and_eps(cli):
    save_file(planted.bare(planted.net()), "a.safetensors")
    assert imported(cli, *DIGITS, *TOLD, "-o", "b.safetensors").code == 0
    fgsm = ["attack", "b.safetensors", "--attack", "fgsm", "--limit", "20"]
    for more in ([], ["--norm", "linf"], ["--eps", "0.1"]):
        outcome = cli(*fgsm, *more)
        assert (outcome.code, outcome.out) == (2, "")
        assert "give --norm and --eps" in outcome.err
    attacked = cli(*fgsm, "--norm", "linf", "--eps", "0.1")
    assert attacked.code == 0, attacked.err
    assert attacked.record["method"] == "imported"
    assert attacked.record["seed"] is None
    assert hdf5.read_logits(attacked.record["path"]).info["trained"] == {}
    analysed = cli("analyze", "calibration", stdin=attacked.out)
    assert analysed.code == 0, analysed.err
    assert cli("attack", "b.safetensors", "--attack", "none", "--limit", "20").code == 0
    assert cli("inspect", "b.safetensors").code == 0


def test_it_is_found_done_and_other_options_are_refused(cli):
    save_file(planted.bare(planted.net()), "a.safetensors")
    first = imported(cli, *DIGITS, *TOLD)
    again = imported(cli, *DIGITS, *TOLD)
    assert again.code == 0
    assert "already done" in again.err
    assert {**first.record, "seconds": 0} == {**again.record, "seconds": 0}
    other = imported(cli, *DIGITS, "--no-normalise")
    assert (other.code, other.out) == (4, "")
    assert "was made otherwise (model.mean: " in other.err
    assert imported(cli, *DIGITS, "--no-normalise", "--overwrite").code == 0


def test_pytorch_files_and_their_nests(cli):
    net = planted.net()
    nested = {"state_dict": {f"module.{name}": tensor for name, tensor in net.state_dict().items()},
              "epoch": 7, "optimizer": {"lr": 0.1}}  # fmt: skip
    torch.save(nested, "a.pth.tar")
    outcome = imported(cli, *DIGITS, name="a.pth.tar")
    assert outcome.code == 0, outcome.err
    assert outcome.record["path"] == "a.imported.safetensors"
    model, info = models.load(outcome.record["path"])
    assert torch.equal(planted.logits(model), planted.logits(net))
    assert info["source"]["format"] == "pytorch"
    assert info["source"]["key"] == "state_dict"


def test_a_net_of_torchvision_keeps_its_names(cli):
    import torchvision

    torch.manual_seed(0)
    net = torchvision.models.get_model("squeezenet1_1", weights=None, num_classes=4).eval()
    save_file({f"module.{name}": value for name, value in net.state_dict().items()},
              "a.safetensors")  # fmt: skip
    outcome = cli("import", "a.safetensors", "--arch", "torchvision:squeezenet1_1", "--classes",
                  "4", "--input-shape", "3x32x32", "--no-normalise")  # fmt: skip
    assert outcome.code == 0, outcome.err
    model, _ = models.load("a.imported.safetensors")
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(model(x), net(x), atol=1e-5)


def test_several_state_dicts_are_listed(cli):
    state = planted.bare(planted.net())
    torch.save({"model": state, "ema": state}, "a.pt")
    refused(imported(cli, *DIGITS, name="a.pt"), 2, "--key model or ema")


class Command:
    """What a pickle runs when it is read by one who believes it."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch ran",)


def test_a_malicious_pickle_runs_nothing(cli, place):
    torch.save({"state_dict": planted.bare(planted.net()), "more": Command()}, "a.pt")
    refused(imported(cli, *DIGITS, name="a.pt"), 3, "system", "nothing of it ran")
    assert not (place / "ran").exists()


def test_a_tensor_larger_than_its_file_is_refused(cli):
    torch.save({"linear.weight": torch.zeros(1).expand(10**12)}, "a.pt")
    refused(imported(cli, *DIGITS, name="a.pt"), 3, "4000000000000 bytes")


@pytest.mark.slow
def test_a_bomb_is_stopped_by_the_memory_it_may_use(cli):
    torch.save({"linear.weight": torch.zeros(8)}, "b.pt")
    with zipfile.ZipFile("b.pt") as whole, zipfile.ZipFile("a.pt", "w") as bomb:
        for entry in whole.infolist():
            if entry.filename.endswith("data.pkl"):
                padded = whole.read(entry) + bytes(1 << 30)
                bomb.writestr(entry.filename, padded, zipfile.ZIP_DEFLATED, compresslevel=1)
            else:
                bomb.writestr(entry.filename, whole.read(entry))
    refused(imported(cli, *DIGITS, name="a.pt"), 3, "memory")


def cut(path: str) -> None:
    raw = Path(path).read_bytes()
    Path(path).write_bytes(raw[: len(raw) // 2])


def test_truncated_files(cli):
    torch.save(planted.bare(planted.net()), "a.pt")
    save_file(planted.bare(planted.net()), "a.safetensors")
    for name in ("a.pt", "a.safetensors"):
        cut(name)
        outcome = imported(cli, *DIGITS, name=name)
        refused(outcome, 3, name, "truncated or corrupt")
        assert "miniz" not in outcome.err


def test_a_pickle_that_torch_did_not_write(cli, place):
    Path("a.pt").write_bytes(pickle.dumps(Command(), protocol=4))
    outcome = imported(cli, *DIGITS, name="a.pt")
    refused(outcome, 3, "a.pt: a pickle that torch.save did not write", "state_dict()")
    assert "documentation" not in outcome.err
    assert not (place / "ran").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\n<!DOCTYPE html><title>Quota exceeded</title>", "web page"),
        (b"<HTML><body>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"", "empty file"),
        (b"nothing that anybody knows", "neither safetensors nor a PyTorch file"),
    ],
)
def test_files_that_hold_no_weights(cli, content, words):
    Path("a.pt").write_bytes(content)
    refused(imported(cli, *DIGITS, name="a.pt"), 3, words)


def test_no_file(cli):
    refused(imported(cli, *DIGITS, name="b.pt"), 3, "no such file")
    Path("folder").mkdir()
    refused(imported(cli, *DIGITS, name="folder"), 3, "config.json")


def test_other_architectures_and_other_classes(cli):
    save_file(planted.bare(planted.net()), "a.safetensors")
    other = cli("import", "a.safetensors", "--arch", "resnet8", *DIGITS)
    refused(other, 4, "not those of resnet8", "missing", "unexpected")
    told = ["--input-shape", "1x8x8", "--classes", "7"]
    refused(imported(cli, *told), 4, "with 7 classes", "linear.weight (10, 8), not (7, 8)")


def test_a_resnet18_of_imagenet_form_is_told_apart(cli):
    tensors = {"conv1.weight": torch.zeros(64, 3, 7, 7)}
    save_file(tensors, "a.safetensors")
    told = ["--input-shape", "3x32x32", "--classes", "7"]
    outcome = cli("import", "a.safetensors", "--arch", "resnet18", *told)
    refused(outcome, 4, "not those of resnet18", "torchvision's own is --arch torchvision:resnet18")


def test_tensors_under_numbers_are_unexpected_too(cli):
    torch.save({**planted.bare(planted.net()), 7: torch.zeros(2)}, "a.pt")
    refused(imported(cli, *DIGITS, *TOLD, name="a.pt"), 4, "1 unexpected (7)")


def test_weights_that_are_no_numbers(cli):
    state = planted.bare(planted.net())
    state["linear.bias"][0] = float("nan")
    save_file(state, "a.safetensors")
    refused(imported(cli, *DIGITS, *TOLD), 5, "linear.bias holds NaN")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--arch", "small-cnn"], "give --data"),
        (["--data", "digits"], "--arch is needed"),
        (["--arch", "smallcnn", "--data", "digits"], "'small-cnn'"),
        (["--arch", "small-cnn", "--data", "digits", "--classes", "3"], "leave out"),
        (["--arch", "small-cnn", "--data", "digits", "--mean", "0.3"], "go together"),
        (["--arch", "small-cnn", "--classes", "a,a", "--input-shape", "1x8x8"], "--classes 'a,a'"),
        (["--arch", "small-cnn", "--classes", "2", "--input-shape", "8x8"], "--input-shape '8x8'"),
    ],
)
def test_options_that_do_not_go_together(cli, more, words):
    save_file(planted.bare(planted.net()), "a.safetensors")
    outcome = cli("import", "a.safetensors", *more)
    assert (outcome.code, outcome.out) == (2, "")
    assert words in outcome.err


def test_a_normalisation_in_the_file_and_another_in_the_options(cli):
    save_file({name: tensor.contiguous() for name, tensor in planted.net().state_dict().items()},
              "a.safetensors")  # fmt: skip
    refused(imported(cli, *DIGITS, "--no-normalise"), 4, "a normalisation of its own")
    assert imported(cli, *DIGITS, *TOLD).code == 0


def test_training_starts_from_imported_weights_and_records_them(cli):
    net = planted.net()
    save_file(planted.bare(net), "a.safetensors")
    begun = imported(cli, *DIGITS, *TOLD, "-o", "b.safetensors").record
    run = ["train", "--data", "digits", "--method", "natural", "--limit", "60", "--epochs", "1",
           "--batch-size", "48", "--lr", "1e-12", "--weight-decay", "0", "--init", "b.safetensors",
           "-o", "run", "--threads", "1"]  # fmt: skip
    outcome = cli(*run)
    assert outcome.code == 0, outcome.err
    tensors, info = checkpoint.read("run/final.safetensors")
    # A rate that moves no weight: what comes out went in.
    assert torch.allclose(tensors["conv1.weight"], net.state_dict()["conv1.weight"], atol=1e-6)
    assert (info["model"]["mean"], info["model"]["std"]) == ([0.3], [0.37])
    assert info["arch"] == "small-cnn"
    assert info["model"]["options"]["width"] == 4
    parent = info["parents"][-1]
    assert (parent["digest"], parent["use"]) == (begun["digest"], "init")
    assert info["config"]["init_digest"] == begun["digest"]
    assert "already done" in cli(*run).err
    other = cli(*run[:-4], "-o", "other", "--arch", "resnet8")
    assert other.code == 4
    assert "arch small-cnn, the run has resnet8" in other.err


def test_an_imported_net_teaches(cli):
    save_file(planted.bare(planted.net()), "a.safetensors")
    assert imported(cli, *DIGITS, *TOLD, "-o", "b.safetensors").code == 0
    outcome = cli("train", "--method", "ltd", "--teacher", "b.safetensors", "--temperature", "2",
                  "--limit", "60", "--epochs", "1", "--batch-size", "48", "--attack-steps", "1",
                  "-o", "run", "--threads", "1")  # fmt: skip
    assert outcome.code == 0, outcome.err
    # One that was imported without data learns of them from the student.
    told = ["--classes", "10", "--input-shape", "1x8x8", *TOLD, "-o", "c.safetensors"]
    assert imported(cli, *told).code == 0
    for method, more in (("ltd", ["--temperature", "2"]), ("adaad", [])):
        outcome = cli("train", "--method", method, "--teacher", "c.safetensors", *more, "--data",
                      *("digits", *planted.ARCH, "--limit", "60", "--epochs", "1", "-o", method),
                      "--batch-size", "48", "--attack-steps", "1", "--threads", "1")  # fmt: skip
        assert outcome.code == 0, outcome.err
    labels = cli("softlabels", "b.safetensors")
    assert labels.code == 0, labels.err
    assert labels.record["method"] == "imported"
    outcome = cli("attack", "run/best.safetensors", "--attack", "transfer", "--surrogate",
                  "b.safetensors", "--limit", "20")  # fmt: skip
    assert outcome.code == 0, outcome.err
