"""Images are stored as they are, or turned as their EXIF says, in every format."""

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, TiffImagePlugin

from spectral_shards.preprocess.inspection.fidelity import fidelity
from spectral_shards.preprocess.pipeline import orientation, pil_decode
from spectral_shards.preprocess.pipeline.decode import Decoder
from support.image_files import (
    CARRIERS,
    TALL,
    exif,
    saved,
    stored,
    tiff,
)
from support.pictures import class_folders, picture
from support.programs import fails, program
from support.splits import tree


@pytest.mark.parametrize("way", range(1, 9))
@pytest.mark.parametrize("form", CARRIERS)
def test_one_rule_of_orientation_for_all_formats(form: str, way: int) -> None:
    data = CARRIERS[form](way)
    plain = stored(CARRIERS[form](1))
    with Image.open(io.BytesIO(CARRIERS[form](1))) as image:
        expected = pil_decode.read(data)[0]
        assert expected.size == image.size == (44, 30)
    assert np.array_equal(stored(data), plain)
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image)  # of a TIFF, PIL does that while loading it
        wanted = np.asarray(upright) if upright.mode == "RGB" else None
    turned = stored(data, upright=True)
    again = ImageOps.exif_transpose(_with(Image.fromarray(plain), way))
    assert np.array_equal(turned, np.asarray(again))
    assert wanted is None or np.array_equal(turned, wanted)
    assert turned.shape[:2] == ((44, 30) if way >= 5 else (30, 44))
    assert pil_decode.read(data)[1] == pil_decode.read(data, upright=True)[1] == way


def _with(image: Image.Image, way: int) -> Image.Image:
    image.getexif()[0x0112] = way
    return image


@pytest.mark.parametrize("applies", [True, False])
@pytest.mark.parametrize("way", range(1, 9))
def test_a_tiff_is_the_same_whether_pil_turns_it_or_not(
    way: int, applies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not applies:
        monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "load_end", lambda _: None)
    data = tiff(TALL, 2, t274=way)
    assert np.array_equal(stored(data), TALL)
    wanted = np.asarray(ImageOps.exif_transpose(_with(Image.fromarray(TALL), way)))
    assert np.array_equal(stored(data, upright=True), wanted)


def test_pil_turns_a_tiff_while_loading_it() -> None:
    """What is undone: should a version of PIL stop doing it, orientation.load can be simpler."""
    with Image.open(io.BytesIO(tiff(TALL, 2, t274=6))) as image:
        image.load()
        assert image.size == (30, 44)
        assert orientation.orientation(image) == 1


@pytest.mark.parametrize("fit", ["squash", "crop"])
@pytest.mark.parametrize("way", range(1, 9))
def test_jpegs_that_are_scaled_while_decoding_are_turned_too(way: int, fit: str) -> None:
    """The last column of 333 is half a pixel at half the size: it must not become a whole first one."""
    large = picture(4, 251, 333)
    data = saved(Image.fromarray(large), "JPEG", quality=95, exif=exif(way))
    upright = ImageOps.exif_transpose(_with(Image.fromarray(large), way))
    edge = min(upright.size)
    left, top = (upright.width - edge) / 2, (upright.height - edge) / 2
    box = (left, top, left + edge, top + edge) if fit == "crop" else None
    wanted = np.asarray(upright.resize((48, 48), Image.Resampling.BILINEAR, box)).astype(float)
    decoder = Decoder(48, fit, 2, upright=True)
    error = np.mean((decoder(data)[..., :3] - wanted) ** 2)
    assert 10 * np.log10(255**2 / error) > 40
    assert decoder.turned == (way != 1)
    still = Decoder(48, fit, 2)
    plain = still(saved(Image.fromarray(large), "JPEG", quality=95)).copy()
    assert still.turned == 0
    assert np.array_equal(still(data), plain)
    assert still.turned == (way != 1)


def test_exif_that_says_nothing() -> None:
    bad = (b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12")
    decoder = Decoder(24, "squash", 2, upright=True)
    plain = decoder(saved(Image.fromarray(TALL), "JPEG")).copy()
    for block in (*bad, exif(0), exif(9), exif(65535)):
        assert np.array_equal(decoder(saved(Image.fromarray(TALL), "JPEG", exif=block)), plain)
        assert len(stored(saved(Image.fromarray(TALL), "PNG", exif=block), upright=True)) == 30
    assert decoder.turned == 0
    assert np.array_equal(stored(tiff(TALL, 2, t274=9), upright=True), TALL)


def test_exif_is_found_behind_other_segments() -> None:
    made = saved(Image.fromarray(TALL), "JPEG", exif=exif(6))
    place = made.index(b"\xff\xe1")
    comment = b"\xff\xfe" + struct.pack(">H", 60_002) + bytes(60_000)
    for data in (made, made[:place] + 3 * comment + made[place:], made[:2] + b"\xff\xff" + made[2:]):
        assert orientation.of_jpeg(data) == 6
    assert orientation.of_jpeg(saved(Image.fromarray(TALL), "JPEG", comment=b"Exif\0\0 tiff:Orientation 6")) == 1
    assert orientation.of_jpeg(made[:20]) == 1
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="8"/></x:xmpmeta>'
    data = saved(Image.fromarray(TALL), "JPEG", xmp=xmp)
    with Image.open(io.BytesIO(data)) as image:
        assert orientation.of_jpeg(data) == image.getexif().get(0x0112, 1)


def test_the_option_of_the_split(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "set", {"a": 4, "b": 4})
    for number, form in enumerate(("JPEG", "PNG", "TIFF")):
        (source / "a" / f"turned.{form}").write_bytes(CARRIERS[form](6 + number))
    command = ("spectral-prep", "split", "--factor", "4", "--size", "24", "--val-per-class", "0", source, "--out")
    done = program(*command, tmp_path / "as-stored")
    assert done.returncode == 0, done.stderr
    assert "3 images have an EXIF orientation, which was ignored; --orientation exif applies it" in done.stdout
    turned = program(*command, tmp_path / "turned", "--orientation", "exif")
    assert turned.returncode == 0, turned.stderr
    assert "3 images have an EXIF orientation, which was applied" in turned.stdout
    assert tree(tmp_path / "turned") != tree(tmp_path / "as-stored")
    for name in ("as-stored", "turned"):
        found = fidelity(tmp_path / name, source, 100)
        assert (len(found.psnr), found.bad) == (11, ())
        assert found.psnr.min() > 30
    plan = json.loads((tmp_path / "as-stored" / "rows" / "plan.json").read_text())["plan"]
    assert "orientation" not in plan
    again = program(*command, tmp_path / "as-stored", "--orientation", "stored")
    assert "nothing to do" in again.stdout
    assert "3 images have an EXIF orientation" in again.stdout
    assert "(orientation stored there, exif here)" in fails(*command, tmp_path / "as-stored", "--orientation", "exif")
    assert "(orientation exif there, stored here)" in fails(*command, tmp_path / "turned")
    wrong = fails(*command, tmp_path / "x", "--orientation", "up")
    assert "'--orientation': 'up' is not one of 'stored', 'exif'" in wrong
    (source / "a" / "turned.PNG").unlink()
    (source / "a" / "turned.TIFF").unlink()
    assert "1 image has an EXIF orientation" in program(*command, tmp_path / "one").stdout
    (source / "a" / "turned.JPEG").unlink()
    assert "orientation" not in program(*command, tmp_path / "none").stdout
