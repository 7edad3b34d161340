"""What the page says of trust: sentences, table and matrix, from a small set of figures; nothing of what is absent."""

import numpy as np
import xarray as xr

from stages.cam.facts import STATUS
from stages.report.trust import agreement_matrix, trust_sentences, trust_table

PRODUCTS = ["aligned/match_share/grad_cam", "aligned/match_share/hires_cam", "aligned/none/max", "block_0/none/max"]
NAMES = [row.name for row in STATUS.values()]


def figures(**changed) -> xr.Dataset:
    """One checkpoint, two groups of 30 and 10 images, four products, all sound."""
    dims = ("checkpoint", "group", "product")
    share = np.zeros((1, 2, 4, len(NAMES)))
    share[..., 0] = 1
    found = {
        "count": (("checkpoint", "group"), np.array([[30, 10]])),
        "status_share": ((*dims, "status"), share),
        "residual": (dims, np.broadcast_to([np.nan, 1e-6, np.nan, np.nan], (1, 2, 4)).copy()),
        "deletion": (dims, np.broadcast_to([0.3, 0.1, 0.4, np.nan], (1, 2, 4)).copy()),
        "insertion": (dims, np.broadcast_to([0.7, 0.9, 0.6, np.nan], (1, 2, 4)).copy()),
        "sanity": (("checkpoint", "product"), np.array([[0.2, 0.3, np.nan, np.nan]])),
        "agreement": ((*dims, "other"), np.broadcast_to(np.eye(4), (1, 2, 4, 4)).copy()),
        **changed,
    }
    coords = {"checkpoint": ["net_009"], "group": ["test drone", "test satellite"], "product": PRODUCTS, "other": PRODUCTS, "status": NAMES}
    return xr.Dataset(found, coords=coords)


def with_status(status: str, shares: list[float]) -> xr.Dataset:
    """The second product has this status on these shares of the groups."""
    stats = figures()
    stats["status_share"].loc[{"product": PRODUCTS[1], "status": status}] = [shares]
    stats["status_share"].loc[{"product": PRODUCTS[1], "status": "ok"}] = [[1 - share for share in shares]]
    return stats


def test_sound_maps_need_no_words():
    assert list(trust_sentences(figures())) == []


def test_a_status_is_told_where_it_is_often_groups_weighted_by_their_images():
    (said,) = trust_sentences(with_status("zero", [0.2, 0.6]))
    assert said == "Maps that are without positive heat: aligned/match_share/hires_cam on 30% of the images."
    (said,) = trust_sentences(with_status("clipped", [1, 1]))
    assert said == "Maps that are made with bad denominators: aligned/match_share/hires_cam on 100% of the images."
    (said,) = trust_sentences(with_status("not finite", [0.1, 0.1]))
    assert said.startswith("Maps that are not finite: ")
    assert list(trust_sentences(with_status("zero", [0.04, 0.04]))) == []


def test_shares_are_of_the_images_that_have_the_map():
    stats = with_status("absent", [0.5, 0.5])
    stats["status_share"].loc[{"product": PRODUCTS[1], "status": "zero"}] = 0.25
    (said,) = trust_sentences(stats)
    assert "on 50% of the images" in said
    (table,) = trust_table(stats)
    assert table["rows"][1][table["head"].index("zero")] == "50.0 %"


def test_methods_that_rank_alike_are_named_at_the_aligned_map():
    agreement = np.broadcast_to(np.eye(4), (1, 2, 4, 4)).copy()
    agreement[..., 0, 1] = agreement[..., 1, 0] = 0.99
    agreement[..., 2, 3] = agreement[..., 3, 2] = 0.999  # of different positions: never so in real figures
    (said,) = trust_sentences(figures(agreement=(("checkpoint", "group", "product", "other"), agreement)).drop_sel(product=PRODUCTS[3]))
    assert "grad_cam of match_share and hires_cam of match_share (0.990)" in said


def test_maps_that_stay_under_fresh_heads_are_named():
    (said,) = trust_sentences(figures(sanity=(("checkpoint", "product"), np.array([[0.95, 0.3, np.nan, np.nan]]))))
    assert said.startswith("Nearly the same map with heads that are drawn again (rank correlation over 0.9): aligned/match_share/grad_cam (0.95).")


def test_the_table_has_a_row_a_product():
    (table,) = trust_table(with_status("zero", [0.2, 0.6]))
    statuses = ["low contrast", "zero", "clipped", "not finite", "constant"]
    assert table["head"] == ["position / target / method", *statuses, "residual", "deletion", "insertion", "sanity"]
    assert table["rows"][1] == [PRODUCTS[1], "0.0 %", "30.0 %", "0.0 %", "0.0 %", "0.0 %", "1e-06", "0.1", "0.9", "0.3"]
    assert table["rows"][3] == [PRODUCTS[3], "0.0 %", "0.0 %", "0.0 %", "0.0 %", "0.0 %", "-", "-", "-", "-"]


def test_the_matrix_is_of_the_aligned_maps():
    names, values = agreement_matrix(figures())
    assert names == ["grad_cam of match_share", "hires_cam of match_share", "max"]
    np.testing.assert_array_equal(values, np.eye(3))
    assert agreement_matrix(figures().sel(product=PRODUCTS[2:], other=PRODUCTS[2:])) is None


def test_nothing_is_said_of_figures_that_are_not_there():
    bare = figures()[["count"]]
    assert (list(trust_sentences(bare)), trust_table(bare), agreement_matrix(bare)) == ([], [], None)
    assert list(trust_sentences(figures().drop_vars(["sanity", "agreement"]))) == []
