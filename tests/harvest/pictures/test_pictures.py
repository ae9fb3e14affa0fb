"""Pictures of the rows' own, as files of every kind come: what a plan sees of them, and what a teacher is sent."""

import os
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harvest.pictures import look, open_rgb, prepare
from shared.errors import DataError
from shared.example import RowPicture
from tests.harvest.pictures.hostile_pictures import CONVERTED, REFUSED, make_plain, save


@pytest.mark.parametrize("name", CONVERTED)
def test_a_picture_of_any_kind_is_shown_upright_in_8_bits_and_it_is_said_what_was_done(
    name: str, tmp_path: Path
) -> None:
    make, said, size, corner = CONVERTED[name]
    original = make()
    (tmp_path / name).write_bytes(original)
    picture = RowPicture(str(tmp_path / name))
    shown, seen = prepare(picture), look(picture)
    assert (shown.sha256, shown.original) == (sha256(original).hexdigest(), original)
    assert (seen.sha256, (seen.width, seen.height)) == (shown.sha256, size)
    assert said in "; ".join(shown.changes)
    assert (shown.content == original) == (not said)
    with Image.open(BytesIO(shown.content)) as sent:
        assert (sent.format in ("PNG", "JPEG"), sent.size, getattr(sent, "n_frames", 1)) == (True, size, 1)
        assert sent.mode in ("RGB", "L")
        assert sent.getexif().get(0x0112, 1) == 1
    pixel = np.asarray(open_rgb(shown.content))[0, 0].astype(int)
    assert np.abs(pixel - corner).max() <= 6  # a JPEG's
    assert prepare(RowPicture("", original)).content == shown.content  # of bytes in the data, the same


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_no_picture_is_refused_by_name(name: str, tmp_path: Path) -> None:
    make, said = REFUSED[name]
    (tmp_path / name).write_bytes(make())
    with pytest.raises(DataError, match=said) as caught:
        prepare(RowPicture(str(tmp_path / name)))
    assert name in str(caught.value)


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for place, said in (
        (tmp_path / "pipe.png", "no file"),
        (tmp_path, "no file"),
        (tmp_path / "missing.png", "there is no picture"),
        ("file:///etc/passwd", "no path and no http"),
        ("ftp://host/a.png", "no path and no http"),
        ("s3://bucket/a.png", "no path and no http"),
        ("\0.png", "cannot be read"),
    ):
        with pytest.raises(DataError, match=said):
            look(RowPicture(str(place)))


def test_a_larger_picture_is_made_smaller_only_where_a_longest_side_is_given() -> None:
    picture = RowPicture("", save(make_plain((600, 200)), "PNG"))
    assert prepare(picture, 600).content == picture.content
    shown = prepare(picture, 300)
    assert (shown.width, shown.height) == open_rgb(shown.content).size == (300, 100)
    assert "300 pixels" in shown.changes[0]


def test_a_look_follows_a_file_that_changes(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(save(make_plain(), "PNG"))
    first = look(RowPicture(str(path)))
    path.write_bytes(save(make_plain((8, 8)), "PNG"))
    assert look(RowPicture(str(path))) != first
