"""The picture of the learning curves: what is on it, and that it is the same each time."""

from __future__ import annotations

from io import BytesIO

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from retrieval.training.curves import draw_curves


def history_of(num_epochs, best=1):
    rng = np.random.default_rng(num_epochs)
    names = ("loss", "validation_loss", "accuracy", "validation_accuracy")
    return [
        {
            "epoch": epoch,
            **{name: float(rng.random()) for name in (*names, "top_1", "top_3", "top_10")},
            "is_best": epoch in (1, best),
        }
        for epoch in range(1, num_epochs + 1)
    ]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved, before they are pixels."""
    figures, save = [], Figure.savefig

    def savefig(figure, *arguments, **settings):
        figures.append(figure)
        save(figure, *arguments, **settings)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return figures


def test_the_picture_is_a_png_without_a_maker_of_sensible_size():
    image = Image.open(BytesIO(draw_curves(history_of(5), "resnet18")))
    assert image.format == "PNG"
    assert 1000 < image.width < 2000
    assert 300 < image.height < 700
    assert not getattr(image, "text", {})
    assert len(np.unique(np.asarray(image.convert("L")))) > 50  # not blank


def test_the_same_history_gives_the_same_bytes_and_another_one_others():
    first = draw_curves(history_of(4), "resnet18")
    assert draw_curves(history_of(4), "resnet18") == first
    others = [draw_curves(history_of(5), "resnet18"), draw_curves(history_of(4), "resnet50")]
    assert len({first, *others}) == 3


def test_three_panels_show_the_columns_of_the_history(drawn):
    history = history_of(6, best=4)
    draw_curves(history, "resnet18, full: 3 classes")
    assert drawn[0].get_suptitle() == "resnet18, full: 3 classes"
    panels = {
        axes.get_title(): {
            line.get_label(): (list(line.get_xdata()), list(line.get_ydata()))
            for line in axes.get_lines()
        }
        for axes in drawn[0].axes
    }
    assert list(panels) == ["Loss", "Classification accuracy", "Retrieval among validation photos"]
    expected = [
        {"training": "loss", "validation": "validation_loss"},
        {"training": "accuracy", "validation": "validation_accuracy"},
        {"top-1": "top_1", "top-3": "top_3", "top-10": "top_10"},
    ]
    for panel, columns in zip(panels.values(), expected, strict=True):
        marked, _ = panel.pop("best: epoch 4")
        assert marked == [4, 4]
        assert panel == {
            label: ([1, 2, 3, 4, 5, 6], [record[column] for record in history])
            for label, column in columns.items()
        }


def test_shares_are_drawn_between_0_and_1(drawn):
    draw_curves(history_of(3), "")
    loss, *shares = drawn[0].axes
    assert [axes.get_ylim()[0] for axes in shares] == [0, 0]
    assert all(1 < axes.get_ylim()[1] < 1.1 for axes in shares)
    assert loss.get_ylim()[1] != shares[0].get_ylim()[1]


def test_one_epoch_is_enough_and_epochs_are_whole_numbers(drawn):
    draw_curves(history_of(1), "one")
    draw_curves(history_of(2), "two")
    for figure in drawn:
        figure.canvas.draw()
        for axes in figure.axes:
            low, high = axes.get_xlim()
            ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
            assert ticks
            assert all(tick == round(tick) for tick in ticks)


def test_what_a_matplotlibrc_says_changes_nothing():
    """It is read from the current folder, and may have LaTeX run."""
    usual = draw_curves(history_of(4), "resnet18")
    theirs = {"text.usetex": True, "figure.facecolor": "red", "lines.linewidth": 9.0}
    with mpl.rc_context(theirs):
        assert draw_curves(history_of(4), "resnet18") == usual
        assert mpl.rcParams["figure.facecolor"] == "red"
