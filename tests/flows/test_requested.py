"""Variables on request: attention, rollout, flipped embeddings and block maps, against slow twins; and heat maps at stored blocks."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from pipeline.cam.stage import cam
from pipeline.extract.stage import extract
from pipeline.stages import STAGES
from pipeline.stats.stage import stats
from safenet.checkpoint import load_checkpoint
from safenet.preprocess import load_image

REQUEST = ("extract.store=['cls_attention','rollout','flip_embedding']", "extract.blocks=[1,0]")
AT_BLOCKS = (
    "cam.positions=['aligned','block_1','block_0']", "cam.methods=['l2_norm','max','grad_cam']", "cam.targets=['predicted']",
    "render.methods=[]", "render.targets=[]",
)  # fmt: skip


@pytest.fixture(scope="module")
def directory(lab, indexed, tmp_path_factory):
    directory = Path(shutil.copytree(indexed, tmp_path_factory.mktemp("requested") / "run"))
    extract(lab.run(directory, *REQUEST, checkpoints="net_000.pth"))
    return directory


@pytest.fixture(scope="module")
def stored(directory):
    return xr.open_zarr(directory / "features.zarr", group="net_000", consolidated=False).load()


@pytest.fixture(scope="module")
def model(lab):
    return load_checkpoint(lab.checkpoints / "net_000.pth")


@pytest.fixture(scope="module")
def images(lab, indexed):
    table = lab.run(indexed).manifest
    return torch.stack([load_image(f"{table.attrs['root']}/{path}", 32) for path in table["path"]])


def slow_attention(model, images):
    """Softmax attention [sample, layer, head, token, token], head by head, with upstream's scale: one over the root of the full width."""
    vit, found = model.transformer, []
    tokens = torch.cat([vit.cls_token.expand(len(images), -1, -1), vit.patch_embed(images)], dim=1) + vit.pos_embed
    for block in vit.blocks:
        normed = block.norm1(tokens)
        width, heads = normed.shape[2], block.attn.num_heads
        size = width // heads
        query, key, value = (normed @ part.T for part in block.attn.qkv.weight.split(width))
        rows, mixed = [], []
        for head in range(heads):
            span = slice(head * size, (head + 1) * size)
            weights = torch.exp(query[..., span] @ key[..., span].transpose(1, 2) / width**0.5)
            weights = weights / weights.sum(dim=2, keepdim=True)
            rows.append(weights)
            mixed.append(weights @ value[..., span])
        found.append(torch.stack(rows, dim=1))
        tokens = tokens + block.attn.proj(torch.cat(mixed, dim=2))
        tokens = tokens + block.mlp(block.norm2(tokens))
    return torch.stack(found, dim=1)


@pytest.fixture(scope="module")
def attention(model, images):
    with torch.inference_mode():
        return slow_attention(model, images).double().numpy()


def test_cls_attention_is_the_softmax_row_of_cls(stored, attention):
    assert stored["cls_attention"].dims == ("sample", "layer", "attention_head", "y", "x")
    expected = attention[:, :, :, 0, 1:].reshape(15, 2, 2, 8, 8)
    assert expected.max() > 4 / 65  # far from uniform, or a wrong row would pass
    np.testing.assert_allclose(stored["cls_attention"], expected, rtol=2**-10, atol=1e-6)  # stored as float16


def test_rows_of_cls_sum_to_one_less_what_cls_gives_itself(stored, attention):
    total = stored["cls_attention"].astype(np.float64).sum(("y", "x"))
    assert (total <= 1 + 2**-11).all()  # values that sum to 1, each rounded to float16
    np.testing.assert_allclose(total, 1 - attention[:, :, :, 0, 0], atol=2**-10)
    assert (stored["rollout"].sum(("y", "x")) <= 1).all()


def test_rollout_is_the_product_of_the_blocks(stored, attention):
    """Abnar and Zuidema 2020, eq. 1, one sample at a time, the last block leftmost."""
    expected = []
    for sample in attention:
        map_key = np.eye(65)
        for layer in sample:
            step = (layer.mean(axis=0) + np.eye(65)) / 2  # rows of softmax sum to 1
            map_key = step @ map_key
        expected.append(map_key[0, 1:].reshape(8, 8))
    assert stored["rollout"].dtype == np.float32
    np.testing.assert_allclose(stored["rollout"], expected, rtol=1e-4, atol=1e-7)  # float32 products of 65 x 65


def test_recording_attention_does_not_change_the_other_features(stored, finished):
    plain = xr.open_zarr(finished.features_path, group="net_000", consolidated=False)
    for name in ("patch_map", "embedding", "theta", "logit"):
        np.testing.assert_array_equal(stored[name], plain[name])


def test_flip_embedding_is_that_of_the_mirrored_photo(stored, model, images):
    with torch.inference_mode():
        expected = model(images.flip(3)).embedding.transpose(1, 2)
    assert stored["flip_embedding"].dims == ("sample", "head", "embed")
    np.testing.assert_allclose(stored["flip_embedding"], expected, rtol=1e-4, atol=1e-5)  # float32, another batch
    assert not np.allclose(stored["flip_embedding"], stored["embedding"], atol=1e-3)


def test_block_maps_are_stored_in_ascending_order_of_the_blocks(stored, model, images):
    assert stored["block"].values.tolist() == [0, 1]
    assert stored["block_map"].dims == ("sample", "block", "y", "x", "channel")
    with torch.inference_mode():
        output = model(images, (0, 1))
    expected = np.stack([output.block_maps[number].permute(0, 2, 3, 1).numpy() for number in (0, 1)], axis=1)
    np.testing.assert_allclose(stored["block_map"].astype(np.float32), expected, rtol=2**-10, atol=1e-4)  # stored as float16


def test_what_was_not_asked_for_is_not_stored(stored, finished):
    assert "image" not in stored
    assert not {"cls_attention", "rollout", "flip_embedding", "block_map", "block"} & set(finished.features("net_000").own_keys())


def test_heat_maps_at_blocks_are_statistics_and_gradients_are_left_out_with_a_note(lab, directory, stored, tmp_path):
    run = lab.run(Path(shutil.copytree(directory, tmp_path / "run")), *REQUEST, *AT_BLOCKS, checkpoints="net_000.pth")
    outcome = cam(run)
    assert outcome.computed == 3 + 2 + 2
    assert outcome.notes == (
        "left out: grad_cam of predicted at block_0, grad_cam of predicted at block_1: a gradient at a block needs the backbone: "
        "add 'predicted' to extract.gradient_targets and extract again",
    )
    for number in (0, 1):
        found = run.cams("net_000").read([f"block_{number}/none/{method}" for method in ("l2_norm", "max")])
        maps = stored["block_map"].isel(block=number).astype(np.float64)
        np.testing.assert_allclose(found[f"block_{number}/none/l2_norm"], np.linalg.norm(maps, axis=3), rtol=1e-5)  # float32 sums over 16
        np.testing.assert_array_equal(found[f"block_{number}/none/max"], maps.max("channel"))
    assert "frame" in run.cams("net_000").array_attributes("block_0/none/max")
    for stage in STAGES[3:]:
        stage.bring_up_to_date(run)
    assert run.report_path.is_file()


def test_flipped_embeddings_take_part_in_retrieval(lab, directory, tmp_path):
    """As upstream's test does: the descriptor is that of the photo and its mirror image together."""
    run = lab.run(
        Path(shutil.copytree(directory, tmp_path / "run")), *REQUEST, "cam.methods=['max']", "cam.positions=['patch']", checkpoints="net_000.pth"
    )
    cam(run)
    stats(run)
    found = xr.open_zarr(run.stats_path, group="net_000", consolidated=False).load()
    features = xr.open_zarr(run.features_path, group="net_000", consolidated=False).load()
    total = (features["embedding"] + features["flip_embedding"]).values.astype(np.float64)
    unit = (total / np.linalg.norm(total, axis=2, keepdims=True)).reshape(15, -1)
    query = np.flatnonzero((features["view"] == "drone") & (features["split"] == "test"))
    in_gallery = np.array(["gallery" in roles for roles in features["roles"].values.tolist()])
    gallery = np.flatnonzero((features["view"] == "satellite").values & in_gallery)
    best = gallery[(unit[query] @ unit[gallery].T).argmax(axis=1)]
    expected = (features["place"].values[best] == features["place"].values[query]).mean()
    assert float(found["recall_1"].sel(direction="drone to satellite")) == pytest.approx(expected)


def test_a_block_that_is_not_stored_is_refused(lab, directory):
    run = lab.run(directory, *REQUEST, "cam.positions=['block_7']", "cam.methods=['l2_norm']", checkpoints="net_000.pth")
    said = r"cam\.positions: block_7 is not in .*features\.zarr/net_000, which holds maps of blocks \[0, 1\]: add 7 to extract\.blocks"
    with pytest.raises(ValueError, match=said):
        cam(run)
