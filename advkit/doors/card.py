"""What goes out beside the weights: a model card for people, RobustBench's JSON for its board."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from advkit.artifacts import hdf5
from advkit.artifacts.descriptions import Checkpoint
from advkit.artifacts.record import Record
from advkit.errors import MismatchError
from advkit.evaluation.verdicts import figures
from advkit.formulas.threat import parse_eps

_TOLD = ("version", "steps", "restarts", "loss")
"""Settings of an attack that a card shows."""
BOARDS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
"""RobustBench's words for norms."""


def results(info: Checkpoint, paths: Sequence[Path], where: object) -> list[Record]:
    """Return the accuracies of logits files of a checkpoint, with their digests.

    Raises:
        InputError: a file is missing, corrupt or of another kind.
        MismatchError: it is of another checkpoint, or a shard.
    """
    rows = []
    for path in paths:
        logits = hdf5.read_logits(path)
        config = logits.info["config"]
        if logits.info["parents"][0]["digest"] != info["digest"]:
            raise MismatchError(f"{path}: logits of another checkpoint than {where}")
        if config.get("shard"):
            raise MismatchError(f"{path}: a shard: give the whole (advkit attack --merge)")
        own = {key: value for key, value in config.items() if key in _TOLD and value is not None}
        data, digest = logits.info["data"]["name"], logits.info["digest"]
        rows.append({**figures(logits), "data": data, "digest": digest, "settings": own})
    return rows


def card(info: Checkpoint, rows: Sequence[Record], *, normalises: bool = True) -> str:
    """Return the model card as Markdown.

    Args:
        info: of the checkpoint.
        rows: accuracies, see `results`.
        normalises: whether the net that goes out does so itself, as timm's do not.
    """
    normalised = "the normalisation is part of the net"
    if not normalises:
        pair = (info["model"][name] for name in ("mean", "std"))
        mean, std = (", ".join(f"{value:g}" for value in values) for values in pair)
        normalised = f"it takes them normalised: less the mean {mean}, over the deviation {std}"
    model, data = info["model"], info["data"]
    classes = data["classes"]
    lines = [
        "---",
        "library_name: pytorch",
        "tags: [image-classification, adversarial-robustness, advkit]",
        "---",
        "",
        f"# {model['arch']}, {info['method']}, {data['name']}",
        "",
        f"Takes pixels in [0, 1] of shape {'×'.join(map(str, model['input_shape']))}, gives "
        f"logits of {len(classes)} classes; {normalised}.",
        "",
        "## Results",
        "",
        *_results(rows),
        "",
        "## Settings",
        "",
        *_settings({**info["config"], **model["options"]}),
        "",
        "## Provenance",
        "",
        f"- checkpoint `{info['digest']}`, written by advkit {_version(info)}",
        *(f"- made from {_parent(parent)}" for parent in info["parents"]),
    ]
    if "source" in info:
        source = info["source"]
        lines.append(f"- imported from a {source['format']} file `{source['digest']}`")
    return "\n".join(lines) + "\n"


def _results(rows: Sequence[Record]) -> Iterator[str]:
    if not rows:
        yield "None were given."
        return
    yield "| data | attack | settings | norm | ε | examples | clean % | robust % |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        clean = _percent(row["clean_accuracy"], row["clean_ci95"])
        robust = _percent(row["robust_accuracy"], row["ci95"])
        ball = f"{row.get('norm', '')} | {row.get('eps_text', '')}"
        own = ", ".join(f"{name} {value}" for name, value in row["settings"].items())
        cells = (row["data"], row["attack"], own, ball, row["n"], clean, robust)
        yield f"| {' | '.join(map(str, cells))} |"


def _percent(share: float | None, interval: Sequence[float] | None) -> str:
    if share is None or interval is None:
        return ""
    return f"{100 * share:.2f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _settings(config: Mapping[str, object]) -> Iterator[str]:
    known = {key: value for key, value in config.items() if value is not None}
    for key, value in sorted(known.items()):
        yield f"- `{key}`: {json.dumps(value, ensure_ascii=False)}"


def _version(info: Checkpoint) -> str:
    return info["versions"]["advkit"] if "versions" in info else "of an earlier version"


def _parent(parent: Mapping[str, object]) -> str:
    words = [str(parent[key]) for key in ("kind", "name", "split", "method", "arch", "role", "use")
             if parent.get(key) is not None]  # fmt: skip
    return f"{' '.join(words)} `{parent['digest']}`"


def board(info: Checkpoint, rows: Sequence[Record]) -> tuple[str, str]:
    """Return data set and threat model, as RobustBench's folders are called."""
    norms = [info["config"]["norm"], *(row["norm"] for row in rows if on_board(info, row))]
    return info["data"]["name"], BOARDS.get(next((x for x in norms if x), ""), "unknown")


def on_board(info: Checkpoint, row: Record) -> bool:
    """Whether accuracies may stand in RobustBench's entry.

    They are AutoAttack's standard version's, on the checkpoint's data, under the norm and ε that
    the entry names.
    """
    norm, eps = info["config"]["norm"], info["config"]["eps"]
    if row["attack"] != "autoattack" or row["settings"].get("version") != "standard":
        return False
    # An imported net may not say what it was trained against: then the entry has the attack's.
    same = norm in (None, row["norm"]) and (eps is None or parse_eps(eps, None) == row["eps"])
    return row["data"] == info["data"]["name"] and same


def model_info(info: Checkpoint, rows: Sequence[Record], name: str) -> dict[str, object]:
    """Return RobustBench's entry; what only people know is empty, to be filled in.

    Accuracies are percent with two decimals, as text; `autoattack_acc` is there only where a
    file of the whole AutoAttack's standard version was given, see `on_board`.
    """
    judged = [row for row in rows if on_board(info, row)]
    own = [row for row in rows if row["data"] == info["data"]["name"]]
    known = [row["clean_accuracy"] for row in (*judged, *own)]
    clean = next((share for share in known if share is not None), None)
    entry: dict[str, object] = {
        "link": "",
        "name": name,
        "authors": "",
        "additional_data": ""
        if info.get("imported")
        else info["config"].get("extra_digest") is not None,
        "number_forward_passes": 1,
        "dataset": info["data"]["name"],
        "venue": "",
        "architecture": info["model"]["arch"],
        "eps": info["config"]["eps"] or (judged[0]["eps_text"] if judged else ""),
    }
    if clean is not None:
        entry["clean_acc"] = f"{100 * clean:.2f}"
    if judged:
        entry["autoattack_acc"] = f"{100 * judged[0]['robust_accuracy']:.2f}"
        n = judged[0]["n"]
        entry["footnote"] = f"Measured on {n} test images."
    return entry
