"""Logits files in memory whose truth is known."""

from __future__ import annotations

import torch
from torch.nn.functional import one_hot

from advkit.artifacts.hdf5 import Logits

PGD = {"attack": "pgd", "norm": "linf", "eps": "8/255", "steps": 10, "step_size": "eps/4"}


def certain(y, classes, probability):
    """Logits (N, C) that give `probability`, (N,) or a number, to class y, the rest evenly."""
    p = torch.as_tensor(probability).double().expand(len(y))
    rest = ((1 - p) / (classes - 1)).log()[:, None].expand(-1, classes)
    return torch.where(one_hot(y, classes).bool(), p.log()[:, None], rest).float()


def file_of(
    clean, labels, *, adversarial=None, robust=None, method="at", seed=0, role="best",
    model=None, data="digits", digest="sha256:d", index=None, arch="small-cnn", path=None,
    config=None,
):  # fmt: skip
    """A logits file as `attack` writes it.

    `robust` (N,) bool: who stands; without it and without adversarial logits: not attacked.
    """
    n = len(labels)
    broken = None
    if robust is not None:
        wrong = clean.argmax(1) != labels
        broken = torch.where(wrong, -2, torch.where(robust, -1, 0)).to(torch.int8)
        adversarial = clean if adversarial is None else adversarial
    names = [str(each) for each in range(clean.shape[1])]
    model = model or f"{method}-{seed}-{role}-{arch}"
    attack = PGD if robust is not None else {"attack": "none"}
    info = {
        "schema": 1, "kind": "logits", "digest": f"sha256:{model}-{data}", "seed": 0,
        "config": {"seed": 0, "limit": None, "batch_size": 250, "data": data,
                   **(config or attack)},
        "role": role, "method": method, "arch": arch, "data": {"name": data, "classes": names},
        "attacks": [attack["attack"]] if robust is not None else [],
        "trained": {"seed": seed, "method": method},
        "parents": [
            {"kind": "checkpoint", "digest": f"sha256:{model}", "seed": seed, "method": method},
            {"kind": "data", "name": data, "split": "test", "digest": digest},
        ],
    }  # fmt: skip
    index = torch.arange(n) if index is None else index
    norm = None if robust is None else torch.zeros(n)
    where = path or f"runs/{model}/{role}.{data}.h5"
    return Logits(index, labels, clean, info, adversarial, norm, broken, path=where)
