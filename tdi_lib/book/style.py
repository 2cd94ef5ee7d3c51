"""One look for every figure of the book: vector output, the same bytes each time, readable in grey."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import matplotlib as mpl
from cycler import cycler

__all__ = ["COLORS", "STYLES", "frequency_axis", "plain_ticks", "show_table", "styled", "use_book_style"]

COLORS = ("#0b3c6f", "#d55e00", "#3a9ad9", "#7a7a7a", "#b8860b", "#6a3d6a")
"""Colors that stay apart for color-blind eyes (after Okabe and Ito) and differ in lightness."""

STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
"""Line styles that go with them, so that no curve is known by color alone."""


def use_book_style(**rc: Any) -> None:
    """Set matplotlib (and, inside Jupyter, its inline backend) for the book's figures; ``rc`` overrides.

    >>> use_book_style()
    >>> mpl.rcParams["svg.hashsalt"]
    'tdi'
    """
    style: dict[str, Any] = {
        "axes.grid": True,
        "axes.prop_cycle": cycler(color=COLORS) + cycler(linestyle=STYLES),
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


def styled(curves: Iterable[Any], markers: str = "") -> Iterator[tuple[Any, dict[str, Any]]]:
    """Each of the curves with the color and the line style (and the marker) that it is drawn with.

    >>> [drawn["marker"] for _, drawn in styled([1, 2], "os")]
    ['o', 's']
    """
    for number, curve in enumerate(curves):
        drawn: dict[str, Any] = {"color": COLORS[number], "linestyle": STYLES[number]}
        yield curve, drawn | ({"marker": markers[number]} if markers else {})


def frequency_axis(ax: Any, parts: int = 2) -> None:
    """Mark the frequencies from 0 to π on the x axis, in that many parts."""
    names = {0: "0", 1: "π", 1 / 2: "π/2", 1 / 4: "π/4", 3 / 4: "3π/4"}
    ax.set_xticks([n * math.pi / parts for n in range(parts + 1)], [names[n / parts] for n in range(parts + 1)])


def plain_ticks(ax: Any, values: Iterable[float], axis: str = "x") -> None:
    """Mark these values on a logarithmic axis, as they are."""
    values = list(values)
    getattr(ax, f"set_{axis}ticks")(values, [str(value) for value in values])
    ax.minorticks_off()


def show_table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Display a table in Markdown: names of its columns, and rows of cells.

    >>> show_table(["L", "distance"], [[64, "0.12"]])
    <IPython.core.display.Markdown object>
    """
    from IPython.display import Markdown, display

    columns = list(columns)
    head, *body = (f"| {' | '.join(map(str, line))} |" for line in (columns, *rows))
    display(Markdown("\n".join([head, "|---" * len(columns) + "|", *body])))
