"""The command line ``tdi``: diagnose a file, write matched parameters, find the book, run a study."""

import codecs
import functools
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
import shlex
import subprocess
import sys
import tempfile
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from click.core import ParameterSource

from tdi_lib.app.files import ReadError, Samples, read
from tdi_lib.app.layouts import LAYOUTS
from tdi_lib.samples import TASKS

__all__ = ["cli"]

UMASK = os.umask(0)
os.umask(UMASK)
ROOT = Path(__file__).resolve().parents[2]
EXIT_CODES = """\b
Exit codes:
  0  done, whatever the verdict: "do not bother" is an answer, not an error
  1  interrupted
  2  wrong usage, or data that cannot be used (one line on stderr says why)"""


class DataError(click.ClickException):
    """Data or arguments that cannot be used."""

    exit_code = 2


def _plain_sign(error: UnicodeError) -> tuple[str, int]:
    """Signs that a terminal does not know, in its own: registered for the error handler of the streams."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = {"−": "-", "±": "+-", "…": "...", "“": '"', "”": '"', "→": "->"}
    return "".join(signs.get(each, "?") for each in error.object[error.start : error.end]), error.end


codecs.register_error("tdi", _plain_sign)


def plain_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Say what is wrong in a line. The library's errors name the file or the argument, so no traceback is needed."""

    @functools.wraps(command)
    def quiet(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except (ValueError, TypeError, OSError, ImportError, MemoryError, FloatingPointError) as error:
            raise DataError(" ".join(str(error).split()) or type(error).__name__) from None

    return quiet


def table_options(command: Callable[..., None]) -> Callable[..., None]:
    """What every command that reads a file takes: where the targets are, and how the table lies."""
    integer = click.IntRange(min=1)
    for option in (
        click.option("--step", type=integer, metavar="STEPS", help="From one window to the next; else no overlap."),
        click.option("--window", type=integer, metavar="STEPS", help="Cut time rows or recordings into windows."),
        click.option("--channel", metavar="COLUMN", help="Layout long: the channel, where it has a column."),
        click.option("--time", metavar="COLUMN", help="Layouts long and time-rows: the time."),
        click.option("--id", metavar="COLUMN", help="Layout long: the sample that a row belongs to."),
        click.option("--layout", type=click.Choice(LAYOUTS), help="What a row is: a sample, a time step, a value."),
        click.option("--skip-rows", type=click.IntRange(min=0), metavar="N", help="Lines before the table."),
        click.option("--header/--no-header", default=None, help="Whether a text begins with names; else looked at."),
        click.option("--task", type=click.Choice(TASKS), default="auto", show_default=True, help="Kind of target."),
        click.option("--group", metavar="COLUMN", help="What samples belong to: a person, a recording. Never split."),
        click.option("--drop", multiple=True, metavar="COLUMN", help="Leave a column out; may be repeated."),
        click.option("--target-file", type=click.Path(path_type=Path), metavar="FILE", help="Targets, one per sample."),
        click.option("--target", multiple=True, metavar="COLUMN", help="Column of the targets: a name, or a number "
                     "from 0. Repeated: several real targets."),
        click.argument("data", type=click.Path(path_type=Path)),
    ):  # fmt: skip
        command = option(command)
    return command


def data_options(command: Callable[..., None]) -> Callable[..., None]:
    """The same, the seed and the size of a layer."""
    for option in (
        click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Source of every draw."),
        click.option("--d-state", type=click.IntRange(min=2), default=64, show_default=True, help="State size, even."),
        click.option("--d-model", type=click.IntRange(min=1), default=64, show_default=True, help="Channels."),
    ):
        command = option(command)
    return table_options(command)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
)
@click.version_option(importlib.metadata.version("tdi-lib"), prog_name="tdi")
def cli() -> None:
    """Task-dependent initialization of state space models.

    Ask your data whether a start matched to the task is worth it; train a model, and use it:

    \b
      tdi diagnose recordings.csv --target fault --rate 500 --report report.html
      tdi train recordings.csv --target fault -o model.safetensors --compare
      tdi predict model.safetensors new.csv
    """
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot print a sign must not end the run
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="tdi")


@cli.command(epilog=EXIT_CODES)
@data_options
@click.option("--rate", type=float, metavar="HZ", help="Samples per second: frequencies are given in Hz as well.")
@click.option("--permutations", type=click.IntRange(min=19), default=199, show_default=True, help="For the p-value.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout and nothing else.")
@click.option("--report", type=click.Path(path_type=Path), metavar="HTML", help="Write a page that opens offline.")
@plain_errors
def diagnose(rate: float | None, permutations: int, as_json: bool, report: Path | None, **options: Any) -> None:
    """Say whether a matched start is worth it on DATA.

    DATA is a file of labeled sequences, one per row or entry: CSV, TSV, UCR .ts or .tsv, ARFF, Parquet, Arrow, Feather,
    NPY or NPZ, or a folder with a folder of WAV or FLAC recordings per class. What was understood of it, whether the
    targets depend on its spectrum (with a p-value), where the bands are, how far the common starts are from them and
    what is to be gained comes out, headed by a plain verdict: use it, try it, or do not bother.

    \b
    Example: sequences in rows, the column "fault" says what they are, 500 samples per second
      tdi diagnose recordings.csv --target fault --rate 500 --report report.html
    """
    from tdi_lib.app import diagnose as diagnosing
    from tdi_lib.app.report import html_report, text_report

    writable(report, options)
    samples, targets = load(options)
    found = diagnosing.diagnose(
        samples.x,
        targets,
        groups=samples.groups,
        task=kind(samples),
        sampling_rate=rate or samples.rate,
        progress=sys.stderr.isatty(),
        n_permutations=permutations,
        seed=options["seed"],
        d_model=options["d_model"],
        d_state=options["d_state"],
    )
    source = options["data"].name
    words = data_words(click.get_current_context())
    if report is not None:
        write(report, html_report(found, samples.understood, source, version(), words).encode())
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

    They fit the layers of tdi_lib.SequenceModel(..., d_model=d_model, d_state=d_state):
    model.ssms[0].load_state_dict(safetensors.torch.load_file(FILE)). Its metadata, JSON under the name "tdi", say what
    they were made from and how.

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

    writable(output, options)
    samples, targets = load(options)
    x, y, _, notes = usable(samples.x, targets, task=kind(samples))
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
    write(output, save(tensors, {"tdi": json.dumps(metadata)}))
    said = "matched" if done.changed else "S4D-Lin, kept by the guard"
    for note in notes:
        click.echo(f"left out: {note}")
    click.echo(
        f"{output}: {options['d_model']} channels of {options['d_state']} states, {said}; "
        f"spectrum by {done.spectrum.method!r} from {len(x):,} samples; "
        f"spectral loss {done.loss_before:.2f} -> {done.loss_after:.2f}"
    )


@cli.command(epilog=EXIT_CODES)
@table_options
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Source of every draw.")
@click.option("--d-state", type=click.IntRange(min=2), default=32, show_default=True, help="State size, even.")
@click.option("--d-model", type=click.IntRange(min=1), default=64, show_default=True, help="Channels.")
@click.option("--layers", type=click.IntRange(min=1), default=1, show_default=True, help="Layers.")
@click.option(
    "--max-steps", "steps", type=click.IntRange(min=1), default=300, show_default=True, help="Of training, at most."
)
@click.option("--init", "begin", type=click.Choice(["auto", "tdi", "flat", "lin"]), default="auto", show_default=True)
@click.option("--compare", is_flag=True, help="Also train from S4D-Lin, and score both.")
@click.option("--test", type=click.Path(path_type=Path), metavar="FILE", help="Test samples; else a fifth of DATA.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout and nothing else.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="FILE", help=".safetensors")
@plain_errors
def train(
    output: Path, test: Path | None, compare: bool, begin: str, steps: int, layers: int, as_json: bool, **options: Any
) -> None:
    """Train a model on DATA, score it on samples that it has not seen, and save it.

    The training samples choose its filters and its read-out is set in closed form, then the filters are
    trained; a fifth of the samples tests it and is never looked at before (or FILE by --test), and what belongs
    together is never split (--group). If it is interrupted, the same command goes on from the last validation.

    \b
    Example:
      tdi train recordings.csv --target fault --group machine -o model.safetensors --compare
    """
    from tdi_lib.app import train as training

    writable(output, options | {"test": test})
    samples, targets = load(options)
    held: tuple[np.ndarray, np.ndarray] | None = None
    if test is not None:
        other = reading(options | {"data": test}, classes=samples.classes or None)
        held = other.x, needed(other, test)
    part = output.with_name(output.name + ".part")
    try:
        trained = training.train(
            samples.x,
            targets,
            groups=samples.groups,
            test=held,
            task=kind(samples),
            classes=samples.classes or None,
            init=begin,
            compare=compare,
            d_model=options["d_model"],
            d_state=options["d_state"],
            n_layers=layers,
            max_steps=steps,
            seed=options["seed"],
            progress=not as_json,
            checkpoint=part,
        )
    except KeyboardInterrupt:
        click.echo("\ninterrupted: the same command goes on from the last validation", err=True)
        sys.exit(1)
    table = {name: options[name] for name in READ if options[name] not in (None, ())}
    source = {"file": options["data"].name, "sha256": sha256(options["data"]), "understood": samples.understood}
    trained.recipe.update(tdi=version(), source=source, rate=samples.rate, table=table)
    trained.save(output)
    if as_json:
        click.echo(json.dumps(trained.recipe, allow_nan=False))
    else:
        click.echo(
            f"data        {samples.understood}\n{trained.text()}\n\nnext: tdi predict {shlex.quote(str(output))} NEW"
        )


@cli.command(epilog=EXIT_CODES)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="CSV", help="Else on stdout.")
@click.option("--unlabeled", is_flag=True, help="DATA, a table without header, has no column of targets.")
@plain_errors
def predict(model: Path, data: Path, output: Path | None, unlabeled: bool) -> None:
    """Apply a MODEL that tdi train wrote to DATA: a table with a row per sample.

    DATA lies as the data that the model was trained on, but needs no targets. Where they are there they stand
    beside the predictions.

    \b
    Example:
      tdi predict model.safetensors new.csv -o predicted.csv
    """
    import pandas as pd

    from tdi_lib.app.train import Trained

    writable(output, {"data": data, "model": model})
    trained = Trained.load(model)
    options = dict.fromkeys(READ) | {"target": (), "drop": (), "task": "auto"} | trained.recipe.get("table", {})
    samples = reading(
        options | {"data": data, "target_file": None},
        classes=trained.classes or None,
        labeled=False if unlabeled else None,
    )
    outputs, table = trained.outputs(samples.x), pd.DataFrame({"sample": np.arange(len(samples.x))})
    if trained.classes:
        table["predicted"] = np.array(trained.classes)[outputs.argmax(axis=1)]
        for name, column in zip(trained.classes, outputs.T, strict=True):
            table[f"p_{name}"] = column.round(4)
    else:
        for k, column in enumerate(outputs.T):
            table["predicted" if outputs.shape[1] == 1 else f"predicted_{k}"] = column
    if samples.y is not None:
        truth = np.array(samples.classes)[samples.y] if samples.classes else samples.y
        for k, column in enumerate(truth.reshape(len(truth), -1).T):
            table["target" if truth.ndim == 1 else f"target_{k}"] = column
    text = table.to_csv(index=False)
    if output is None:
        click.echo(text, nl=False)
    else:
        write(output, text.encode())
        click.echo(f"{output}: {len(table):,} predictions; {samples.understood}")


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


READ = ("target", "drop", "group", "task", "header", "skip_rows", "layout", "id", "time", "channel", "window", "step")


def reading(options: dict[str, Any], **more: Any) -> Samples:
    """The samples that the options of :func:`table_options` name."""
    return read(options["data"], target_file=options["target_file"], **{name: options[name] for name in READ}, **more)


def load(options: dict[str, Any]) -> tuple[Samples, np.ndarray]:
    """The same, and their targets."""
    samples = reading(options)
    return samples, needed(samples, options["data"])


def needed(samples: Samples, path: Path) -> np.ndarray:
    if samples.y is None:
        raise ReadError(path, "expected targets, got none")
    return samples.y


def kind(samples: Samples) -> str:
    """What the reader has decided, so that nobody decides again."""
    return "classes" if samples.classes else "real"


def writable(path: Path | None, options: dict[str, Any]) -> None:
    """Refuse before the work what could not be written after it, or would destroy what is read."""
    if path is None:
        return
    for name in ("data", "target_file", "test", "model"):
        given = options.get(name)
        if given is not None and path.exists() and given.exists() and path.samefile(given):
            raise DataError(f"{path}: is the file that is read; it would be lost")
    folder = path.absolute().parent
    if path.is_dir():
        raise DataError(f"{path}: is a folder, expected a file")
    if not folder.is_dir():
        raise DataError(f"{path}: No such file or directory: {folder}")
    if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise DataError(f"{path}: cannot be written: Permission denied")


def write(path: Path, content: bytes) -> None:
    """The whole file or none of it."""
    with tempfile.NamedTemporaryFile(dir=path.absolute().parent, prefix=f".{path.name}.", delete=False) as stream:
        temporary = Path(stream.name)
        try:
            stream.write(content)
            stream.close()
            temporary.chmod(path.stat().st_mode if path.exists() else 0o666 & ~UMASK)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def version() -> str:
    return importlib.metadata.version("tdi-lib")
