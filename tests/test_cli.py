"""The command line as a user meets it: verdict, JSON, page, parameters, exit codes, and what an import costs."""

import base64
import hashlib
import html
import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors import safe_open
from safetensors.torch import load_file

from tdi_lib.app.cli import ROOT, cli
from tdi_lib.app.cli import write as write_whole
from tdi_lib.app.diagnose import diagnose, usable
from tdi_lib.data.synthetic import four_tones
from tdi_lib.spectrum import estimate_task_spectrum
from tdi_lib.ssm import DiagonalSSM
from tdi_lib.tdi import spectral_loss, tdi_init_

SMALL = ["--d-model", "16", "--d-state", "16"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], prog_name="tdi")


def write(path: Path, x: np.ndarray, words: np.ndarray) -> Path:
    rows = [",".join([word, *map(repr, row.tolist())]) for word, row in zip(words, x, strict=True)]
    path.write_text(
        "\n".join(["fault", *rows]).replace("fault", "fault," + ",".join(f"t{i}" for i in range(x.shape[1])), 1)
    )
    return path


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray]:
    x, y = four_tones(64, amplitude=0.5, generator=np.random.default_rng(0), length=64)
    return write(tmp_path_factory.mktemp("tones") / "tones.csv", x, np.array(["a", "b", "c", "d"])[y]), x, y


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 40))
    return write(tmp_path_factory.mktemp("noise") / "noise.csv", x, np.array(["a", "b"])[rng.integers(2, size=60)])


def test_json_is_one_object_and_what_the_library_says(tones) -> None:
    path, x, y = tones
    result = run("diagnose", path, "--rate", 100, "--json", *SMALL)
    assert result.exit_code == 0 and result.stderr == "" and result.stdout.count("\n") == 1
    said = json.loads(result.stdout)
    wanted = json.loads(json.dumps(diagnose(x, y, sampling_rate=100.0, d_model=16, d_state=16).to_dict()))
    assert {key: said[key] for key in wanted} == wanted
    assert said["classes"] == ["a", "b", "c", "d"] and "64 samples of 64 steps" in said["understood"]
    assert said["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert run("diagnose", path, "--rate", 100, "--json", *SMALL).stdout == result.stdout


def test_the_text_begins_with_the_verdict(tones, noise: Path) -> None:
    good, bad = run("diagnose", tones[0], "--rate", 100, *SMALL), run("diagnose", noise, *SMALL)
    assert good.exit_code == bad.exit_code == 0
    begin = "USE IT On held-out samples a matched initialization has a clearly lower error (−"
    assert " ".join(good.stdout.split()).startswith(begin)
    assert re.search(r"\nband +2\.\d\d to 2\.\d\d rad/sample \(\d\d\.\d+ to \d\d\.\d+ Hz\)", good.stdout)
    assert re.search(r"\nnext: tdi init .+ -o init.safetensors\n", good.stdout)
    assert bad.stdout.startswith("DO NOT BOTHER\nIn 60 samples the targets cannot be told from shuffled ones")
    assert "next:" not in bad.stdout and "\nband" not in bad.stdout


def test_the_next_command_can_be_typed_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It repeats what was said of the data: without the target's name and the dropped column it would fail or lie."""
    x, y = four_tones(64, amplitude=0.5, generator=np.random.default_rng(0), length=64)
    table = pd.DataFrame(x, columns=[f"t{k}" for k in range(64)])
    table.insert(0, "kind of tone", np.array(list("abcd"))[y])
    table.insert(1, "number", np.arange(64))
    table.to_csv(tmp_path / "my tones.csv", index=False)
    monkeypatch.chdir(tmp_path)
    said = run(
        "diagnose", "my tones.csv", "--target", "kind of tone", "--drop", "number", "--header", "--rate", 10,
        "--seed", 3, "--report", "r.html", *SMALL,
    )  # fmt: skip
    assert said.exit_code == 0, said.output
    command = re.search(r"\nnext: (tdi init .+)\n", said.stdout)[1]
    words = shlex.split(command)
    assert set(words) >= {"kind of tone", "number", "--header", "3", "16", "my tones.csv"} and "--rate" not in words
    assert html.escape(command) in (tmp_path / "r.html").read_text()
    done = run(*shlex.split(command)[1:])
    assert done.exit_code == 0 and (tmp_path / "init.safetensors").exists(), done.output


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data.split()


@pytest.mark.parametrize(("which", "verdict", "figures"), [("tones", "Use it", 3), ("noise", "Do not bother", 1)])
def test_the_page_is_complete_in_itself(request, tmp_path: Path, which: str, verdict: str, figures: int) -> None:
    data = request.getfixturevalue(which)
    path = data[0] if which == "tones" else data
    report = tmp_path / "report.html"
    result = run("diagnose", path, "--rate", 100, "--report", report, *SMALL)
    assert result.exit_code == 0 and f"report: {report}" in result.stdout
    text = report.read_text("utf-8")
    page = Page(text)
    tags = [tag for tag, _ in page.tags]
    assert tags.count("img") == figures and not {"script", "link", "iframe", "object"} & set(tags)
    for tag, attributes in page.tags:
        assert not {"href", "srcset"} & set(attributes)
        if tag == "img":
            assert len(attributes["alt"] or "") > 30
            kind, _, content = (attributes["src"] or "").partition(",")
            assert kind == "data:image/svg+xml;base64"
            root = ET.fromstring(base64.b64decode(content))
            assert root.tag.endswith("svg")
            for element in root.iter():  # nothing is fetched from inside a figure either
                assert all(v.startswith("#") for k, v in element.attrib.items() if k.endswith("href"))
    assert "url(" not in text and "@import" not in text
    body = " ".join(page.words)
    # the recommendation comes first, with n and p
    assert body.index(verdict) < body.index("p = 0.") < body.index("What the samples say")
    assert body.index(verdict) < body.index("n = 6") < body.index("What the samples say")
    run("diagnose", path, "--rate", 100, "--report", report, *SMALL)
    assert report.read_text("utf-8") == text


def test_the_page_fits_a_phone_and_asks_nobody(tones, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    report = tmp_path / "report.html"
    run("diagnose", tones[0], "--rate", 100, "--report", report, *SMALL)
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for width in (390, 1200):
            page = browser.new_page(viewport={"width": width, "height": 800})
            asked: list[str] = []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.goto(report.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
            assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
        browser.close()


def test_markup_in_a_file_stays_text(tmp_path: Path) -> None:
    x, y = four_tones(64, amplitude=0.5, generator=np.random.default_rng(0), length=32)
    path = write(tmp_path / "<b>bold.csv", x, np.array(["<script>alert(1)</script>", "b", "c", "d"])[y])
    report = tmp_path / "report.html"
    assert run("diagnose", path, "--report", report, *SMALL).exit_code == 0
    assert not {"script", "b"} & {tag for tag, _ in Page(report.read_text("utf-8")).tags}


def test_init_writes_what_the_library_makes(tones, tmp_path: Path) -> None:
    path, x, y = tones
    output = tmp_path / "init.safetensors"
    result = run("init", path, "-o", output, "--seed", 3, *SMALL)
    assert result.exit_code == 0 and "16 channels of 16 states, matched; spectrum by" in result.stdout
    ssm = DiagonalSSM(16, 16)
    ssm.load_state_dict(load_file(output))
    generator = torch.Generator().manual_seed(3)
    twin = DiagonalSSM(16, 16, generator=generator)
    inputs, targets, *_ = usable(x, y)
    tdi_init_(twin, inputs, targets, generator=generator)
    assert all(torch.equal(a, b) for a, b in zip(ssm.parameters(), twin.parameters(), strict=True))
    spectrum = estimate_task_spectrum(x, y)
    assert spectral_loss(ssm, spectrum) < 0.2 < spectral_loss(DiagonalSSM(16, 16), spectrum)
    with safe_open(output, "pt") as stored:
        metadata = json.loads(stored.metadata()["tdi"])
    assert metadata["source_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert metadata["spectrum_method"] == "discriminative" and metadata["n_samples"] == 64
    assert metadata["tdi_version"] == run("--version").stdout.split()[-1]
    first = output.read_bytes()
    run("init", path, "-o", output, "--seed", 3, *SMALL)
    assert output.read_bytes() == first


def test_the_guard_keeps_the_default_where_nothing_is_to_be_won(noise: Path, tmp_path: Path) -> None:
    output = tmp_path / "init.safetensors"
    result = run("init", noise, "-o", output, "--guard", *SMALL)
    assert result.exit_code == 0 and "S4D-Lin, kept by the guard" in result.stdout
    default = DiagonalSSM(16, 16, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(v, default.state_dict()[k]) for k, v in load_file(output).items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["diagnose", "absent.csv"], "Error: absent.csv: cannot be opened: No such file"),
        (["diagnose", "DATA", "--target", "color"], "target must be one of 'fault'"),
        (["diagnose", "DATA", "--task", "real"], "targets must be numbers, got 'a'"),
        (["diagnose", "DATA", "--rate", "-1"], "Error: sampling_rate must be a finite number"),
        (["diagnose", "DATA", "--rate", "fast"], "'fast' is not a valid float"),
        (["diagnose", "DATA", "--d-state", "3"], "Error: d_state must be even"),
        (["diagnose", "DATA", "--report", "no/such/folder.html"], "No such file or directory"),
        (["diagnose"], "Missing argument 'DATA'"),
        (["init", "DATA"], "Missing option '-o'"),
        (["init", "DATA", "-o", "no/such/folder.safetensors"], "No such file or directory"),
        (["init", "DATA", "-o", "x.safetensors", "--method", "magic"], "method must be one of auto, input"),
        (["dance"], "No such command 'dance'"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_two(noise: Path, arguments: list[str], message: str) -> None:
    result = run(*(noise if argument == "DATA" else argument for argument in arguments))
    assert result.exit_code == 2 and result.stdout == ""
    assert message in result.stderr and "Traceback" not in result.stderr
    assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize("command", ["init", "train", "diagnose", "predict"])
@pytest.mark.parametrize("way", ["same", "other spelling", "link"])
def test_what_is_read_is_never_written_over(tones, tmp_path: Path, command: str, way: str) -> None:
    data = tmp_path / "tones.csv"
    shutil.copy(tones[0], data)
    before = data.read_bytes()
    output = {"same": data, "other spelling": tmp_path / "." / ".." / tmp_path.name / "tones.csv"}.get(way)
    if output is None:
        output = tmp_path / "link.safetensors"
        output.hardlink_to(data)
    option = "--report" if command == "diagnose" else "-o"
    words = [command, *(["model.safetensors"] if command == "predict" else []), data, option, output]
    result = run(*words)
    assert result.exit_code == 2 and "is the file that is read; it would be lost" in result.stderr
    assert data.read_bytes() == before


@pytest.mark.parametrize("command", ["init", "train", "diagnose"])
def test_what_cannot_be_written_is_said_before_the_work(tones, tmp_path: Path, command: str, monkeypatch) -> None:
    monkeypatch.setattr("tdi_lib.app.cli.reading", lambda *_: pytest.fail("the work began"))
    (tmp_path / "folder").mkdir()
    option = "--report" if command == "diagnose" else "-o"
    for output, message in (("none/x", "No such file or directory"), ("folder", "is a folder, expected a file")):
        result = run(command, tones[0], option, tmp_path / output)
        assert result.exit_code == 2 and message in result.stderr and "Traceback" not in result.stderr
    with monkeypatch.context() as patch:  # whoever runs the tests may be allowed everything
        patch.setattr("os.access", lambda _, mode: mode != os.W_OK)
        assert "Permission denied" in run(command, tones[0], option, tmp_path / "x").stderr
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "a").chmod(0o640)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="disk full"):
            write_whole(tmp_path / "a", b"new")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
    write_whole(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new" and (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_a_terminal_that_knows_no_minus_ends_nothing(tones) -> None:
    command = [sys.executable, "-m", "tdi_lib", "diagnose", str(tones[0]), *SMALL]
    environment = os.environ | {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, env=environment, check=False)
    assert done.returncode == 0 and b"(-0." in done.stdout and b" \xb1 0." in done.stdout, done.stderr


def test_groups_several_targets_and_layouts_reach_the_reader(tmp_path: Path) -> None:
    x, y = four_tones(80, amplitude=0.5, generator=np.random.default_rng(0), length=32)
    frame = pd.DataFrame(x, columns=[f"t{k}" for k in range(32)]).assign(who=np.arange(80) // 4, a=y * 1.5, b=-y * 0.5)
    frame.to_csv(tmp_path / "two.csv", index=False)
    said = run("diagnose", tmp_path / "two.csv", "--target", "a", "--target", "b", "--group", "who", "--json", *SMALL)
    found = json.loads(said.stdout)
    assert found["n_groups"] == 20 and found["length"] == 32 and "2 real targets" in found["understood"]
    text = run("diagnose", tmp_path / "two.csv", "--target", "a", "--target", "b", "--group", "who", *SMALL).stdout
    assert "permutations of the targets between 20" in " ".join(text.split())
    again = re.search(r"\nnext: (tdi init .+)", text)
    assert again and "--target a --target b" in again[1] and "--group who" in again[1]
    rows = pd.DataFrame({"time": np.arange(1280) / 50, "v": x[:40].ravel(), "label": np.repeat(y[:40], 32)})
    rows.to_csv(tmp_path / "rows.csv", index=False)
    refused = run("diagnose", tmp_path / "rows.csv", "--target", "label", *SMALL)
    assert refused.exit_code == 2 and "--layout time-rows --window STEPS" in refused.stderr
    words = ["--target", "label", "--layout", "time-rows", "--window", "16", "--json", *SMALL]
    found = json.loads(run("diagnose", tmp_path / "rows.csv", *words).stdout)
    assert found["sampling_rate"] == 50 and found["length"] == 16 and found["n_channels"] == 1


def test_help_teaches_by_an_example_each() -> None:
    assert "Exit codes" in run("--help").stdout
    for command in cli.commands:
        text = run(command, "--help").stdout if command != "sweep" else cli.commands["sweep"].help
        assert re.search(rf"Example:?.*\n +tdi {command}", text), command


def test_the_book_is_found_or_how_to_build_it_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    built = ROOT / "_build" / "html" / "index.html"
    said = run("book").stdout
    assert said == f"{built}\n" if built.is_file() else "make book" in said
    monkeypatch.setattr("tdi_lib.app.cli.ROOT", tmp_path)
    assert "not part of the installed package" in run("book").stdout


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_sweep_hands_on_to_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def engine(command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        seen.append(command)
        return subprocess.CompletedProcess(command, 7)

    monkeypatch.setattr(subprocess, "run", engine)
    result = run("sweep", "low_data", "results/low_data.parquet", "--workers", "2", "--help")
    assert result.exit_code == 7  # the engine's own
    tail = ["low_data", "results/low_data.parquet", "--workers", "2", "--help"]
    assert seen == [[sys.executable, "-m", "tdi_lib.study.sweep", *tail]]


def test_without_the_extra_the_command_says_so() -> None:
    hide = "import sys; sys.modules['click'] = None; sys.argv = ['tdi']; import tdi_lib.__main__ as m; m.main()"
    done = process("-c", hide)
    assert done.returncode == 2 and done.stderr == "tdi needs the extra cli: pip install 'tdi-lib[cli]'\n"


def test_an_import_brings_only_what_it_needs() -> None:
    code = """
import sys, tdi_lib
assert "torch" not in sys.modules and "scipy" not in sys.modules
for name in tdi_lib.__all__:
    assert getattr(tdi_lib, name).__module__.startswith("tdi_lib."), name
    assert name in dir(tdi_lib)
heavy = {"matplotlib", "pandas", "pyarrow", "scipy.signal", "scipy.stats", "scipy.optimize", "click"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
try:
    tdi_lib.nothing
except AttributeError as error:
    assert str(error) == "module 'tdi_lib' has no attribute 'nothing'"
"""
    done = process("-c", code)
    assert done.returncode == 0, done.stderr


def test_beyond_torch_an_import_takes_no_time() -> None:
    code = """
import time; start = time.perf_counter()
import torch; middle = time.perf_counter()
import tdi_lib; light = time.perf_counter()
[getattr(tdi_lib, name) for name in tdi_lib.__all__]
print(middle - start, light - middle, time.perf_counter() - light)
"""
    rounds = [list(map(float, process("-c", code).stdout.split())) for _ in range(3)]
    torch_seconds, light, full = (statistics.median(column) for column in zip(*rounds, strict=True))
    # shares of torch's own time, for a busy machine is slow at both
    assert light < 0.05 * torch_seconds and full < 0.6 * torch_seconds, rounds
