"""`advkit pretrain-teacher`: natural training with one-hot labels, LTD's teacher."""

from __future__ import annotations

from collections.abc import Iterator

from advkit import registry
from advkit.artifacts.record import Record
from advkit.cli import listing, train
from advkit.cli.common import options
from advkit.cli.common.options import Call, Command
from advkit.config import settings
from advkit.options import Option

LEFT_OUT = {"method", "objective", "labels", "wa", "awp", "awp_form", "awp_warmup", "bn_momentum"}
LEFT_OUT |= {"sync_bn", "ema_decay", "attack_steps", "step_size", "attack_start", "attack_bn"}
LEFT_OUT |= {"train_attack", "start_radius", "grad_align", "select"}
LEFT_OUT |= {"soft_labels", "teacher", "labels_digest", "student_temperature"}
LEFT_OUT |= {"swa_start", "ema_warmup", "ema_norms"}
LEFT_OUT |= {"teacher_digest", "natural_teacher", "natural_teacher_digest"}
LEFT_OUT |= {
    option.name for shelf in ("labels", "objectives") for option in registry.shared_options(shelf)
}


def run(call: Call) -> Iterator[Record | str]:
    """Train with the method that a teacher has."""
    return train.run(call, "pretrain-teacher", method="natural")


def _settings() -> Iterator[Option]:
    """Yield the settings that are left open: nothing of a method."""
    shelves = [registry.shared_options(shelf) for shelf in ("labels", "objectives")]
    closed = LEFT_OUT | {option.name for shared in shelves for option in shared}
    yield from (option for option in settings.options() if option.name not in closed)


COMMAND = Command(
    "pretrain-teacher",
    listing.COMMANDS["pretrain-teacher"].help,
    lambda: (*_settings(), *train.OWN, *options.STAGE),
    run,
    listing=("augment", "models", "data"),
    example="advkit pretrain-teacher --data digits | advkit softlabels --views all",
)
