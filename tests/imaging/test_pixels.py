"""`imaging.pixels`: what is accepted, what is refused and why, and which pixels come out."""

from __future__ import annotations

import contextlib
import io
import math
import random
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pictures
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from xray_watcher.core.values import REJECTIONS
from xray_watcher.errors import UnreadableImage
from xray_watcher.imaging.formats import TAIL_BYTES, completeness
from xray_watcher.imaging.jpeg import first_channel
from xray_watcher.imaging.limits import DecodeLimits
from xray_watcher.imaging.picture import DecodedImage
from xray_watcher.imaging.pixels import decode, decode_for_display

LIMITS = DecodeLimits()
ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
GREY = pictures.chest()
PNG = pictures.png(Image.fromarray(GREY))
JPEG = pictures.jpeg(Image.fromarray(GREY))
CODED = {f"png {name}": data for name, data in pictures.lossless(GREY).items()} | {
    f"jpeg {name}": data for name, data in pictures.lossy(GREY).items()
}
BOTH = pytest.mark.parametrize("whole", [PNG, JPEG], ids=["png", "jpeg"])


def pixels(data: bytes) -> np.ndarray:
    return decode(data, LIMITS).pixels


def mean_difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).mean())


def decoded_or_refused(data: bytes) -> DecodedImage | UnreadableImage:
    try:
        return decode(data, LIMITS)
    except UnreadableImage as error:
        return error


def refusal(data: bytes, limits: DecodeLimits = LIMITS) -> UnreadableImage:
    with pytest.raises(UnreadableImage) as caught:
        decode(data, limits)
    assert caught.value.code in REJECTIONS
    assert caught.value.detail.isprintable()
    assert caught.value.detail.endswith(".")
    return caught.value


@pytest.fixture(scope="module")
def xrv() -> Iterator[ModuleType]:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        import torchxrayvision  # noqa: PLC0415 - slow, prints, and changes the warning filters

        yield torchxrayvision


def library_pixels(xrv: ModuleType, stored: np.ndarray, maximum: float) -> np.ndarray:
    """The library's `load_image`, with the maximum of the bit depth, and its two transforms."""
    grey = xrv.utils.normalize(stored, maximum)
    grey = grey if grey.ndim == 2 else grey[:, :, 0]
    cropped = xrv.datasets.XRayCenterCrop()(grey[np.newaxis])
    return np.asarray(xrv.datasets.XRayResizer(224)(cropped))


# ---------------------------------------------------------------- the pixels


def test_the_pixels_have_the_shape_type_and_range_of_the_network() -> None:
    image = decode(PNG, LIMITS)
    assert image.pixels.shape == (1, 224, 224)
    assert image.pixels.dtype == np.float32
    assert image.pixels.flags.c_contiguous
    assert -1024 <= image.pixels.min() < image.pixels.max() <= 1024
    assert (image.width, image.height) == (300, 250)


@pytest.mark.parametrize("path", pictures.REAL_IMAGES, ids=lambda path: path.name)
def test_a_real_image_has_the_pixels_of_the_library(xrv: ModuleType, path: object) -> None:
    expected = xrv.datasets.XRayCenterCrop()(xrv.utils.load_image(str(path)))
    expected = xrv.datasets.XRayResizer(224)(expected)
    with open(str(path), "rb") as file:
        found = pixels(file.read())
    assert mean_difference(found, expected) < 0.01
    assert np.abs(found - expected).max() < 0.1


@pytest.mark.parametrize(
    ("width", "height"),
    [(64, 64), (65, 64), (100, 80), (224, 224), (225, 301), (301, 225), (449, 1000), (1025, 899)],
)
def test_every_size_and_remainder_has_the_pixels_of_the_library(
    xrv: ModuleType, width: int, height: int
) -> None:
    grey = pictures.chest(width, height)
    expected = library_pixels(xrv, grey, 255)
    assert mean_difference(pixels(pictures.png(Image.fromarray(grey))), expected) < 0.01


@pytest.mark.parametrize("size", [(2000, 2500), (2001, 2503), (1793, 1792), (4280, 3520)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_large_jpeg_is_decoded_smaller_and_keeps_the_pixels_of_the_library(
    xrv: ModuleType, size: tuple[int, int], mode: str
) -> None:
    data = pictures.jpeg(Image.fromarray(pictures.chest(*size)).convert(mode))
    expected = library_pixels(xrv, np.asarray(Image.open(io.BytesIO(data))), 255)
    assert mean_difference(pixels(data), expected) < 2.5


def test_a_16_bit_picture_is_scaled_by_65535_and_never_clipped(xrv: ModuleType) -> None:
    ramp = np.tile(np.linspace(0, 4095, 500).astype(np.uint16), (400, 1))
    data = pictures.png(Image.fromarray(ramp))
    found = pixels(data)
    assert mean_difference(found, library_pixels(xrv, ramp, 65535)) < 0.01
    assert found[0, 1:-1, 1:-1].max() < -1024 + 2048 * 4096 / 65535


def raw(bits: int) -> bytes:
    """The picture with values of so many bits, written into 16 as they are."""
    return pictures.png(Image.fromarray(GREY.astype(np.uint16) << (bits - 8)))


@pytest.mark.parametrize("bits", [10, 12])
def test_raw_values_in_16_bits_have_low_contrast(bits: int) -> None:
    assert decode(raw(bits), LIMITS).has_low_contrast
    assert not decode(PNG, LIMITS).has_low_contrast


@pytest.mark.parametrize("path", pictures.REAL_IMAGES, ids=lambda path: path.name)
def test_no_real_image_has_low_contrast_and_its_raw_values_have(path: Path) -> None:
    assert not decode(path.read_bytes(), LIMITS).has_low_contrast
    with Image.open(path) as image:
        grey = np.asarray(image.convert("L")).astype(np.uint16)
    assert decode(pictures.png(Image.fromarray(grey * 16)), LIMITS).has_low_contrast


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_the_observed_range_makes_raw_values_what_they_show(bits: int) -> None:
    found = decode(raw(bits), DecodeLimits(deep_range="observed"))
    stretched = (GREY - float(GREY.min())) * 65535 / (int(GREY.max()) - int(GREY.min()))
    full = pixels(pictures.png(Image.fromarray(stretched.round().astype(np.uint16))))
    assert mean_difference(found.pixels, full) < 0.05
    assert (found.pixels.min(), found.pixels.max()) >= (-1024, -1024)
    assert not found.has_low_contrast


def test_the_observed_range_is_for_deep_pictures_alone_and_blank_stays_blank() -> None:
    observed = DecodeLimits(deep_range="observed")
    assert np.array_equal(decode(PNG, observed).pixels, pixels(PNG))
    for value in (0, 700, 65535):
        one = Image.fromarray(np.full((100, 100), value, np.uint16))
        assert refusal(pictures.png(one), observed).code == "blank"


def test_people_see_the_grey_values_of_the_network() -> None:
    for limits, lightest in ((LIMITS, 15), (DecodeLimits(deep_range="observed"), 255)):
        assert decode_for_display(raw(12), limits).getextrema()[1] == pytest.approx(lightest, abs=1)


def test_of_a_colour_picture_the_red_channel_counts_as_in_the_library(xrv: ModuleType) -> None:
    colour = np.stack([GREY, 255 - GREY, GREY // 2], axis=2)
    data = pictures.png(Image.fromarray(colour))
    assert mean_difference(pixels(data), library_pixels(xrv, colour, 255)) < 0.01


@pytest.mark.parametrize(("name", "data"), pictures.lossless(GREY).items())
def test_the_same_picture_in_every_png_gives_the_same_pixels(name: str, data: bytes) -> None:
    assert mean_difference(pixels(data), pixels(PNG)) < 0.01, name


@pytest.mark.parametrize(("name", "data"), pictures.lossy(GREY).items())
def test_the_same_picture_in_every_jpeg_gives_nearly_the_same_pixels(
    name: str, data: bytes
) -> None:
    assert mean_difference(pixels(data), pixels(PNG)) < 8, name


def test_a_1_bit_picture_is_black_and_white() -> None:
    bits = Image.fromarray(GREY).convert("1")
    assert mean_difference(pixels(pictures.png(bits)), pixels(pictures.png(bits.convert("L")))) == 0


@pytest.mark.parametrize("bits", [2, 4])
def test_few_bits_are_scaled_by_their_maximum(bits: int) -> None:
    levels = 2**bits
    stored = (GREY[:, : 300 // 8 * 8] >> (8 - bits)).astype(np.uint8)
    planes = np.unpackbits(stored[..., None], axis=2)[..., -bits:].reshape(len(stored), -1)
    rows = b"".join(b"\x00" + row.tobytes() for row in np.packbits(planes, axis=1))
    data = pictures.raw_png(stored.shape[1], stored.shape[0], bits, 0, rows)
    same = (stored.astype(int) * 255 // (levels - 1)).astype(np.uint8)
    assert mean_difference(pixels(data), pixels(pictures.png(Image.fromarray(same)))) < 0.01


def test_a_transparent_grey_value_is_black() -> None:
    image = Image.fromarray(np.where(GREY > 150, 255, GREY))
    black = Image.fromarray(np.where(GREY > 150, 0, GREY))
    expected = pixels(pictures.png(black))
    deep = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    deep_data = pictures.with_chunks(pictures.png(deep), pictures.chunk(b"tRNS", b"\xff\xff"))
    assert mean_difference(pixels(pictures.png(image, transparency=255)), expected) < 0.01
    assert mean_difference(pixels(deep_data), expected) < 0.01


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(300, 250), (301, 250), (250, 301)])
def test_every_exif_orientation_shows_the_same_picture(
    orientation: int, size: tuple[int, int]
) -> None:
    grey = pictures.chest(*size)
    upright = decode(pictures.png(Image.fromarray(grey)), LIMITS)
    for as_jpeg, tolerance in ((False, 0.001), (True, 8.0)):
        shown = decode(pictures.turned(grey, orientation, as_jpeg=as_jpeg), LIMITS)
        assert (shown.width, shown.height) == size
        assert mean_difference(shown.pixels, upright.pixels) < tolerance


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_turned_picture_that_is_decoded_smaller_is_cropped_at_the_same_place(
    orientation: int,
) -> None:
    grey = pictures.chest(1801, 2000)
    upright = pixels(pictures.turned(grey, 1, as_jpeg=True))
    shown = pixels(pictures.turned(grey, orientation, as_jpeg=True))
    assert mean_difference(shown, upright) < 2.5


@pytest.mark.parametrize("exif", [b"Exif\x00\x00garbage", b"Exif\x00\x00MM\x00*\xff\xff\xff\xff"])
def test_damaged_metadata_does_not_cost_the_picture(exif: bytes) -> None:
    data = pictures.jpeg(Image.fromarray(GREY), exif=exif)
    assert mean_difference(pixels(data), pixels(JPEG)) == 0


# ---------------------------------------------------------------- only whole pictures


@pytest.mark.parametrize("beginning", CODED, ids=CODED)
@pytest.mark.parametrize("rest", ["nothing", "zeros", "garbage"])
@pytest.mark.parametrize("has_end", [False, True], ids=["without end", "with an end"])
def test_no_part_of_a_picture_is_accepted_at_any_percent_of_its_length(
    beginning: str, rest: str, *, has_end: bool
) -> None:
    whole, rng = CODED[beginning], random.Random(3)
    end = whole[-2:] if whole.startswith(b"\xff\xd8") else whole[-12:]
    for percent in range(1, 100):
        kept = len(whole) * percent // 100
        length = len(whole) - kept
        filling = {"nothing": b"", "zeros": bytes(length), "garbage": rng.randbytes(length)}[rest]
        refusal(whole[:kept] + filling + (end if has_end else b""))


@pytest.mark.parametrize("name", [name for name in CODED if name.startswith("jpeg")])
def test_a_whole_jpeg_may_have_a_few_bytes_of_padding_before_its_end(name: str) -> None:
    whole = CODED[name]
    assert mean_difference(pixels(whole[:-2] + bytes(3) + whole[-2:]), pixels(whole)) == 0


@BOTH
def test_a_truncated_picture_is_never_accepted(whole: bytes) -> None:
    lengths = {1, 2, 5, 20, len(whole) - 1, len(whole) - 2, len(whole) - 12, len(whole) - 13}
    for length in lengths | set(range(30, len(whole), 997)):
        assert refusal(whole[:length]).code == "incomplete"
        assert completeness(whole[: min(16, length)], whole[:length][-TAIL_BYTES:]) == "unfinished"


@BOTH
def test_a_tail_of_zeros_is_never_accepted(whole: bytes) -> None:
    for length in range(0, len(whole) - 1, 997):
        part = whole[:length] + bytes(len(whole) - length)
        assert refusal(part).code == "incomplete"
        assert completeness(part[:16], part[-TAIL_BYTES:]) == "unfinished"


@BOTH
def test_a_tail_of_garbage_is_never_accepted(whole: bytes) -> None:
    rng = random.Random(11)
    for length in range(16, len(whole) - 1, 499):
        refusal(whole[:length] + rng.randbytes(len(whole) - length))


def test_a_flipped_bit_in_a_png_is_never_accepted() -> None:
    rng = random.Random(5)
    for position in [*range(60), *rng.sample(range(60, len(PNG)), 200), len(PNG) - 1]:
        damaged = bytearray(PNG)
        damaged[position] ^= 1 << rng.randrange(8)
        refusal(bytes(damaged))


def test_a_png_whose_pixels_end_early_is_refused_though_its_checksums_hold() -> None:
    rows = b"".join(b"\x00" + GREY[:1, :100].tobytes() for _ in range(99))
    assert refusal(pictures.raw_png(100, 100, 8, 0, rows)).code == "corrupt"
    assert refusal(pictures.raw_png(100, 100, 8, 0, b"\x00" * 101 * 50)).code == "corrupt"


@pytest.mark.parametrize("size", [(100, 80), (65, 64), (67, 129)])
@pytest.mark.parametrize("mode", ["1", "L", "I;16", "RGB", "RGBA", "LA", "P"])
def test_a_png_with_a_black_last_row_is_whole(mode: str, size: tuple[int, int]) -> None:
    grey = pictures.chest(*size)
    grey[-1] = 0
    image = Image.fromarray(grey)
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    decode(pictures.png(image if mode == "I;16" else image.convert(mode)), LIMITS)


def test_an_interlaced_png_is_decoded_and_refused_when_a_pass_is_missing() -> None:
    rng = np.random.default_rng(3)
    passes = [
        rng.integers(1, 255, (-(-(70 - y) // dy), 1 + -(-(90 - x) // dx))).astype(np.uint8)
        for x, y, dx, dy in ADAM7
    ]
    for part in passes:
        part[:, 0] = 0
    whole = pictures.raw_png(90, 70, 8, 0, b"".join(p.tobytes() for p in passes), interlaced=True)
    assert decode(whole, LIMITS).width == 90
    cut = pictures.raw_png(
        90, 70, 8, 0, b"".join(p.tobytes() for p in passes[:-1]), interlaced=True
    )
    assert refusal(cut).code == "corrupt"


@BOTH
def test_zero_padding_after_the_end_is_allowed(whole: bytes) -> None:
    padded = whole + bytes(4096)
    assert mean_difference(pixels(padded), pixels(whole)) == 0
    assert completeness(padded[:16], padded[-TAIL_BYTES:]) == "whole"


@BOTH
@pytest.mark.parametrize(
    "padding", [b"\n", b"\r\n", b"\xff" * 16, b"\x00\xff\n", b"\n" + bytes(4096)], ids=repr
)
def test_a_few_bytes_that_hold_nothing_may_follow(whole: bytes, padding: bytes) -> None:
    assert mean_difference(pixels(whole + padding), pixels(whole)) == 0
    assert completeness(whole[:16], (whole + padding)[-TAIL_BYTES:]) == "whole"


@BOTH
def test_more_of_them_and_one_byte_of_another_kind_are_foreign(whole: bytes) -> None:
    assert "17 bytes" in refusal(whole + b"\xff" * 17).detail
    assert "There is 1 byte of" in refusal(whole + b"\x14").detail


@BOTH
def test_foreign_data_after_the_end_is_refused(whole: bytes) -> None:
    for tail in (b"<script>", bytes(50) + b"x", bytes(50) + b"\n", whole):
        assert refusal(whole + tail).code == "trailing_data"


def test_a_thumbnail_is_not_taken_for_the_end_of_its_picture() -> None:
    thumbnail = pictures.jpeg(Image.fromarray(pictures.chest(80, 80)))
    data = pictures.jpeg(Image.fromarray(GREY), exif=b"Exif\x00\x00" + thumbnail)
    assert mean_difference(pixels(data), pixels(JPEG)) == 0
    cut = data[: data.index(thumbnail) + len(thumbnail)]
    assert refusal(cut).code in ("incomplete", "corrupt")


@pytest.mark.parametrize("head", [b"", bytes(16), b"\xff", b"\xff\xd8", b"\x89PNG\r\n"])
def test_a_head_that_is_still_to_come_is_unfinished(head: bytes) -> None:
    assert completeness(head, head) == "unfinished"


@pytest.mark.parametrize(("name", "data"), pictures.foreign().items())
def test_another_format_is_foreign_and_refused_whatever_its_name(name: str, data: bytes) -> None:
    assert refusal(data).code == ("incomplete" if name == "DICOM" else "wrong_format")
    foreign = "unfinished" if name == "DICOM" else "foreign"
    assert completeness(data[:16], data[-TAIL_BYTES:]) == foreign


@BOTH
def test_a_whole_picture_is_whole(whole: bytes) -> None:
    assert completeness(whole[:16], whole[-TAIL_BYTES:]) == "whole"


# ---------------------------------------------------------------- limits


def test_an_empty_file_says_so() -> None:
    assert refusal(b"").code == "empty"


def test_a_png_that_was_sent_as_text_says_so() -> None:
    for sent in (
        PNG.replace(b"\r\n", b"\n"),
        PNG.replace(b"\n", b"\r\n"),
        bytes(byte & 127 for byte in PNG),
    ):
        error = refusal(sent)
        assert error.code == "wrong_format"
        assert "as text" in error.detail


def test_a_picture_that_is_too_large_is_told_the_limit_in_force() -> None:
    for limit, said in ((50.0, "50 million"), (20.0, "20 million"), (89.0, "89")):
        error = refusal(
            pictures.raw_png(11_000, 11_000, 8, 0, b"\x00"), DecodeLimits(max_megapixels=limit)
        )
        assert error.code == "too_large"
        assert said in error.detail


def test_a_file_over_its_limit_is_refused_with_the_figure() -> None:
    error = refusal(PNG, DecodeLimits(max_bytes=1000))
    assert error.code == "too_large"
    assert "1000" in error.detail


@pytest.mark.parametrize("side", [9_000, 13_000, 19_000, 30_000, 65_500])
def test_a_bomb_of_a_png_is_refused_at_once(side: int) -> None:
    bomb = pictures.raw_png(side, side, 8, 0, b"\x00")
    started = time.process_time()
    assert refusal(bomb).code == "too_large"
    assert time.process_time() - started < 1


def test_a_bomb_of_a_jpeg_is_refused_at_once() -> None:
    at = JPEG.index(b"\xff\xc0")
    bomb = JPEG[: at + 5] + (65_500).to_bytes(2, "big") * 2 + JPEG[at + 9 :]
    assert refusal(bomb).code == "too_large"


def test_a_bomb_of_a_compressed_text_does_no_harm() -> None:
    text = pictures.with_chunks(
        PNG, pictures.chunk(b"zTXt", b"Comment\x00\x00" + pictures.zlib.compress(bytes(10**8), 9))
    )
    with contextlib.suppress(UnreadableImage):
        assert mean_difference(pixels(text), pixels(PNG)) == 0


def test_a_flood_of_metadata_is_read_in_time() -> None:
    flood = pictures.with_chunks(PNG, pictures.chunk(b"tEXt", b"a\x00bcdefghij") * 200_000)
    started = time.process_time()
    with contextlib.suppress(UnreadableImage):
        assert mean_difference(pixels(flood), pixels(PNG)) == 0
    assert time.process_time() - started < 8


@pytest.mark.parametrize("size", [(1, 1), (63, 200), (200, 63)])
def test_a_tiny_picture_is_refused_with_its_size(size: tuple[int, int]) -> None:
    error = refusal(pictures.png(Image.new("L", size)))
    assert error.code == "too_small"
    assert f"{size[0]} x {size[1]}" in error.detail


def test_a_picture_that_is_too_wide_is_refused() -> None:
    assert refusal(pictures.png(Image.new("L", (12_001, 64)))).code == "too_large"


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "LA", "P", "I;16"])
def test_a_picture_of_one_value_is_blank(mode: str) -> None:
    assert refusal(pictures.png(Image.new(mode, (100, 100)))).code == "blank"


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_that_is_zero_everywhere_is_no_alpha(mode: str) -> None:
    """A byte that its writer left unset, as in pictures of 32 bits without alpha."""
    image = Image.fromarray(GREY)
    unset = image.convert(mode)
    unset.putalpha(0)
    assert np.array_equal(pixels(pictures.png(unset)), pixels(PNG))


def test_blank_is_said_of_what_is_scored_alone() -> None:
    black = Image.new("L", (300, 250))
    sides = np.zeros((250, 900), np.uint8)
    sides[:, :300] = sides[:, 600:] = GREY
    for image in (
        Image.merge("RGB", (black, Image.fromarray(GREY), Image.fromarray(GREY))),
        Image.fromarray(sides),
    ):
        error = refusal(pictures.png(image))
        assert error.code == "blank"
        assert "centre square" in error.detail
        assert "red" in error.detail


def test_a_jpeg_of_one_value_is_blank() -> None:
    assert refusal(pictures.jpeg(Image.new("L", (100, 100), 255))).code == "blank"


@pytest.mark.parametrize("kind", ["PNG", "MPO"])
def test_a_file_of_several_pictures_is_refused(kind: str) -> None:
    buffer = io.BytesIO()
    first, second = Image.fromarray(GREY), Image.fromarray(255 - GREY)
    if kind == "MPO":
        first, second = first.convert("RGB"), second.convert("RGB")
    first.save(buffer, format=kind, save_all=True, append_images=[second])
    error = refusal(buffer.getvalue())
    assert error.code == "multiple_frames"
    assert "2 pictures" in error.detail


def test_a_jpeg_with_12_bits_is_refused_in_words() -> None:
    at = JPEG.index(b"\xff\xc0")
    deep = JPEG[: at + 4] + b"\x0c" + JPEG[at + 5 :]
    error = refusal(deep)
    assert error.code == "corrupt"
    assert "12 bits" in error.detail


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("scale", [1, 2, 4, 8])
@pytest.mark.parametrize(
    "saved",
    [
        {"quality": 95},
        {"quality": 60, "progressive": True},
        {"quality": 80, "subsampling": 0},
        {"quality": 80, "restart_marker_rows": 2},
    ],
    ids=["plain", "progressive", "not subsampled", "restarts"],
)
def test_a_jpeg_has_the_same_pixels_by_either_decoder(
    mode: str, scale: int, saved: dict[str, int]
) -> None:
    content = np.random.default_rng(1).integers(0, 256, (61, 83, 3), np.uint8)
    whole = Image.fromarray(content).resize((997, 731)).convert(mode)
    file = io.BytesIO()
    whole.save(file, "JPEG", **saved)
    with Image.open(file) as image:
        image.draft(None, (997 // scale, 731 // scale))
        width, height = image.size
        expected = np.asarray(image.getchannel(0))
    found = first_channel(file.getvalue(), mode, width, height)
    assert height == math.ceil(731 / scale)
    assert found is not None
    assert np.array_equal(found, expected)


def test_memory_that_runs_out_is_a_limit_of_the_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "empty", exhausted)
    monkeypatch.setattr(Image.Image, "load", exhausted)
    assert refusal(PNG).code == "decoder_limit"
    monkeypatch.setattr(simplejpeg, "decode_jpeg", exhausted)
    assert refusal(JPEG).code == "decoder_limit"


def test_nothing_but_unreadable_image_leaves_and_nothing_of_the_file_is_quoted() -> None:
    secret = b"PATIENTNAME"
    rng = random.Random(3)
    for base in (with_secret for with_secret in (JPEG + secret, PNG[:60] + secret + PNG[60:])):
        for _ in range(150):
            damaged = bytearray(base)
            for _ in range(rng.randrange(1, 30)):
                damaged[rng.randrange(3, len(damaged))] = rng.randrange(256)
            assert secret.decode() not in refusal(bytes(damaged)).detail


@settings(max_examples=150)
@given(position=st.integers(3, len(JPEG) - 1), garbage=st.binary(min_size=1, max_size=40))
def test_a_damaged_jpeg_gives_finite_pixels_or_a_reason(position: int, garbage: bytes) -> None:
    damaged = JPEG[:position] + garbage + JPEG[position + len(garbage) :]
    found: DecodedImage | UnreadableImage = decoded_or_refused(damaged)
    if isinstance(found, UnreadableImage):
        assert found.code in REJECTIONS
    else:
        assert math.isfinite(float(found.pixels.sum()))


def test_the_warnings_filters_are_left_as_they_were() -> None:
    before = list(warnings.filters)
    pixels(PNG)
    assert list(warnings.filters) == before
