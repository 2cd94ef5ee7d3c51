"""Which initialization does a method choose, and what does the choice bring? On the development sets only.

    python benchmarks/choice.py                   # activities, ecg5000, forda; 50 and 200 examples; seeds 0 and 1

``evidence`` and ``race`` choose among what the deep study's model has been trained from, and its recorded test losses
are what they are judged by. Gain is log(test loss of the default / test loss of the chosen one).

Every choice and every test loss is a record under ``_build/choice``: stop it and start it again, it goes on. One layer
of 192 channels with a read-out in closed form is chosen for by ``readout``, with as many channels or fewer.
"""

import argparse
import functools
import math
import os
import time
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"  # read when numpy and torch are imported

import numpy as np
import pandas as pd
import torch
from torch import nn

from tdi_lib import SequenceModel, tdi_init_
from tdi_lib.choice import choose_start, named_starts
from tdi_lib.data import sets
from tdi_lib.readout import ridge_readout_
from tdi_lib.records import Store
from tdi_lib.study.plans import BANKS
from tdi_lib.study.trial import autocorrelation_steps

DATASETS, SIZES, SEEDS = ("activities", "ecg5000", "forda"), (50, 200), (0, 1)
N_TEST = 600


class Task:
    """Examples, standardized by their own scale, and some of the test set."""

    def __init__(self, dataset: str, n: int, seed: int) -> None:
        data = sets.load(dataset, progress=False)
        part = data.subset(n, seed=seed)
        mean, scale = part.x.mean(axis=(0, 1)), part.x.std(axis=(0, 1))
        some = np.linspace(0, len(data.y_test) - 1, min(N_TEST, len(data.y_test))).astype(int)
        self.data, self.seed = data, seed
        self.x, self.x_val, self.x_test = ((a - mean) / scale for a in (part.x, part.x_val, data.x_test[some]))
        self.y, self.y_val, self.y_test = part.y, part.y_val, data.y_test[some]
        deep = pd.read_parquet(Path(__file__).parents[1] / "results" / "deep.parquet")
        usual: dict[str, Any] = {
            "d_model": 32,
            "n_layers": 2,
            "max_steps": 400,
            "pretrain_steps": 0,
            "dt_min": 1e-3,
            "dt_max": 1e-1,
        }
        usual |= {"dataset": dataset, "n": n, "seed": seed}
        deep = deep[(deep[list(usual)] == pd.Series(usual)).all(axis=1) & (deep["init"] != "random")]
        self.trained = dict(zip(deep["init"], deep["loss"], strict=True))  # test losses
        self.trained = {"lin": self.trained.pop("lin")} | self.trained

    @property
    def every(self) -> tuple[np.ndarray, np.ndarray]:
        return np.concatenate([self.x, self.x_val]), np.concatenate([self.y, self.y_val])

    def starts(self, **options: Any) -> dict[str, Any]:
        def make(generator: torch.Generator) -> nn.Module:
            return SequenceModel(self.data.d_input, self.data.n_classes, d_state=32, generator=generator, **options)

        return named_starts(make, seed=self.seed)

    @torch.no_grad()
    def test_loss(self, model: nn.Module) -> float:
        model.eval()
        logits = torch.cat([model(part) for part in torch.as_tensor(self.x_test, dtype=torch.float32).split(32)])
        return float(nn.functional.cross_entropy(logits.double(), torch.as_tensor(self.y_test)))


BANK = {"n_layers": 1, "pooling": "statistics"}


def names() -> list[str]:
    """Of the starts of a model with a read-out; the statistics are relative to a channel's power: no gains."""
    return [name for name in named_starts(lambda generator: nn.Identity()) if name != "gains"]


def closed(task: Task, start: str) -> dict[str, Any]:
    """Test loss of a start with its read-out in closed form."""
    begin = time.process_time()
    x, y = task.every
    model = task.starts(d_model=192, **BANK)[start](x, y)
    left_out = ridge_readout_(model, x, y).loss
    return {"seconds": time.process_time() - begin, "left_out": left_out, "loss": task.test_loss(model)}


def by_readout(task: Task, d_model: int, folds: int) -> dict[str, Any]:
    """What the held-out closed form says of every start."""
    begin = time.process_time()
    starts = {name: task.starts(d_model=d_model, **BANK)[name] for name in names()}
    found = choose_start(starts, *task.every, method="readout", folds=folds, seed=task.seed, progress=False)
    candidates = {each.name: [each.loss, each.gain, each.error] for each in found.candidates}
    return {"seconds": time.process_time() - begin, "candidates": candidates}


def recorded(task: Task) -> dict[str, Any]:
    """Factories of what the deep study's model was trained from, at 50 or 200 examples (results/deep.parquet)."""

    def start(init: str, x: np.ndarray, y: np.ndarray) -> nn.Module:
        generator, steps, poles = torch.Generator().manual_seed(task.seed), (1e-3, 1e-1), init
        if init in BANKS or init == "acf":
            poles = "lin"
        if init == "acf":
            steps = autocorrelation_steps(x)
        options: dict[str, Any] = {"dt_min": steps[0], "dt_max": steps[1], "d_model": 32, "d_state": 32, "n_layers": 2}
        model = SequenceModel(task.data.d_input, task.data.n_classes, init=poles, generator=generator, **options)
        if init in BANKS:
            tdi_init_(model, x, y, generator=generator, **BANKS[init])
        return model

    return {init: functools.partial(start, init) for init in task.trained}


def by_method(task: Task, method: str) -> dict[str, Any]:
    """What evidence, or a race, says of every start of the deep study's model."""
    begin = time.process_time()
    found = choose_start(recorded(task), *task.every, method=method, seed=task.seed, progress=False)
    candidates = {each.name: [each.loss, each.gain, each.error] for each in found.candidates}
    return {"seconds": time.process_time() - begin, "candidates": candidates, "losses": task.trained}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=DATASETS, choices=DATASETS)
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    options = parser.parse_args()
    store = Store(Path(__file__).parents[1] / "_build" / "choice")

    def record(config: dict[str, Any], make: Any, *arguments: Any) -> None:
        if config not in store:
            store.put(config, make(*arguments))
            print(store.get(config), flush=True)

    bases = [
        {"dataset": name, "n": n, "seed": seed}
        for seed in options.seeds
        for n in options.sizes
        for name in options.datasets
    ]
    for base in bases:  # cheap ones first
        task = Task(**base)
        record(base | {"what": "evidence"}, by_method, task, "evidence")
        for start in names():
            record(base | {"what": "closed", "start": start}, closed, task, start)
        record(base | {"what": "readout", "d_model": 48, "folds": 3}, by_readout, task, 48, 3)
    for base in bases:
        record(base | {"what": "race"}, by_method, Task(**base), "race")
    for d_model, folds in ((192, 3), (48, 5)):
        for base in bases:
            config = base | {"what": "readout", "d_model": d_model, "folds": folds}
            record(config, by_readout, Task(**base), d_model, folds)
    print(table(store.records()))


MARGINS = (0.0, 0.01, 0.02, 0.05, 0.1)


def table(records: list[dict[str, Any]]) -> str:
    """Gain of what each method chooses, by margin: mean and worst over tasks."""
    closed_form: dict[Any, dict[str, float]] = {}
    for row in records:
        if row["what"] == "closed":
            closed_form.setdefault((row["dataset"], row["n"], row["seed"]), {})[row["start"]] = row["loss"]
    found: dict[str, list[dict[str, float]]] = {}
    for row in records:
        if "candidates" not in row:
            continue
        method, known = row["what"], closed_form.get((row["dataset"], row["n"], row["seed"]), {})
        losses = row["losses"] if "losses" in row else {name: known[name] for name in names() if name in known}
        if method == "readout" and len(losses) < len(names()):
            continue  # not all measured yet
        candidates = {name: row["candidates"][name] for name in losses}
        default = losses[next(iter(candidates))]
        gains = {name: math.log(default / losses[name]) for name in candidates}
        best = max(candidates, key=lambda name: candidates[name][1])
        entry = {f"margin {each:g}": gains[best] if candidates[best][1] > each else 0.0 for each in MARGINS}
        entry |= {"any": float(np.mean(list(gains.values()))), "hindsight": max(gains.values())}
        if method == "readout":
            method += f", {row['d_model']} channels, {row['folds']} folds"
        found.setdefault(f"{method}, n = {row['n']}", []).append(entry | {"seconds": row["seconds"]})
    frames = {method: pd.DataFrame(entries) for method, entries in sorted(found.items())}
    rows = {method: frame.mean().map("{:+.3f}".format) for method, frame in frames.items()}
    rows |= {f"{method}, worst": frame.min().map("{:+.3f}".format) for method, frame in frames.items()}
    counts = [len(frame) for frame in (*frames.values(), *frames.values())]
    return pd.DataFrame(rows).T.assign(tasks=counts).sort_index().to_string()


if __name__ == "__main__":
    main()
