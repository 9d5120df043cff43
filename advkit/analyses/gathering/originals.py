"""The images that a labels or logits file speaks of."""

from __future__ import annotations

from pathlib import Path

from advkit import data, registry
from advkit.artifacts.hdf5 import Logits
from advkit.artifacts.soft_labels import SoftLabels
from advkit.config.location import location
from advkit.errors import MismatchError, UsageError
from advkit.images.image_set import ImageSet


def originals(
    artifact: Logits | SoftLabels,
    named: str | None = None,
    root: str | None = None,
    image_size: int | None = None,
) -> ImageSet:
    """Load the very images that a file was made from; its `index` are positions among them.

    Args:
        artifact: a labels or logits file.
        named: NAME[:PATH] of its data set; what its run's folder says if None.
        root: where data sets lie.
        image_size: side of a folder's images; that of the file's own work if None.

    Raises:
        UsageError: nobody says where the data set lies.
        InputError: the data set is missing, corrupt or empty.
        MismatchError: the images are others.
    """
    source = artifact.info["parents"][-1]
    place = location(Path(artifact.path), artifact.info, named)
    name = registry.split_path(place)[0]
    if name != source["name"]:
        raise MismatchError(f"{artifact.path}: made from {source['name']}, not from {name}")
    options = {option.name for option in registry.part("data", name).options}
    size = image_size or (_size(artifact) if "image_size" in options else None)
    try:
        images = data.load(
            place,
            source["split"],
            root=root,
            image_size=size,
            test_fraction=source.get("test_fraction"),
            skip_broken="broken" in source or None,
        )
    except UsageError as error:
        raise UsageError(f"{artifact.path}: its pictures: {error}") from None
    images = data.with_classes(images, artifact.info["data"]["classes"])
    if images.fingerprint != source["digest"]:
        raise MismatchError(
            f"{artifact.path}: made from {name} with fingerprint {source['digest'][:19]}, "
            f"the {source['split']} split of {place} has {images.fingerprint[:19]}: other images"
        )
    return images


def _size(artifact: Logits | SoftLabels) -> int | None:
    """Return the side to which the images were resized, where the file says it."""
    if isinstance(artifact, SoftLabels):
        return artifact.info["config"].get("image_size")
    return artifact.info.get("trained", {}).get("image_size")
