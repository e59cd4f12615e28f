"""What the pictures of a training show, measured on the figures themselves."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from LiverUNetTrainLib.evaluation.figures import draw_curves
from LiverUNetTrainLib.run.folder import EpochLog
from LiverUNetTrainLib.training.pictures import draw_validation


@pytest.mark.parametrize("shape", [(3, 96, 64), (3, 64, 96), (3, 200, 40)])
@pytest.mark.parametrize("name", ["a", "case_34455a2d1ff0", "a_very_long_name_of_a_case_" * 8])
def test_the_caption_of_a_validation_case_lies_above_the_image_and_within_the_picture(shape, name):
    mask = np.zeros(shape, np.uint8)
    mask[1, 20:50, 10:30] = 255
    figure = draw_validation(name, np.zeros(shape), mask, mask / 255)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (caption,) = figure.texts
    box, (axes,) = caption.get_window_extent(canvas.get_renderer()), figure.axes
    width, height = canvas.get_width_height()
    assert box.x0 >= 0
    assert box.x1 <= width
    assert box.y1 <= height
    assert box.y0 >= axes.get_window_extent().y1
    assert caption.get_text().endswith("slice 2\nmask blue, found orange")


def test_a_curve_without_a_point_is_not_in_the_legend():
    figure = draw_curves({"run": [EpochLog(epoch, 1e-3, 0.5, 0.8, 0.9, 1.0) for epoch in (1, 2)]})
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["training"]
