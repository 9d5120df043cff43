"""What one configuration must hold, over all its options."""

from __future__ import annotations

from collections.abc import Mapping

from advkit import registry
from advkit.config.origins import blaming
from advkit.config.settings import Settings, options
from advkit.errors import UsageError
from advkit.formulas import corruption
from advkit.formulas.schedules import parse_span
from advkit.formulas.threat import parse_eps, require_step


def validate(settings: Settings, origins: Mapping[str, str]) -> None:
    """Refuse values that no run can use, before any work.

    Raises:
        UsageError: it names the option, and where its value comes from.
    """
    known = {option.name: option for option in options()}
    for name, value in settings.flat().items():
        with blaming(origins.get(name)):
            known[name].check(value)
    attacks = registry.part("objectives", settings.objective).constants.get("ATTACKS", True)
    if attacks != (settings.attack_steps > 0):
        with blaming(origins.get("attack_steps")):
            raise UsageError(
                f"--attack-steps {settings.attack_steps}: objective {settings.objective} "
                + ("needs at least 1" if attacks else "attacks nothing")
            )
    for name in registry.part("objectives", settings.objective).constants.get("BEGINS", ()):
        with blaming(origins.get(name)):
            _require_forward(name, settings.options_of("objectives")[name])
    if settings.warmup_steps is not None and settings.warmup_epochs is not None:
        with blaming(origins.get("warmup_steps")):
            raise UsageError("give --warmup-epochs or --warmup-steps, not both")
    if settings.lr_schedule == "onecycle" and settings.optimizer != "sgd":
        with blaming(origins.get("lr_schedule")):
            raise UsageError(
                "--lr-schedule onecycle moves SGD's momentum: not with --optimizer adamw"
            )
    single = settings.train_attack != "pgd"
    if single and settings.attack_steps != 1:
        with blaming(origins.get("attack_steps")):
            raise UsageError(
                f"--attack-steps {settings.attack_steps}: --train-attack {settings.train_attack} "
                "is one step"
            )
    if settings.select != "pgd" and not attacks:
        with blaming(origins.get("select")):
            raise UsageError(
                f"--select {settings.select}: objective {settings.objective} attacks nothing, and "
                "is selected on clean accuracy"
            )
    if settings.grad_align > 0 and not attacks:
        with blaming(origins.get("grad_align")):
            raise UsageError(f"--grad-align: objective {settings.objective} attacks nothing")
    with blaming(origins.get("soft_labels", origins.get("teacher"))):
        _require_one_source(settings)
    with blaming(origins.get("swa_start")):
        _require_average(settings)
    noise = settings.options_of("labels").get("teacher_noise")
    if noise is not None:
        with blaming(origins.get("teacher_noise")):
            corruption.parse(noise)
    with blaming(origins.get("eps")):
        eps = parse_eps(settings.eps, settings.norm)
    with blaming(origins.get("step_size")):
        require_step(settings.step_size, eps)


def _require_forward(name: str, value: object) -> None:
    """Refuse a span of epochs that ends before it begins."""
    first, last = parse_span(str(value))
    if last < first:
        flag = f"--{name.replace('_', '-')}"
        raise UsageError(
            f"{flag} {value}: epoch {last:g} comes before epoch {first:g}: write {flag} START:END"
        )


def _require_average(settings: Settings) -> None:
    """Refuse an even weight average that nothing selects, that comes too late, or that teaches."""
    start = settings.swa_start
    if start is None:
        return
    if not settings.wa:
        raise UsageError("--swa-start is for a method with --wa")
    if "ema" in registry.part("labels", settings.labels).constants.get("NEEDS", ()):
        raise UsageError(f"--swa-start: labels {settings.labels} come from an exponential average")
    if start > settings.epochs:
        raise UsageError(f"--swa-start {start} is after the last epoch, {settings.epochs}")


def _asking(role: str) -> str:
    """Return the objectives that ask a teacher, in words."""
    shelf = registry.parts("objectives").values()
    return ", ".join(part.name for part in shelf if role in part.constants.get("NEEDS", ()))


def _require_one_source(settings: Settings) -> None:
    """Refuse soft labels and teachers that nothing uses, or two sources of soft labels."""
    idle = settings.teacher and "teacher" not in settings.teachers
    if settings.labels != "soft" and (settings.soft_labels or idle):
        owners = _asking("teacher")
        raise UsageError(
            "--soft-labels and --teacher belong to --labels soft"
            + (f"; --teacher also to --objective {owners}" if owners else "")
        )
    if settings.natural_teacher and "natural-teacher" not in settings.teachers:
        raise UsageError(f"--natural-teacher belongs to --objective {_asking('natural-teacher')}")
    if settings.soft_labels and idle:
        raise UsageError("give --soft-labels or --teacher, not both")
    if settings.last_batch == "keep" and settings.extra_data:
        raise UsageError("--last-batch keep is for training without --extra-data")
    if settings.soft_labels and settings.extra_data:
        raise UsageError("--soft-labels has none for --extra-data: give --teacher instead")
