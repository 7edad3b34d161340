"""The loss of a batch of pairs: cross-entropy of every head, the hardest triplet, and the contrastive term."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from safenet.model import SafeNetOutput, descriptor
from safenet.training.settings import TrainSettings


def pair_loss(satellite: SafeNetOutput, drone: SafeNetOutput, label: Tensor, settings: TrainSettings) -> Tensor:
    """Sum over the views of the mean cross-entropy of the heads, plus the optional cross-view terms."""
    heads = satellite.logit.shape[2]
    loss = sum(F.cross_entropy(view.logit, label[:, None].expand(-1, heads)) for view in (satellite, drone))
    if settings.triplet_weight or settings.contrastive_weight:
        cosine = descriptor(satellite.embedding) @ descriptor(drone.embedding).T
        same = label[:, None] == label[None, :]
        if settings.triplet_weight:
            loss = loss + settings.triplet_weight * _hardest_triplet(cosine, same, settings.triplet_margin)
        if settings.contrastive_weight:
            loss = loss + settings.contrastive_weight * _contrastive(cosine / settings.temperature, same)
    assert isinstance(loss, Tensor)
    return loss


def _hardest_triplet(cosine: Tensor, same: Tensor, margin: float) -> Tensor:
    """Hermans et al. 2017 (arXiv:1703.07737) across views: Euclidean distance of unit descriptors, both directions."""
    distance = (2 - 2 * cosine).clamp_min(1e-12).sqrt()
    losses = []
    for table, mask in ((distance, same), (distance.T, same.T)):
        positive = table.masked_fill(~mask, -torch.inf).amax(dim=1)
        negative = table.masked_fill(mask, torch.inf).amin(dim=1)
        losses.append(F.relu(positive - negative + margin).mean())
    return (losses[0] + losses[1]) / 2


def _contrastive(score: Tensor, same: Tensor) -> Tensor:
    """InfoNCE (van den Oord et al. 2018, arXiv:1807.03748) in both directions; several positives share the target."""
    target = same / same.sum(dim=1, keepdim=True)
    return (F.cross_entropy(score, target) + F.cross_entropy(score.T, target.T)) / 2
