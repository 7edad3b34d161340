"""The job file: common values, a stage's own, and one line for what is wrong."""

from pathlib import Path

import pydantic
import pytest

from pipeline.settings.jobs import JobSettings, StageJob, read_job_settings
from pipeline.settings.toml import ConfigError
from pipeline.stages import OPTIONAL_STAGES, STAGES

SHIPPED = Path(__file__).parents[3] / "configs" / "slurm.toml"


def read(tmp_path, text):
    path = tmp_path / "jobs.toml"
    path.write_text(text)
    return read_job_settings(path)


def test_the_shipped_file_is_valid_and_names_every_key_and_stage():
    jobs = read_job_settings(SHIPPED)
    assert jobs.of("extract").array == 4
    assert jobs.of("report") == StageJob(**{**jobs.common.model_dump(exclude_unset=True), "time": "00:30:00"})
    text = SHIPPED.read_text()
    assert [key for key in StageJob.model_fields if f"\n{key} =" not in text and f"\n# {key} =" not in text] == []
    assert [name for name in JobSettings.model_fields if f"\n[{name}]" not in text] == []
    assert all(field.description for field in StageJob.model_fields.values())


def test_every_stage_has_a_table():
    assert set(JobSettings.model_fields) == {"common", *(stage.name for stage in (*STAGES, *OPTIONAL_STAGES))}


def test_a_stage_overrides_common_key_by_key(tmp_path):
    jobs = read(tmp_path, "[common]\npartition='cpu'\nmemory='8G'\nrequeue=false\n[extract]\npartition='gpu'\narray=3\n")
    extract, cam = jobs.of("extract"), jobs.of("cam")
    assert (extract.partition, extract.memory, extract.requeue, extract.array) == ("gpu", "8G", False, 3)
    assert (cam.partition, cam.memory, cam.requeue, cam.array) == ("cpu", "8G", False, 1)


def test_a_default_that_is_written_out_overrides_too(tmp_path):
    """[common] says another value, and the stage wants the default back."""
    assert read(tmp_path, "[common]\ncores=8\n[report]\ncores=1\n").of("report").cores == 1


def test_settings_are_frozen():
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        StageJob().cores = 3


def test_the_wall_clock_in_seconds():
    assert StageJob(time="04:00:30").time_s == 4 * 3600 + 30
    assert StageJob(time="2-01:00:00").time_s == 49 * 3600


def test_modules_come_before_the_prologue():
    assert StageJob(modules=("cuda",), prologue=("export A=1",)).environment == ("module load cuda", "export A=1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[extract]\npartitoin='gpu'", r"unknown key 'extract\.partitoin'\. Did you mean 'partition'\?"),
        ("[extrct]\n", r"unknown table 'extrct'\. Did you mean 'extract'\?"),
        ("[common]\ntime='04:00'", r"common\.time = '04:00': .*expected hours:minutes:seconds, such as '04:00:00'"),
        ("[common]\ntime=04:00:00", r"common\.time = .*valid string"),
        ("[common]\nmemory='lots'", r"common\.memory = 'lots': .*such as '16G'"),
        ("[common]\nmemory='16GB '", r"expected a whole number with K, M, G or T"),
        ("[extract]\narray=0", r"extract\.array = 0: .*greater than or equal to 1"),
        ("[report]\narray=2", r"report\.array = 2: report is not cut in parts"),
        ("[common]\narray=2", r"index\.array = 2: index is not cut in parts; set array in the tables of the other stages, not in \[common\]"),
        ("[common]\nsignal_s=3600", r"cam\.signal_s = 3600: not before the wall clock of 01:00:00"),
        ("[common]\npartition='a b'", r"common\.partition = 'a b': .*one word"),
        ("[common]\naccount='--uid=0'", r"one word"),
        ("[common]\nqos='a$(id)'", r"one word"),
        ('[common]\npartition="a\\n#SBATCH --uid=0"', r"control character"),
        ('[common]\ndirectives=["--a\\n--b"]', r"common\.directives\.0 = .*control character"),
        ('[common]\nprologue=["a\\nb"]', r"common\.prologue\.0 = .*control character"),
        ("[common]\nmodules='cuda'", r"common\.modules = 'cuda': .*a list, such as"),
        ("[common\n", r"not valid TOML"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, text, message):
    with pytest.raises(ConfigError, match=rf"jobs\.toml: .*{message}") as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.toml: no such configuration file"):
        read_job_settings(tmp_path / "nowhere.toml")
