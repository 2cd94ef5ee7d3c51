"""A diagnosis as text for a terminal, and as one HTML page that needs nothing but itself."""

import base64
import functools
import html
import io
import math
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np

from tdi_lib.app.diagnose import LEVEL, Band, Diagnosis, signed

__all__ = ["html_report", "text_report"]

NAMES = {
    "lin": "S4D-Lin",
    "inv": "S4D-Inv",
    "legs": "S4D-LegS",
    "dfout": "S4D-DFouT",
    "real": "S4D-Real",
    "flat": "flat bank",
    "tdi": "matched (TDI)",
}
ORDERS = {
    "first": "first order: the targets follow the wave form itself",
    "second": "second order: the targets follow the power in a band, whatever the phase",
}
COLORS = {"use it": "#0b5d3b", "try it": "#0b3c6f", "do not bother": "#5a5a5a"}
SCALE = "0: the same spectrum; 2: nothing in common"
WIDTH = 72
COMMANDS = {
    "tdi": "tdi init {data} -o init.safetensors",
    "flat": "tdi init {data} --method flat -o init.safetensors",
}
SIZE = (4.8, 3.1)  # inches: the letters stay readable on a phone


def text_report(found: Diagnosis, understood: str, data: str = "DATA") -> str:
    """What a terminal shows: the verdict, its reason, the facts, and the next command, for ``data``.

    >>> from tdi_lib.app.diagnose import diagnose
    >>> from tdi_lib.data.synthetic import four_tones
    >>> x, y = four_tones(64, amplitude=0.5, generator=np.random.default_rng(0), length=64)
    >>> print(text_report(diagnose(x, y, d_model=16, d_state=16), "made up").splitlines()[0])
    USE IT
    """
    fold = functools.partial(textwrap.fill, width=WIDTH, subsequent_indent=" " * 12, break_long_words=False)
    lines = [found.verdict.upper(), textwrap.fill(found.reason, WIDTH), ""]
    lines += [fold(f"{name:<12}{text}") for name, text in facts(found, understood)]
    if found.start in COMMANDS:
        lines += ["", f"next: {COMMANDS[found.start].format(data=data)}"]
    return "\n".join(lines)


def facts(found: Diagnosis, understood: str) -> list[tuple[str, str]]:
    """The diagnosis as pairs of a name and a sentence."""
    test, held, flat = found.structure, found.held_out, found.against_flat
    seen = test.p_value <= LEVEL
    between = "" if found.n_groups is None else f" between {found.n_groups} groups"
    chance = f"p = {test.p_value:.2g} by {test.n_permutations} permutations of the targets{between}"
    rows = [("data", understood), *(("note", note) for note in found.notes)]
    rows.append(("structure", f"{'yes' if seen else 'not to be told from chance'}: {chance}"))
    if seen:
        low, middle, high = (_frequency(found, omega) for omega in found.quantiles)
        rows += [
            ("order", ORDERS[test.order]),
            ("band", "; ".join(_band(found, band) for band in _loudest(found))),
            ("importance", f"5 % below {low}, half below {middle}, 95 % below {high}"),
        ]
    distances = ", ".join(f"{NAMES[name]} {value:.2f}" for name, value in found.distances.items())
    rows += [
        ("distance", f"{distances} ({SCALE if seen else 'from a spectrum estimated from what may be noise'})"),
        (
            "held out",
            f"missed share of the targets' variance: S4D-Lin {held.base:.2f}, flat bank {flat.base:.2f}, matched "
            f"{held.rival:.2f} (0: nothing missed; 1: as good as the mean of the targets"
            + ("; above 1: worse than that" if max(held.base, flat.base, held.rival) > 1 else "")
            + f"); difference from S4D-Lin {signed(held.difference, '.2f')} ± {held.standard_error:.2f}",
        ),
    ]
    if found.forecast is not None:
        factor = [math.exp(value) for value in (found.forecast.gain, found.forecast.low, found.forecast.high)]
        rows.append(
            (
                "forecast",
                f"at n = {found.n_samples:,} theory divides the error of S4D-Lin by {factor[0]:.2g} "
                f"({factor[1]:.2g} to {factor[2]:.2g} over half-samples), if the estimated spectrum is right",
            )
        )
    else:
        rows.append(("forecast", "none: the theory is of first order; the held-out samples speak for themselves"))
    return rows


def _loudest(found: Diagnosis) -> list[Band]:
    """At most four bands that matter, low to high."""
    loud = sorted(found.bands, key=lambda band: -band.share)
    return sorted([loud[0], *(band for band in loud[1:4] if band.share >= 0.05)], key=lambda band: band.low)


def _number(found: Diagnosis, omega: float) -> str:
    """A frequency with as many digits as the spectrum resolves."""
    resolution = math.pi / (len(found.spectrum.omega) - 1)
    return f"{omega:.{max(2, math.ceil(-math.log10(resolution)))}f}"


def _frequency(found: Diagnosis, omega: float) -> str:
    hertz = found.hertz(omega)
    return f"{_number(found, omega)} rad/sample" + ("" if hertz is None else f" ({hertz:.4g} Hz)")


def _band(found: Diagnosis, band: Band) -> str:
    low, high = found.hertz(band.low), found.hertz(band.high)
    hertz = "" if low is None or high is None else f" ({low:.4g} to {high:.4g} Hz)"
    span = f"{_number(found, band.low)} to {_number(found, band.high)} rad/sample"
    return f"{span}{hertz}: {100 * band.share:.0f} % of the importance"


def html_report(found: Diagnosis, understood: str, source: str, version: str, data: str = "DATA") -> str:
    """One page: the verdict first, then the facts and three figures; no script, and nothing from elsewhere.

    Args:
        found: the diagnosis.
        understood: what the file was taken for (``understood`` of :class:`tdi_lib.app.files.Samples`).
        source: the file's name, for the title.
        version: of the library, for the last line.
        data: the file and its options, for the command to go on with.
    """
    say = html.escape
    rows = "\n".join(f"<dt>{say(name)}</dt><dd>{say(text)}</dd>" for name, text in facts(found, understood))
    low, _, high = (_frequency(found, omega) for omega in found.quantiles)
    drawn = [
        (
            _draw_spectrum,
            f"Curves over frequency: the importance of the task, 90 % of it between {low} and {high}, beside the "
            "power of the input and what the default and the matched layer let through.",
            "What the task listens to (shaded: its bands), what the input holds, and what two layers let through. "
            "Each curve has mean one.",
        ),
        (
            _draw_distances,
            "Bars: " + ", ".join(f"{NAMES[name]} {value:.2f}" for name, value in found.distances.items()) + ".",
            f"Distance of each start from the task's spectrum. {SCALE}.",
        ),
        (
            _draw_held_out,
            f"Bars: S4D-Lin misses {found.held_out.base:.2f} of the variance, the flat bank "
            f"{found.against_flat.base:.2f}, the matched layer {found.held_out.rival:.2f}.",
            "Share of the targets' variance that a linear read-out of the untrained layer misses on held-out "
            "samples; 1 is no better than the mean. The flat bank sees no targets.",
        ),
    ]
    if found.structure.p_value > LEVEL:  # a curve through noise would be looked at all the same
        del drawn[:2]
    figures = "\n".join(
        f'<figure><img alt="{say(alt, quote=True)}" src="{_svg(draw, found)}">'
        f"<figcaption>{say(caption)}</figcaption></figure>"
        for draw, alt, caption in drawn
    )
    n = f"{found.n_samples:,} samples of {found.length:,} steps"
    return TEMPLATE.format(
        title=say(f"Task spectrum of {source}"),
        source=say(source),
        verdict=say(found.verdict[0].upper() + found.verdict[1:]),
        color=COLORS[found.verdict],
        reason=say(found.reason),
        n=say(n),
        p=f"{found.structure.p_value:.2g}",
        rows=rows,
        figures=figures,
        next=NEXT.format(command=say(COMMANDS[found.start].format(data=data))) if found.start in COMMANDS else "",
        version=say(version),
    )


NEXT = "<p>Next: <code>{command}</code> writes the parameters.</p>"
TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light">
<title>{title}</title>
<style>
body {{ margin: 0 auto; padding: 1rem; max-width: 44rem; font: 1rem/1.5 system-ui, sans-serif; color: #1a1a1a;
  background: #fff; overflow-wrap: anywhere; }}
h1 {{ font-size: 1.15rem; font-weight: 600; margin: .5rem 0 1rem; }}
h2 {{ font-size: 1.05rem; margin: 2rem 0 .5rem; }}
.verdict {{ border-left: .4rem solid {color}; background: #f4f6f8; padding: .8rem 1rem; }}
.verdict strong {{ display: block; font-size: 1.6rem; line-height: 1.2; color: {color}; }}
.verdict p {{ margin: .4rem 0 0; }}
dl {{ margin: 0; display: grid; grid-template-columns: 7rem 1fr; gap: .45rem 1rem; }}
dt {{ font-weight: 600; }}
dd {{ margin: 0; }}
figure {{ margin: 1.5rem 0; }}
img {{ width: 100%; max-width: 36rem; height: auto; display: block; }}
figcaption, footer {{ color: #555; font-size: .9rem; }}
code {{ background: #f4f6f8; padding: .1rem .3rem; }}
@media (max-width: 34rem) {{ dl {{ grid-template-columns: 1fr; gap: 0; }} dd {{ margin-bottom: .6rem; }} }}
</style>
</head>
<body>
<main>
<h1>Is a start matched to the task worth it? {source}</h1>
<div class="verdict">
<strong>{verdict}</strong>
<p>{reason}</p>
<p>n = {n}; p = {p} for spectral structure.</p>
</div>
<h2>What the samples say</h2>
<dl>
{rows}
</dl>
<h2>Figures</h2>
{figures}
<h2>How to read it</h2>
<p>A state space layer is a bank of filters. This page compares the filters that it would start with to what the
targets depend on. Nothing was trained: the layer is as it starts, and a linear read-out is fitted on one half of the
samples and tested on the other. A deep model may make more or less of its start than that.</p>
<p>“Do not bother”: no structure beyond chance (p above 0.05), or held-out samples or theory that see no gain. “Use it”:
the matched initialization has a lower error, by more than two standard errors, a tenth of the error and a hundredth of
the variance, and theory, where it applies, agrees.
“Try it”: in between, or the flat bank alone is better than the default. Samples are taken to be independent but for
copies, overlapping windows and groups that are given; of other samples that belong together p is too small.</p>
{next}
</main>
<footer><p>Written by tdi {version}. This page is complete in itself and loads nothing.</p></footer>
</body>
</html>
"""


def _svg(draw: Callable[[Any, Diagnosis], None], found: Diagnosis) -> str:
    """A figure as a data URI, the same bytes each time."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from tdi_lib.book.style import use_book_style

    with mpl.rc_context():
        use_book_style()
        figure = Figure(figsize=SIZE, layout="constrained")
        draw(figure.subplots(), found)
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _draw_spectrum(ax: Any, found: Diagnosis) -> None:
    task = found.spectrum
    for band in found.bands:
        ax.axvspan(band.low, band.high, color="#d55e00", alpha=0.15, linewidth=0)
    importance = task.importance
    for label, curve, line in (
        ("input", task.input_power, {"color": "#7a7a7a", "linestyle": ":"}),
        ("default layer", found.responses["lin"], {"color": "#0b3c6f", "linestyle": "--"}),
        ("matched layer", found.responses["tdi"], {"color": "#3a9ad9", "linestyle": "-."}),
        ("task", importance, {"color": "#d55e00", "linestyle": "-"}),
    ):
        ax.semilogy(task.omega, np.maximum(curve, 1e-12), label=label, **line)
    top = max(float(curve.max()) for curve in (importance, task.input_power, *found.responses.values()))
    ax.set(xlim=(0, math.pi), ylim=(1e-3, 2 * top), xlabel="frequency (rad/sample)", ylabel="relative power")
    if found.sampling_rate is not None:
        to_hertz = found.sampling_rate / (2 * math.pi)
        above = ax.secondary_xaxis("top", functions=(lambda w: w * to_hertz, lambda f: f / to_hertz))
        above.set_xlabel("frequency (Hz)")
    ax.figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)


def _draw_distances(ax: Any, found: Diagnosis) -> None:
    names = list(found.distances)[::-1]
    values = [found.distances[name] for name in names]
    colors = ["#d55e00" if name == "tdi" else "#0b3c6f" for name in names]
    bars = ax.barh([NAMES[name] for name in names], values, color=colors, height=0.65)
    ax.bar_label(bars, [f"{value:.2f}" for value in values], padding=3)
    ax.set(xlim=(0, 2.2), xlabel="distance from the task's spectrum")
    ax.grid(axis="y", visible=False)
    ax.set_axisbelow(True)


def _draw_held_out(ax: Any, found: Diagnosis) -> None:
    values = [found.held_out.rival, found.against_flat.base, found.held_out.base]
    bars = ax.barh(
        ["matched (TDI)", "flat bank", "S4D-Lin"], values, color=["#d55e00", "#0b3c6f", "#0b3c6f"], height=0.6
    )
    ax.bar_label(bars, [f"{value:.2f}" for value in values], padding=3)
    ax.axvline(1, color="#7a7a7a", linestyle=":", linewidth=1.2)
    ax.set(xlim=(0, 1.18 * max(1.0, *values)), xlabel="missed share of the variance, held out")
    ax.grid(axis="y", visible=False)
    ax.set_axisbelow(True)
