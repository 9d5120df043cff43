"""What commands there are: name, help and module of each, so that listing them imports none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Listed:
    """One command or group of the top level."""

    help: str
    module: str
    """Holds `COMMAND`; of a group it holds `commands()`."""


COMMANDS: dict[str, Listed] = {
    "pretrain-teacher": Listed(
        "Train a teacher naturally, with one-hot labels and the same augmentation as its students.",
        "advkit.cli.pretrain_teacher",
    ),
    "softlabels": Listed(
        "Write a teacher's logits for every training example; any temperature is applied later.",
        "advkit.cli.softlabels",
    ),
    "train": Listed(
        "Train a classifier: objective × labels × weight space, by name or one by one.",
        "advkit.cli.train",
    ),
    "attack": Listed(
        "Attack checkpoints and write clean and adversarial logits with a verdict per example.",
        "advkit.cli.attack",
    ),
    "import": Listed(
        "Make a checkpoint of other people's weights; nothing in their file is run.",
        "advkit.cli.import_weights",
    ),
    "export": Listed(
        "Write a checkpoint in a format that others read, checked against the net.",
        "advkit.cli.export",
    ),
    "inspect": Listed(
        "Say what an artifact is and check it against its digest.", "advkit.cli.inspect"
    ),
    "presets": Listed("List the numbers behind --preset and each data set.", "advkit.cli.presets"),
    "bench": Listed(
        "Time each method on this machine, on random images, and project hours and AutoAttack's "
        "time.",
        "advkit.cli.bench",
    ),
}
GROUPS: dict[str, Listed] = {
    "analyze": Listed("Numbers and pictures of outputs, labels and nets.", "advkit.cli.analyze"),
    "search": Listed("Searches for the numbers that a method needs.", "advkit.cli.search"),
    "data": Listed(
        "Data sets: what there is, what one holds, and fetching one.", "advkit.cli.data"
    ),
    "parts": Listed(
        "Parts: what there is, checks of your own, and one to begin with.", "advkit.cli.parts"
    ),
    "recipes": Listed(
        "Scripts for the papers' tables: what there is, and copies of them.", "advkit.cli.recipes"
    ),
}
