"""Evaluation: what a model says of each example, clean and under attack, and who broke it.

A verdict never comes from an attack itself: every adversarial image is audited (ball, box,
finite) and judged by a forward pass of our own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from advkit import modes, registry
from advkit.artifacts import checkpoint, provenance
from advkit.artifacts.hdf5 import ROBUST, WRONG, Logits
from advkit.attack_plan import AUTOATTACK, FILL_STEPS, AttackSettings, Pass, attack_names, passes
from advkit.attacks import pgd
from advkit.data._images import Images, pixels
from advkit.data._split import first
from advkit.errors import AdvkitError, InputError, MismatchError, NumericalError
from advkit.losses import cross_entropy
from advkit.reporting import Reporter
from advkit.stats import wilson
from advkit.threat import SLACK, Threat, parse_eps

SQUARE_ALARM = 0.002
"""Share of examples that Square may break alone before upstream's check calls it suspicious."""


class Evaluation:
    """The books of one evaluation, kept per example and per finished batch."""

    def __init__(
        self,
        model: nn.Module,
        info: Mapping[str, Any],
        images: Images,
        settings: AttackSettings,
        *,
        environment: Mapping[str, Any],
        reporter: Reporter | None = None,
    ) -> None:
        self.model, self.info, self.settings = model, info, settings
        self.images = images
        self.environment = environment
        self.reporter = reporter or Reporter()
        self.device = next(model.parameters()).device
        self.known = self._in_distribution()
        if not self.known and settings.attack != "none":
            raise MismatchError(
                f"{images.name} has other classes than the model: attacks need its labels; "
                "--attack none gives the logits of out-of-distribution data"
            )
        self.positions = first(images.labels, settings.limit)
        labels = images.labels[self.positions]
        self.labels = labels if self.known else torch.full_like(labels, -1)
        self.classes = len(info["data"]["classes"])
        self.clean = torch.zeros(len(labels), self.classes)
        self.adversarial = torch.zeros(len(labels), self.classes)
        self.norm = torch.zeros(len(labels))
        self.broken_by = torch.full((len(labels),), ROBUST, dtype=torch.int8)
        self.saved = self._x(torch.arange(len(labels))) if settings.save_images else None
        self.done = (0, 0)
        self.flat = 0

    def _in_distribution(self) -> bool:
        """Whether the labels of these images are the model's.

        Another data set is out of distribution, unless it is attacked and its classes are called
        the same: then the user means it, and is told what that rests on.
        """
        trained, images = self.info["data"], self.images
        same = list(images.classes) == list(trained["classes"])
        if images.name == trained["name"] or not same:
            return same
        if self.settings.attack == "none":
            return False
        self.reporter.warn(
            f"{images.name} is not {trained['name']}; its classes are taken for the model's "
            "because they have the same names"
        )
        return True

    def run(self, partial: Path | None = None) -> Logits:
        """Do what is not done yet and return the whole.

        Args:
            partial: where finished batches are kept until the end, to go on from.

        Raises:
            NumericalError: the model gives NaN or infinite logits.
            AdvkitError: an attack left the ball or the box.
        """
        with modes.evaluating(self.model), modes.frozen(self.model):
            self._clean_pass()
            if self.settings.attack != "none":
                self._count_flat()
            plan = passes(self.model, self.settings, self.classes)
            if partial is not None:
                self._restore(partial)
            for number, each in enumerate(plan):
                if number >= self.done[0]:
                    self._attack_pass(number, each, partial)
        self._note_disagreement()
        return self._logits()

    def _x(self, rows: Tensor) -> Tensor:
        raw = self.images.batch(self.positions[rows])
        return fitted(pixels(raw, self.device), tuple(self.info["model"]["input_shape"]))

    def _chunks(self, rows: Tensor) -> Sequence[Tensor]:
        return torch.split(rows, self.settings.batch_size) if len(rows) else ()

    @torch.no_grad()
    def _clean_pass(self) -> None:
        for rows in self._chunks(torch.arange(len(self.labels))):
            x = self._x(rows)
            logits = self.model(x)
            if int(rows[0]) == 0:
                self._require_deterministic(x, logits)
            self.clean[rows] = self._finite(logits, rows)
        self.adversarial = self.clean.clone()
        wrong = self.clean.argmax(1) != self.labels
        self.broken_by[wrong & (self.labels >= 0)] = WRONG

    def _count_flat(self) -> None:
        """Count examples whose cross-entropy has an exactly zero gradient at the clean image.

        There sign(0) = 0 and a gradient attack stands still: such an example survives untested.
        """
        for rows in self._chunks(torch.arange(len(self.labels))):
            x = self._x(rows).requires_grad_(True)
            y = self.labels[rows].to(self.device)
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(cross_entropy(self.model(x), y).sum(), x)
            self.flat += int((gradient.flatten(1) == 0).all(1).sum())
        if self.flat:
            self.reporter.warn(
                f"{self.flat} of {len(self.labels)} examples have a zero gradient at the clean "
                "image: gradient attacks cannot move them; trust only attacks without gradients"
            )

    def _require_deterministic(self, x: Tensor, logits: Tensor) -> None:
        if self.settings.version != "rand" and not torch.equal(self.model(x), logits):
            self.reporter.warn(
                "the model answers differently to the same images: verdicts of one forward pass "
                "overstate an attack; AutoAttack has --version rand for this"
            )

    def _finite(self, logits: Tensor, rows: Tensor) -> Tensor:
        bad = ~torch.isfinite(logits).all(1)
        if bool(bad.any()):
            example = int(self.positions[rows[int(bad.nonzero()[0])]])
            raise NumericalError(
                f"the model's logits of example {example} are not finite: nothing can be judged"
            )
        return logits.float().cpu()

    def _attack_pass(self, number: int, each: Pass, partial: Path | None) -> None:
        chunks = self._chunks(self._visited(number, each))
        batch = self.done[1] if number == self.done[0] else 0
        total = sum(len(rows) for rows in chunks)
        behind = sum(len(rows) for rows in chunks[:batch])
        self.reporter.begin(each.name, total, behind)
        for place in range(batch, len(chunks)):
            rows = chunks[place]
            self._attack_batch(number, each, rows, place)
            self.done = (number, place + 1)
            if partial is not None:
                self._save(partial)
            robust = int((self.broken_by == ROBUST).sum())
            self.reporter.advance(len(rows), robust=f"{robust}/{len(self.labels)}")
        self.reporter.end()
        self.done = (number + 1, 0)

    def _visited(self, number: int, each: Pass) -> Tensor:
        """Rows that a pass visits, as they were when it began."""
        if not each.everyone:
            standing = (self.broken_by == ROBUST) | (self.broken_by == number)
        elif each.judges:
            standing = torch.ones_like(self.broken_by, dtype=torch.bool)
        else:
            standing = self.broken_by < 0
        return standing.nonzero().flatten()

    def _attack_batch(self, number: int, each: Pass, rows: Tensor, place: int) -> None:
        x, y = self._x(rows), self.labels[rows].to(self.device)
        x_adv = each.run(x, y, place)
        norm = audited(x_adv, x, self.settings.threat, each.name)
        with torch.no_grad():
            logits = self._finite(self.model(x_adv), rows)
        broken = (logits.argmax(1) != self.labels[rows]) & (self.broken_by[rows] == ROBUST)
        if each.judges:
            self.broken_by[rows[broken]] = number
        kept = torch.ones_like(broken) if each.everyone else broken
        self.adversarial[rows[kept]] = logits[kept]
        self.norm[rows[kept]] = norm.float().cpu()[kept]
        if self.saved is not None:
            self.saved[rows[kept]] = x_adv.to(self.saved.device)[kept]

    def _note_disagreement(self) -> None:
        """Tell of examples that AutoAttack left standing and the last PGD pass did not."""
        standing = self.broken_by == ROBUST
        fell = int((standing & (self.adversarial.argmax(1) != self.labels)).sum())
        if fell and self.settings.attack == AUTOATTACK:
            self.reporter.note(
                f"PGD-{FILL_STEPS} broke {fell} of {int(standing.sum())} examples that AutoAttack "
                "left standing; verdicts and accuracies stay AutoAttack's, but analyses of the "
                "logits see them as broken"
            )
        names = attack_names(self.settings, self.classes)
        if "square" in names and self.settings.attack == AUTOATTACK:
            by_square = int((self.broken_by == names.index("square")).sum())
            if by_square > SQUARE_ALARM * len(self.labels):
                self.reporter.warn(
                    f"Square broke {by_square} examples that white-box attacks left standing: "
                    "gradients may be masked"
                )

    def _logits(self) -> Logits:
        settings = self.settings
        attacked = settings.attack != "none"
        names = attack_names(settings, self.classes)
        source = provenance.data_parent(
            registry.split_path(settings.data)[0], self.images.split, self.images.fingerprint
        )
        more: dict[str, Any] = {}
        if settings.attack == AUTOATTACK:
            from advkit.attacks import _autoattack

            more["implementation"] = _autoattack.package()
            more["target_classes"] = min(_autoattack.TARGETS, self.classes - 1)
        info = provenance.describe(
            "logits",
            config=settings.described(),
            seed=settings.seed,
            parents=[provenance.parent(self.info), source],
            environment=self.environment,
            attacks=names,
            method=self.info["method"],
            arch=self.info["arch"],
            role=self.info["role"],
            zero_gradient=self.flat / len(self.labels) if attacked else None,
            trained=dict(self.info.get("config", {})),
            data={"name": source["name"], "classes": list(self.info["data"]["classes"])},
            **more,
        )
        return Logits(
            index=self.positions,
            labels=self.labels,
            clean=self.clean,
            adversarial=self.adversarial if attacked else None,
            norm=self.norm if attacked else None,
            broken_by=self.broken_by if attacked else None,
            images=self.saved.cpu() if attacked and self.saved is not None else None,
            info=info,
        )

    def _save(self, partial: Path) -> None:
        tensors = {"adversarial": self.adversarial, "norm": self.norm, "broken_by": self.broken_by}
        if self.saved is not None:
            tensors["images"] = self.saved
        checkpoint.write(partial, tensors, {**self._identity(), "done": list(self.done)})

    def _identity(self) -> dict[str, Any]:
        return {
            "schema": provenance.SCHEMA,
            "kind": "partial",
            "config": self.settings.described(),
            "checkpoint": self.info["digest"],
            "data": self.images.fingerprint,
            "environment": dict(self.environment),
        }

    def _restore(self, partial: Path) -> None:
        if not partial.exists():
            return
        try:
            tensors, info = checkpoint.read(partial, "partial")
        except (InputError, MismatchError) as error:
            self.reporter.note(f"{error}: started anew")
            return
        if any(info.get(key) != value for key, value in self._identity().items()):
            self.reporter.note(f"{partial}: of another evaluation, started anew")
            return
        self.adversarial, self.norm = tensors["adversarial"], tensors["norm"]
        self.broken_by = tensors["broken_by"]
        if self.saved is not None:
            self.saved = tensors["images"].to(self.device)
        self.done = (info["done"][0], info["done"][1])
        self.reporter.note("going on from the batches that an earlier run finished")


def audited(x_adv: Tensor, x: Tensor, threat: Threat, name: str) -> Tensor:
    """Check that adversarial images are legal; return ‖x′ − x‖ per example, (B,).

    Raises:
        AdvkitError: outside the ball or the box by more than rounding, or not finite.
    """
    norm = threat.distance(x_adv, x)
    slack = SLACK if threat.norm == "linf" else 1e-5 * max(threat.eps, 1)
    low, high = x_adv.amin(), x_adv.amax()
    legal = (norm <= threat.eps + slack).all() & (low >= -SLACK) & (high <= 1 + SLACK)
    if not bool(legal):  # comparisons with NaN are false, so NaN is illegal too
        raise AdvkitError(
            f"{name} left the threat model: norm {float(norm.max()):g} of {threat.eps:g}, "
            f"pixels {float(low):g} to {float(high):g}"
        )
    return norm


def fitted(x: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Resize and convert images (B, C, H, W) to a model's input shape (channels, H, W)."""
    channels, height, width = shape
    if x.shape[1] != channels:
        grey = x.mean(1, keepdim=True) if x.shape[1] == 3 else x
        x = grey.expand(-1, channels, -1, -1)
    if x.shape[2:] != (height, width):
        x = F.interpolate(x, (height, width), mode="bilinear", antialias=True).clamp(0, 1)
    return x.contiguous()


def accuracies(
    model: nn.Module,
    images: Images,
    positions: Tensor,
    threat: Threat | None,
    *,
    steps: int,
    generator: Generator,
) -> tuple[int, int]:
    """Count correct answers of one batch, clean and under PGD's worst iterate.

    Args:
        model: in any mode; evaluated in eval mode.
        images: the data set.
        positions: (B,) which of its examples.
        threat: None leaves the attack out.
        steps: PGD steps of size ε/4.
        generator: of the random start.
    """
    device = next(model.parameters()).device
    x = pixels(images.batch(positions), device)
    y = images.labels[positions].to(device)
    with modes.evaluating(model), torch.no_grad():
        right = model(x).argmax(1) == y
        if threat is None:
            return int(right.sum()), 0
        x_adv = pgd.attack(model, x, y, threat, generator=generator, steps=steps)
        return int(right.sum()), int((right & (model(x_adv).argmax(1) == y)).sum())


def accuracy_after(logits: Logits) -> dict[str, float]:
    """Return the robust accuracy left after each attack, in order."""
    if logits.broken_by is None:
        return {}
    left = {}
    for number, name in enumerate(logits.attacks):
        standing = (logits.broken_by == ROBUST) | (logits.broken_by > number)
        left[name] = float(standing.double().mean())
    return left


def figures(logits: Logits) -> dict[str, Any]:
    """Return the accuracies of a logits file with their 95 % Wilson intervals, for its record.

    `accuracy_after` is the robust accuracy left after each attack. Without labels (out of
    distribution) accuracies are None; without an attack the robust ones are.
    """
    config, n = logits.info["config"], len(logits.labels)
    found: dict[str, Any] = {"attack": config["attack"], "n": n}
    found |= {"clean_accuracy": None, "clean_ci95": None}
    found |= {"robust_accuracy": None, "ci95": None}
    if "eps" in config:
        threat = parse_eps(config["eps"], config["norm"])
        found |= {"norm": config["norm"], "eps": threat, "eps_text": config["eps"]}
    if bool((logits.labels >= 0).all()):
        clean = int((logits.clean.argmax(1) == logits.labels).sum())
        found |= {"clean_accuracy": clean / n, "clean_ci95": list(wilson(clean, n))}
    if logits.broken_by is not None:
        robust = int((logits.broken_by == ROBUST).sum())
        found |= {"robust_accuracy": robust / n, "ci95": list(wilson(robust, n))}
        found["accuracy_after"] = accuracy_after(logits)
        found["zero_gradient"] = logits.info.get("zero_gradient")
    return found


def require_finite(tensors: Mapping[str, Tensor], where: object) -> None:
    """Check weights before an evaluation.

    Raises:
        NumericalError: naming the first tensor with NaN or infinity.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise NumericalError(f"{where}: {name} holds NaN or infinity")
