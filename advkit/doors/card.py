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

BOARDS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
"""RobustBench's words for norms."""


def results(info: Checkpoint, paths: Sequence[Path], where: object) -> list[Record]:
    """Return the accuracies of logits files of a checkpoint, with their digests.

    Raises:
        InputError: a file is missing, corrupt or of another kind.
        MismatchError: it is of another checkpoint.
    """
    rows = []
    for path in paths:
        logits = hdf5.read_logits(path)
        if logits.info["parents"][0]["digest"] != info["digest"]:
            raise MismatchError(f"{path}: logits of another checkpoint than {where}")
        data = logits.info["data"]["name"]
        rows.append({**figures(logits), "data": data, "digest": logits.info["digest"]})
    return rows


def card(info: Checkpoint, rows: Sequence[Record]) -> str:
    """Return the model card as Markdown."""
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
        f"logits of {len(classes)} classes; the normalisation is part of the net.",
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
    yield "| data | attack | norm | ε | examples | clean % | robust % |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        clean = _percent(row["clean_accuracy"], row["clean_ci95"])
        robust = _percent(row["robust_accuracy"], row["ci95"])
        ball = f"{row.get('norm', '')} | {row.get('eps_text', '')}"
        yield f"| {row['data']} | {row['attack']} | {ball} | {row['n']} | {clean} | {robust} |"


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


def board(info: Checkpoint) -> tuple[str, str]:
    """Return data set and threat model, as RobustBench's folders are called."""
    return info["data"]["name"], BOARDS.get(str(info["config"]["norm"]), "unknown")


def model_info(info: Checkpoint, rows: Sequence[Record], name: str) -> dict[str, object]:
    """Return RobustBench's entry; what only people know is empty, to be filled in.

    Accuracies are percent with two decimals, as text; `autoattack_acc` is there only where a
    file of the whole AutoAttack's standard version was given.
    """
    judged = [row for row in rows if row["attack"] == "autoattack"]
    clean = next((row["clean_accuracy"] for row in rows if row["clean_accuracy"] is not None), None)
    entry: dict[str, object] = {
        "link": "",
        "name": name,
        "authors": "",
        "additional_data": info["config"].get("extra_digest") is not None,
        "number_forward_passes": 1,
        "dataset": info["data"]["name"],
        "venue": "",
        "architecture": info["model"]["arch"],
        "eps": info["config"]["eps"] or "",
    }
    if clean is not None:
        entry["clean_acc"] = f"{100 * clean:.2f}"
    if judged:
        entry["autoattack_acc"] = f"{100 * judged[0]['robust_accuracy']:.2f}"
        n = judged[0]["n"]
        entry["footnote"] = f"Measured on {n} test images."
    return entry
