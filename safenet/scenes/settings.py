"""The [scenes] table: how many scenes the demo draws, and how."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SceneSettings:
    """What is drawn.

    Attributes
    ----------
    places : int
        Number of places.
    test_places : int
        Number of test places. They are the last ones.
    drone_views : int
        Drone views per place. There is always one satellite view.
    size_px : int
        Side of the square pictures, pixels.
    seed : int
        The same seed gives the same bytes.
    max_offset : float
        Largest distance of the middle of the building from the middle of the picture, as a share of the side.
    jpeg_quality : int
        JPEG quality of OpenCV, 1 to 100.
    """

    places: int = 60
    test_places: int = 20
    drone_views: int = 6
    size_px: int = 128
    seed: int = 0
    max_offset: float = 0.22
    jpeg_quality: int = 92

    def __post_init__(self) -> None:
        if not 0 <= self.test_places <= self.places or self.places > 9999:
            raise ValueError(
                f"SceneSettings: places = {self.places} and test_places = {self.test_places}, "
                "but expected 0 <= test_places <= places <= 9999 (ids have 4 digits)."
            )
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"SceneSettings: jpeg_quality = {self.jpeg_quality}, but expected 1 to 100.")
        if self.drone_views < 1 or self.size_px < 32 or self.seed < 0 or not 0 <= self.max_offset <= 0.3:
            raise ValueError(
                f"SceneSettings: drone_views = {self.drone_views}, size_px = {self.size_px}, seed = {self.seed}, max_offset = {self.max_offset}, "
                "but expected drone_views >= 1, size_px >= 32, seed >= 0 and 0 <= max_offset <= 0.3."
            )
