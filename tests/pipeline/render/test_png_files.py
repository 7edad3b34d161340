"""Pictures out, with what they were drawn with."""

import numpy as np
import pytest
from PIL import Image

from pipeline.disk import records
from pipeline.render.png_files import is_whole_png, png_settings, write_png


def test_settings_travel_in_the_picture(tmp_path):
    picture = np.random.default_rng(3).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    settings = {"method": "grad_cam", "place": "Gebäude 3", "alpha": 0.5, "settings": '{"a": [1]}'}
    write_png(tmp_path / "deep" / "a.png", picture, settings)
    assert png_settings(tmp_path / "deep" / "a.png") == {key: str(value) for key, value in settings.items()}
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "deep" / "a.png")), picture)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.png"]


def test_a_picture_that_is_not_there_or_damaged_has_no_settings(tmp_path):
    assert png_settings(tmp_path / "a.png") == {}
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n")
    assert png_settings(tmp_path / "a.png") == {}


def test_a_kill_while_writing_leaves_the_old_picture(tmp_path, monkeypatch):
    old, new = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 9, np.uint8)
    write_png(tmp_path / "a.png", old, {"stamp": "old"})

    def killed(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(records.os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        write_png(tmp_path / "a.png", new, {"stamp": "new"})
    assert png_settings(tmp_path / "a.png") == {"stamp": "old"}


def test_a_picture_that_something_follows_is_damaged(tmp_path):
    write_png(tmp_path / "a.png", np.zeros((2, 2, 3), np.uint8), {"stamp": "a"})
    content = (tmp_path / "a.png").read_bytes()
    assert is_whole_png(content)
    assert not is_whole_png(content + b"x")
    assert not is_whole_png(content[:-1])
