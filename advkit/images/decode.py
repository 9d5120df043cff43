"""Image files: which there are in a folder, and their pixels in 8 bits."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from advkit.errors import InputError, brief
from advkit.images.image_set import require_text
from advkit.runtime import reading

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""What a file may hold, whatever its name: Pillow knows formats that start other programs (EPS)."""
INFLATION, FREE = 100, 64 << 20
"""Images that unpack to more than FREE bytes and INFLATION times their file are refused, and files
of more than FREE bytes and INFLATION times their pixels."""
ELONGATED = 100
"""How many times as long as wide an image may be that has to be cut to a square."""


def classes(top: Path, wanted: str) -> tuple[str, ...]:
    """Return the names of the folders in `top`, one for each class, sorted.

    Args:
        top: the folder of a split.
        wanted: what should lie there, for the error message.

    Raises:
        InputError: no such folder, or fewer than two classes in it.
    """
    if not top.is_dir():
        raise InputError(f"{top}: no such folder; {wanted}")
    names = sorted(path.name for path in top.iterdir() if path.is_dir())
    if len(names) < 2:
        folders = f"only {names[0]!r}" if names else "none"
        raise InputError(f"{top}: needs a folder for each of two classes or more; found {folders}")
    require_text(top, names)
    return tuple(names)


def files(folder: Path) -> list[Path]:
    """Return the image files of a folder, known by their suffix, sorted by name.

    Raises:
        InputError: there is none.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise InputError(f"{folder}: holds no image")
    return paths


def decode(path: Path) -> Image.Image:
    """Return one image as 8-bit grey (mode "L") or colour (mode "RGB"), in its own size.

    Raises:
        InputError: the file cannot be read, is no image or a damaged one, or claims to be huge.
    """
    try:
        with reading.opened(path) as file, Image.open(file, formats=FORMATS) as image:
            _require_worth(image, reading.size(file))
            if image.format == "PNG":
                _require_checksums(path)
            return _eight_bits(image)
    except UnidentifiedImageError:
        raise InputError(f"{path}: not a readable image: none of {', '.join(FORMATS)}") from None
    except (MemoryError, InputError):
        raise
    except Exception as error:  # on a damaged file Pillow raises whatever it stumbles over
        raise InputError(f"{path}: not a readable image: {brief(error)}") from None


def _require_worth(image: Image.Image, size: int) -> None:
    """Refuse to unpack far more pixels than a file of `size` bytes is likely to hold, or fewer.

    Raises:
        ValueError: it claims so.
    """
    wide, high = image.size
    claimed = wide * high * len(image.getbands())
    if size > max(FREE, INFLATION * claimed):
        raise ValueError(f"{size} bytes for {wide}x{high} pixels: refused")
    if claimed > max(FREE, INFLATION * size):
        raise ValueError(f"{size} bytes that would unpack to {wide}x{high}: refused")


def _require_checksums(path: Path) -> None:
    """Check the CRC of every chunk of a PNG file, which Pillow does not do for the pixels'.

    Raises:
        ValueError: a chunk is damaged or cut off.
    """
    with reading.opened(path) as file:
        place, kind = 8, b""  # behind the signature
        file.seek(place)
        while kind != b"IEND":
            size = int.from_bytes(file.read(4), "big")
            chunk = file.read(min(4 + size, reading.size(file)))
            checksum = file.read(4)
            if len(checksum) < 4 or zlib.crc32(chunk) != int.from_bytes(checksum, "big"):
                raise ValueError(f"damaged: the checksum at byte {place + 8 + size} does not match")
            kind = chunk[:4]
            place += 12 + size


def require_resizable(path: Path, image: Image.Image) -> None:
    """Refuse an image that is a line: its shorter side at full size, it would not fit in memory.

    Raises:
        InputError: it is more than `ELONGATED` times as long as wide.
    """
    wide, high = image.size
    if max(wide, high) > ELONGATED * min(wide, high):
        raise InputError(f"{path}: is {wide}x{high}: too elongated to be cut to a square")


def resized(image: Image.Image, size: int) -> Image.Image:
    """Scale the shorter side to `size` pixels and keep the centre, size×size."""
    scale = size / min(image.size)
    wide, high = (max(size, round(side * scale)) for side in image.size)
    # BOX averages pixels when shrinking; it would repeat them when enlarging.
    kind = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    left, top = (wide - size) // 2, (high - size) // 2
    return image.resize((wide, high), kind).crop((left, top, left + size, top + size))


def _eight_bits(image: Image.Image) -> Image.Image:
    """Convert to 8-bit grey or RGB; deeper grey keeps its scale (Pillow would clip it)."""
    if image.mode.startswith("I"):
        deep = np.asarray(image).clip(0, 65535).astype(np.uint16)
        return Image.fromarray((deep >> 8).astype(np.uint8))
    return image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
