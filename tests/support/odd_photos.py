"""Writers of odd and of bad photos: tables of file name -> how to write it, for docs/bad-input.md's tests."""

import io
import itertools
import struct
import zlib

import cv2
import numpy as np
from PIL import Image

HEIGHT, WIDTH = 40, 48
TOO_LARGE = r"too large: its header claims more than 89478485 pixels"
seeds = itertools.count()


def colours(height=HEIGHT, width=WIDTH):
    """A smooth picture uint8 [height, width, 3], another at each call: equal files would be one sample."""
    coarse = np.random.default_rng(next(seeds)).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))


def repeated(grey):
    return np.repeat(np.asarray(grey, np.uint8)[..., None], 3, axis=-1)


# ---- photos that are used: each writer returns the RGB that must come out, made without Pillow's conversions


def named_jpg_but_png(path):
    rgb = colours()
    Image.fromarray(rgb).save(path, format="PNG")
    return rgb


def cmyk(path):
    rgb = colours()
    bands = [Image.fromarray(255 - rgb[..., band]) for band in range(3)]
    Image.merge("CMYK", [*bands, Image.new("L", (WIDTH, HEIGHT), 0)]).save(path)
    return rgb


def sixteen_bits(*shape, dtype="uint16"):
    return np.random.default_rng(next(seeds)).integers(0, 65536, (HEIGHT, WIDTH, *shape)).astype(dtype)


def grey_16(path):
    values = sixteen_bits()
    Image.fromarray(values).save(path)
    return repeated(values // 256)


def grey_16_big_endian(path):
    values = sixteen_bits(dtype=">u2")
    Image.fromarray(values).save(path)
    with Image.open(path) as photo:
        assert photo.mode == "I;16B"
    return repeated(values // 256)


def rgb_16(path):
    values = sixteen_bits(3)
    cv2.imwrite(str(path), values[..., ::-1])
    return (values // 256).astype(np.uint8)


def rgba_16(path):
    values = sixteen_bits(4)
    cv2.imwrite(str(path), values[..., [2, 1, 0, 3]])
    return (values[..., :3] // 256).astype(np.uint8)


def palette_of(rgb):
    picture = Image.fromarray(rgb).quantize(16)
    table = np.array(picture.getpalette()[: 3 * 16], np.uint8).reshape(-1, 3)
    return picture, table[np.asarray(picture)]


def palette(path):
    picture, rgb = palette_of(colours())
    picture.save(path)
    return rgb


def palette_with_transparency(path):
    picture, rgb = palette_of(colours())
    picture.save(path, transparency=bytes(range(0, 256, 16)))
    return rgb


def palette_with_a_clear_colour(path):
    picture, rgb = palette_of(colours())
    picture.save(path, transparency=int(np.asarray(picture)[0, 0]))
    return rgb


def alpha(path):
    """Colours lie under the clear pixels too, and come out."""
    rgba = np.concatenate([colours(), np.random.default_rng(0).integers(0, 2, (HEIGHT, WIDTH, 1), dtype=np.uint8) * 255], axis=2)
    Image.fromarray(rgba).save(path, **({"lossless": True, "exact": True} if path.suffix == ".webp" else {}))
    return rgba[..., :3]


def grey_alpha(path):
    grey = colours()[..., 0]
    Image.merge("LA", [Image.fromarray(grey), Image.fromarray(255 - grey)]).save(path)
    return repeated(grey)


def one_bit(path):
    on = colours()[..., 0] > 127
    Image.fromarray(on).save(path)
    return repeated(on * 255)


def orientation(turned=6):
    exif = Image.Exif()
    exif[0x0112] = turned
    return exif


def turned_png(path):
    rgb = colours()
    Image.fromarray(rgb).save(path, exif=orientation())
    with Image.open(path) as photo:
        assert photo.getexif()[0x0112] == 6
    return rgb


def turned_jpeg(path):
    picture, plain = Image.fromarray(colours()), io.BytesIO()
    picture.save(plain, format="JPEG")
    picture.save(path, format="JPEG", exif=orientation())
    return np.asarray(Image.open(plain))


def turned_tiff(path):
    """The exception: Pillow turns it while loading, for the published code as for us."""
    rgb = colours()
    Image.fromarray(rgb).save(path, exif=orientation())
    return np.rot90(rgb, -1)


def animation(path):
    """Two frames; GIF, animated PNG or animated WebP by the name."""
    (first, rgb), (second, _) = palette_of(colours()), palette_of(colours())
    form = path.stem.upper()
    frames = [first, second] if form == "GIF" else [Image.fromarray(rgb), second.convert("RGB")]
    frames[0].save(path, format=form, save_all=True, append_images=frames[1:], **({"lossless": True} if form == "WEBP" else {}))
    with Image.open(path) as image:
        assert image.n_frames == 2
    return rgb


def two_pages(path):
    rgb = colours()
    Image.fromarray(rgb).save(path, save_all=True, append_images=[Image.fromarray(colours(20, 20))])
    return rgb


def whole_numbers(path):
    grey = colours()[..., 0]
    Image.fromarray(grey.astype(np.int32)).save(path)
    return repeated(grey)


def floats(path):
    grey = colours()[..., 0]
    Image.fromarray(grey.astype(np.float32)).save(path)
    return repeated(grey)


def very_wide(path):
    rgb = np.tile(colours(20), (1, 625, 1))
    assert rgb.shape == (20, 30_000, 3)
    Image.fromarray(rgb).save(path)
    return rgb


def plain(path):
    rgb = colours()
    Image.fromarray(rgb).save(path)
    return rgb


def linked(path):
    elsewhere = path.parents[3] / "elsewhere.png"
    path.symlink_to(elsewhere)
    return plain(elsewhere)


USED = {
    "a PNG inside.jpg": named_jpg_but_png,
    "cmyk.tif": cmyk,
    "grey16.png": grey_16, "grey16.tif": grey_16, "grey16 big-endian.tif": grey_16_big_endian,
    "rgb16.png": rgb_16, "rgb16.tif": rgb_16, "rgba16.png": rgba_16,
    "palette.png": palette, "palette, transparency.png": palette_with_transparency, "palette, clear colour.png": palette_with_a_clear_colour,
    "alpha.png": alpha, "alpha.webp": alpha, "alpha.tif": alpha, "grey alpha.png": grey_alpha, "one bit.png": one_bit,
    "turned.png": turned_png, "turned.jpg": turned_jpeg, "turned.tif": turned_tiff,
    "gif.png": animation, "png.png": animation, "webp.webp": animation, "two pages.tif": two_pages,
    "whole numbers.tif": whole_numbers, "floats.tif": floats,
    "30000 px wide.png": very_wide,
    "фото №1, 图书馆 🛰.png": plain, " space .png": plain, "it's \"50%\".png": plain, "linked.png": linked,
    "line\nbreak.png": plain, "tab\tand\u2028more\x1b[31m.png": plain,
}  # fmt: skip


# ---- photos that are quarantined


def write_png(path, width, height, bits, colour_type, packed):
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    parts = [struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content)) for kind, content in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def claiming(width, height):
    """RGB by its header, and nothing behind it."""
    return lambda path: write_png(path, width, height, 8, 2, b"")


def square_of_30000_px(path):
    """A whole, valid file of 900 million pixels in 110 kB."""
    packer = zlib.compressobj(1)
    rows = b"\0" * (1 + 30_000 // 8)
    write_png(path, 30_000, 30_000, 1, 0, b"".join(packer.compress(rows * 1000) for _ in range(30)) + packer.flush())


def cut(path):
    plain(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])


def numbers(low, high, dtype):
    def write(path):
        Image.fromarray(np.linspace(low, high, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(dtype)).save(path)

    return write


def undefined(path):
    Image.fromarray(np.full((HEIGHT, WIDTH), np.nan, np.float32)).save(path)


NOT_AN_IMAGE = "not an image, or its header is damaged; expected BMP, GIF, JPEG, PNG, TIFF, WEBP"
BAD = {
    "empty.png": (lambda path: path.touch(), "zero bytes"),
    "empty\nand bad.png": (lambda path: path.touch(), "zero bytes"),
    "text.jpg": (lambda path: path.write_text("<html>404</html>"), NOT_AN_IMAGE),
    "postscript.jpg": (lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 40\n%%EndComments\n"), NOT_AN_IMAGE),
    "pixmap.png": (lambda path: Image.fromarray(colours()).save(path, format="PPM"), NOT_AN_IMAGE),
    "cut.png": (cut, "cannot be decoded: image file is truncated"),
    "cut.jpg": (cut, "cannot be decoded: image file is truncated"),
    "cut.bmp": (cut, "cannot be decoded: image file is truncated"),
    "cut.tif": (cut, "damaged|cannot be decoded"),  # where the directory lies at the end, it is gone
    "cut.webp": (cut, "damaged|cannot be decoded"),
    "pixel.png": (lambda path: Image.new("RGB", (1, 1)).save(path), r"too small: 1 x 1 px \(height x width\), at least 16 needed"),
    "30000 px square.png": (square_of_30000_px, TOO_LARGE),
    "near bomb.png": (claiming(11_000, 11_000), TOO_LARGE),
    "bomb.png": (claiming(100_000, 100_000), TOO_LARGE),
    "large numbers.tif": (numbers(0, 70_000, np.int32), "its 32-bit values run from 0 to 70000; expected 0 to 255. Save it with 8 or 16 bits"),
    "negative.tif": (numbers(-5, 100, np.int32), "its 32-bit values run from -5 to 100; expected 0 to 255"),
    "shares.tif": (numbers(0, 1, np.float32), "its float values run from 0 to 1; expected 0 to 255. Save it with 8 or 16 bits a channel"),
    "undefined.tif": (undefined, "its float values run from nan to nan; expected 0 to 255"),
    "itself.png": (lambda path: path.symlink_to(path.name), "cannot be read: Too many levels of symbolic links"),
    "dangling.png": (lambda path: path.symlink_to("nowhere.png"), "cannot be read: No such file or directory"),
}
