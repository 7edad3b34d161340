"""A stand-in for `draw_mosaic` that keeps what a mosaic asked of it, and the picture that came of it."""

import numpy as np

from stages.render.panels import draw_mosaic, plan_layout


class Caught:
    """Stands in for `draw_mosaic` and keeps what a mosaic asked of it."""

    def __call__(self, rows, row_labels, column_labels, title, footer, settings, bars=None):
        self.rows, self.row_labels, self.column_labels, self.footer, self.settings = rows, row_labels, column_labels, footer, settings
        self.layout = plan_layout(rows, row_labels, column_labels, title, footer, settings, bars)
        self.picture = draw_mosaic(rows, row_labels, column_labels, title, footer, settings, bars)
        return self.picture

    def cell(self, row: int, column: int) -> np.ndarray:
        """The photo's band of one cell, cut out of the finished picture."""
        top, left = self.layout.tops[row], self.layout.lefts[column]
        return self.picture[top : top + self.layout.heights[row], left : left + self.settings.panel_px]
