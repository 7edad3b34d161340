"""One batch of photos -> the feature variables of the schema, on the device, in the layout and dtype of the store."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from safenet.architecture import Architecture
from safenet.attention import AttentionRecorder
from safenet.model import SafeNet, SafeNetOutput
from safenet.preprocess import normalise
from stages.extract.block_gradients import gradient_maps
from stages.extract.gradient_plan import asked_gradients
from stages.extract.precision import resolve_precision
from stages.extract.settings import ExtractSettings
from stages.schema import MASKS, SAMPLE_TEXTS, Variable, feature_variables

AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_RECORDED = frozenset({"cls_attention", "rollout", "block_rollout"})
_GRADIENT_SCALE = {"float16": 2.0**12}  # float16 ends at 6e-8, above many gradients; a power of two changes no bit of the others


class FeatureExtractor:
    """A network on a device that turns photos into feature variables.

    Parameters
    ----------
    model : SafeNet
        In evaluation mode; it is moved to the device. Where heat maps at blocks are asked for, its weights are set to
        require no gradient.
    settings : ExtractSettings
    device : torch.device
    class_names : sequence of str
        Training places in the order of the logits, for the heat maps of a class by its name.

    Raises
    ------
    ValueError
        If the network has no such heat maps at blocks as are asked for.

    Notes
    -----
    Heat maps at blocks keep the graph of a batch from the lowest of their blocks upwards, and take one backward pass a
    target; the other tensors come out of the same forward pass, with the same bits as without.
    """

    def __init__(self, model: SafeNet, settings: ExtractSettings, device: torch.device, class_names: Sequence[str] = ()) -> None:
        self.model = model.to(device)
        self.architecture: Architecture = model.architecture
        self.settings = settings
        self.device = device
        self.precision = resolve_precision(settings.precision, str(device))
        self.variables = written_by_network(settings)
        self.gradients = asked_gradients(settings, model.architecture, class_names)
        if self.gradients is not None:
            model.requires_grad_(False)  # what lies below the lowest block keeps no graph, what lies above no gradients of weights

    def __call__(self, photos: Tensor, class_index: Tensor | None = None) -> dict[str, Tensor]:
        """Run the network.

        Parameters
        ----------
        photos : Tensor [B, S, S, 3] of uint8
            RGB at the network's size, on any device.
        class_index : Tensor [B] of int64, optional
            Class of each photo's place, -1 where it was not trained: for the heat maps of target `label`.

        Returns
        -------
        dict
            One tensor per variable of `written_by_network`, samples first, on the device.
        """
        with torch.inference_mode(self.gradients is None), torch.no_grad():  # tensors of inference mode can have no gradient
            images = normalise(photos.to(self.device, non_blocking=True))
            found = self._look(images, class_index)
            if "flip_embedding" in self.settings.requested:
                with self._autocast():
                    found["flip_embedding"] = self.model(images.flip(3)).embedding.transpose(1, 2)
            return {variable.name: self._to_store(found[variable.name], variable) for variable in self.variables}

    def _look(self, images: Tensor, class_index: Tensor | None) -> dict[str, Tensor]:
        """One forward pass, what was recorded during it, and the gradients through it."""
        found, recorder = {}, None
        with ExitStack() as stack:
            if self.settings.requested & _RECORDED:
                recorder = stack.enter_context(AttentionRecorder(self.model))
            output = self._forward(images)
        if recorder is not None:
            found = {name: getattr(recorder, name) for name in _RECORDED}
        if self.gradients is not None:
            found["block_cam"] = gradient_maps(self.gradients, output, class_index, _GRADIENT_SCALE.get(self.precision, 1.0))
        return found | _variables(output, self.settings.blocks)

    def _forward(self, images: Tensor) -> SafeNetOutput:
        blocks = self.gradients.blocks if self.gradients is not None else ()
        with torch.set_grad_enabled(bool(blocks)), self._autocast():
            return self.model(images, {*blocks, *self.settings.blocks}, graph_from=blocks[0] if blocks else None)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, AUTOCAST.get(self.precision), enabled=self.precision in AUTOCAST)

    def _to_store(self, found: Tensor, variable: Variable) -> Tensor:
        return found.detach().to(storage_dtype(variable, self.settings)).contiguous()


def written_by_network(settings: ExtractSettings) -> tuple[Variable, ...]:
    """Return the variables that come out of a forward pass (the others come from the manifest, the photo or the head)."""
    elsewhere = {*SAMPLE_TEXTS, "valid", "image", *MASKS}
    return tuple(v for v in feature_variables(settings.requested) if v.per_sample and v.name not in elsewhere)


def storage_dtype(variable: Variable, settings: ExtractSettings) -> torch.dtype:
    """Resolve the schema's dtype to torch's."""
    dtype = getattr(torch, settings.map_dtype if variable.dtype == "map" else variable.dtype)
    assert isinstance(dtype, torch.dtype)
    return dtype


def _variables(output: SafeNetOutput, blocks: Sequence[int]) -> dict[str, Tensor]:
    patch = output.patch_map.flatten(1)  # one copy in the order of the aligned map; without it, each of the two terms makes its own
    change = (output.aligned_map.flatten(1) - patch).norm(dim=1) / patch.norm(dim=1)
    found = {
        "patch_map": output.patch_map.permute(0, 2, 3, 1),
        "aligned_map": output.aligned_map.permute(0, 2, 3, 1),
        "theta": output.theta,
        "source_cell": output.source_cell,
        "fam_change": change,
        "saliency": output.saliency,
        "boundary": output.boundary,
        "part_feature": output.part_feature.transpose(1, 2),
        "global_feature": output.global_feature,
        "embedding": output.embedding.transpose(1, 2),
        "logit": output.logit.transpose(1, 2),
    }
    if blocks:
        maps = output.block_maps
        found["block_map"] = torch.stack([maps[index] for index in blocks], dim=1).permute(0, 1, 3, 4, 2)
    return found
