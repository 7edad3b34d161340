"""Blocks of features of random tiny networks, as the feature store would hold them."""

from dataclasses import replace

import numpy as np
import torch
import xarray as xr

from safenet import PRESETS, SafeNet
from stages.cam.compute import CamContext, needed_references
from stages.extract.batch import FeatureExtractor
from stages.extract.settings import ExtractSettings
from stages.schema import FEATURES
from stages.targets.part_heads import part_heads
from stages.targets.scoring import TargetContext

IDENTITY = torch.tensor([1.0, 0, 0, 0, 1, 0])


def random_net(sampling="nearest", parts=2, seed=0, **sizes) -> SafeNet:
    """A tiny network in evaluation mode with lively BatchNorm statistics and warps that move cells."""
    torch.manual_seed(seed)
    model = SafeNet(replace(PRESETS["tiny"], sampling=sampling, parts=parts, **sizes))
    with torch.no_grad():
        for head in model.heads:
            norm = head.add_block[1]
            norm.running_mean.normal_(0, 0.3)
            norm.running_var.uniform_(0.3, 2)
            norm.weight.normal_(1, 0.3)
            norm.bias.normal_(0, 0.3)
            head.classifier[0].weight.normal_(0, 0.5)
            head.classifier[0].bias.normal_(0, 0.5)
        model.loc_net.fc_loc[2].weight.normal_(0, 0.4)
        model.loc_net.fc_loc[2].bias.copy_(IDENTITY + 0.1 * torch.randn(6))
        model.transformer.norm.weight.normal_(1, 0.5)
        model.transformer.norm.bias.normal_(0, 0.5)
    return model.eval()


def photos(count: int, seed: int = 0, size: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def feature_block(model: SafeNet, count: int = 5, blocks=(), map_keys=(), **columns) -> xr.Dataset:
    """What `extract` writes for `count` random photos, in float32, with the classes and random references that the targets of `products` read."""
    settings = ExtractSettings(map_dtype="float32", blocks=blocks, device="cpu", store=("flip_embedding",))
    tensors = FeatureExtractor(model, settings, torch.device("cpu"))(photos(count))
    found = xr.Dataset({name: (FEATURES[name].dims, value.numpy()) for name, value in tensors.items()})
    if blocks:
        found["block"] = ("block", np.array(blocks, np.int16))
    context = {"valid": np.ones(count, bool), "class_index": np.arange(count) % 3}
    found = found.assign({name: ("sample", value) for name, value in (context | columns).items()})
    rng = np.random.default_rng(0)
    for name in sorted(needed_references(map_keys)):
        reference = rng.standard_normal(found["embedding"].shape)
        reference *= 0.8 / np.linalg.norm(reference, axis=2, keepdims=True)  # a mean of unit vectors is shorter than 1
        found[name] = (("sample", "head", "embed"), reference.astype(np.float32))
    return found


def context_of(model: SafeNet) -> CamContext:
    """Folded part heads, class names, classifiers."""
    arrays = [head.arrays() for head in model.heads[:-1]]
    heads = part_heads(arrays, model.architecture.head_activation)
    targets = TargetContext(heads, ["a", "b", "c"], np.stack([head["w2"] for head in arrays]))
    return CamContext(targets, model.architecture.sampling, model.architecture.pooling)
