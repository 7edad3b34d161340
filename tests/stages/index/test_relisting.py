"""Samples keep their numbers and ids when the dataset is listed again, whatever became of their files."""

from pathlib import PurePosixPath

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.index.layouts import ImageFile
from stages.index.manifest import MANIFEST_COLUMNS, ImageHeader, merge_duplicates
from stages.index.relisting import keep_known

BEFORE, NOW = "2020-01-01T00:00:00+00:00", "2026-01-01T00:00:00+00:00"
Files = dict[tuple[str, str], tuple[str, str]]  # (place, file name) -> (digest, problem)


def listed(files: Files, view: str = "drone") -> pd.DataFrame:
    """The manifest of photos, as `atlas index` lists them."""
    paths = {f"train/{view}/{place}/{name}": (place, found) for (place, name), found in files.items()}
    images = [ImageFile(path, view, place, "train", "train") for path, (place, _) in paths.items()]
    return merge_duplicates(images, {path: ImageHeader(digest, 48, 48, problem) for path, (_, (digest, problem)) in paths.items()})


def good(**names: str) -> Files:
    """Photos of place 0000: name -> digest."""
    return {("0000", f"{name}.jpg"): (digest, "") for name, digest in names.items()}


def first(files: Files) -> pd.DataFrame:
    """A manifest as it is stored after the first listing."""
    found = listed(files)
    return keep_known(found[:0], found, BEFORE).table


def ids(table: pd.DataFrame) -> list[str]:
    return table["id"].tolist()


# ---- what is the same


def test_without_a_former_manifest_all_are_new_in_their_order():
    found = listed(good(b="22", a="11"))
    relisted = keep_known(found[:0], found, NOW)
    assert ids(relisted.table) == ["drone/0000/a", "drone/0000/b"]
    assert (relisted.new, relisted.gone, relisted.changed) == (2, [], [])
    pd.testing.assert_frame_equal(relisted.table, found)


def test_an_unchanged_dataset_is_the_same_manifest():
    known = first(good(a="11", b="22"))
    relisted = keep_known(known, listed(good(a="11", b="22")), NOW)
    pd.testing.assert_frame_equal(relisted.table, known)
    assert (relisted.new, relisted.gone, relisted.changed) == (0, [], [])


def test_the_attributes_are_those_of_the_new_listing():
    known, found = first(good(a="11")), listed(good(a="11"))
    known.attrs, found.attrs = {"root": "/old"}, {"root": "/new"}
    relisted = keep_known(known, found, NOW)
    assert relisted.table.attrs == {"root": "/new"}
    relisted.table.attrs["root"] = "other"
    assert found.attrs == {"root": "/new"}, "the argument was written into"


def test_new_images_join_at_the_end_though_their_names_sort_first():
    relisted = keep_known(first(good(b="22", d="44")), listed(good(a="11", b="22", c="33", d="44")), NOW)
    assert ids(relisted.table) == [f"drone/0000/{name}" for name in "bdac"]
    assert relisted.table["sample"].tolist() == [0, 1, 2, 3]
    assert (relisted.new, relisted.gone, relisted.changed) == (2, [], [])


def test_a_renamed_file_keeps_number_and_id_under_its_new_path():
    relisted = keep_known(first(good(a="11", b="22")), listed(good(z="11", b="22")), NOW)
    assert ids(relisted.table) == ["drone/0000/a", "drone/0000/b"]
    assert relisted.table["path"].tolist() == ["train/drone/0000/z.jpg", "train/drone/0000/b.jpg"]
    assert (relisted.new, relisted.gone, relisted.changed) == (0, [], [])


def test_two_files_that_swap_names_are_known_by_their_content():
    relisted = keep_known(first(good(a="11", b="22")), listed(good(a="22", b="11")), NOW)
    assert relisted.table["digest"].tolist() == ["11", "22"]
    assert ids(relisted.table) == ["drone/0000/a", "drone/0000/b"]
    assert relisted.table["path"].tolist() == ["train/drone/0000/b.jpg", "train/drone/0000/a.jpg"]
    assert relisted.changed == []


def test_a_changed_file_keeps_its_place_and_is_told():
    relisted = keep_known(first(good(a="11", b="22")), listed(good(a="99", b="22")), NOW)
    assert ids(relisted.table) == ["drone/0000/a", "drone/0000/b"]
    assert relisted.table["digest"].tolist() == ["99", "22"]
    assert (relisted.new, relisted.gone, relisted.changed) == (0, [], ["drone/0000/a"])


def test_a_gone_file_is_told_and_those_after_it_move_up():
    relisted = keep_known(first(good(a="11", b="22", c="33")), listed(good(a="11", c="33")), NOW)
    assert ids(relisted.table) == ["drone/0000/a", "drone/0000/c"]
    assert relisted.table["sample"].tolist() == [0, 1]
    assert (relisted.new, relisted.gone, relisted.changed) == (0, ["drone/0000/b"], [])


@pytest.mark.parametrize("moved", [("0001", "a.jpg"), ("0001", "z.jpg")])
def test_a_photo_in_another_place_is_another_sample(moved):
    """What it shows is part of what a sample is."""
    relisted = keep_known(first(good(a="11")), listed({moved: ("11", "")}), NOW)
    assert (relisted.new, relisted.gone) == (1, ["drone/0000/a"])
    assert relisted.table["place"].tolist() == ["0001"]


def test_a_photo_of_another_view_is_another_sample():
    relisted = keep_known(first(good(a="11")), listed(good(a="11"), view="satellite"), NOW)
    assert (relisted.new, relisted.gone, ids(relisted.table)) == (1, ["drone/0000/a"], ["satellite/0000/a"])


@pytest.mark.parametrize("digest", ["11", ""])
def test_a_file_that_is_only_taken_for_another_place_or_view_is_the_same_sample(digest):
    """The same path and bytes: what it shows is read off its path in another way than before."""
    header = {"drone/0300/a.jpg": ImageHeader(digest, 48, 48, "" if digest else "zero bytes")}

    def taken_for(place: str, view: str) -> pd.DataFrame:
        return merge_duplicates([ImageFile("drone/0300/a.jpg", view, place, "test", "query")], header)

    relisted = keep_known(taken_for("drone/0300", "drone"), taken_for("0300", "satellite"), NOW)
    assert (relisted.new, relisted.gone, relisted.changed) == (0, [], [])
    assert relisted.table[["id", "place", "view"]].to_numpy().tolist() == [["drone/drone/0300/a", "0300", "satellite"]]


def test_new_samples_are_of_the_heights_that_are_asked_for_and_known_ones_of_any():
    def at(*heights: str) -> pd.DataFrame:
        images = [ImageFile(f"{height}/a.jpg", "drone", "0001", "test", "query", height) for height in heights]
        return merge_duplicates(images, {f"{height}/a.jpg": ImageHeader(f"{height}{height}", 48, 48) for height in heights})

    relisted = keep_known(at("150"), at("150", "200", "250"), NOW, ["250"])
    assert relisted.table["variant"].tolist() == ["150", "250"]
    assert (relisted.new, relisted.gone) == (1, [])


def test_the_same_bytes_in_two_places_stay_two_samples():
    files: Files = {("0000", "a.jpg"): ("11", ""), ("0001", "a.jpg"): ("11", "")}
    known = first(files)
    assert ids(known) == ["drone/0000/a", "drone/0001/a"]
    relisted = keep_known(known, listed(files), NOW)
    pd.testing.assert_frame_equal(relisted.table, known)
    one_is_gone = keep_known(known, listed({("0001", "b.jpg"): ("11", "")}), NOW)
    assert (ids(one_is_gone.table), one_is_gone.gone) == (["drone/0001/a"], ["drone/0000/a"])


def test_a_file_whose_old_content_lies_elsewhere_now_is_a_new_sample():
    """a.jpg was renamed b.jpg, and another photo took its name: the sample goes with its content."""
    relisted = keep_known(first(good(a="11")), listed(good(a="99", b="11")), NOW)
    assert relisted.table["digest"].tolist() == ["11", "99"]
    assert relisted.table["path"].tolist() == ["train/drone/0000/b.jpg", "train/drone/0000/a.jpg"]
    assert (relisted.new, relisted.gone, relisted.changed) == (1, [], [])
    assert ids(relisted.table) == ["drone/0000/a", "drone/0000/a~99"], "the name is taken"


def test_of_two_newcomers_with_one_name_each_gets_its_own():
    known = first(good(a="11"))
    files: Files = {("0000", "a.jpg"): ("99", ""), ("0000", "b.jpg"): ("11", ""), ("0000", "a.png"): ("88", "")}
    assert len(set(ids(keep_known(known, listed(files), NOW).table))) == 3


def test_a_name_that_was_made_unique_once_is_not_given_again():
    """a~99 is named after content that it has no more; the photo of that content comes back under a name that is taken too."""
    table = first(good(a="11"))
    for files in (good(a="99", b="11"), good(a="77", b="11"), good(a="99", b="11", c="77")):
        table = keep_known(table, listed(files), NOW).table
    assert ids(table) == ["drone/0000/a", "drone/0000/a~99", "drone/0000/a~99~99"]
    assert table["digest"].tolist() == ["11", "77", "99"]


def test_arguments_are_left_alone():
    known, found = first(good(a="11")), listed(good(a="99", b="11"))
    copies = known.copy(), found.copy()
    keep_known(known, found, NOW)
    pd.testing.assert_frame_equal(known, copies[0])
    pd.testing.assert_frame_equal(found, copies[1])


def test_a_manifest_of_schema_version_1_knew_no_times():
    """`read_manifest` fills them in, empty."""
    known = first({("0000", "a.jpg"): ("11", "zero bytes")})
    known["problem_since"] = ""
    relisted = keep_known(known, listed({("0000", "a.jpg"): ("11", "zero bytes")}), NOW)
    assert relisted.table["problem_since"].tolist() == [NOW]


# ---- since when


@pytest.mark.parametrize(
    ("was", "is_now", "since"),
    [
        (("11", ""), ("11", ""), ""),
        (("11", "cut"), ("11", "cut"), BEFORE),
        (("11", "cut"), ("22", "cut"), BEFORE),  # another file, bad in the same way
        (("11", "cut"), ("11", "too small"), NOW),
        (("11", ""), ("22", "cut"), NOW),
        (("11", "cut"), ("22", ""), ""),
        (("", "zero bytes"), ("", "zero bytes"), BEFORE),
    ],
)
def test_a_problem_keeps_its_time_as_long_as_it_is_the_same(was, is_now, since):
    key = ("0000", "a.jpg")
    relisted = keep_known(first({key: was}), listed({key: is_now}), NOW)
    assert relisted.table["problem_since"].tolist() == [since]
    assert relisted.table["problem"].tolist() == [is_now[1]]
    assert relisted.changed == (["drone/0000/a"] if was[0] != is_now[0] else [])


def test_a_new_image_with_a_problem_has_it_since_now():
    relisted = keep_known(first(good(a="11")), listed({**good(a="11"), ("0000", "b.jpg"): ("", "zero bytes")}), NOW)
    assert relisted.table["problem_since"].tolist() == ["", NOW]


def test_a_problem_of_a_renamed_file_keeps_its_time():
    relisted = keep_known(first({("0000", "a.jpg"): ("11", "cut")}), listed({("0000", "z.jpg"): ("11", "cut")}), NOW)
    assert (ids(relisted.table), relisted.table["problem_since"].tolist()) == (["drone/0000/a"], [BEFORE])


# ---- whatever happens

NAMES = st.tuples(st.sampled_from(["0000", "0001"]), st.sampled_from(["a.jpg", "b.jpg", "a.png", "c.jpg"]))
CONTENTS = st.tuples(st.sampled_from(["", "11", "22", "33", "44"]), st.sampled_from(["", "cut", "too small"]))
DATASETS = st.dictionaries(NAMES, CONTENTS, min_size=1)


def content_of(table: pd.DataFrame) -> list[tuple[str, str, str]]:
    return list(zip(table["digest"], table["place"], table["view"], strict=True))


@given(DATASETS, DATASETS)
@settings(max_examples=150, deadline=None)
def test_any_change_of_a_dataset(before, after):
    known, found = first(before), listed(after)
    relisted = keep_known(known, found, NOW)
    table = relisted.table
    assert tuple(table.columns) == MANIFEST_COLUMNS
    assert table["sample"].tolist() == list(range(len(table)))
    assert table["id"].is_unique
    kept = [name for name in ids(known) if name not in relisted.gone]
    assert ids(table)[: len(kept)] == kept, "known samples come first, in their order"
    assert len(kept) + relisted.new == len(table) == len(found)
    assert sorted(table["path"]) == sorted(found["path"]), "every photo is listed once"
    rows = found.set_index("path")
    for row in table.itertuples():
        assert (row.digest, row.place, row.problem) == tuple(rows.loc[row.path, ["digest", "place", "problem"]])
        assert bool(row.problem) == bool(row.problem_since)
    old = known.set_index("id")
    for name in kept:
        row = table.set_index("id").loc[name]
        same_file = row["path"] == old.loc[name, "path"]
        same_content = row["digest"] == old.loc[name, "digest"] and row["digest"] != ""
        assert same_file or same_content
        assert (name in relisted.changed) == (row["digest"] != old.loc[name, "digest"])
    there = content_of(found)
    assert not [name for name in relisted.gone if old.loc[name, "digest"] and (old.loc[name, "digest"], old.loc[name, "place"], "drone") in there]


@given(st.lists(DATASETS, min_size=3, max_size=6))
@settings(max_examples=50, deadline=None)
def test_ids_stay_unique_however_often_a_dataset_changes(datasets):
    table = first(datasets[0])
    for files in datasets[1:]:
        table = keep_known(table, listed(files), NOW).table
        assert table["id"].is_unique


@given(DATASETS, DATASETS)
@settings(max_examples=50, deadline=None)
def test_listing_twice_is_listing_once(before, after):
    once = keep_known(first(before), listed(after), BEFORE).table
    twice = keep_known(once, listed(after), NOW)
    pd.testing.assert_frame_equal(twice.table, once)
    assert (twice.new, twice.gone, twice.changed) == (0, [], [])


@given(DATASETS, st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_renaming_every_file_changes_no_sample(files, draw):
    known = first({key: (digest, "") for key, (digest, _) in files.items() if digest} or good(a="11"))
    others = [f"renamed-{number}" for number in range(len(known))]
    draw.shuffle(others)
    renamed: Files = {
        (place, other + PurePosixPath(path).suffix): (digest, "")
        for other, place, path, digest in zip(others, known["place"], known["path"], known["digest"], strict=True)
    }
    relisted = keep_known(known, listed(renamed), NOW)
    assert (relisted.new, relisted.gone, relisted.changed) == (0, [], [])
    kept = ["sample", "id", "digest", "place"]
    pd.testing.assert_frame_equal(relisted.table[kept], known[kept])
