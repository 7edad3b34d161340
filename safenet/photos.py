"""Photos as the test of the published code reads them: decoded, RGB, squashed to a square. Knows no torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")  # Pillow's others include some that start programs, as PostScript's does
LARGEST_PHOTO_PX = 89_478_485  # height x width; Pillow's limit, of which it only warns up to twice as many


class PhotoTooLargeError(ValueError):
    """An image whose header claims more pixels than are decoded."""


def decode_photo(source: str | Path | BinaryIO, size_px: int) -> NDArray[np.uint8]:
    """Decode a file to RGB and resize to a square with Pillow's antialiased bicubic filter (cv2's INTER_CUBIC differs).

    Returns
    -------
    uint8 [size_px, size_px, 3]

    Raises
    ------
    OSError
        If the file is missing or cannot be decoded.
    ValueError
        As `open_photo` and `to_rgb`. Damaged bytes make Pillow's decoders raise other errors, too.

    Notes
    -----
    An EXIF orientation is not applied, as in the published code (Pillow itself applies that of a TIFF, there as here). Of several
    frames or pages the first is taken.
    """
    if isinstance(source, str | Path):
        with Path(source).open("rb") as file:
            return decode_photo(file, size_px)
    with open_photo(source) as photo:
        return resize_photo(to_rgb(photo), size_px)


@contextmanager
def open_photo(file: BinaryIO) -> Iterator[Image.Image]:
    """Read the header of an image, whatever its file is called; pixels are decoded when they are used.

    Raises
    ------
    PhotoTooLargeError
        If it has more than `LARGEST_PHOTO_PX` pixels, whatever Pillow's own limit is and however warnings are treated.
    PIL.UnidentifiedImageError (an OSError)
        If it is none of `FORMATS`, or its header is damaged.
    """
    too_large = f"too large: its header claims more than {LARGEST_PHOTO_PX} pixels"
    try:
        photo = Image.open(file, formats=FORMATS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise PhotoTooLargeError(too_large) from None
    except UnidentifiedImageError:
        raise UnidentifiedImageError(f"cannot identify it, or its header is damaged; expected {', '.join(FORMATS)}") from None
    with photo:
        if photo.width * photo.height > LARGEST_PHOTO_PX:
            raise PhotoTooLargeError(too_large)
        yield photo


def to_rgb(photo: Image.Image) -> Image.Image:
    """Convert to 8-bit RGB as Pillow's ``convert("RGB")`` does, which drops alpha; 16-bit grey keeps its upper 8 bits instead of turning white.

    Raises
    ------
    ValueError
        If its values are floats or 32-bit integers that do not run over 0 to 255, so that nothing tells what is white.

    Notes
    -----
    The upper 8 bits are value >> 8, which is what Pillow makes of 16-bit colour. The published code would show 16-bit grey as white.
    """
    if photo.mode.startswith("I;16") or (photo.mode == "I" and photo.format == "PNG"):  # older Pillows open 16-bit grey PNGs as "I"
        return Image.fromarray((np.asarray(photo) >> 8).astype(np.uint8)).convert("RGB")
    if photo.mode in ("I", "F"):
        _check_range(photo)
    if photo.mode == "P" and "transparency" in photo.info:
        photo = photo.convert("RGBA")  # the same colours, without Pillow's warning
    return photo.convert("RGB")


def resize_photo(photo: Image.Image, size_px: int) -> NDArray[np.uint8]:
    """Squash an RGB photo to uint8 [size_px, size_px, 3]."""
    return np.array(photo.resize((size_px, size_px), Image.Resampling.BICUBIC))


def _check_range(photo: Image.Image) -> None:
    values = np.asarray(photo)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and 1 < high <= 255):  # nor if one is NaN
        kind = "float" if photo.mode == "F" else "32-bit"
        raise ValueError(f"its {kind} values run from {low:g} to {high:g}; expected 0 to 255. Save it with 8 or 16 bits a channel")
