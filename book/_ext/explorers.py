"""The directive ``explorer``: a figure that can be touched, drawn in the page by ``book/_assets/explorers.js``.

What it needs of the recorded study stands in the page as JSON; nothing is fetched.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import tdi_lib
from tdi_lib.study.analysis import grouped_mean, with_gain
from tdi_lib.study.plans import DEEP_NAMES, DEEP_SIZES, DEFAULTS
from tdi_lib.study.sweep import replay

RESULTS = Path(tdi_lib.__file__).parents[1] / "results"
KINDS = {
    "front": "a mismatched and a matched layer over a task's spectrum, and the learning curve that each gives",
    "task": "three layers over a task's spectrum, and the learning curve that each gives",
    "filter": "poles, frequency response, kernel and Toeplitz spectrum of a small state space model",
    "study": "the runs of the deep study",
}
STARTS = {
    "lin": "S4D-Lin, the default",
    "tdi": "matched to the task",
    "half": "half matched, half S4D-Lin",
    "flat": "flat bank",
    "cross": "matched to the cross-power",
    "inv": "S4D-Inv",
    "legs": "S4D-LegS",
    "real": "S4D-Real",
    "random": "random frequencies",
    "dfout": "DFouT",
    "scaled": "S4D-Lin, frequencies times 3",
    "acf": "S4D-Lin, steps from the autocorrelation",
}
PLAIN = ("n_layers", "layers", "dt_min", "dt_max", "pretrain_steps")  # as a trial has them unless it says
LONGEST = (400, 1000)  # steps: chapter 11's training, on few examples and on all
ENOUGH = 5  # runs for an interval


def deep_study(table: pd.DataFrame) -> dict[str, Any]:
    """Per data set, initialization and size the runs of the two-layer models: their losses, accuracies and gains."""
    plain = (table[list(PLAIN)] == [DEFAULTS[name] for name in PLAIN]).all(axis=1) & table.max_steps.isin(LONGEST)
    table = with_gain(table[plain]).sort_values(["dataset", "init", "n", "seed"])
    runs: dict[str, Any] = {}
    for (dataset, init, n), group in table.groupby(["dataset", "init", "n"]):
        cell = {name: summary(group[name].to_numpy()) for name in ("loss", "accuracy", "gain")}
        runs.setdefault(dataset, {}).setdefault(init, {})[int(n)] = cell
    sets = [[name, text] for name, text in DEEP_NAMES.items() if name in runs]
    starts = [[name, text] for name, text in STARTS.items() if any(name in of_set for of_set in runs.values())]
    return {"sets": sets, "starts": starts, "sizes": {name: DEEP_SIZES[name] for name, _ in sets}, "runs": runs}


def summary(values: np.ndarray) -> dict[str, Any]:
    """The values, their mean, and Student's interval where there are enough of them."""
    low, high = grouped_mean(values).ends if len(values) >= ENOUGH else (None, None)
    numbers = {"mean": float(values.mean()), "low": low, "high": high}
    rounded = {name: None if x is None else float(f"{x:.6g}") for name, x in numbers.items()}
    return {"values": [float(f"{x:.6g}") for x in values]} | rounded


class Explorer(SphinxDirective):
    """``{explorer} task``: one of ``KINDS``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        (kind,) = self.arguments
        if kind not in KINDS:
            raise self.error(f"no explorer {kind!r}; there are {', '.join(KINDS)}")
        data = ""
        if kind == "study":
            for path in (*RESULTS.glob("deep*.parquet"), __file__):
                self.env.note_dependency(str(path))
            text = json.dumps(deep_study(replay("deep", results=RESULTS)), separators=(",", ":"))
            data = f'<script type="application/json">{text}</script>'
        html = (
            f'<div class="tdi-explorer" id="explorer-{kind}" data-explorer="{kind}" role="group" aria-label="To touch: '
            f'{KINDS[kind]}"><noscript><p>This figure needs JavaScript: {KINDS[kind]}.</p></noscript>{data}</div>'
        )
        return [nodes.raw("", html, format="html", classes=["explorer"])]


def add_scripts(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: nodes.document | None) -> None:
    """The scripts go on pages that have an explorer, and on no other."""
    if tree is not None and any("explorer" in node.get("classes", ()) for node in tree.findall(nodes.raw)):
        for name in ("model.js", "explorers.js"):
            app.add_js_file(name, loading_method="defer")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("explorer", Explorer)
    app.connect("html-page-context", add_scripts)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
