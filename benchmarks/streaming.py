"""A task's spectrum from a stream that is larger than memory: how fast, and in how much memory.

    python benchmarks/streaming.py            # 1 GB
    python benchmarks/streaming.py --gb 10    # 10 GB, in two to three minutes

Chunks of float32 sequences in three classes are made one by one and forgotten. Each is read twice: plainly, by the sum
of its squares, and by the accumulator. Times are of the processor, one thread, for the reading alone; the making is
apart. The peak is the resident memory of the whole process, libraries included, once after a tenth of the data and once
at the end: it must not have grown.
"""

import argparse
import os
import resource
import sys
import time

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"  # read when numpy is imported

import numpy as np

from tdi_lib.spectrum import TaskSpectrum
from tdi_lib.streaming import SpectrumAccumulator

BATCH = 4096  # sequences


def batch(rng: np.random.Generator, length: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """White noise with a faint tone, whose frequency is the class."""
    y = rng.integers(0, 3, BATCH)
    tone = np.cos((1.0 + 0.5 * np.arange(3)[:, None]) * np.arange(length)).astype(np.float32)
    x = rng.standard_normal((BATCH, length, channels), dtype=np.float32)
    x += rng.choice([-0.5, 0.5], (BATCH, 1, 1)).astype(np.float32) * tone[y][:, :, None]
    return x, y


def peak() -> float:
    """Largest resident memory so far, GiB."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / 2**30 if sys.platform == "darwin" else size / 2**20


def run(gigabytes: float, length: int, channels: int, reservoir: int) -> tuple[SpectrumAccumulator, TaskSpectrum]:
    """Stream so much, and print what it took."""
    rng, accumulator = np.random.default_rng(0), SpectrumAccumulator(reservoir=reservoir)
    size = 4 * BATCH * length * channels
    count = max(round(gigabytes * 1e9 / size), 10)
    print(f"before: {peak():.2f} GiB")
    seconds = {"make": 0.0, "plain": 0.0, "accumulate": 0.0}
    for index in range(count):
        marks = [time.process_time()]
        x, y = batch(rng, length, channels)
        marks.append(time.process_time())
        float(np.vdot(x, x))
        marks.append(time.process_time())
        accumulator.update(x, y)
        marks.append(time.process_time())
        for name, start, stop in zip(seconds, marks, marks[1:], strict=False):
            seconds[name] += stop - start
        if index == count // 10:
            print(f"after a tenth: peak {peak():.2f} GiB")
    start = time.process_time()
    spectrum = accumulator.result("discriminative")
    total = count * size / 1e9
    print(f"after {total:.1f} GB ({accumulator.n_samples} sequences of {length} x {channels}): peak {peak():.2f} GiB")
    for name, took in seconds.items():
        print(f"{name:>10} {took:8.1f} s {total / took:8.2f} GB/s")
    print(
        f"{'result':>10} {time.process_time() - start:8.2f} s, tones at 1.0, 1.5 and 2.0 rad/sample: largest at",
        end=" ",
    )
    print(", ".join(f"{omega:.2f}" for omega in np.sort(spectrum.omega[np.argsort(spectrum.importance)[-9:]])))
    return accumulator, spectrum


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=1.0, help="gigabytes to stream (default: %(default)s)")
    parser.add_argument("--length", type=int, default=1024, help="steps of a sequence (default: %(default)s)")
    parser.add_argument("--channels", type=int, default=1, help="channels of a sequence (default: %(default)s)")
    parser.add_argument("--reservoir", type=int, default=400, help="samples kept (default: %(default)s)")
    arguments = parser.parse_args()
    run(arguments.gb, arguments.length, arguments.channels, arguments.reservoir)


if __name__ == "__main__":
    main()
