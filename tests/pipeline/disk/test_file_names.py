"""File names of what users name: unlike, short, and fit for every file system."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.disk.file_names import LONGEST, file_name
from pipeline.render.catalogue import Picture
from pipeline.settings.all import load_settings
from stages.targets.names import NO_TARGET

WORD = st.one_of(
    st.text(min_size=1, max_size=300),
    st.text(alphabet="ab-_./~AB ", min_size=1, max_size=6),
    st.sampled_from(["con", "aux.x", "CON", "a.", ".", "..", ".a", "a~b", "-", "\ud800", "\N{LATIN SMALL LETTER SHARP S}", "ss", "x" * 300]),
)
WORDS = st.lists(WORD, min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["0003", "grad_cam", "match"], "0003-grad_cam-match"),
        (["0003", "l2_norm"], "0003-l2_norm"),
        (["0003", "eigen_grad_cam", "best_contrast.part_1.softmax"], "0003-eigen_grad_cam-best_contrast.part_1.softmax"),
        (["net_000"], "net_000"),
        (["a-net_119"], "a-net_119"),
        (["net_000", "net_002"], "net_000-net_002"),
    ],
)
def test_plain_words_stay_as_they_are(words, name):
    assert file_name(words) == name


def test_other_words_can_still_be_read():
    assert file_name(["drone/0003/image-01", "max"]).startswith("drone_0003_image_01~")
    assert file_name(["Eiffel Tower"]).startswith("eiffel_tower~")


@given(WORDS, WORDS)
@example(["a-b", "c"], ["a", "b-c"])
@example(["a/b"], ["a_b"])
@example(["net_A"], ["net_a"])
@example(["a", "b"], ["a-b", "c"])
def test_unlike_words_have_unlike_names(one, other):
    if (len(one) == 1) == (len(other) == 1):  # names of one word and of several never lie in one folder
        assert (file_name(one).casefold() == file_name(other).casefold()) == (one == other)


@given(WORDS)
def test_a_name_is_fit_for_every_file_system(words):
    name = file_name(words)
    assert len(name.encode("ascii")) <= LONGEST and name == name.lower()
    assert not set(name) & set('/\\:*?"<>| ')
    assert not name.endswith(".") and not name.startswith((".", "-"))
    assert name.split(".")[0] not in {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}


PICTURE = st.builds(
    lambda kind, place, image, target, names: Picture(
        kind, place, "grad_cam", target, tuple(names[: 2 if kind == "change" else 1]), (), pd.DataFrame({"id": [image]}, dtype=object)
    ),
    st.sampled_from(["positions", "methods", "change"]),
    WORD,
    WORD,
    st.one_of(st.just(NO_TARGET), WORD),
    st.lists(WORD, min_size=2, max_size=2),
)


@given(PICTURE, PICTURE)
def test_unlike_pictures_have_unlike_files(one, other):
    same = one == other and (one.kind != "methods" or one.images.equals(other.images))
    assert (str(one.path).casefold() == str(other.path).casefold()) == same
    assert all(len(part.encode()) <= 120 for part in Path(one.path).parts)


def test_a_target_that_no_folder_can_be_called_is_refused_before_anything_runs():
    load_settings(None, [f"cam.targets=['class_{'x' * 240}']"])
    chinese = "\N{CJK UNIFIED IDEOGRAPH-5929}"
    load_settings(None, [f"cam.targets=['class_{chinese * 27}']"])
    with pytest.raises(ValueError, match=r"cam\.targets: 'class_.{34}'\.\.\. makes a folder name of 1086 bytes, .* allow 255 .*shorter name"):
        load_settings(None, [f"cam.targets=['class_{chinese * 120}']"])
