"""Facts beside the maps: one status a map, by a fixed precedence; the raw range; nothing warned about."""

import numpy as np
import pytest

from stages.cam.facts import FACTS, STATUS, map_facts

CODES = {row.name: code for code, row in STATUS.items()}
CELLS = np.linspace(-1, 2, 16).reshape(4, 4)


def facts(maps, kind="gradient", low_contrast_below=0.01, clipped=None, rounding=None, score=None, constant=None, absent=False):
    maps = np.asarray(maps, np.float32).reshape(1, 4, 4)
    given = (None if v is None else np.array([v]) for v in (clipped, rounding, score, constant))
    columns = map_facts(maps, kind, low_contrast_below, *given, np.array([absent]))
    return dict(zip(FACTS, columns[0].tolist(), strict=True))


@pytest.mark.parametrize(
    ("status", "maps", "more"),
    [
        ("ok", CELLS, {}),
        ("ok", CELLS, {"kind": "statistic"}),
        ("low contrast", 27.7128 + 1e-3 * CELLS, {"kind": "statistic"}),
        ("low contrast", 27.7128 + 1e-3 * CELLS, {"kind": "statistic", "rounding": 1e-4}),
        ("constant", 27.7128 + 1e-3 * CELLS, {"kind": "statistic", "rounding": 1e-3}),
        ("constant", 27.7128 + 1e-3 * CELLS, {"kind": "statistic", "rounding": 1e-3, "clipped": 0.25}),
        ("ok", 27.7128 + 1e-3 * CELLS, {"kind": "gradient", "rounding": 1e-3}),
        ("constant", np.full((4, 4), 3.0), {"kind": "statistic"}),
        ("ok", 27.7128 + 1e-6 * CELLS, {"kind": "gradient"}),
        ("ok", 27.7128 + 0.5 * CELLS, {"kind": "statistic"}),
        ("zero", -np.abs(CELLS), {}),
        ("ok", -np.abs(CELLS), {"kind": "statistic"}),
        ("zero", np.zeros((4, 4)), {"kind": "statistic"}),
        ("clipped", CELLS, {"clipped": 0.25}),
        ("ok", CELLS, {"clipped": 0.0}),
        ("zero", -np.abs(CELLS), {"clipped": 0.25}),
        ("not finite", np.where(CELLS > 1.9, np.inf, CELLS), {"clipped": 0.25}),
        ("not finite", np.where(CELLS > 1.9, np.nan, CELLS), {}),
        ("absent", np.full((4, 4), np.nan), {"absent": True}),
    ],
)
def test_status(status, maps, more):
    assert facts(maps, **more)["status"] == CODES[status]


def test_the_raw_range_and_the_score_are_kept():
    found = facts(CELLS, clipped=0.125, score=3.5, constant=-0.5, rounding=0.25)
    assert found == {"status": CODES["clipped"], "low": -1, "high": 2, "clipped": 0.125, "score": 3.5, "constant": -0.5, "rounding": 0.25}


def test_what_is_not_defined_is_nan():
    assert np.isnan([facts(CELLS)["score"], facts(CELLS)["constant"]]).all()
    assert np.isnan([facts(np.full((4, 4), np.nan), absent=True)[name] for name in ("low", "high", "clipped")]).all()
