"""Run a command as it would run on other processors: a matrix of instruction sets, threads, and a jitter of the inputs.

    python tests/corners.py [CORNER ...] -- COMMAND ...     # all corners this processor can play, or those named
    python tests/corners.py --draw 2 KEY                    # names two of them, drawn by the key

The matrix has five axes: the kernels of OpenBLAS (NumPy's and SciPy's linear algebra), those of torch, NumPy's own
loops, the threads, and the noise of ``jitter.py``. Each corner sets all of them; every value occurs at least twice.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

LOOPS = "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"  # all that NumPy would choose from at run time
STARTUP = str(Path(__file__).with_name("jitter.py"))

# name: OpenBLAS, torch, NumPy's loops off, threads, seed of the jitter ("" is as the machine has it). The jitter
# brings NumPy before a notebook can ask for one thread: it is given one.
CORNERS = {
    "as-is": ("", "", "", "2", ""),
    "haswell": ("Haswell", "avx2", "", "1", ""),
    "haswell-plain": ("Haswell", "default", LOOPS, "2", ""),
    "skylakex": ("SkylakeX", "", "", "1", ""),
    "skylakex-avx2": ("SkylakeX", "avx2", "", "2", ""),
    "zen": ("Zen", "default", "", "1", ""),
    "zen-avx2": ("Zen", "avx2", LOOPS, "2", ""),
    "prescott": ("Prescott", "default", LOOPS, "1", ""),
    "prescott-as-is": ("Prescott", "", "", "2", ""),
    "jitter": ("", "", "", "1", "1"),
    "jitter-plain": ("Haswell", "default", LOOPS, "1", "2"),
}
NEEDS = {"SkylakeX": "avx512f", "Haswell": "avx2", "Zen": "avx2", "avx2": "avx2"}


def environment(name: str) -> dict[str, str]:
    """What the corner sets; an empty text unsets."""
    blas, torch, loops, threads, jitter = CORNERS[name]
    return {
        "OPENBLAS_CORETYPE": blas,
        "OPENBLAS_L2_SIZE": "",
        "ATEN_CPU_CAPABILITY": torch,
        "NPY_DISABLE_CPU_FEATURES": loops,
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "TDI_JITTER": jitter,
        "PYTHONSTARTUP": STARTUP if jitter else "",
    }


def playable() -> list[str]:
    """The corners whose instructions this processor has."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore").split()
    except OSError:  # not Linux: what the libraries would check themselves
        flags = []
    return [name for name, axes in CORNERS.items() if all(NEEDS.get(value, "") in ("", *flags) for value in axes)]


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--draw"]:
        print(*sorted(random.Random(arguments[2]).sample(sorted(playable()), int(arguments[1]))))
        return 0
    split = arguments.index("--")
    names, command = arguments[:split] or playable(), arguments[split + 1 :]
    if unknown := set(names) - CORNERS.keys():
        print(f"no corner {', '.join(sorted(unknown))}; there are {', '.join(CORNERS)}", file=sys.stderr)
        return 2
    failed = []
    for name in names:
        settings = environment(name)
        print(f"\n== {name}: " + " ".join(f"{key}={value!r}" for key, value in settings.items() if value), flush=True)
        begin = time.monotonic()
        kept = {key: value for key, value in os.environ.items() if key not in settings}
        if subprocess.run(command, env=kept | {k: v for k, v in settings.items() if v}, check=False).returncode:
            failed.append(name)
        print(f"== {name}: {time.monotonic() - begin:.0f} s", flush=True)
    print(f"\n{len(names) - len(failed)} corners passed, {len(failed)} failed {' '.join(failed)}".rstrip())
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
