"""Small archives in the formats of the real ones, for the tests of the readers and of the download."""

from __future__ import annotations

import copyreg
import gzip
import io
import pickle
import struct
import tarfile
import wave
import zipfile
import zlib
from typing import Any

import numpy as np


def zipped(members: dict[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in members.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return buffer.getvalue()


def tarred(members: dict[str, bytes], mode: str = "w:gz", *, links: bool = True) -> bytes:
    """A tar that also holds a link, which readers must leave alone."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, contents in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(contents)
            archive.addfile(info, io.BytesIO(contents))
        link = tarfile.TarInfo("a-link.wav")
        link.type, link.linkname = tarfile.SYMTYPE, "elsewhere"
        if links:
            archive.addfile(link)
    return buffer.getvalue()


def debian(members: dict[str, bytes]) -> bytes:
    """A binary package as deb(5) describes it: an ar archive of three members, the last a compressed tar."""
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": tarred({"./control": b"Package: tiny\n"}, "w:xz") + b"odd"[: 1 + len(members) % 2],
        "data.tar.xz": tarred({f"./{name}": contents for name, contents in members.items()}, "w:xz"),
    }
    package = b"!<arch>\n"
    for name, contents in parts.items():
        package += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(contents):<10}`\n".encode() + contents
        package += b"\n" * (len(contents) % 2)
    return package


def recording(samples: np.ndarray, rate: int, channels: int = 1) -> bytes:
    """A wave file of 16-bit samples, full scale one."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as sound:
        sound.setparams((channels, 2, rate, 0, "NONE", ""))
        sound.writeframes(np.round(np.asarray(samples) * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def soundfont(
    sounds: list[tuple[str, int, int, np.ndarray]],
    instruments: list[list[dict[int, int]]],
    presets: list[tuple[int, list[dict[int, int]]]],
    **replaced: bytes | None,
) -> bytes:
    """A SoundFont of sounds (name, rate, type, 16-bit samples), and of zones: generators by operator.

    ``presets`` are of (bank, zones). Chunks are ``replaced``, by None where they are to be absent.
    """
    pcm, headers = b"", b""
    for name, rate, kind, samples in sounds:
        start, pcm = len(pcm) // 2, pcm + samples.astype("<i2").tobytes() + bytes(92)
        end = start + len(samples)
        headers += struct.pack("<20s5IBbHH", name.encode(), start, end, start, end, rate, 60, 0, 0, kind)
    chunks = {"smpl": pcm, "shdr": headers + struct.pack("<20s5IBbHH", b"EOS", 0, 0, 0, 0, 0, 0, 0, 0, 0)}
    chunks["phdr"], chunks["pbag"], chunks["pgen"] = _zones([zones for _, zones in presets])
    banks = [bank for bank, _ in presets] + [0]
    owners = zip(banks, struct.unpack(f"<{len(banks)}H", chunks["phdr"]), strict=True)
    chunks["phdr"] = b"".join(struct.pack("<20s3H3I", b"preset", 0, bank, zone, 0, 0, 0) for bank, zone in owners)
    chunks["inst"], chunks["ibag"], chunks["igen"] = _zones(instruments)
    owners = struct.unpack(f"<{len(instruments) + 1}H", chunks["inst"])
    chunks["inst"] = b"".join(struct.pack("<20sH", b"instrument", zone) for zone in owners)
    chunks = {name: body for name, body in (chunks | replaced).items() if body is not None}
    parts = {
        name: name.encode() + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
        for name, body in chunks.items()
    }
    lists = [b"INFOICRD\x05\0\0\0today\0", b"sdta" + parts.pop("smpl", b""), b"pdta" + b"".join(parts.values())]
    body = b"sfbk" + b"".join(b"LIST" + struct.pack("<I", len(part)) + part for part in lists)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _zones(owners: list[list[dict[int, int]]]) -> tuple[bytes, bytes, bytes]:
    """First zone of each owner, first generator of each zone, generators: each table with its closing record."""
    starts, bags, generators = [0], [0], b""
    for zones in owners:
        for zone in zones:
            generators += b"".join(struct.pack("<Hh", *pair) for pair in zone.items())
            bags.append(len(generators) // 4)
        starts.append(len(bags) - 1)
    return (
        struct.pack(f"<{len(starts)}H", *starts),
        b"".join(struct.pack("<HH", bag, 0) for bag in bags),
        generators + bytes(4),
    )


def idx_file(values: np.ndarray) -> bytes:
    axes = b"".join(int(n).to_bytes(4, "big") for n in values.shape)
    return gzip.compress(bytes([0, 0, 8, values.ndim]) + axes + values.astype(np.uint8).tobytes())


def png(pixels: np.ndarray, *, depth: int = 8, color: int = 0) -> bytes:
    """A PNG picture of rows of bytes (H, W) or of colors (H, W, 3), unfiltered."""
    body = b"".join(b"\0" + row.astype(f">u{depth // 8}").tobytes() for row in pixels)
    head = b"".join(int(n).to_bytes(4, "big") for n in pixels.shape[1::-1]) + bytes([depth, color, 0, 0, 0])
    chunks = {b"IHDR": head, b"IDAT": zlib.compress(body), b"IEND": b""}
    parts = [
        len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
        for kind, data in chunks.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def arena(members: dict[str, bytes], mode: str = "w:gz") -> bytes:
    """The Long Range Arena's archive of these files, and beside its folder others of the same names."""
    decoys = {f"lra_release/{name}": b"not this one" for name in members}
    return tarred(decoys | {f"lra_release/lra_release/{name}": contents for name, contents in members.items()}, mode)


def head(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, **pax: str) -> bytes:
    """What stands before a member of a tar, as another program than tarfile may have written it."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.pax_headers = kind, size, pax
    return info.tobuf(tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT)


def sparse(name: str, size: int) -> bytes:
    """A member as GNU's tar writes it of a file that is one large hole."""
    whole = bytearray(head(name, tarfile.GNUTYPE_SPARSE))
    whole[483:495] = b"%011o\0" % size
    whole[148:156] = b" " * 8
    whole[148:156] = b"%06o\0 " % sum(whole)
    return bytes(whole)


# ---- pickles as an old pandas and numpy wrote them, with protocol 2 ------------------------------------


class DataFrame:
    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def __reduce__(self) -> Any:
        return copyreg._reconstructor, (DataFrame, object, None), self.state


class BlockManager:
    def __init__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def __reduce__(self) -> Any:
        return BlockManager, (), self.state


class Index:
    def __init__(self, **what: Any) -> None:
        self.what = what

    def __reduce__(self) -> Any:
        return _new_Index, (type(self), self.what)


class RangeIndex(Index):
    pass


def _new_Index(kind: type, what: dict[str, Any]) -> Index:
    raise NotImplementedError


MODULES = {
    "DataFrame": "pandas.core.frame",
    "BlockManager": "pandas.core.internals.managers",
    "_new_Index": "pandas.core.indexes.base",
    "Index": "pandas.core.indexes.base",
    "RangeIndex": "pandas.core.indexes.range",
    "_reconstruct": "numpy.core.multiarray",
}


def old_pickle(value: Any) -> bytes:
    """The pickle, with names in the modules where they were in 2020."""
    text = pickle.dumps(value, protocol=2)
    for name, module in MODULES.items():
        for here in (__name__, "numpy._core.multiarray"):
            text = text.replace(f"c{here}\n{name}\n".encode(), f"c{module}\n{name}\n".encode())
    return text


def data_frame(columns: dict[str, np.ndarray]) -> DataFrame:
    """A frame of numbers: real columns in one block, whole ones in another, their order kept by positions."""
    names = np.array([*columns, None], dtype=object)[:-1]
    real = [i for i, values in enumerate(columns.values()) if values.dtype.kind == "f"]
    whole = [i for i in range(len(names)) if i not in real]
    blocks = [
        {"values": np.array([columns[names[i]] for i in where]), "mgr_locs": slice(where[0], where[-1] + 1, 1)}
        for where in (real, whole)
    ]
    length = len(next(iter(columns.values())))
    axes = [Index(data=names, name=None), RangeIndex(name=None, start=0, stop=length, step=1)]
    values = [block["values"] for block in blocks]
    items = [Index(data=names[block["mgr_locs"]], name=None) for block in blocks]
    manager = BlockManager((axes, values, items, {"0.14.1": {"axes": axes, "blocks": blocks}}))
    return DataFrame({"_data": manager, "_typ": "dataframe", "_metadata": [], "attrs": {}})
