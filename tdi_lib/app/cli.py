"""The command line ``tdi``: diagnose a file, write matched parameters, find the book, run a study."""

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import shlex
import subprocess
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from click.core import ParameterSource

from tdi_lib.app.files import TASKS, ReadError, Samples, read

__all__ = ["cli"]

ROOT = Path(__file__).resolve().parents[2]
EXIT_CODES = """\b
Exit codes:
  0  done, whatever the verdict: "do not bother" is an answer, not an error
  1  interrupted
  2  wrong usage, or data that cannot be used (one line on stderr says why)"""


class DataError(click.ClickException):
    """Data or arguments that cannot be used."""

    exit_code = 2


def plain_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Say what is wrong in a line. The library's errors name the file or the argument, so no traceback is needed."""

    @functools.wraps(command)
    def quiet(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except (ValueError, TypeError, OSError, ImportError, MemoryError) as error:
            raise DataError(" ".join(str(error).split()) or type(error).__name__) from None

    return quiet


def data_options(command: Callable[..., None]) -> Callable[..., None]:
    """What every command that reads a file takes."""
    for option in (
        click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Source of every draw."),
        click.option("--d-state", type=click.IntRange(min=2), default=64, show_default=True, help="State size, even."),
        click.option("--d-model", type=click.IntRange(min=1), default=64, show_default=True, help="Channels."),
        click.option("--header/--no-header", default=None, help="Whether a text begins with names; else looked at."),
        click.option("--task", type=click.Choice(TASKS), default="auto", show_default=True, help="Kind of target."),
        click.option("--drop", multiple=True, metavar="COLUMN", help="Leave a column out; may be repeated."),
        click.option("--target-file", type=click.Path(path_type=Path), metavar="FILE", help="Targets, one per sample."),
        click.option("--target", metavar="COLUMN", help="Column of the targets: a name, or a number from 0."),
        click.argument("data", type=click.Path(path_type=Path)),
    ):
        command = option(command)
    return command


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
)
@click.version_option(importlib.metadata.version("tdi-lib"), prog_name="tdi")
def cli() -> None:
    """Task-dependent initialization of state space models.

    Ask your data whether a start matched to the task is worth it, then write one:

    \b
      tdi diagnose recordings.csv --rate 500 --report report.html
      tdi init recordings.csv --d-model 64 --d-state 64 -o init.safetensors
    """


@cli.command(epilog=EXIT_CODES)
@data_options
@click.option("--rate", type=float, metavar="HZ", help="Samples per second: frequencies are given in Hz as well.")
@click.option("--permutations", type=click.IntRange(min=19), default=199, show_default=True, help="For the p-value.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout and nothing else.")
@click.option("--report", type=click.Path(path_type=Path), metavar="HTML", help="Write a page that opens offline.")
@plain_errors
def diagnose(rate: float | None, permutations: int, as_json: bool, report: Path | None, **options: Any) -> None:
    """Say whether a matched start is worth it on DATA.

    DATA is a file of labeled sequences, one per row or entry: CSV, TSV, UCR .ts or .tsv, Parquet, Arrow, Feather, NPY
    or NPZ. What was understood of it, whether the targets depend on its spectrum (with a p-value), where the bands
    are, how far the common starts are from them and what is to be gained comes out, headed by a plain verdict: use
    it, try it, or do not bother.

    \b
    Example: sequences in rows, the column "fault" says what they are, 500 samples per second
      tdi diagnose recordings.csv --target fault --rate 500 --report report.html
    """
    from tdi_lib.app import diagnose as diagnosing
    from tdi_lib.app.report import html_report, text_report

    samples, targets = load(options)
    found = diagnosing.diagnose(
        samples.x,
        targets,
        sampling_rate=rate,
        n_permutations=permutations,
        seed=options["seed"],
        d_model=options["d_model"],
        d_state=options["d_state"],
    )
    source = options["data"].name
    words = data_words(click.get_current_context())
    if report is not None:
        report.write_text(html_report(found, samples.understood, source, version(), words), encoding="utf-8")
    if as_json:
        head = {"tdi": version(), "file": source, "sha256": sha256(options["data"]), "understood": samples.understood}
        click.echo(json.dumps(head | found.to_dict() | {"classes": list(samples.classes)}, allow_nan=False))
        return
    click.echo(text_report(found, samples.understood, words))
    if report is not None:
        click.echo(f"\nreport: {report}")


@cli.command(epilog=EXIT_CODES)
@data_options
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FILE", help=".safetensors")
@click.option("--method", default="auto", show_default=True, help="Estimator of the task's spectrum.")
@click.option("--guard", is_flag=True, help="Keep S4D-Lin unless held-out samples like the match better.")
@plain_errors
def init(output: Path, method: str, guard: bool, **options: Any) -> None:
    """Write the parameters of a layer matched to DATA.

    They fit tdi_lib.DiagonalSSM(d_model, d_state) of the same sizes:
    ssm.load_state_dict(safetensors.torch.load_file(FILE)). Its metadata, JSON under the name "tdi", say what they were
    made from and how.

    \b
    Example:
      tdi init recordings.csv --target fault --d-model 64 --d-state 64 -o init.safetensors
    """
    import torch

    try:
        from safetensors.torch import save
    except ImportError as error:
        raise ImportError("tdi init needs safetensors: pip install 'tdi-lib[cli]'") from error

    from tdi_lib.app.diagnose import usable
    from tdi_lib.ssm import DiagonalSSM
    from tdi_lib.tdi import tdi_init_

    samples, targets = load(options)
    x, y, notes = usable(samples.x, targets)
    generator = torch.Generator().manual_seed(options["seed"])
    ssm = DiagonalSSM(options["d_model"], options["d_state"], generator=generator)
    done = tdi_init_(ssm, x, y, method=method, guard=guard, generator=generator)
    metadata = {
        "tdi_version": version(),
        "spectrum_method": done.spectrum.method,
        "n_samples": len(x),
        "length": x.shape[1],
        "n_channels": x.shape[2],
        "d_model": options["d_model"],
        "d_state": options["d_state"],
        "discretization": ssm.discretization,
        "seed": options["seed"],
        "matched": bool(done.changed),
        "spectral_loss_before": done.loss_before,
        "spectral_loss_after": done.loss_after,
        "source": options["data"].name,
        "source_sha256": sha256(options["data"]),
    }
    if options["target_file"] is not None:
        metadata["target_sha256"] = sha256(options["target_file"])
    # one entry: several would be written in an order that changes from run to run
    tensors = {name: tensor.contiguous() for name, tensor in ssm.state_dict().items()}
    output.write_bytes(save(tensors, {"tdi": json.dumps(metadata)}))
    said = "matched" if done.changed else "S4D-Lin, kept by the guard"
    for note in notes:
        click.echo(f"left out: {note}")
    click.echo(
        f"{output}: {options['d_model']} channels of {options['d_state']} states, {said}; "
        f"spectrum by {done.spectrum.method!r} from {len(x):,} samples; "
        f"spectral loss {done.loss_before:.2f} -> {done.loss_after:.2f}"
    )


@cli.command(epilog=EXIT_CODES)
@click.option("--open", "show", is_flag=True, help="Open it in the browser.")
@plain_errors
def book(show: bool) -> None:
    """Say where the book is, or how to build it. Needs no network.

    \b
    Example:
      tdi book --open
    """
    page = ROOT / "_build" / "html" / "index.html"
    if page.is_file():
        click.echo(str(page))
        if show:
            webbrowser.open(page.as_uri())
    elif (ROOT / "_toc.yml").is_file():
        click.echo(f"The book is not built yet. In {ROOT}:\n  make book")
    else:
        click.echo(
            "The book is not part of the installed package. In a clone of its repository:\n"
            "  make book    builds it\n  tdi book     then says where it is, run with the clone's .venv/bin/tdi"
        )


@cli.command(
    epilog=EXIT_CODES, context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@plain_errors
def sweep(arguments: tuple[str, ...]) -> None:
    """Run STUDY, a study of the book, or what is missing of it.

    All that follows goes to tdi_lib.study.sweep; --help says what it takes. Needs the extra "train".

    \b
    Example:
      tdi sweep low_data results/low_data.parquet --workers 2
    """
    missing = [name for name in ("pandas", "pyarrow") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"tdi sweep needs {', '.join(missing)}: pip install 'tdi-lib[train]'")
    # a process of its own: its workers are spawned, and they must find the module under its own name
    sys.exit(subprocess.run([sys.executable, "-m", "tdi_lib.study.sweep", *arguments], check=False).returncode)


def data_words(context: click.Context) -> str:
    """The data and the options that ``tdi init`` takes as well, as they were given, to be typed again."""
    words, again = [], {option.name for option in init.params}
    for option in context.command.params:
        name, given = option.name or "", context.params.get(option.name or "")
        if name not in again or context.get_parameter_source(name) != ParameterSource.COMMANDLINE:
            continue
        if isinstance(option, click.Argument):
            words.append(str(given))
        elif isinstance(given, bool):
            words.append(option.opts[0] if given else option.secondary_opts[0])
        else:
            for value in (given or ()) if option.multiple else (given,):
                words += [option.opts[0], str(value)]
    return shlex.join(words)


def load(options: dict[str, Any]) -> tuple[Samples, np.ndarray]:
    """The samples that the options of :func:`data_options` name, and their targets."""
    samples = read(
        options["data"],
        target=options["target"],
        target_file=options["target_file"],
        drop=options["drop"],
        task=options["task"],
        header=options["header"],
    )
    if samples.y is None:
        raise ReadError(options["data"], "expected targets, got none")
    return samples, samples.y


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def version() -> str:
    return importlib.metadata.version("tdi-lib")
