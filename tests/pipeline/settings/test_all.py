"""Configuration: files and --set become frozen settings; what is not known is refused in one line with the nearest known name."""

import tomllib
from pathlib import Path

import pydantic
import pytest

from pipeline.settings.all import Settings, load_settings
from pipeline.settings.toml import ConfigError
from safenet.architecture import PRESETS

TINY = Path(__file__).parents[3] / "configs" / "tiny.toml"


def write(tmp_path, text):
    path = tmp_path / "a.toml"
    path.write_text(text)
    return path


def test_the_tiny_config_is_whole():
    settings = load_settings(TINY)
    assert settings.model.architecture() == PRESETS["tiny"]
    assert settings.extract.block_samples == 4
    assert settings.dataset.root == Path("data/tiny")


@pytest.mark.parametrize("path", sorted(set(TINY.parent.glob("*.toml")) - {TINY.with_name("slurm.toml")}), ids=lambda path: path.name)
def test_every_config_that_we_ship_is_valid_and_opens_with_a_header(path):
    load_settings(path)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    header = text[: text.index("\n[")].lower()
    assert "cost" in header
    assert "result" in header or "expected" in header


def test_without_a_file_every_table_has_its_defaults():
    assert load_settings(None) == Settings()
    assert load_settings(None).dataset is None


def test_settings_are_frozen():
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        Settings().extract.batch_size = 3


@pytest.mark.parametrize(
    ("assignment", "table", "key", "value"),
    [
        ("extract.batch_size=7", "extract", "batch_size", 7),
        (" extract.batch_size = 7 ", "extract", "batch_size", 7),
        ("extract.map_dtype=float32", "extract", "map_dtype", "float32"),
        ("extract.map_dtype='float32'", "extract", "map_dtype", "float32"),
        ("cam.methods=['max', 'mean']", "cam", "methods", ("max", "mean")),
        ("extract.checkpoints=['a=b.pth']", "extract", "checkpoints", ("a=b.pth",)),
        ("stats.top_share=0.5", "stats", "top_share", 0.5),
        ("render.signed=true", "render", "signed", True),
        ("train.pretrained=/a/b.pth", "train", "pretrained", Path("/a/b.pth")),
        ("dataset.root=photos", "dataset", "root", Path("photos")),
        ("scenes.places=7", "scenes", "places", 7),
    ],
)
def test_an_assignment_wins_over_the_file(assignment, table, key, value):
    assert getattr(getattr(load_settings(TINY, (assignment,)), table), key) == value


def test_the_last_assignment_wins():
    assert load_settings(TINY, ("extract.batch_size=7", "extract.batch_size=9")).extract.batch_size == 9


@pytest.mark.parametrize("assignment", ["extract.batch_size", "batch_size=7", "=7", "extract.=7", "extract", ""])
def test_an_assignment_of_another_form_is_refused(assignment):
    with pytest.raises(ConfigError, match=r"--set .*: expected table\.key=value, for instance cam\.methods=\['l2_norm'\]"):
        load_settings(None, (assignment,))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[extract]\nbatch_sise = 3", r"unknown key 'extract\.batch_sise'. Did you mean 'batch_size'\?\.? Known: .*block_samples"),
        ("[scenes]\nplace = 3", r"unknown key 'scenes\.place'. Did you mean 'places'\?"),
        ("[train]\nepoch = 3", r"unknown key 'train\.epoch'. Did you mean 'epochs'\?"),
        ("[dataset]\nroot = 'x'\nlayuot = 'auto'", r"unknown key 'dataset\.layuot'. Did you mean 'layout'\?"),
        ("[extrac]\nbatch_size = 3", r"unknown table 'extrac'. Did you mean 'extract'\?\.? Known: cam, compute, dataset"),
        ("[zzz]\na = 1", r"unknown table 'zzz'\. Known: cam, compute"),
        ("batch_size = 3", r"unknown table 'batch_size'"),
        ("[extract]\nbatch_size = 'many'", r"extract\.batch_size = 'many': Input should be a valid integer"),
        ("[extract]\nbatch_size = 0", r"extract\.batch_size = 0: Input should be greater than or equal to 1"),
        ("[extract]\nmap_dtype = 'half'", r"extract\.map_dtype = 'half': Input should be 'float16' or 'float32'"),
        ("[extract]\nmax_bad_share = 1.5", r"extract\.max_bad_share = 1\.5: Input should be less than or equal to 1"),
        ("[extract]\nstore = ['imag']", r"extract\.store: 'imag' is unknown. Did you mean 'image'\?\.? Known: "),
        ("[extract]\nsampling = 'cubic'", r"extract\.sampling = 'cubic': Input should be 'nearest' or 'bilinear'"),
        ("[cam]\nmethods = 'l2_norm'", r"cam\.methods = 'l2_norm': Input should be a list, such as"),
        ("[cam]\nmethods = ['grad_cm']", r"cam\.methods: 'grad_cm' is unknown. Did you mean 'grad_cam'\?\.? Known: ablation_cam, "),
        ("[cam]\npositions = ['alined']", r"cam\.positions: 'alined' is unknown. Did you mean 'aligned'\?\.? Known: aligned, block_<i>, part, patch"),
        ("[cam]\npositions = ['block_x']", r"cam\.positions: 'block_x' is unknown"),
        (
            "[cam]\ntargets = ['mach']",
            r"cam\.targets: 'mach' is unknown. Did you mean 'match'\?\.? Known: best, best_contrast, best_share, class_<class>, counter, ",
        ),
        ("[render]\nmosaics = ['paperr']", r"render\.mosaics\.0 = 'paperr': Input should be 'positions', 'epochs', 'paper', "),
        ("[render]\nposition = 'alined'", r"render\.position.*'alined' is unknown. Did you mean 'aligned'\?"),
        ("[compute]\nexecutor = 'thread'", r"compute\.executor: 'thread' is unknown. Did you mean 'threads'\?\.? Known: .*serial, .*threads"),
        ("[model]\npreset = 'tinny'", r"model\.preset: 'tinny' is unknown. Did you mean 'tiny'\?"),
        ("[model]\nwidth = 7", r"width 7 is not a multiple of heads 8"),
        ("[model]\nparts = 3", r"parts is 3; expected a power of two, at most 8"),
        ("[scenes]\nplaces = 1\ntest_places = 2", r"test_places = 2"),
        ("[extract\nbatch_size = 3", r"not valid TOML: .*line 1"),
    ],
)
def test_a_fault_is_one_line_that_names_the_file_and_the_nearest_name(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=rf"a\.toml: .*{message}") as caught:
        load_settings(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "a.toml"
    path.write_bytes(b"\xff\xfe[extract]")
    with pytest.raises(ConfigError, match=r"a\.toml: not valid TOML"):
        load_settings(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.toml: no such configuration file"):
        load_settings(tmp_path / "nowhere.toml")


def test_a_wrong_assignment_names_its_key():
    with pytest.raises(ConfigError, match=r"unknown key 'cam\.method'. Did you mean 'methods'\?"):
        load_settings(TINY, ("cam.method=['max']",))
    with pytest.raises(ConfigError, match=r"--set cams\.methods=\['max'\]: unknown table 'cams'"):
        load_settings(None, ("cams.methods=['max']",))


def test_presets_and_sizes_that_differ_from_them():
    settings = load_settings(None, ("model.preset=tiny", "model.width=32"))
    assert settings.model.architecture().width == 32
    assert settings.model.architecture().parts == PRESETS["tiny"].parts


def test_the_tiny_config_says_no_more_than_its_tables():
    """Every key of the file is one that the settings know under the same table (the file is the tests' example)."""
    tables = tomllib.loads(TINY.read_text())
    assert {"dataset", "extract", "cam", "stats", "render"} <= set(tables)


def test_a_typo_is_told_before_the_key_that_it_leaves_missing():
    with pytest.raises(ConfigError, match=r"--set dataset\.rot=photos: unknown key 'dataset\.rot'\. Did you mean 'root'\?"):
        load_settings(None, ["dataset.rot=photos"])
    with pytest.raises(ConfigError, match=r"--set dataset\.layout=folder: dataset\.root is not set, and has no default"):
        load_settings(None, ["dataset.layout=folder"])


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", ["extract.batch_size=many"], r"--set extract\.batch_size=many: extract\.batch_size = 'many': Input should be a valid integer"),
        ("[extract]\nbatch_size = 'few'", ["extract.batch_size=many"], r"--set extract\.batch_size=many: "),
        ("", ["extract.batch_size=3", "extract.batch_size=0"], r"--set extract\.batch_size=0: extract\.batch_size = 0: "),
        ("[extract]\nbatch_size = 0", ["extract.workers=1"], r"\S*/a\.toml: extract\.batch_size = 0: "),
        ("[extract]\nbatch_sise = 3", ["extract.batch_size=1"], r"\S*/a\.toml: unknown key 'extract\.batch_sise'"),
        ("", ["cam.methods=['max']", "cam.targets=['lable']"], r"--set cam\.targets=\['lable'\]: cam\.targets: 'lable' is unknown"),
        ("", ["extrct.batch_size=3", "cam.methods=['max']"], r"--set extrct\.batch_size=3: unknown table 'extrct'"),
        ("", ["compute.executor=thread", "cam.methods=['max']"], r"--set compute\.executor=thread: compute\.executor: 'thread' is unknown"),
        ("[compute]\nexecutor = 'thread'", ["cam.methods=['max']"], r"\S*/a\.toml: compute\.executor: 'thread' is unknown"),
        ("[scenes]\ntest_places = 2", ["cam.methods=['max']", "scenes.places=1"], r"\S*/a\.toml with --set scenes\.places=1: .*test_places = 2"),
        ("", ["scenes.places=1", "scenes.test_places=2"], r"--set scenes\.places=1 --set scenes\.test_places=2: .*test_places = 2"),
        ("[model]\nheads = 3", ["model.width=8"], r"\S*/a\.toml with --set model\.width=8: .*width 8 is not a multiple of heads 3"),
        ("[model]\nheads = 8", ["model.width=7"], r"--set model\.width=7: .*width 7 is not a multiple of heads 8"),
        ("[cam]\nmethods = ['max']", ["dataset.layout=folder"], r"--set dataset\.layout=folder: dataset\.root is not set"),
        ("cam = 3", ["cam.methods=['max']"], r"\S*/a\.toml: cam = 3: expected a table \[cam\]"),
        ("cam = 3", ["extract.batch_size=1"], r"\S*/a\.toml: cam = 3: "),
    ],
)
def test_a_fault_is_blamed_on_what_it_came_from(tmp_path, text, options, message):
    """On the option that set the key, on the file, or on both where it takes both."""
    with pytest.raises(ConfigError, match=rf"^{message}") as caught:
        load_settings(write(tmp_path, text), options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("stats.flat_below=0.5", "--set stats.flat_below=0.5: stats.flat_below: it is called stats.low_contrast_below now"),
        ("render.stretch_flat=true", "render.stretch_flat: maps of low contrast are drawn from minimum to maximum now; render.low_contrast = 'grey'"),
        ("render.epochs_scope=fixed", "render.epochs_scope = 'fixed' needs render.fixed = [minimum, maximum]"),
        ("render.scope=fixed", "render.scope = 'fixed' needs render.fixed = [minimum, maximum]"),
        ("render.percentiles=[99, 1]", "render.percentiles = [99.0, 1.0]: expected [lower, upper], lower below upper, both from 0 to 100"),
        ("render.percentiles=[50, 50]", "render.percentiles = [50.0, 50.0]: expected [lower, upper], lower below upper"),
        ("render.fixed=0", "render.fixed = 0: Input should be a list, such as [0, 1]"),
        ("cam.methods=0", "cam.methods = 0: Input should be a list, such as ['a', 'b']"),
    ],
)
def test_what_is_renamed_or_lacks_its_other_half_says_so(assignment, said):
    with pytest.raises(ConfigError) as error:
        load_settings(None, [assignment])
    assert said in str(error.value)
