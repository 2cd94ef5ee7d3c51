"""Placing poles in closed form against gradient descent on the spectral loss: time and what it reaches.

    python benchmarks/match.py

Whole calls of ``match_power_spectrum_``, the losses in its report included. The closed form runs before and after the
descent, so that a slow spell of the machine shows; its median is over all its runs.
"""

import argparse
import statistics
import time

import numpy as np
import torch

from tdi_lib import DiagonalSSM, TaskSpectrum
from tdi_lib.matching import MatchReport, match_power_spectrum_

H, D_STATE, LENGTH = 128, 64, 1024


def task(red: bool) -> TaskSpectrum:
    """Two bumps over an input that is white, or falls by more than five decades."""
    omega = np.linspace(0, np.pi, LENGTH // 2 + 1)
    input_power = (omega + 0.05) ** -4.0 if red else np.ones_like(omega)
    importance = np.exp(-(((omega - 0.8) / 0.2) ** 2) / 2) + 0.5 * np.exp(-(((omega - 2.3) / 0.2) ** 2) / 2)
    power = importance / input_power
    return TaskSpectrum(omega, power / power.mean(), input_power / input_power.mean(), "cross", 100)


def run(solver: str, spectrum: TaskSpectrum, steps: int) -> tuple[float, MatchReport]:
    generator = torch.Generator().manual_seed(0)
    ssm = DiagonalSSM(H, D_STATE, generator=generator)
    start = time.perf_counter()
    report = match_power_spectrum_(ssm, spectrum, solver=solver, steps=steps, generator=generator)
    return time.perf_counter() - start, report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300, help="gradient steps (default: %(default)s)")
    steps = parser.parse_args().steps
    threads = torch.get_num_threads()
    print(f"H = {H}, d_state = {D_STATE}, L = {LENGTH}, {steps} steps, {threads} threads, torch {torch.__version__}")
    print(f"{'input':>6} {'solver':>6} {'median s':>9} {'loss':>7} {'ratio':>6}")
    run("nnls", task(False), steps)  # warms up
    for name, red in (("white", False), ("red", True)):
        spectrum = task(red)
        results: dict[str, list[tuple[float, MatchReport]]] = {"nnls": [], "adam": []}
        for solver, repeats in (("nnls", 10), ("adam", 1), ("nnls", 11)):
            results[solver] += [run(solver, spectrum, steps) for _ in range(repeats)]
        medians = {solver: statistics.median(seconds for seconds, _ in runs) for solver, runs in results.items()}
        for solver, median in medians.items():
            loss, ratio = results[solver][0][1].loss_after, medians["adam"] / median
            print(f"{name:>6} {solver:>6} {median:9.4f} {loss:7.4f} {ratio:6.1f}")


if __name__ == "__main__":
    main()
