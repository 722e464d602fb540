"""Replaces known secrets by `[secret NAME]` before anything leaves for the parent, across every border between chunks.

Pure. A net under the application's mistakes, not a protection against a hostile one, which can write a secret in a form that nobody
expects. Any seven bytes in a row hold one whole word of four bytes that is aligned, wherever they stand. So a window of seven bytes of
each pattern, its first, is enough to find it by looking at aligned words only, all at once in one set: it costs the same for one secret
and for thousands. So it does where many begin alike and a program writes that beginning over and over: they are looked up together
(crowd.py), at four places for each word at most.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from runtime.enclave.logs.crowd import Many, One, together
from runtime.enclave.logs.forms import forms
from runtime.protocol.bundle import Secret

_WORD = 4
_WORTHWHILE = 8
_PIECE_MAX = 1024
"""Bytes of a pattern: a longer form is looked for in pieces that overlap by one, whose places then join. It bounds what is held back."""


@dataclass(slots=True)
class Found:
    """One place where a secret, or several that overlap, begins and ends."""

    start: int
    end: int
    label: bytes


class Masks:
    """What to look for, made once; `Masks()` masks nothing. Patterns need memory some 20 to 40 times that of the secrets."""

    def __init__(self, secrets: Mapping[str, Secret] | None = None) -> None:
        patterns = {
            piece: _label(name)
            for name, secret in sorted((secrets or {}).items(), reverse=True)
            for form in forms(secret.value.reveal())
            for piece in _pieces(form)
        }
        self.longest = max(map(len, patterns), default=0)
        self._sorted = sorted(patterns)
        self._starts = {pattern[:_WORD] for pattern in patterns}
        self._span_lines = any(b"\n" in pattern for pattern in patterns)
        self._short_starts = {pattern[:size] for pattern in patterns for size in range(1, _WORD)}
        places: dict[tuple[int, int], list[One]] = defaultdict(list)
        for pattern, label in patterns.items():
            for offset in range(_WORD):
                places[_number(pattern, offset), offset].append(One(pattern, label))
        self._words: dict[int, list[tuple[int, One | Many]]] = defaultdict(list)
        for (number, offset), crowd in places.items():
            self._words[number].append((offset, together(crowd)))
        self._all_words = frozenset(self._words)

    def __bool__(self) -> bool:
        return self.longest > 0

    def mask(self, data: bytes) -> bytes:
        """`data`, which is whole, with every secret replaced."""
        stream = MaskedStream(self)
        return stream.feed(data) + stream.finish()

    def find(self, data: bytes) -> list[Found]:
        """Where secrets stand in `data`, in order; what overlaps is one place under the name of the first."""
        numbers = memoryview(data)[: len(data) // _WORD * _WORD].cast("I")
        present = self._all_words.intersection(numbers)
        if not present:
            return []
        at: dict[int, list[int]] = {number: [] for number in present}
        for index, number in enumerate(numbers):
            if number in present:
                at[number].append(_WORD * index)
        places: list[tuple[int, int, bytes]] = []
        for number, positions in at.items():
            for offset, patterns in self._words[number]:
                places += patterns.runs(data, positions, offset)
        joined: list[Found] = []
        for start, end, label in sorted(places):
            if joined and start < joined[-1].end:
                joined[-1].end = max(end, joined[-1].end)
            else:
                joined.append(Found(start, end, label))
        return joined

    def open_end(self, data: bytes) -> int:
        """From where on `data` may be the beginning of a secret; its length when no end of it can be."""
        size = len(data)
        begin = max(0, size - self.longest + 1)
        if not self._span_lines:
            begin = max(begin, data.rfind(b"\n", begin) + 1)
        for start in range(begin, size):
            if size - start < _WORD:
                if data[start:] in self._short_starts:
                    return start
            elif data[start : start + _WORD] in self._starts:
                rest = data[start:]
                next_one = bisect_right(self._sorted, rest)  # longer ones that begin with `rest` come right behind it
                if next_one < len(self._sorted) and self._sorted[next_one].startswith(rest):
                    return start
        return size


class MaskedStream:
    """A stream through masks. What may be the beginning of a secret waits inside until it is one or is none."""

    def __init__(self, masks: Masks) -> None:
        self._masks = masks
        self._held = b""
        self._said = 0
        """So many of the first bytes held were answered for: by a label that went out, or because they were skipped."""
        self._is_labelled = False

    def feed(self, data: bytes) -> bytes:
        """What can go out now."""
        if not self._masks:
            return data
        buffer = self._held + data
        end = self._masks.open_end(buffer)
        if end * _WORTHWHILE < len(
            buffer
        ):  # little would go out for a look at much: it waits for more, which may come byte by byte
            self._held = buffer
            return b""
        return self._pass(buffer, end)

    def finish(self) -> bytes:
        """What was still held: the stream has ended."""
        return self._pass(self._held, len(self._held))

    def skip(self, data: bytes) -> bytes:
        """`data` will not go out; a secret that begins in it and ends behind it is found all the same.

        Returns what was held and now does not go out either.
        """
        lost = self._held[self._said :]
        if self._masks:
            buffer = (self._held + data)[1 - self._masks.longest :]
            self._held = buffer[self._masks.open_end(buffer) :]
            self._said, self._is_labelled = len(self._held), False
        return lost

    def _pass(self, buffer: bytes, end: int) -> bytes:
        out = []
        position = self._said
        for found in self._masks.find(buffer) if buffer else ():
            if found.start >= end:
                break
            if found.end <= position:
                continue
            if found.start >= position:
                out.append(buffer[position : found.start])
                out.append(found.label)
            elif not self._is_labelled:
                out.append(found.label)
            self._is_labelled = True
            position = found.end
        if position < end:
            out.append(buffer[position:end])
            position = end
        self._held = buffer[end:]
        self._said = position - end
        return b"".join(out)


def _number(pattern: bytes, offset: int) -> int:
    return memoryview(pattern)[offset : offset + _WORD].cast("I")[0]


def _pieces(form: bytes) -> Iterable[bytes]:
    if len(form) <= _PIECE_MAX:
        return (form,)
    starts = range(0, len(form) - _PIECE_MAX, _PIECE_MAX - 1)
    return (*(form[start : start + _PIECE_MAX] for start in starts), form[-_PIECE_MAX:])


def _label(name: str) -> bytes:
    return b"[secret %s]" % "".join(char if char.isprintable() else "?" for char in name).encode()
