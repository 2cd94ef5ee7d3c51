"""Tables that are not a sequence a row, and rows and columns that are no data: the right value, or a question."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.io.arff

from tdi_lib.app.files import ReadError, read
from tdi_lib.app.layouts import header_rate, looks_like_id

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 24)).round(3)
WORDS = np.array(["low", "high"])[np.arange(40) % 2]


def put(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def rows(labels=WORDS, x: np.ndarray = X, separator: str = ",") -> str:
    return "\n".join(separator.join([str(y), *map(str, row)]) for y, row in zip(labels, x, strict=True)) + "\n"


def header(*before: str, n: int = 24, separator: str = ",") -> str:
    return separator.join([*before, *(f"t{i}" for i in range(n))]) + "\n"


@pytest.mark.parametrize(
    ("top", "below"),
    [
        ("", ""),
        ("Logger 3000,serial 12,25 Hz\noperator: N.N.\n", ""),
        ("# exported 2024-03-01\n\nversion 2\n", ""),
        ("a title\n", "," + ",".join(["mV"] * 24) + "\n"),
        ("", "[-]," + ",".join(["µV"] * 24) + "\n"),
        ("sep=,\n", ",".join([""] + ["V"] * 24) + "\n"),
    ],
)
def test_what_stands_around_a_table_is_no_sample(tmp_path: Path, top: str, below: str) -> None:
    samples = read(put(tmp_path / "data.csv", top + header("label") + below + rows()))
    np.testing.assert_array_equal(samples.x[:, :, 0], X)
    assert samples.classes == ("high", "low")
    assert ("before the table left out" in samples.understood) == (top not in ("", "sep=,\n"))
    assert ("the row of units" in samples.understood) == bool(below)


def test_lines_before_the_table_can_be_told(tmp_path: Path) -> None:
    path = put(tmp_path / "data.csv", "1,2,3\n" * 3 + header("label") + rows())
    np.testing.assert_array_equal(read(path, skip_rows=3).x[:, :, 0], X)
    bad = put(tmp_path / "bad.csv", "title\n" + header("label") + rows() + "low,x" + ",1" * 23 + "\n")
    with pytest.raises(ReadError, match="expected a number in line 43, got 'x'"):  # counted as an editor counts
        read(bad)


def test_rows_that_end_early_are_no_preamble(tmp_path: Path) -> None:
    short = "low,1\nhigh,2,3\n" + rows()
    assert read(put(tmp_path / "data.csv", short)).lengths[:3].tolist() == [1, 2, 24]


@pytest.mark.parametrize(
    ("names", "rate"),
    [
        ([f"{0.02 * k:.2f}" for k in range(24)], 50.0),
        ([f"{k / 128:.7f}" for k in range(24)], 128.0),
        ([f"{4 * k} ms" for k in range(24)], 250.0),
        ([f"t={0.1 * k:.1f}s" for k in range(24)], 10.0),
        ([str(k) for k in range(24)], None),
        ([f"{20 * k}" for k in range(24)], None),
        ([f"t{k}" for k in range(24)], None),
    ],
)
def test_a_header_of_times_gives_the_rate(tmp_path: Path, names: list[str], rate: float | None) -> None:
    samples = read(put(tmp_path / "data.csv", ",".join(["label", *names]) + "\n" + rows()))
    assert samples.x.shape == (40, 24, 1)
    assert samples.rate == (None if rate is None else pytest.approx(rate, rel=1e-3))
    assert header_rate(names)[0] == samples.rate
    assert header_rate([f"{0.02 * k**1.1:.3f}" for k in range(24)]) == (None, "")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("customer_id", 100_000 + np.arange(40) * 1001),
        ("ID", RNG.permutation(40)),
        ("subjectKey", RNG.permutation(1000)[:40]),
        ("Unnamed: 0.1", np.arange(40)),
        ("whatever", np.arange(40, 0, -1)),
    ],
)
def test_a_number_of_the_sample_is_asked_about(tmp_path: Path, name: str, values: np.ndarray) -> None:
    table = pd.DataFrame(X, columns=[f"t{i}" for i in range(24)]).assign(label=WORDS)
    table.insert(0, name, values)
    for path, write in ((tmp_path / "a.csv", table.to_csv), (tmp_path / "a.parquet", table.to_parquet)):
        write(path, index=False)
        with pytest.raises(ReadError, match="looks like a number of the sample: say --drop"):
            read(path)
        np.testing.assert_array_equal(read(path, drop=[name]).x[:, :, 0], X)
        assert read(path, layout="rows").x.shape == (40, 25, 1)


def test_steps_are_not_taken_for_numbers_of_samples(tmp_path: Path) -> None:
    counts = RNG.integers(0, 1000, size=(40, 24))
    assert read(put(tmp_path / "data.csv", header("label") + rows(x=counts))).x.shape == (40, 24, 1)
    assert not looks_like_id("t0", np.sort(RNG.normal(size=40)))
    with pytest.raises(ReadError, match="column '1' looks like a number"):
        read(put(tmp_path / "bare.csv", rows(x=np.column_stack([np.arange(40), X]))))


@pytest.mark.parametrize("name", ["subject", "patient_id", "Session", "user"])
def test_whose_a_sample_is_is_asked_about_or_kept(tmp_path: Path, name: str) -> None:
    person = np.arange(40) // 5
    text = header(name, "label") + "\n".join(
        ",".join([str(p), y, *map(str, row)]) for p, y, row in zip(person, WORDS, X, strict=True)
    )
    path = put(tmp_path / "data.csv", text)
    with pytest.raises(ReadError, match=f"say --group {name}"):
        read(path)
    samples = read(path, group=name)
    np.testing.assert_array_equal(samples.groups, person)
    np.testing.assert_array_equal(samples.x[:, :, 0], X)
    assert "8 groups, each kept together" in samples.understood


def recording(n: int = 600, run: int = 30) -> pd.DataFrame:
    channels = np.random.default_rng(1).normal(size=(n, 3)).round(4)
    table = pd.DataFrame(channels, columns=["acc_x", "acc_y", "acc_z"])
    return table.assign(activity=np.where(np.arange(n) // run % 2, "walk", "sit"))


@pytest.mark.parametrize(
    ("column", "rate"),
    [
        (pd.date_range("2024-03-01 10:00", periods=600, freq="20ms").astype(str), 50.0),
        (pd.date_range("2024-03-01", periods=600, freq="1s").strftime("%Y-%m-%dT%H:%M:%SZ"), 1.0),
        (pd.date_range("2024-03-01", periods=600, freq="1s").strftime("%H:%M:%S"), 1.0),
        (np.arange(600) * 0.02, 50.0),
        (None, None),
    ],
)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_recording_is_recognized_and_cut(tmp_path: Path, column: object, rate: float | None, ending: str) -> None:
    table = recording()
    if column is not None:
        table.insert(0, "timestamp", column)
    path = tmp_path / f"walk.{ending}"
    table.to_csv(path, index=False) if ending == "csv" else table.to_parquet(path)
    with pytest.raises(ReadError, match="rows look like time steps .* say --layout time-rows --window STEPS"):
        read(path)
    samples = read(path, layout="time-rows", window=15)
    np.testing.assert_allclose(samples.x, table[["acc_x", "acc_y", "acc_z"]].to_numpy().reshape(40, 15, 3), rtol=1e-12)
    assert samples.y.tolist() == [0, 0, 1, 1] * 10 and samples.groups.tolist() == np.repeat(range(20), 2).tolist()
    assert samples.rate == (None if rate is None else pytest.approx(rate))
    assert len(read(path, layout="time-rows", window=15, step=5).x) == 80


def test_windows_cross_no_gap_no_change_and_no_hole(tmp_path: Path) -> None:
    table = recording(300, 100)
    table.insert(0, "time", np.arange(300) + 1000 * (np.arange(300) >= 150))
    table.loc[230, "acc_y"] = np.nan
    table["person"] = np.where(np.arange(300) < 50, "ann", "bob")
    path = tmp_path / "walk.csv"
    table.to_csv(path, index=False)
    samples = read(path, layout="time-rows", window=20, group="person", target="activity")
    starts = [0, 20, 50, 70, 100, 120, 150, 170, 200, 231, 251, 271]
    values = table[["acc_x", "acc_y", "acc_z"]].to_numpy()
    np.testing.assert_array_equal(samples.x, [values[a : a + 20] for a in starts])
    assert samples.groups.tolist() == [0, 0] + [1] * 10 and "1 gap in time" in samples.understood
    with pytest.raises(ReadError, match="expected a stretch of at least 101 rows"):
        read(path, layout="time-rows", window=101, target="activity", drop=["person"])
    real = read(path, layout="time-rows", window=50, target="acc_x", drop=["activity", "person"])
    np.testing.assert_allclose(real.y, [values[a : a + 50, 0].mean() for a in (0, 50, 100, 150, 231)][: len(real.y)])


def test_a_sorted_table_of_sequences_stays_one(tmp_path: Path) -> None:
    x = np.random.default_rng(2).normal(size=(300, 12)).round(3)
    labels = np.repeat(["a", "b", "c"], 100)
    assert read(put(tmp_path / "named.csv", header("label", n=12) + rows(labels, x))).x.shape == (300, 12, 1)
    assert read(put(tmp_path / "bare.csv", rows(labels, x))).x.shape == (300, 12, 1)


@pytest.mark.parametrize("shape", ["wide", "channels"])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_long_format_is_recognized_and_gathered(tmp_path: Path, shape: str, ending: str) -> None:
    lengths = np.array([12, 9, 12, 11])
    x = np.random.default_rng(3).normal(size=(4, 12, 2)).round(4)
    parts = []
    for k, length in enumerate(lengths):
        part = pd.DataFrame(
            {"id": k + 7, "time": 0.5 * np.arange(length), "a": x[k, :length, 0], "b": x[k, :length, 1]}
        )
        parts.append(part.assign(label=["up", "down"][k % 2]))
    table = pd.concat(parts)
    channel = "dim_id" if ending == "csv" else "channel"  # numbers the channels, not the samples
    if shape == "channels":
        table = table.melt(id_vars=["id", "time", "label"], var_name=channel, value_name="value")
    table = table.sample(frac=1, random_state=0).sort_values("id", kind="stable")  # times within in any order
    path = tmp_path / f"long.{ending}"
    table.to_csv(path, index=False) if ending == "csv" else table.to_parquet(path, index=False)
    with pytest.raises(ReadError, match="say --layout long --id id --time time"):
        read(path)
    samples = read(path, layout="long", target="label")
    assert samples.lengths.tolist() == lengths.tolist() and samples.y.tolist() == [1, 0, 1, 0] and samples.rate == 2.0
    for k, length in enumerate(lengths):
        np.testing.assert_array_equal(samples.x[k, :length], x[k, :length])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time": [0, 1, 1, 3] * 8}, "got several in sample 's0'"),
        ({"time": [0, 1, 2, 7] * 8}, "expected even times in every sample"),
        ({"label": ["a", "b"] * 16}, "expected one 'label' per sample"),
        ({"time": ["x", "y", "z", "w"] * 8}, "expected times or dates"),
    ],
)
def test_a_long_table_that_contradicts_itself_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    table = pd.DataFrame({"id": np.repeat([f"s{k}" for k in range(8)], 4), "time": [0, 1, 2, 3] * 8, "value": 0.5})
    table = table.assign(label=np.repeat(["a", "b"] * 4, 4)).assign(**change)
    table.to_csv(tmp_path / "long.csv", index=False)
    with pytest.raises(ReadError, match=message):
        read(tmp_path / "long.csv", layout="long", id="id", time="time", target="label")


def test_several_targets_are_real_ones(tmp_path: Path) -> None:
    table = pd.DataFrame(X, columns=[f"t{i}" for i in range(24)])
    table.insert(0, "a", X[:, 3] + 1)
    table.insert(1, "b", np.arange(40) % 3)
    for path, write in ((tmp_path / "two.csv", table.to_csv), (tmp_path / "two.parquet", table.to_parquet)):
        write(path, index=False)
        samples = read(path, target=["a", "b"])
        np.testing.assert_array_equal(samples.y, table[["a", "b"]])
        np.testing.assert_array_equal(samples.x[:, :, 0], X)
        with pytest.raises(ReadError, match="target must name each column once"):
            read(path, target=["a", 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 5, "layout": "diagonal"}, "layout must be one of rows, time-rows, long"),
        ({"step": 5}, "step must be given beside window"),
        ({"id": "who"}, "id must be left out unless layout is long"),
        ({"layout": "time-rows"}, "window must be given with layout 'time-rows'"),
        ({"window": 0}, "window must be at least 1"),
    ],
)
def test_options_that_make_no_sense_are_named(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(put(tmp_path / "data.csv", header("label") + rows()), **options)


def test_messages_blame_the_right_thing(tmp_path: Path) -> None:
    grouped = header("label", n=3) + 'a,"1,234.5",2,3\nb,1,2,3\n'
    with pytest.raises(ReadError, match=r"got '1,234\.5' \(separated thousands: write them without ','\)"):
        read(put(tmp_path / "grouped.csv", grouped))
    with pytest.raises(ReadError, match="got 4 and 2 values in sample 0: bring them to one sampling rate"):
        read(put(tmp_path / "rates.ts", "@classLabel true\n@data\n1,2,3,4:1,2:a\n5,6,7,8:3,4:b\n"))


def test_packed_texts_and_arff_are_read(tmp_path: Path) -> None:
    path = tmp_path / "data.csv.gz"
    path.write_bytes(gzip.compress((header("label") + rows()).encode()))
    np.testing.assert_array_equal(read(path).x[:, :, 0], X)
    with pytest.raises(ReadError, match="would take"):
        read(path, max_bytes=4000)
    names = "".join(f"@attribute att{i} numeric\n" for i in range(24))
    body = "\n".join(",".join([*map(str, row), y]) for y, row in zip(WORDS, X, strict=True))
    text = f"@relation toy\n{names}@attribute target {{low,high}}\n@data\n{body}\n"
    samples = read(put(tmp_path / "data.arff", text))
    wanted = scipy.io.arff.loadarff(tmp_path / "data.arff")[0]
    np.testing.assert_array_equal(samples.x[:, 5, 0], wanted["att5"])
    np.testing.assert_array_equal(np.array(samples.classes)[samples.y], WORDS)
    with pytest.raises(ReadError, match="is not an ARFF table"):
        read(put(tmp_path / "bad.arff", "@relation x\n@attribute a relational\n@data\n1\n"))


def test_one_coding_for_two_files(tmp_path: Path) -> None:
    first = put(tmp_path / "train.csv", header("label") + rows(np.arange(40) % 2 + 1))
    second = put(tmp_path / "test.csv", header("label") + rows(np.full(40, 2)))
    classes = read(first).classes
    assert classes == ("1", "2") and set(read(second, classes=classes).y) == {1}
    with pytest.raises(ReadError, match="must hold one of the classes 1, 2, got '3'"):
        read(put(tmp_path / "odd.csv", header("label") + rows(np.arange(40) % 2 + 2)), classes=classes)


soundfile = pytest.importorskip("soundfile")


def waves(folder: Path, ending: str = "wav", channels: int = 1) -> dict[Path, np.ndarray]:
    found = {}
    for k in range(8):
        data = np.random.default_rng(k).uniform(-0.9, 0.9, size=(160 + 8 * k, channels))
        path = folder / ("hum" if k % 2 else "buzz") / f"r{k}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, data, 800, subtype="PCM_24" if ending == "flac" else "DOUBLE")
        found[path] = soundfile.read(path, always_2d=True)[0]
    return found


@pytest.mark.parametrize(("ending", "channels"), [("wav", 1), ("wav", 2), ("flac", 1)])
def test_recordings_in_a_folder_per_class(tmp_path: Path, ending: str, channels: int) -> None:
    found = waves(tmp_path, ending, channels)
    samples = read(tmp_path)
    assert samples.classes == ("buzz", "hum") and samples.rate == 800 and samples.groups is None
    for k, path in enumerate(sorted(found)):
        np.testing.assert_array_equal(samples.x[k, : samples.lengths[k]], found[path])
    cut = read(tmp_path, window=80, step=40)
    assert cut.x.shape == (sum((len(data) - 80) // 40 + 1 for data in found.values()), 80, channels)
    assert cut.groups.max() == 7 and set(np.bincount(cut.groups)) == {3, 4}
    np.testing.assert_array_equal(cut.x[1], found[min(found)][40:120])


def test_recordings_in_a_table(tmp_path: Path) -> None:
    found = waves(tmp_path)
    lines = [f"{path.relative_to(tmp_path)},{path.parent.name},m{k % 3}" for k, path in enumerate(found)]
    path = put(tmp_path / "all.csv", "\n".join(["path,label,machine", *lines]))
    samples = read(path, group="machine", window=40)
    assert samples.x.shape[1:] == (40, 1) and samples.groups.max() == 2 and samples.classes == ("buzz", "hum")
    for text, message in (
        ("path,label\nnone.wav,a\n" + lines[0].rsplit(",", 1)[0], "names a recording that is not there"),
        ("path,label,machine\n" + "\n".join([*lines, "odd.wav,hum,m1"]), "expected one sampling rate, got 800 and 900"),
    ):
        soundfile.write(tmp_path / "odd.wav", np.zeros(90), 900)
        with pytest.raises(ReadError, match=message):
            read(put(tmp_path / "bad.csv", text), target="label", group="machine" if "machine" in text else None)
    (tmp_path / "odd.wav").unlink()
    (tmp_path / "hum" / "broken.wav").write_bytes(b"RIFF....")
    with pytest.raises(ReadError, match="is not a recording"):
        read(tmp_path)
