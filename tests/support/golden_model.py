"""The full-size network with the golden weights, and its expected numbers."""

import json
from pathlib import Path

import golden_weights
import torch

GOLDEN = Path(__file__).parents[1] / "golden"


def golden_state() -> dict[str, torch.Tensor]:
    """Upstream's 145 entries under upstream's names."""
    entries = json.loads((GOLDEN / "state_dict_keys.json").read_text())
    return {
        key: torch.from_numpy(golden_weights.weight(key, tuple(entry["shape"])))
        if entry["dtype"].startswith("float")
        else torch.zeros(entry["shape"], dtype=torch.int64)
        for key, entry in entries.items()
    }
