"""Files in, sequences out: every format against what was written, every malformed file an error in plain words."""

import io
import os
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tdi_lib.app.files import FORMATS, ReadError, Samples, read

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 10)).round(3)
CODES = np.array([0, 1, 2, 0, 1, 2])
WORDS = np.array(["cat", "dog", "eel"])[CODES]
REAL = X[:, 3] + 0.5


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def table(labels: np.ndarray = WORDS, name: str = "label", **more: object) -> pa.Table:
    return pa.table({name: pa.array(labels), **{f"t{i}": X[:, i] for i in range(10)}, **more})


def parquet(table: pa.Table) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(table, stream)
    return stream.getvalue()


def feather(table: pa.Table, compression: str = "lz4") -> bytes:
    stream = io.BytesIO()
    pyarrow.feather.write_feather(table, stream, compression=compression)
    return stream.getvalue()


def stream(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def text(labels: np.ndarray, separator: str = ",", header: str = "", x: np.ndarray = X) -> bytes:
    rows = [separator.join([str(y), *map(str, row)]) for y, row in zip(labels, x, strict=True)]
    return (header + "\n".join(rows) + "\n").encode()


def ts(labels: np.ndarray = WORDS, head: str = "@classLabel true cat dog eel\n") -> bytes:
    rows = [",".join(map(str, a)) + ":" + ",".join(map(str, -a)) + f":{y}" for a, y in zip(X, labels, strict=True)]
    return ("#made up\n@problemName toy\n@timeStamps false\n" + head + "@data\n" + "\n".join(rows)).encode()


def lists() -> pa.Table:
    return pa.table({"a": [list(row) for row in X], "b": [list(-row) for row in X], "target": REAL})


HEADER = ",".join(["label", *(f"t{i}" for i in range(10))]) + "\n"
NUMBERED = ",".join(["what", *map(str, range(10))]) + "\n"
PLAIN: dict[str, tuple[str, bytes]] = {
    "comma": (".csv", text(WORDS)),
    "comma, codes": (".csv", text(CODES)),
    "header": (".csv", text(WORDS, header=HEADER)),
    "steps for a header": (".csv", text(WORDS, header=NUMBERED)),
    "semicolon": (".csv", text(WORDS, ";")),
    "decimal comma": (".csv", text(WORDS, ";").replace(b".", b",")),
    "tab": (".tsv", text(CODES, "\t")),
    "blanks": (".txt", text(CODES.astype(float), "  ")),
    "quoted": (".csv", text(np.array([f'"{word}"' for word in WORDS]))),
    "byte order mark": (".csv", b"\xef\xbb\xbf" + text(WORDS, header=HEADER)),
    "utf-16": (".csv", text(WORDS).decode().encode("utf-16")),
    "windows": (".csv", text(WORDS, header=HEADER).replace(b"\n", b"\r\n")),
    "trailing comma": (".csv", text(WORDS).replace(b"\n", b",\n")),
    "npz": (".npz", npz(x=X, y=CODES)),
    "npz of texts": (".npz", npz(inputs=X, labels=WORDS)),
    "npz, names unknown": (".npz", npz(first=X, second=WORDS)),
    "npz, column order": (".npz", npz(x=np.asfortranarray(X), y=CODES)),
    "parquet": (".parquet", parquet(table())),
    "parquet, codes": (".parquet", parquet(table(CODES, "y"))),
    "dictionary": (".parquet", parquet(table(pa.array(WORDS).dictionary_encode()))),
    "feather": (".feather", feather(table())),
    "arrow stream": (".arrow", stream(table())),
}


def put(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("suffix", "content"), PLAIN.values(), ids=PLAIN)
def test_every_format_gives_what_was_written(tmp_path: Path, suffix: str, content: bytes) -> None:
    samples = read(put(tmp_path, f"data{suffix}", content))
    np.testing.assert_array_equal(samples.x, X[:, :, None])
    assert samples.x.dtype == np.float64
    np.testing.assert_array_equal(samples.y, CODES)
    assert samples.classes in (("cat", "dog", "eel"), ("0", "1", "2"))
    np.testing.assert_array_equal(samples.lengths, 10)
    assert "6 samples of 10 steps and 1 channel; 3 classes" in samples.understood


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".ts", ts(REAL, "@targetlabel true\n")),
        (".npz", npz(x=np.stack([X, -X], axis=2), y=REAL)),
        (".parquet", parquet(lists())),
        (".feather", feather(lists())),
    ],
)
def test_channels_and_real_targets(tmp_path: Path, suffix: str, content: bytes) -> None:
    samples = read(put(tmp_path, f"data{suffix}", content))
    np.testing.assert_array_equal(samples.x, np.stack([X, -X], axis=2))
    np.testing.assert_array_equal(samples.y, REAL)
    assert samples.classes == () and "2 channels; a real target" in samples.understood


def test_a_ts_file_of_classes(tmp_path: Path) -> None:
    samples = read(put(tmp_path, "data.ts", ts()))
    assert samples.x.shape == (6, 10, 2) and samples.classes == ("cat", "dog", "eel")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", b"a,1,2.5,3\nb,4,5.5\na,6\n"),
        ("marks.csv", b"a,1,2.5,3\nb,4,5.5,?\na,6,,NaN\n"),
        ("ucr.tsv", b"a\t1\t2.5\t3\nb\t4\t5.5\tNaN\na\t6\tNaN\tNaN\n"),
        ("last.csv", b"u,v,w,label\n1,2.5,3,a\n4,5.5,,b\n6,,,a\n"),
        ("archive.ts", b"@classLabel true a b\n@data\n1,2.5,3:a\n4,5.5:b\n6,?:a\n"),
        (
            "fixed.parquet",
            parquet(
                pa.table(
                    {
                        "s": pa.array([[1, 2.5, 3], [4, 5.5, None], [6, None, None]], type=pa.list_(pa.float32(), 3)),
                        "y": pa.array(["a", "b", "a"], type=pa.large_string()),
                    }
                )
            ),
        ),
        (
            "large.arrow",
            stream(
                pa.table(
                    {
                        "s": pa.array([[1, 2.5, 3], [4, 5.5], [6.0]], type=pa.large_list(pa.float64())),
                        "y": ["a", "b", "a"],
                    }
                )
            ),
        ),
        ("lists.parquet", parquet(pa.table({"s": [[1, 2.5, 3], [4, 5.5], [6.0]], "y": ["a", "b", "a"]}))),
        (
            "arrays.npz",
            npz(x=np.array([[1, 2.5, 3], [4, 5.5, np.nan], [6, np.nan, np.nan]]), y=np.array(["a", "b", "a"])),
        ),
    ],
)
def test_sequences_of_different_lengths_end_in_nan(tmp_path: Path, name: str, content: bytes) -> None:
    samples = read(put(tmp_path, name, content))
    assert samples.lengths.tolist() == [3, 2, 1] and samples.y.tolist() == [0, 1, 0]
    wanted = [[1, 2.5, 3], [4, 5.5, np.nan], [6, np.nan, np.nan]]
    np.testing.assert_array_equal(samples.x[:, :, 0], wanted)
    assert "1 to 3 steps" in samples.understood


def test_what_pandas_writes_is_read(tmp_path: Path) -> None:
    frame = pd.DataFrame(X).assign(label=WORDS)
    for name, write in (("index.csv", frame.to_csv), ("bare.csv", lambda p: frame.to_csv(p, index=False))):
        write(tmp_path / name)
        np.testing.assert_array_equal(read(tmp_path / name).x[:, :, 0], X)
    frame.columns = frame.columns.map(str)
    frame[::-1].to_parquet(tmp_path / "frame.parquet")  # an index that is no range is stored as a column
    np.testing.assert_array_equal(read(tmp_path / "frame.parquet").x[:, :, 0], X[::-1])


def test_the_target_is_named_numbered_guessed_or_asked_for(tmp_path: Path) -> None:
    header = ",".join([f"t{i}" for i in range(9)] + ["weight", "who"]) + "\n"
    rows = "\n".join(",".join([*map(str, row), word]) for row, word in zip(X, WORDS, strict=True))
    path = put(tmp_path, "data.csv", (header + rows).encode())
    assert read(path).classes == ("cat", "dog", "eel")  # the only column of words
    by_name = read(path, target="weight", drop=["who"])
    np.testing.assert_array_equal(by_name.y, X[:, 9])
    np.testing.assert_array_equal(by_name.x[:, :, 0], X[:, :9])
    np.testing.assert_array_equal(read(path, target=9, drop=[10]).y, by_name.y)
    np.testing.assert_array_equal(read(path, target="-2", drop=["-1"]).y, by_name.y)
    with pytest.raises(ReadError, match=r"which column is the target\? give target, one of 't0'"):
        read(path, drop=["who"])
    with pytest.raises(ReadError, match=r"target must be one of 't0', .* or a number from 0 to 10, got 'color'"):
        read(path, target="color")
    with pytest.raises(ReadError, match=r"expected a number in line 2, got 'cat' \(drop that column"):
        read(path, target="weight")


@pytest.mark.parametrize(
    ("name", "content"),
    [("y.npy", npy(CODES)), ("y.txt", b"who\n0\n1\n2\n0\n1\n2\n"), ("y.parquet", parquet(pa.table({"c": CODES})))],
)
def test_targets_from_a_second_file(tmp_path: Path, name: str, content: bytes) -> None:
    data = put(tmp_path, "x.npy", npy(np.stack([X, X], axis=2)))
    samples = read(data, target_file=put(tmp_path, name, content))
    assert samples.x.shape == (6, 10, 2) and samples.y.tolist() == CODES.tolist()
    with pytest.raises(ReadError, match=r"x\.npy: an NPY file holds sequences alone; give the targets by target_file"):
        read(data)
    with pytest.raises(
        ReadError, match=r"y\.npy: targets must hold one target per sequence of x \(6\), got shape \(5,\)"
    ):
        read(data, target_file=put(tmp_path, "y.npy", npy(CODES[:5])))


def test_what_looks_like_classes_can_be_overruled(tmp_path: Path) -> None:
    path = put(tmp_path, "data.csv", text(CODES))
    assert read(path).classes == ("0", "1", "2") and read(path).y.dtype == np.int64
    assert read(path, task="real").classes == () and read(path, task="real").y.dtype == np.float64
    values = put(tmp_path, "values.csv", text(np.array([0.5, 1.5] * 3)))
    assert read(values).classes == () and read(values, task="classes").classes == ("0.5", "1.5")
    counts = put(tmp_path, "counts.csv", text(np.arange(6)))  # whole numbers, but each of them once
    assert read(counts).classes == ()
    with pytest.raises(ReadError, match="targets must be numbers, got 'cat'"):
        read(put(tmp_path, "words.csv", text(WORDS)), task="real")


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["1_2", "12", "1_2", "12"], ("12", "1_2")),
        (["01", "1", "01", "1"], ("01", "1")),
        (["1.0", "1", "1.0", "1"], ("1", "1.0")),
        (["0x1", "1", "0x1", "1"], ("0x1", "1")),
        (["inf", "1", "inf", "1"], ("1", "inf")),
        (["1.0", "2.0", "1.0", "2.0"], ("1", "2")),
        (["-1", "+1", "-1", "+1"], ("-1", "1")),
    ],
)
def test_a_text_is_a_number_only_if_it_is_written_as_one(tmp_path: Path, labels: list[str], classes: tuple) -> None:
    """In the whole column: what would make one class of two texts leaves all of them texts."""
    samples = read(put(tmp_path, "data.csv", text(np.array(labels), x=X[:4])), header=False)
    assert samples.classes == classes
    assert [samples.classes[code] for code in samples.y[:2]] != [samples.classes[0]] * 2


@pytest.mark.parametrize("spelling", ["NA", "", "?", "#N/A", "None", "nAn", "<NA>", "-1.#IND", " null "])
def test_a_row_without_its_number_is_left_out_and_said_so(tmp_path: Path, spelling: str) -> None:
    labels = np.array([str(y) for y in REAL], dtype="U32")
    labels[2] = spelling
    header = HEADER.replace("label", "yield")
    for name, rows in (("first.csv", text(labels, header=header)), ("header.csv", text(labels))):
        samples = read(put(tmp_path, name, rows), target=0)
        np.testing.assert_array_equal(samples.y, np.delete(REAL, 2))
        np.testing.assert_array_equal(samples.x[:, :, 0], np.delete(X, 2, axis=0))
        assert len(samples.lengths) == 5 and "1 row without a target left out" in samples.understood
    frame = pd.DataFrame(X).assign(y=REAL).rename(columns=str)
    frame.loc[2, "y"] = np.nan
    frame.to_parquet(tmp_path / "frame.parquet")
    np.testing.assert_array_equal(read(tmp_path / "frame.parquet").y, np.delete(REAL, 2))


def test_every_spelling_of_a_missing_value_ends_a_sequence(tmp_path: Path) -> None:
    for spelling in ("NA", "#N/A", "nAn", "<NA>", "1.#QNAN", "NULL"):
        samples = read(put(tmp_path, "data.csv", f"a,1,2.5,3\nb,4,5.5,{spelling}\n".encode()))
        assert samples.lengths.tolist() == [3, 2], spelling


def test_what_a_file_declares_wins(tmp_path: Path) -> None:
    path = put(tmp_path, "rate.ts", ts(CODES, "@targetlabel true\n"))
    assert read(path).y.dtype == np.float64 and read(path).classes == ()
    assert read(path, task="classes").classes == ("0", "1", "2")
    targets = put(tmp_path, "words.csv", "\n".join(WORDS).encode())
    bare = b"\n".join(b",".join(b"%r" % float(v) for v in row) for row in X)
    for head, rows in ((b"@classLabel false\n", bare), (b"@classLabel true 7\n", bare.replace(b"\n", b":7\n") + b":7")):
        samples = read(put(tmp_path, "bare.ts", head + b"@data\n" + rows), target_file=targets)
        np.testing.assert_array_equal(samples.x[:, :, 0], X)
        assert samples.classes == ("cat", "dog", "eel") and samples.y.tolist() == CODES.tolist()


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.ts", ts(), {"target": "nonsense"}, r"target does not apply to \.ts files, only to \.csv"),
        ("a.ts", ts(), {"drop": ["3"]}, r"drop does not apply to \.ts files"),
        ("a.npz", npz(x=X, y=CODES), {"drop": [3]}, r"drop does not apply to \.npz files"),
        ("a.npz", npz(x=X, y=CODES), {"header": True}, r"header does not apply .* only to \.csv, \.tsv, \.txt"),
        ("a.npy", npy(X), {"target": 0}, r"target does not apply to \.npy files"),
        ("a.parquet", parquet(table()), {"header": False}, r"header does not apply to \.parquet"),
    ],
)
def test_options_that_do_not_apply_are_refused(
    tmp_path: Path, name: str, content: bytes, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ReadError, match=message):
        read(put(tmp_path, name, content), **options)  # type: ignore[arg-type]


def test_a_header_of_times_is_a_header(tmp_path: Path) -> None:
    times = ",".join(["activity", *(f"{0.02 * k:.2f}" for k in range(10))]) + "\n"
    samples = read(put(tmp_path, "times.csv", text(WORDS, header=times)))
    np.testing.assert_array_equal(samples.x[:, :, 0], X)
    ramp = np.vstack([np.linspace(0, 0.18, 10), X[1:]]).round(3)  # a sample like that has a label that comes again
    assert read(put(tmp_path, "ramp.csv", text(WORDS, x=ramp))).x.shape == (6, 10, 1)


def test_a_separator_within_quotes_is_none(tmp_path: Path) -> None:
    path = put(tmp_path, "data.csv", b'label,note,u,v\nx,"q, r",1,2\ny,"s\n, , t",3,4\n')
    assert read(path, drop=["note"]).x[:, :, 0].tolist() == [[1, 2], [3, 4]]
    assert read(path, target="note", drop=[0]).classes == ("q, r", "s\n, , t")


def test_a_spreadsheets_note_of_its_separator_is_no_row(tmp_path: Path) -> None:
    rows = text(WORDS, ";", HEADER.replace(",", ";"))
    np.testing.assert_array_equal(read(put(tmp_path, "sep.csv", b"sep=;\n" + rows)).x[:, :, 0], X)
    with pytest.raises(ReadError, match="expected a number in line 5, got 'x'"):
        read(put(tmp_path, "odd.csv", b"sep=;\nlabel;u;v\n\na;1;2\nb;1;x\n"))


def test_numbers_are_read_to_the_last_bit(tmp_path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(6, 200)) * 10.0 ** np.arange(-100, 100)
    samples = read(put(tmp_path, "data.csv", text(WORDS, x=x)))
    np.testing.assert_array_equal(samples.x[:, :, 0], x)


def test_a_row_that_ends_before_its_target_is_an_error(tmp_path: Path) -> None:
    """Also where targets may be missing: the number that stands last is a value, not the target."""
    with pytest.raises(ReadError, match="expected 3 fields in every row, got 2 in line 3"):
        read(put(tmp_path, "cut.csv", b"u,v,label\n1,2,5.5\n1,3\n2,4,6.5\n"))
    whole = read(put(tmp_path, "blank.csv", b"u,v,label\n1,2,5.5\n1,3,\n2,4,6.5\n"))
    assert whole.y.tolist() == [5.5, 6.5]


class Payload:
    """A pickle that would leave a file behind if anything ran it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


def claim(shape: str, dtype: str = "<f8", version: bytes = b"\x01\x00") -> bytes:
    head = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY" + version + len(head).to_bytes(2 if version[0] == 1 else 4, "little") + head


def bomb(n_bytes: int) -> bytes:
    """An archive of an array of zeros, a thousand times smaller than what it holds."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as member:
        member.write(claim(f"({n_bytes // 80}, 10)"))
        member.write(bytes(n_bytes))
    return stream.getvalue()


BAD: dict[str, tuple[str, bytes, str]] = {
    "empty": ("a.csv", b"", "expected data, got an empty file"),
    "blank": ("a.csv", b"\n \n", "expected rows of numbers, got blank lines"),
    "ending": ("a.xls", b"1,2", "expected one of the endings"),
    "no ending": ("a", b"1,2", "expected one of the endings"),
    "npy as csv": ("a.csv", npy(X), r"the ending \.csv says text, but the file holds npy"),
    "csv as npy": ("a.npy", text(WORDS), "says npy, but the file holds text"),
    "gzip": ("a.csv", b"\x1f\x8b\x08\x00rest", "but the file holds gzip"),
    "pickle": ("a.npy", pickle.dumps(X), "but the file holds a pickle"),
    "feather 1": ("a.feather", b"FEA1\0\0\0\0", "holds Feather version 1"),
    "zero byte": ("a.csv", b"1,2\x00,3\n1,2,3\n", "expected text, got a zero byte at character 3"),
    "latin-1": ("a.csv", "Käse,1,2\n".encode("latin-1"), "expected UTF-8 text, got another byte at 1"),
    "header alone": ("a.csv", b"label,a,b\n", "expected a number in line 1, got"),
    "one column": ("a.csv", b"1\n2\n", "expected a target and at least one step"),
    "short row": ("a.csv", b"u,v,label\n1,2,a\n1,b\n", "expected 3 fields in every row, got 2 in line 3"),
    "long row": ("a.csv", b"label,u,v\na,1,2\nb,1,2,3\n", "expected 3 fields in every row, got 4 in line 3"),
    "word": ("a.csv", b"a,1,2\nb,1,two\n", "expected a number in line 2, got 'two'"),
    "infinite": ("a.csv", b"a,1,2\nb,1,1e999\n", "expected finite values, got 1 infinite"),
    "gap": ("a.csv", b"a,1,2,3\nb,1,,3\n", r"got 1 missing steps, the first in sample 1 at step 1"),
    "nothing": ("a.csv", b"a,1,2,3\nb,,,\n", "expected a value in every sequence, got none in sample 1"),
    "no target": ("a.csv", b"a,1,2,3\n,1,2,3\n", "targets must hold a target for every sample, got a missing one"),
    "quote": ("a.csv", b'a,1,2\nb,"1,2\n' + b"1,2\n" * 40_000, "is not a table: field larger than field limit"),
    "ts, no data": ("a.ts", b"@classLabel true\n", "expected a line @data, got none"),
    "ts, no target": ("a.ts", b"@classLabel false\n@data\n1,2,3\n", "expected @classLabel true or @targetlabel true"),
    "ts, stamps": ("a.ts", b"@timeStamps true\n@data\n", "expected values at even steps, got time stamps"),
    "ts, channels": (
        "a.ts",
        b"@classLabel true\n@data\n1,2:1,2:a\n1,2:b\n",
        r"expected 2 channel\(s\) and a target in line 4",
    ),
    "ts, word": ("a.ts", b"@classLabel true\n@data\n1,2:a\n1,1_0:b\n", "expected a number in line 4, got '1_0'"),
    "objects": ("a.npy", npy(np.array([[None]])), "Python objects, which could run code"),
    "complex": ("a.npy", npy(X + 0j), "expected an array of real numbers or texts, got dtype complex128"),
    "structured": ("a.npy", npy(np.zeros(2, [("a", float)])), "expected an array of real numbers"),
    "one axis": ("a.npy", npy(X[0]), r"expected sequences of numbers \(P, L\)"),
    "no samples": ("a.npy", npy(X[:0]), "expected a non-empty array"),
    "petabytes": ("a.npy", claim("(1000000000, 1000000)"), "the header claims shape .* but 0 bytes follow"),
    "overflow": ("a.npy", claim(f"({10**30}, {10**30})"), "the header claims"),
    "negative": ("a.npy", claim("(-3, -4)") + bytes(96), "expected a non-empty array, got shape"),
    "call": ("a.npy", claim("__import__('os').getcwd()"), "is not an NPY array"),
    "version 3": ("a.npy", claim("(1, 2)", version=b"\x03\x00") + bytes(16), "expected NPY version 1 or 2"),
    "cut": ("a.npy", npy(X)[:-1], "the header claims"),
    "nested": ("a.npy", claim("[" * 150 + "]" * 150), "is not an NPY array"),
    "no arrays": ("a.npz", npz(), "expected targets called 'y' .* got no array"),
    "which": ("a.npz", npz(a=X, b=X), r"expected targets called 'y' .*'a' \(6, 10\), 'b' \(6, 10\)"),
    "three": ("a.npz", npz(a=X, b=X, y=CODES), "expected sequences called 'x'"),
    "zip cut": ("a.npz", npz(x=X, y=CODES)[:-30], "is not an NPZ archive"),
    "parquet cut": ("a.parquet", parquet(table())[:-9], "is not a Parquet file"),
    "no numbers": (
        "a.parquet",
        parquet(table(WORDS, "y", when=WORDS)),
        "expected numbers in column 'when', got string",
    ),
    "mixed": ("a.parquet", parquet(table(WORDS, "y", s=[[1.0]] * 6)), "1 of lists"),
    "in lists": (
        "a.parquet",
        parquet(pa.table({"s": [[[1.0]]], "y": ["a"]})),
        "expected lists of numbers in column 's'",
    ),
    "null target": (
        "a.parquet",
        parquet(table(pa.array([None, *WORDS[1:]]))),
        "expected a target in every row, got 1 without",
    ),
    "no rows": ("a.feather", feather(table().slice(0, 0)), "expected rows, got none"),
}


@pytest.mark.parametrize(("name", "content", "message"), BAD.values(), ids=BAD)
def test_a_malformed_file_is_refused_in_words(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = put(tmp_path, name, content)
    with pytest.raises(ReadError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    for path, message in (
        (tmp_path / "folder.csv", "got a folder without any"),
        (tmp_path / "pipe.csv", "expected a file, got a device or pipe"),  # to open it would be to wait for ever
        (tmp_path / "absent.csv", "No such file"),
        ("zero\0byte.csv", "null"),
        ("x" * 5000 + ".csv", "too long"),
    ):
        with pytest.raises(ReadError, match=message):
            read(path)
    with pytest.raises(TypeError, match="path must be a text or a Path, got int"):
        read(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="target must not be given beside target_file"):
        read("a.csv", target="a", target_file="b.csv")


def test_no_pickle_is_ever_run(tmp_path: Path) -> None:
    proof = tmp_path / "it-ran"
    array = np.array([[Payload(proof)]], dtype=object)
    raw = pickle.dumps(Payload(proof))
    files = {
        "a.npy": npy(array),
        "b.npz": npz(x=array, y=CODES),
        "c.npy": raw,
        "d.npz": raw,
        "e.csv": raw,
        "f.parquet": raw,
        "g.npy": claim("(1, 1)", "|O") + raw,
        "h.feather": feather(table().replace_schema_metadata({"pandas": raw, "ARROW:extension:name": "pickled"})),
    }
    for name, content in files.items():
        try:
            read(put(tmp_path, name, content))
        except ReadError:
            continue
        assert name == "h.feather"  # sound, but for what its metadata would like to be
    assert not proof.exists()
    pickle.loads(raw)
    assert proof.exists()  # the trap was armed


def test_no_claim_takes_memory(tmp_path: Path) -> None:
    files = {
        "bomb.npz": bomb(2**26),
        "claim.npy": claim("(1000000000, 1000000)"),
        "ragged.csv": b"a,1\n" * 4000 + b"a" + b",1" * 20_000 + b"\n",
    }
    paths = [put(tmp_path, name, content) for name, content in files.items()]
    for path in paths:
        tracemalloc.start()
        with pytest.raises(ReadError, match="would take|the header claims|expected targets"):
            read(path, max_bytes=2**24)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**25, path.name
    with pytest.raises(ReadError, match=r"would take 62 MiB, expected at most 16"):
        read(put(tmp_path, "float.npz", npz(x=np.zeros((2**13, 1000), np.int8), y=np.arange(2**13))), max_bytes=2**24)


# ---- fuzzing: whatever the bytes, samples or a ReadError

N_CASES = int(os.environ.get("TDI_FUZZ_CASES", "1500"))
WHOLE = [
    *PLAIN.values(),
    (".ts", ts()),
    (".ts", ts(REAL, "@targetlabel true\n")),
    (".npy", npy(X)),
    (".npz", npz(x=np.stack([X, X], axis=2), y=REAL)),
    (".parquet", parquet(lists())),
    (".feather", feather(lists())),
    (".feather", feather(table(), "zstd")),
    (".arrow", stream(lists())),
    (".npz", npz(x=np.array([[None]], dtype=object), y=CODES)),
]
BROKEN = [(Path(name).suffix, content) for name, content, _ in BAD.values()]
ODD = [
    b"\0",
    b"\xff",
    b"\x80",
    b",",
    b";",
    b'"',
    b"\n",
    b"\r",
    b":",
    b"@",
    b"nan",
    b"1e999",
    b"-",
    b"(",
    b"]",
    b"\xe2\x80\xa8",
]


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """One to four changes: bits, bytes, cuts, repeats, splices, numbers that grow."""
    for _ in range(rng.integers(1, 5)):
        at, to = sorted(rng.integers(0, len(content) + 1, size=2).tolist())
        match rng.integers(0, 10):
            case 0 if content:
                flipped = bytearray(content)
                flipped[at % len(content)] ^= 1 << int(rng.integers(8))
                content = bytes(flipped)
            case 8 | 9 if content:
                changed = bytearray(content)
                changed[at % len(content)] = [0x7F, 0xFF, int(rng.integers(256))][rng.integers(3)]
                content = bytes(changed)
            case 1:
                content = content[:at]
            case 2:
                content = content[at:]
            case 3:
                content = content[:at] + content[to:]
            case 4:
                content = content[:at] + content[at:to][:4096] * int(rng.integers(2, 5)) + content[to:]
            case 5:
                content = content[:at] + ODD[rng.integers(len(ODD))] + content[at:]
            case 6:
                content = content[:at] + rng.bytes(rng.integers(1, 9)) + content[at + 4 :]
            case 7:
                digit = b"%d" % rng.integers(10)
                content = content.replace(digit, digit * int(rng.integers(2, 9)), int(rng.integers(1, 4)))
    return content


def sound(samples: Samples) -> bool:
    n_samples, length, _ = samples.x.shape
    inside = np.arange(length) < samples.lengths[:, None]
    return bool(
        samples.x.dtype == np.float64
        and np.isfinite(samples.x[inside]).all()
        and np.isnan(samples.x[~inside]).all()
        and (samples.y is None or (len(samples.y) == n_samples and np.isfinite(samples.y).all()))
    )


def outcome(path: Path, **options: object) -> str:
    try:
        assert sound(read(path, max_bytes=2**24, **options))  # type: ignore[arg-type]
    except ReadError as error:
        assert 10 < len(str(error)) - len(str(path)) < 600
        return "refused"
    return "read"


def cases(count: int) -> Iterator[tuple[str, bytes, dict[str, object]]]:
    suffixes = [*FORMATS]
    for number in range(count):
        rng = np.random.default_rng([number, 7])
        pool = WHOLE if rng.random() < 0.75 else BROKEN
        suffix, content = pool[rng.integers(len(pool))]
        if rng.random() < 0.1:
            suffix = suffixes[rng.integers(len(suffixes))]
        options: dict[str, object] = {}
        if rng.random() < 0.2:
            options = [{"target": "y"}, {"target": -1}, {"drop": ["t3"]}, {"task": "classes"}, {"header": True}][
                rng.integers(5)
            ]
        yield suffix, mutate(content, rng), options


@pytest.mark.filterwarnings("default")  # as for a user: a warning is not an error
def test_no_mutation_gives_anything_but_samples_or_an_error(tmp_path: Path) -> None:
    tally = {"read": 0, "refused": 0}
    before = set(Path.cwd().iterdir())
    for suffix, content, options in cases(N_CASES):
        tally[outcome(put(tmp_path, f"case{suffix}", content), **options)] += 1
        (tmp_path / f"case{suffix}").unlink()
    print(tally)
    assert min(tally.values()) > 0.05 * N_CASES  # both ends were reached
    assert set(Path.cwd().iterdir()) == before and not list(tmp_path.iterdir())


@settings(max_examples=max(100, N_CASES // 10), deadline=None, derandomize=True)
@given(
    st.sampled_from([s for s in FORMATS if FORMATS[s] in ("text", "ts")]),
    st.text(alphabet="01.,;:\t\n\"'-e@a?\r x_", max_size=80),
)
def test_no_text_gives_anything_but_samples_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, content: str
) -> None:
    path = put(
        tmp_path_factory.getbasetemp(),
        f"any{suffix}",
        ("@classLabel true\n@data\n" * (suffix == ".ts") + content).encode(),
    )
    outcome(path)


@settings(max_examples=max(100, N_CASES // 10), deadline=None, derandomize=True)
@given(st.sampled_from([".npy", ".npz", ".parquet", ".arrow"]), st.binary(max_size=200))
def test_no_bytes_give_anything_but_samples_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, content: bytes
) -> None:
    start = {".npy": b"\x93NUMPY\x01\x00", ".npz": b"PK\x03\x04", ".parquet": b"PAR1", ".arrow": b"ARROW1\0\0"}[suffix]
    outcome(put(tmp_path_factory.getbasetemp(), f"any{suffix}", start + content))
