"""A checkpoint as files that others read: state dicts, Hugging Face's folder, RobustBench's."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from advkit import models
from advkit.artifacts.descriptions import Checkpoint
from advkit.artifacts.record import Record
from advkit.doors import card, graphs
from advkit.images.image_set import identity

TIMM = {"resnet50": "resnet50", "wrn-50-2": "wide_resnet50_2"}
"""Architectures that timm has under the same names of weights, and its own name for them."""


@dataclass(frozen=True)
class Outgoing:
    """What is exported: the net in eval mode, its description, and accuracies to tell."""

    net: nn.Module
    tensors: Mapping[str, Tensor]
    info: Checkpoint
    rows: Sequence[Record]

    @property
    def name(self) -> str:
        """A name that is safe as a file's."""
        info = self.info
        text = f"{info['method']}_{info['model']['arch']}_{info['data']['name']}"
        return re.sub(r"[^\w.+-]+", "_", text)


def _state_dict(out: Outgoing, folder: Path) -> Path:
    path = folder / "state_dict.pt"
    path.write_bytes(_saved(out.tensors))
    return path


def _saved(tensors: Mapping[str, Tensor]) -> bytes:
    """Return a PyTorch file of tensors alone; equal tensors give equal bytes."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    buffer = io.BytesIO()  # a file's own name would go into the archive
    torch.save(plain, buffer)
    return buffer.getvalue()


def _hugging_face(out: Outgoing, folder: Path) -> Path:
    """Write `config.json`, `model.safetensors` and a card, with timm's keys.

    Where timm has the net, the normalisation is in the configuration alone, as timm's own.
    """
    info, model = out.info, out.info["model"]
    theirs, given = TIMM.get(model["arch"]), models.given(out.net)
    if model["arch"].startswith("timm:"):
        theirs = model["arch"].removeprefix("timm:").partition(",")[0]
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in out.tensors.items()
               if not (theirs and name in ("mean", "std"))}  # fmt: skip
    classes = list(info["data"]["classes"])
    config = {
        "architecture": theirs or f"advkit/{model['arch']}",
        "num_classes": len(classes),
        "label_names": classes,
        # Without them timm builds a vision transformer for the images that its name says.
        **({"model_args": given} if given else {}),
        "pretrained_cfg": {
            "input_size": list(model["input_shape"]),
            **({"fixed_input_size": True} if "img_size" in given else {}),
            "mean": list(model["mean"]),
            "std": list(model["std"]),
            "num_classes": len(classes),
            "crop_pct": 1.0,
            "interpolation": "bilinear",
        },
        "advkit": {"arch": model["arch"], "options": dict(model["options"]),
                   "digest": info["digest"]},
    }  # fmt: skip
    (folder / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
    (folder / "config.json").write_text(_json(config), encoding="utf-8")
    page = card.card(info, out.rows, normalises=not theirs)
    (folder / "README.md").write_text(page, encoding="utf-8")
    return folder


def _robustbench(out: Outgoing, folder: Path) -> Path:
    """Write RobustBench's two files, in its folders.

    A net that normalises is saved as its `normalize_model` wraps one.
    """
    model, (data, threat) = out.info["model"], card.board(out.info, out.rows)
    entry = folder / "model_info" / data / threat / f"{out.name}.json"
    weights = folder / "models" / data / threat / f"{out.name}.pt"
    for path in (entry, weights):
        path.parent.mkdir(parents=True)
    net = {name: tensor for name, tensor in out.tensors.items() if name not in ("mean", "std")}
    if (tuple(model["mean"]), tuple(model["std"])) != identity(model["input_shape"][0]):
        layer = {f"normalize.{name}": out.tensors[name].reshape(1, -1, 1, 1)
                 for name in ("mean", "std")}  # fmt: skip
        net = {**layer, **{f"model.{name}": tensor for name, tensor in net.items()}}
    weights.write_bytes(_saved(net))
    text = _json(card.model_info(out.info, out.rows, out.name))
    entry.write_text(text, encoding="utf-8")
    return weights


def _onnx(out: Outgoing, folder: Path) -> Path:
    path = folder / "model.onnx"
    graphs.write_onnx(out.net, out.info["model"]["input_shape"], path)
    return path


def _torch_export(out: Outgoing, folder: Path) -> Path:
    path = folder / "model.pt2"
    graphs.write_exported(out.net, out.info["model"]["input_shape"], path)
    return path


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


WRITERS: Mapping[str, Callable[[Outgoing, Path], Path]] = {
    "state-dict": _state_dict,
    "hf": _hugging_face,
    "robustbench": _robustbench,
    "onnx": _onnx,
    "torch-export": _torch_export,
}
"""Format → writes it into an empty folder and returns what a reader is to be given."""
