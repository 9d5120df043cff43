"""timm's nets through the doors: in from timm's own folders and state dicts, out for timm alone."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from advkit import models
from tests.conftest import Outcome

timm = pytest.importorskip("timm")

NAME = "vit_tiny_patch16_224"
SMALL = {"patch_size": 8, "depth": 1, "embed_dim": 24, "num_heads": 2}
ARCH = "timm:" + ",".join([NAME, *(f"{key}={value}" for key, value in SMALL.items())])


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def vit() -> nn.Module:
    torch.manual_seed(0)
    net: nn.Module = timm.create_model(NAME, img_size=32, num_classes=4, **SMALL).eval()
    nn.init.normal_(net.head.weight)
    return net


@torch.no_grad()
def logits(net: nn.Module, normalised: bool = False) -> Tensor:
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    answer: Tensor = net((x - 0.5) / 0.5 if normalised else x)
    return answer


def come_in(cli, name: str, arch: str, *more: str) -> Outcome:
    outcome = cli("import", name, "--arch", arch, "-o", "a.safetensors", *more)
    assert outcome.code == 0, outcome.err
    return outcome


def test_timms_own_folder_says_what_net_it_is(cli):
    net = vit()
    timm.models.save_for_hf(net, "hub", safe_serialization=True)
    outcome = come_in(cli, "hub", f"timm:{NAME}")
    assert f"its configuration makes it --arch timm:{NAME}," in outcome.err
    model, info = models.load("a.safetensors")
    assert info["model"]["input_shape"] == [3, 32, 32]
    assert torch.allclose(logits(model), logits(net, normalised=True), atol=1e-5)


def test_a_state_dict_comes_in_and_timm_alone_reads_what_goes_out(cli):
    net = vit()
    save_file(net.state_dict(), "vit.safetensors")
    outcome = come_in(cli, "vit.safetensors", ARCH, "--classes", "4", "--input-shape", "3x32x32")
    assert "normalised as timm's configuration" in outcome.err
    assert "(mean 0.5,0.5,0.5, std 0.5,0.5,0.5)" in outcome.err
    gone = cli("export", "a.safetensors", "--to", "hf")
    assert gone.code == 0, gone.err
    alone = timm.create_model("local-dir:a.hf", pretrained=True).eval()
    assert torch.equal(logits(alone, normalised=True), logits(net, normalised=True))


def test_arguments_that_timm_is_not_given(cli):
    save_file({"a": torch.zeros(1)}, "vit.safetensors")
    outcome = cli("import", "vit.safetensors", "--arch", f"timm:{NAME},pretrained=1")
    assert (outcome.code, outcome.out) == (2, "")
    (line,) = outcome.err.splitlines()
    assert "'pretrained=1' is none of the arguments" in line
