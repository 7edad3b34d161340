"""The [cam] table: which positions, methods and targets there are heat maps of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from stages.cam.names import METHOD_NAMES, check_position
from stages.naming import known
from stages.targets.names import folder_of, parse_target

LOW_CONTRAST_BELOW = 0.01  # coefficient of variation of a class-free map; statistics may look closer
_LONGEST_NAME = 255  # bytes that file systems take for a folder's name
_DEFAULT_METHODS = ("l2_norm", "max", "mean", "grad_cam", "hires_cam")


class CamSettings(BaseModel):
    """The [cam] table: every position is crossed with every method, and gradient methods with every target."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    positions: tuple[str, ...] = Field(("patch", "aligned", "part"), description="patch, aligned, part, block_N (the first is block_0)")
    methods: tuple[str, ...] = Field(_DEFAULT_METHODS, description=f"{', '.join(METHOD_NAMES)}; `atlas methods` describes each")
    targets: tuple[str, ...] = Field(
        ("match",),
        description=(
            "targets of the gradient methods: label, predicted, counter, class_NAME, match, best, pair_ID, with _share and _contrast; modifiers "
            ".part_N, .whole, .softmax, .flip; `atlas methods` describes each"
        ),
    )

    block_samples: int = Field(2048, ge=1, description="number of images per file of heat maps, in complete blocks of the features")

    @field_validator("methods")
    @classmethod
    def _known_methods(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(known(name, METHOD_NAMES, "cam.methods") for name in value)

    @field_validator("targets")
    @classmethod
    def _known_targets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(_fits_a_folder(str(parse_target(name))) for name in value))

    @field_validator("positions")
    @classmethod
    def _known_positions(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_position(name, "cam.positions") for name in value)


def _fits_a_folder(target: str) -> str:
    size = len(folder_of(target))
    if size > _LONGEST_NAME:
        shown = f"{target[:40]!r}..." if len(target) > 40 else repr(target)
        raise ValueError(
            f"cam.targets: {shown} makes a folder name of {size} bytes, and file systems allow {_LONGEST_NAME} (a character that is not a plain "
            f"letter or digit takes 3 to 12). Give the class or image a shorter name, or ask for 'label', 'predicted' or 'match', which hold none"
        )
    return target
