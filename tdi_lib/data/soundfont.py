"""Notes of a SoundFont 2 file: recorded sounds, and the keys at which its instruments play them unchanged.

A SoundFont is a RIFF file (SoundFont technical specification 2.04, sections 5 to 8): the chunk ``smpl`` holds all
sounds as 16-bit samples, ``shdr`` says where each begins and ends, and two sets of tables say who plays it: presets
(``phdr``, ``pbag``, ``pgen``) play instruments, instruments (``inst``, ``ibag``, ``igen``) play sounds.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

__all__ = ["Note", "notes"]

_BAG = np.dtype([("generator", "<u2"), ("modulator", "<u2")])
_GENERATOR = np.dtype([("operator", "<u2"), ("amount", "<i2")])
_RECORDS = {
    "shdr": np.dtype(
        [
            *(("name", "S20"), ("start", "<u4"), ("end", "<u4"), ("loop", "<u4", 2), ("rate", "<u4")),
            *(("key", "u1"), ("cents", "i1"), ("link", "<u2"), ("type", "<u2")),
        ]
    ),
    "phdr": np.dtype([("name", "S20"), ("preset", "<u2"), ("bank", "<u2"), ("zone", "<u2"), ("unused", "<u4", 3)]),
    "pbag": _BAG,
    "pgen": _GENERATOR,
    "inst": np.dtype([("name", "S20"), ("zone", "<u2")]),
    "ibag": _BAG,
    "igen": _GENERATOR,
}
_PRESET_PLAYS, _INSTRUMENT_PLAYS = 41, 53  # generators: the instrument of a preset's zone, the sound of an instrument's
_COARSE_TUNE, _SCALE_TUNING, _ROOT_KEY = 51, 56, 58
_PERCUSSION = 128  # the bank in which a key is a drum, not a pitch
_RIGHT = 2  # type of the right half of a stereo pair; the left is 4
_RATES = (4000, 200_000)


class Note(NamedTuple):
    """One recorded note: what it is called, the key it sounds (60 is middle C), sampling rate, 16-bit samples (T,)."""

    name: str
    key: int
    rate: int
    samples: np.ndarray


def notes(contents: bytes, where: str, at_least: int = 5) -> list[Note]:
    """Recorded notes of the pitched instruments, in the order of the file; of a stereo pair, the left half.

    A sound is a note if some instrument that plays it has sounds at ``at_least`` different keys, no percussion preset
    plays it, the pitch follows the keyboard, and all instruments agree on the key at which it sounds as recorded (the
    root key less the coarse tuning). Names tell only which sounds are halves of one: not all of them name the pitch.

    Args:
        contents: of the file.
        where: its name, for messages.
        at_least: keys of a pitched instrument.

    Raises:
        ValueError: it is not a SoundFont, or a table of it points outside of another.
    """
    chunks = _chunks(contents, where)
    tables = {name: _table(chunks, name, record, where) for name, record in _RECORDS.items()}
    pcm = np.frombuffer(_chunk(chunks, "smpl", where), "<i2", len(chunks["smpl"]) // 2)
    sounds, found, seen = tables["shdr"][:-1], [], set()  # the last record of a table marks its end
    for index, key in _keys(tables, at_least, where).items():
        sound = sounds[index]
        start, end, rate = int(sound["start"]), int(sound["end"]), int(sound["rate"])
        name = sound["name"].split(b"\0")[0].decode("latin1")
        if not (0 <= start < end <= len(pcm) and _RATES[0] <= rate <= _RATES[1]):
            raise ValueError(
                f"{where}: the sound {name!r} must lie in the {len(pcm)} samples, at {_RATES[0]} to {_RATES[1]} Hz, "
                f"got {start} to {end} at {rate} Hz"
            )
        stem = re.sub(r"\s*(\([LR]\)?|[LR])$", "", name)  # some pairs are told by their names alone
        if sound["type"] & 0x7FFF != _RIGHT and (stem, key) not in seen:
            seen.add((stem, key))
            found.append(Note(stem, key, rate, pcm[start:end]))
    return found


def _keys(tables: dict[str, np.ndarray], at_least: int, where: str) -> dict[int, int]:
    """Key of each sound that is a note, by its place in ``shdr``."""
    drums = {
        zone[_PRESET_PLAYS]
        for owner, zone in _zones(tables, "phdr", _PRESET_PLAYS, where)
        if tables["phdr"]["bank"][owner] == _PERCUSSION
    }
    played: dict[int, list[tuple[int, int | None]]] = {}  # by sound: instruments and keys
    for instrument, zone in _zones(tables, "inst", _INSTRUMENT_PLAYS, where):
        if (index := zone[_INSTRUMENT_PLAYS]) >= len(tables["shdr"]) - 1:
            raise ValueError(f"{where}: igen plays sound {index}, of {len(tables['shdr']) - 1}")
        root = zone.get(_ROOT_KEY, -1)
        played_at = (int(tables["shdr"]["key"][index]) if root < 0 else root) - zone.get(_COARSE_TUNE, 0)
        pitched = instrument not in drums and zone.get(_SCALE_TUNING, 100) == 100
        played.setdefault(index, []).append((instrument, played_at if pitched else None))
    keys_of: dict[int, set[int]] = {}  # by instrument
    for instrument, key in itertools.chain(*played.values()):
        keys_of.setdefault(instrument, set()).update([] if key is None else [key])
    agreed = {}
    for index, uses in sorted(played.items()):
        (_, key), *others = uses
        many = any(len(keys_of[instrument]) >= at_least for instrument, _ in uses)
        if key is not None and many and all(other == key for _, other in others):
            agreed[index] = key
    return agreed


def _zones(tables: dict[str, np.ndarray], owner: str, plays: int, where: str) -> Iterator[tuple[int, dict[int, int]]]:
    """Owner's place and generators of each zone that plays something; an owner's first zone may hold its defaults."""
    bags, generators = tables[f"{owner[0]}bag"], tables[f"{owner[0]}gen"]
    for number, (first, last) in enumerate(_spans(tables[owner]["zone"], len(bags), owner, where)):
        defaults: dict[int, int] = {}
        for bag in range(first, last):
            begin, end = (int(bags["generator"][i]) for i in (bag, bag + 1)) if bag + 1 < len(bags) else (0, -1)
            if not begin <= end <= len(generators):
                raise ValueError(f"{where}: zone {bag} of {owner} points outside of its {len(generators)} generators")
            zone = defaults | {int(g["operator"]): int(g["amount"]) for g in generators[begin:end]}
            if plays in zone:
                yield number, zone | {plays: zone[plays] & 0xFFFF}
            elif bag == first:
                defaults = zone


def _spans(starts: np.ndarray, limit: int, owner: str, where: str) -> list[tuple[int, int]]:
    """First and past-the-last zone of each owner; the last owner marks the end."""
    spans = list(itertools.pairwise(starts.tolist()))
    if any(not a <= b <= limit for a, b in spans):
        raise ValueError(f"{where}: {owner} points outside of its {limit} zones")
    return spans


def _table(chunks: dict[str, memoryview], name: str, record: np.dtype[np.void], where: str) -> np.ndarray:
    chunk = _chunk(chunks, name, where)
    if not len(chunk) or len(chunk) % record.itemsize:
        raise ValueError(f"{where}: {name} must hold records of {record.itemsize} bytes, got {len(chunk)} bytes")
    return np.frombuffer(chunk, record)


def _chunk(chunks: dict[str, memoryview], name: str, where: str) -> memoryview:
    if name not in chunks:
        raise ValueError(f"{where} is not a SoundFont: it has no chunk {name}")
    return chunks[name]


def _chunks(contents: bytes, where: str) -> dict[str, memoryview]:
    """Chunks of all lists of a RIFF file by name: four bytes of name, four of size, the contents, padded to even."""
    if contents[:4] != b"RIFF" or contents[8:12] != b"sfbk":
        raise ValueError(f"{where} is not a SoundFont")
    found: dict[str, memoryview] = {}
    place = 12
    while place + 8 <= len(contents):
        name, size = contents[place : place + 4], int.from_bytes(contents[place + 4 : place + 8], "little")
        place += 8
        if name == b"LIST":
            place += 4  # its kind; its chunks follow
            continue
        if place + size > len(contents):
            raise ValueError(f"{where} is cut short: {name!r} has {len(contents) - place} of {size} bytes")
        found[name.decode("latin1")] = memoryview(contents)[place : place + size]
        place += size + size % 2
    return found
