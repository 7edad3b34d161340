"""The recipe: groups, schedule, losses, sampler; seeded, resumable, and the Loc_Net that learns only with bilinear sampling."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from safenet import PRESETS, SafeNet
from safenet.checkpoint import read_checkpoint
from safenet.model import SafeNetOutput
from safenet.training import loop
from safenet.training.data import PairDataset
from safenet.training.loop import build_optimizer, learning_rate, train
from safenet.training.losses import pair_loss
from safenet.training.places import TrainingPlace
from safenet.training.settings import TrainSettings

TINY = PRESETS["tiny"]
QUICK = TrainSettings(epochs=2, batch_size=4, optimizer="adamw", learning_rate=1e-3, rotate_satellite_deg=90)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    found = []
    for number in range(4):
        paths = []
        for view in range(3):
            paths.append(root / f"{number}_{view}.png")
            Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(paths[-1])
        found.append(TrainingPlace(f"{number:04d}", (paths[0],), tuple(paths[1:])))
    return found


def run(places, directory, settings=QUICK, architecture=TINY):
    return list(train(places, architecture, settings, directory))


def state(path):
    return torch.load(path, weights_only=True)["state_dict"]


def test_every_epoch_leaves_a_checkpoint_with_its_metrics(places, tmp_path):
    results = run(places, tmp_path)
    assert [result.checkpoint.name for result in results] == ["net_000.pth", "net_001.pth"]
    assert sorted(path.name for path in tmp_path.glob("net_*.pth")) == ["net_000.pth", "net_001.pth", "net_init.pth"]
    info = read_checkpoint(tmp_path / "net_001.pth").info
    assert info.epoch == 1
    assert info.class_names == ("0000", "0001", "0002", "0003")
    assert set(info.metrics) == {"loss", "accuracy_satellite", "accuracy_drone", "elapsed_s"}
    assert read_checkpoint(tmp_path / "net_init.pth").info.epoch == -1


def test_an_interrupted_run_ends_as_an_undisturbed_one(places, tmp_path):
    run(places, tmp_path / "whole", QUICK.model_copy(update={"epochs": 3}))
    stopped = train(places, TINY, QUICK.model_copy(update={"epochs": 3}), tmp_path / "parts")
    next(stopped)
    stopped.close()
    assert [result.epoch for result in run(places, tmp_path / "parts", QUICK.model_copy(update={"epochs": 3}))] == [1, 2]
    one, other = state(tmp_path / "whole" / "net_002.pth"), state(tmp_path / "parts" / "net_002.pth")
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_as_many_photos_are_kept_decoded_as_memory_is_meant_for_and_the_draws_are_the_same(places, monkeypatch):
    drawn, kept = [], []
    for most in (4096, 2):
        monkeypatch.setattr("safenet.training.data.KEPT_PHOTOS", most)
        pairs = PairDataset(places, 32, TrainSettings())
        torch.manual_seed(0)
        drawn.append([pairs[index][:2] for _ in range(3) for index in range(len(places))])
        kept.append(len(pairs._decoded))
    assert kept[0] > kept[1] == 2
    assert all(torch.equal(one, other) for first, second in zip(*drawn, strict=True) for one, other in zip(first, second, strict=True))


def test_the_seed_decides(places, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(places, tmp_path / name, QUICK.model_copy(update={"epochs": 1, "seed": seed}))
    a, b, c = (state(tmp_path / name / "net_000.pth")["loc_model.transformer.pos_embed"] for name in "abc")
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_other_settings_do_not_go_on_with_a_run(places, tmp_path):
    run(places, tmp_path)
    with pytest.raises(ValueError, match=r"trained with weight_decay = 0\.0005, but 0\.1 is asked for\. Name another directory"):
        run(places, tmp_path, QUICK.model_copy(update={"weight_decay": 0.1}))


@pytest.mark.parametrize(("sampling", "learns"), [("nearest", False), ("bilinear", True)])
def test_loc_net_learns_only_with_bilinear_sampling(places, tmp_path, sampling, learns):
    """Under the published recipe: with nearest sampling only weight decay moves theta, alike for every image."""
    recipe = TrainSettings(epochs=2, batch_size=4, loc_rate=1.0)
    run(places, tmp_path, recipe, replace(TINY, sampling=sampling))
    weight, bias = (state(tmp_path / "net_001.pth")[f"loc_model.loc_net.fc_loc.2.{name}"] for name in ("weight", "bias"))
    assert bool(weight.abs().max() > 0) is learns
    if not learns:
        assert 0.99 < bias[0] < 1, "the bias shrinks by weight decay"
        assert bias[[1, 2, 3, 5]].tolist() == [0, 0, 0, 0]


def test_optimizer_groups_are_upstreams():
    model = SafeNet(TINY)
    groups = build_optimizer(model, TrainSettings()).param_groups
    assert [group["lr"] for group in groups] == pytest.approx([1e-4, 3e-3, 1e-2])
    counts = [sum(parameter.numel() for parameter in group["params"]) for group in groups]
    assert counts[0] == sum(parameter.numel() for parameter in model.loc_net.parameters())
    assert sum(counts) == sum(parameter.numel() for parameter in model.parameters())
    assert {(group["nesterov"], group["momentum"], group["weight_decay"]) for group in groups} == {(True, 0.9, 5e-4)}


def test_every_group_keeps_its_share_of_the_rate(places, tmp_path, monkeypatch):
    made, build = [], loop.build_optimizer
    monkeypatch.setattr(loop, "build_optimizer", lambda *arguments: made.append(build(*arguments)) or made[-1])
    run(places, tmp_path, QUICK.model_copy(update={"loc_rate": 0.5, "backbone_rate": 0.25, "epochs": 1}))
    rates = [group["lr"] for group in made[0].param_groups]
    assert rates == pytest.approx([0.5 * rates[2], 0.25 * rates[2], rates[2]])


def test_schedule():
    steps = TrainSettings()
    assert [learning_rate(epoch, steps) for epoch in (0, 69, 70, 109, 110)] == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3, 1e-4])
    cosine = TrainSettings(epochs=10, schedule="cosine", learning_rate=1.0, warmup_epochs=2)
    assert learning_rate(1, cosine) == pytest.approx(0.5005 * 0.5 * (1 + math.cos(math.pi * 0.1)), rel=1e-3)
    assert learning_rate(10, cosine) == pytest.approx(0, abs=1e-9)


def outputs(batch=4):
    torch.manual_seed(3)
    model = SafeNet(TINY).eval()
    with torch.no_grad():
        return model(torch.randn(batch, 3, 32, 32)), model(torch.randn(batch, 3, 32, 32))


def unit(output: SafeNetOutput):
    embedding = output.embedding / output.embedding.norm(dim=1, keepdim=True) / 3**0.5
    return embedding.flatten(1).double().numpy()


def test_cross_entropy_is_the_sum_over_views_of_the_mean_over_heads():
    label = torch.tensor([0, 0, 1, 2])
    views = outputs()
    expected = sum(np.mean([-torch.log_softmax(view.logit[i, :, h], 0)[label[i]].item() for i in range(4) for h in range(3)]) for view in views)
    assert pair_loss(*views, label, TrainSettings()).item() == pytest.approx(expected, rel=1e-5)


def test_triplet_takes_the_hardest_of_the_other_view():
    label = torch.tensor([0, 0, 1, 2])
    satellite, drone = outputs()
    distance = np.linalg.norm(unit(satellite)[:, None] - unit(drone)[None], axis=2)
    terms = []
    for table in (distance, distance.T):
        for i in range(4):
            same = label.numpy() == label.numpy()[i]
            terms.append(max(table[i][same].max() - table[i][~same].min() + 0.3, 0))
    expected = pair_loss(satellite, drone, label, TrainSettings()).item() + 0.7 * np.mean(terms)
    assert pair_loss(satellite, drone, label, TrainSettings(triplet_weight=0.7)).item() == pytest.approx(expected, rel=1e-4)


def test_contrastive_shares_the_target_among_positives():
    label = torch.tensor([0, 0, 1, 2])
    satellite, drone = outputs()
    score = unit(satellite) @ unit(drone).T / 0.1
    terms = []
    for table in (score, score.T):
        log = table - np.log(np.exp(table).sum(axis=1, keepdims=True))
        terms.append(-np.mean([log[i][label.numpy() == label.numpy()[i]].mean() for i in range(4)]))
    expected = pair_loss(satellite, drone, label, TrainSettings()).item() + np.mean(terms)
    assert pair_loss(satellite, drone, label, TrainSettings(contrastive_weight=1)).item() == pytest.approx(expected, rel=1e-4)


def test_a_place_without_a_view_is_named(places, tmp_path):
    with pytest.raises(ValueError, match="training place 0009 has no drone image; every training place needs both views"):
        run([*places, TrainingPlace("0009", places[0].satellite, ())], tmp_path)


def test_too_few_places_for_a_batch_are_told(places, tmp_path):
    with pytest.raises(ValueError, match=r"4 training places give 8 pairs an epoch; train\.batch_size = 64 needs at least as many"):
        run(places, tmp_path, QUICK.model_copy(update={"batch_size": 64}))


def test_a_diverging_loss_stops_with_advice(places, tmp_path):
    with pytest.raises(FloatingPointError, match=r"the training loss is nan: lower train\.learning_rate \(1e\+20\)"):
        run(places, tmp_path, QUICK.model_copy(update={"learning_rate": 1e20, "optimizer": "sgd", "epochs": 4}))
