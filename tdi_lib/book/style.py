"""One look for every figure of the book: vector output, the same bytes each time, readable in grey."""

from typing import Any

import matplotlib as mpl
from cycler import cycler

__all__ = ["COLOURS", "STYLES", "use_book_style"]

COLOURS = ("#0b3c6f", "#d55e00", "#3a9ad9", "#7a7a7a", "#b8860b", "#6a3d6a")
"""Colours that stay apart for colour-blind eyes (after Okabe and Ito) and differ in lightness."""

STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
"""Line styles that go with them, so that no curve is known by colour alone."""


def use_book_style(**rc: Any) -> None:
    """Set matplotlib (and, inside Jupyter, its inline backend) for the book's figures; ``rc`` overrides.

    >>> use_book_style()
    >>> mpl.rcParams["svg.hashsalt"]
    'tdi'
    """
    style: dict[str, Any] = {
        "axes.grid": True,
        "axes.prop_cycle": cycler(color=COLOURS) + cycler(linestyle=STYLES),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "figure.constrained_layout.use": True,
        "figure.figsize": (7.2, 3.2),
        "font.size": 10,
        "grid.alpha": 0.25,
        "legend.frameon": False,
        "lines.linewidth": 1.8,
        "svg.fonttype": "path",
        "svg.hashsalt": "tdi",  # element ids: the same in every run
    } | rc
    mpl.rcParams.update(style)  # type: ignore[arg-type]  # its keys are a closed set to the type checker
    try:
        from IPython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:
        return
    if get_ipython() is not None:
        set_matplotlib_formats("svg", metadata={"Date": None})
