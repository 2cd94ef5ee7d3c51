"""Placing poles in closed form against gradient descent on the spectral loss: time and what it reaches.

    python benchmarks/match.py                              # a table of the reference, on the screen
    python benchmarks/match.py record results/match.parquet  # the reference and how time scales, for chapter 7

Whole calls of ``match_power_spectrum_`` on one thread, the losses in its report included. At the reference the closed
form runs before and after the descent, so that a slow spell of the machine shows; its median is over all its runs. The
record takes about six minutes on a machine that does nothing else. Away from the reference a descent is not run: four
steps less one, times a hundred, are its 300 steps (``extrapolated``; no loss). ``loss`` is taken at the frequencies of
the match, as both solvers see it; ``loss_between`` on a grid sixteen times finer, where poles of long memory show.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"  # read when numpy and torch are imported

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from tdi_lib import DiagonalSSM, TaskSpectrum
from tdi_lib.records import provenance
from tdi_lib.tdi import MatchReport, match_power_spectrum_, spectral_loss

H, D_STATE, LENGTH = 128, 64, 1024
STEPS = 300
FINER = 16
AROUND = {"H": 64, "d_state": 32, "L": 1024}
SCALES = {
    "H": (16, 32, 64, 128, 256, 512),
    "d_state": (8, 16, 32, 64, 128),
    "L": (128, 256, 512, 1024, 2048, 4096, 8192, 16384),
}


def task(red: bool, length: int = LENGTH) -> TaskSpectrum:
    """Two bumps over an input that is white, or falls by seven decades."""
    omega = np.linspace(0, np.pi, length // 2 + 1)
    input_power = (omega + 0.05) ** -4.0 if red else np.ones_like(omega)
    importance = np.exp(-(((omega - 0.8) / 0.2) ** 2) / 2) + 0.5 * np.exp(-(((omega - 2.3) / 0.2) ** 2) / 2)
    power = importance / input_power
    return TaskSpectrum(omega, power / power.mean(), input_power / input_power.mean(), "cross", 100)


def run(
    solver: str, spectrum: TaskSpectrum, steps: int, d_model: int = H, d_state: int = D_STATE
) -> tuple[float, MatchReport, DiagonalSSM]:
    generator = torch.Generator().manual_seed(0)
    ssm = DiagonalSSM(d_model, d_state, generator=generator)
    start = time.perf_counter()
    report = match_power_spectrum_(ssm, spectrum, solver=solver, steps=steps, generator=generator)
    return time.perf_counter() - start, report, ssm


def reference(steps: int) -> dict[tuple[str, str], list[tuple[float, MatchReport, DiagonalSSM]]]:
    """All runs at the reference, by input and solver."""
    results = {}
    run("nnls", task(False), steps)  # warms up
    for name, red in (("white", False), ("red", True)):
        before = [run("nnls", task(red), steps) for _ in range(10)]
        results[name, "adam"] = [run("adam", task(red), steps)]
        results[name, "nnls"] = before + [run("nnls", task(red), steps) for _ in range(11)]
    return results


def print_table(steps: int) -> None:
    print(f"H = {H}, d_state = {D_STATE}, L = {LENGTH}, {steps} steps, one thread, torch {torch.__version__}")
    print(f"{'input':>6} {'solver':>6} {'median s':>9} {'loss':>7} {'ratio':>6}")
    results = reference(steps)
    medians = {key: statistics.median(seconds for seconds, *_ in runs) for key, runs in results.items()}
    for (name, solver), median in medians.items():
        loss, ratio = results[name, solver][0][1].loss_after, medians[name, "adam"] / median
        print(f"{name:>6} {solver:>6} {median:9.4f} {loss:7.4f} {ratio:6.1f}")


def record() -> pd.DataFrame:
    """One row per case: median and shortest time, and what was reached."""
    rows = []
    fixed = {"H": H, "d_state": D_STATE, "L": LENGTH, "study": "reference", "extrapolated": False}
    for (name, solver), runs in reference(STEPS).items():
        seconds = [t for t, *_ in runs]
        between = spectral_loss(runs[0][2], task(name == "red", FINER * LENGTH))
        rows.append(
            {"solver": solver, "input": name}
            | fixed
            | {"seconds": statistics.median(seconds), "least_seconds": min(seconds), "repeats": len(runs)}
            | {"loss_before": runs[0][1].loss_before, "loss": runs[0][1].loss_after, "loss_between": between}
        )
    cases = [(what, AROUND | {what: value}) for what, values in SCALES.items() for value in values]
    for what, size in tqdm(cases, unit="size"):
        spectrum = task(False, size["L"])
        for solver in ("nnls", "adam"):
            one = lambda steps: run(solver, spectrum, steps, size["H"], size["d_state"])  # noqa: B023, E731
            one(1)  # warms up
            seconds, begin = [], time.perf_counter()
            while len(seconds) < 3 or (len(seconds) < 11 and time.perf_counter() - begin < 5):
                if solver == "nnls":
                    took, report, _ = one(1)
                else:
                    took = (one(4)[0] - one(1)[0]) * STEPS / 3
                seconds.append(took)
            row = {"solver": solver, "input": "white"} | size | {"study": what, "extrapolated": solver == "adam"}
            row |= {"seconds": statistics.median(seconds), "least_seconds": min(seconds), "repeats": len(seconds)}
            if solver == "nnls":
                row |= {"loss_before": report.loss_before, "loss": report.loss_after}
            rows.append(row)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=STEPS, help="gradient steps of the table (default: %(default)s)")
    parser.add_argument("study", nargs="?", choices=["record"])
    parser.add_argument("file", nargs="?", type=Path, help="Parquet file to write")
    arguments = parser.parse_args()
    if (arguments.study is None) != (arguments.file is None):
        parser.error("record needs a file")
    torch.set_num_threads(1)
    if arguments.study is None:
        print_table(arguments.steps)
        return
    origin = json.dumps(provenance())  # of the code as it is now, not when the record ends
    table = record()
    table["provenance"] = origin
    arguments.file.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(arguments.file, index=False)


if __name__ == "__main__":
    main()
