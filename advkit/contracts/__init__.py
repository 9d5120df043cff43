"""What parts promise, as checks that run on anybody's: nothing in them is known of one part.

A check is a function of a part that raises `Breach` where the promise is not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from advkit import registry
from advkit.contracts import augmentations, declared, networks, shelves
from advkit.contracts.scene import Breach
from advkit.errors import AdvkitError, brief
from advkit.registry import Part

__all__ = ["COMMON", "Breach", "Failure", "breaches", "checks", "new"]

Check = Callable[[Part], None]

CHECKS: dict[str, tuple[Check, ...]] = {
    "data": (shelves.data_repeat_or_say_what_is_missing,),
    "models": (
        networks.gives_logits_and_a_gradient,
        networks.takes_grey_images_or_says_that_it_does_not,
        networks.carries_its_normalisation,
        networks.builds_the_same_again,
        networks.folds_into_the_same,
    ),
    "augment": (
        augmentations.changes_images_and_nothing_else,
        augmentations.draws_from_its_generator_alone,
        augmentations.an_image_is_changed_by_its_own_row,
        augmentations.no_images_are_no_work,
    ),
    "labels": (shelves.label_rows_are_probabilities,),
    "objectives": (
        shelves.inner_is_a_number_an_example,
        shelves.outer_is_a_scalar_without_side_effects,
        shelves.ascending_raises_the_inner_loss,
    ),
    "attacks": (
        shelves.attack_stays_in_ball_and_box,
        shelves.attack_leaves_everything_alone,
        shelves.attack_repeats_with_its_generator,
    ),
    "analyses": (shelves.analysis_gives_a_plain_table,),
}
COMMON = (
    declared.has_one_line_of_help,
    declared.options_have_help_and_fitting_defaults,
    declared.imports_as_it_was_read,
)


@dataclass(frozen=True)
class Failure:
    """A promise that a part does not keep, and how that shows."""

    check: str
    problem: str


def checks(folder: str) -> tuple[Check, ...]:
    """Return the checks of a shelf's parts."""
    return (*COMMON, *CHECKS.get(folder, ()))


def breaches(part: Part) -> Iterator[Failure]:
    """Run all checks of a part and yield those that fail, whatever they fail with.

    A part that is not proper is not imported: what is wrong with it is all there is to say.
    """
    if part.problems:
        yield Failure("is_proper", part.breach)
        return
    try:
        registry.load(part.folder, part.name)
    except AdvkitError as error:
        yield Failure("imports_as_it_was_read", str(error))
        return
    for check in checks(part.folder):
        try:
            check(part)
        except Breach as breach:
            yield Failure(check.__name__, str(breach))
        except Exception as error:  # the part's own
            yield Failure(check.__name__, f"{type(error).__name__}: {brief(error)}")
