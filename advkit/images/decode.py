"""Image files: what is one, and its pixels in 8 bits."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from advkit.errors import InputError, brief
from advkit.runtime import reading

SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".tif", ".tiff"}
SUFFIXES |= {".webp", ".ppm", ".pgm", ".pbm", ".pnm"}
"""Names of files that must be images; others are looked into."""
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""What a file may hold, whatever its name: Pillow knows formats that start other programs (EPS)."""
INFLATION, FREE = 100, 64 << 20
"""Images that unpack to more than FREE bytes and INFLATION times their file are refused, and files
of more than FREE bytes and INFLATION times their pixels."""
BACKGROUND = 255
"""What shows through where an image is transparent: white."""
ELONGATED = 100
"""How many times as long as wide an image may be that has to be cut to a square."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientation: what turns the stored pixels upright."""


def is_image(path: Path) -> bool:
    """Whether a file begins as an image does, whatever its name; what cannot be read is none."""
    try:
        with reading.opened(path) as file, Image.open(file, formats=FORMATS):
            return True
    except (MemoryError, Image.DecompressionBombError):
        return True  # a huge one: to be refused by name, not passed over
    except Exception:  # on what is no image Pillow raises whatever it stumbles over
        return False


def decode(path: Path, *, as_shown: bool = False) -> Image.Image:
    """Return one image as 8-bit grey (mode "L") or colour (mode "RGB"), in its own size.

    Args:
        path: the file.
        as_shown: as programs show it: upright, where EXIF says how the camera was held, and on
            `BACKGROUND` where it is transparent. Else pixels as stored, without their alpha, as
            torchvision's loader takes them.

    Raises:
        InputError: the file cannot be read, is no image or a damaged one, claims to be huge, or
            its values have no 8-bit scale.
    """
    try:
        with reading.opened(path) as file, Image.open(file, formats=FORMATS) as image:
            _require_worth(image, reading.size(file))
            _require_scale(path, image)
            if image.format == "PNG":
                _require_checksums(path)
            return _shown(image) if as_shown else _eight_bits(image)
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


def _require_scale(path: Path, image: Image.Image) -> None:
    """Refuse values of which nobody says what is black and what white.

    16-bit files often hold 10 or 12 bits, 32-bit and float ones anything: cut to 8 bits they
    become black or white pictures.

    Raises:
        InputError: its mode is one of those.
    """
    if image.mode.startswith(("I", "F")):
        raise InputError(
            f"{path}: mode {image.mode}: more than 8 bits a value, with no scale to show them by; "
            "convert it to 8 bits"
        )


def _eight_bits(image: Image.Image) -> Image.Image:
    """Convert to 8-bit grey or RGB."""
    return image.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB")


def _shown(image: Image.Image) -> Image.Image:
    """Return it upright on `BACKGROUND`, in 8-bit grey or RGB."""
    image.load()  # a PNG's EXIF may lie behind its pixels
    grey = image.mode in ("1", "L", "LA", "La")
    if image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        plain = image.convert("LA") if image.mode == "La" else image
        full = np.asarray(plain.convert("RGBA"), np.uint16)
        alpha = full[..., 3:]
        on = (full[..., :3] * alpha + BACKGROUND * (255 - alpha) + 127) // 255
        flat = Image.fromarray(on.astype(np.uint8))
        flat = flat.getchannel(0) if grey else flat
    else:
        flat = _eight_bits(image)
    turn = _turn(image)
    return flat if turn is None else flat.transpose(turn)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Return what turns an image upright; damaged EXIF says nothing, as in any program."""
    if image.format == "TIFF":
        return None  # Pillow turns these as it reads them; older ones leave the mark in place
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
        return _TURNS.get(orientation) if isinstance(orientation, int) else None
    except Exception:  # on damaged EXIF Pillow raises whatever it stumbles over
        return None
