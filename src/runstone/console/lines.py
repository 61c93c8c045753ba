"""From the bytes that a program writes to lines, as a terminal would leave them. Knows no files.

A progress bar writes its line again and again: after a carriage return, or after the cursor went up. What stands in
the line last is what is kept. Colours stay.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator

WINDOW = 40
"""How many finished lines a program can still go back to."""
_MOST_ROW_BYTES = 1 << 16
_BULK_BYTES = 1 << 12
_MOVE = re.compile(rb"[\n\r\x08]|\x1b\[([0-9;?]*)([A-Za-ln-z])")
# Whatever but a newline moves the cursor; `m` is a colour, and part of the text.
_NEEDS_CARE = re.compile(rb"[\r\x08]|\x1b\[[0-9;?]*[A-Za-ln-z]")
_UNFINISHED = re.compile(rb"(?:\r+|\x1b(?:\[[0-9;?]{0,16})?)\Z")


class Line:
    """One line of one stream: its bytes without the newline, and when it was written last."""

    __slots__ = ("at", "stream", "text")

    def __init__(self, stream: int, text: bytes, at: float) -> None:
        self.stream = stream
        self.text = text
        self.at = at


class Lines:
    """The lines of several streams, in the order in which they were finished.

    Args:
        keep: Takes what will not change any more: stream, bytes with their newlines, when.
    """

    def __init__(self, keep: Callable[[int, bytes, float], None]) -> None:
        self._keep = keep
        self._finished: deque[Line] = deque()
        self._cursors: dict[int, _Cursor] = {}

    def feed(self, stream: int, data: bytes, at: float) -> None:
        """Take what a stream wrote."""
        cursor = self._cursors.get(stream)
        if cursor is None:
            cursor = self._cursors[stream] = _Cursor(stream, at)
        data = cursor.rest + data
        cursor.rest = b""
        unfinished = _UNFINISHED.search(data, max(0, len(data) - 32))
        if unfinished is not None:
            data, cursor.rest = data[: unfinished.start()], unfinished[0]
        data = data.replace(b"\r\n", b"\n")
        if not _NEEDS_CARE.search(data) and cursor.is_at_end:
            self._take_plain(cursor, data, at)
        else:
            self._take(cursor, data, at)
        while len(self._finished) > WINDOW:
            self._let_go()

    def settle(self, before: float) -> None:
        """Keep the finished lines that nobody has gone back to since a time."""
        while self._finished and self._finished[0].at < before:
            self._let_go()

    def pending(self) -> bytes:
        """Return the text that may still change: finished lines, and the one that each stream is writing."""
        rows = [line.text + b"\n" for line in self._finished]
        return b"".join([*rows, *(cursor.last_row.text for cursor in self._cursors.values())])

    def close(self) -> None:
        """Keep all that is left."""
        while self._finished:
            self._let_go()
        for cursor in self._cursors.values():
            row = cursor.last_row
            text = row.text + cursor.rest.replace(b"\r", b"")
            if text:
                self._keep(cursor.stream, text, row.at)
            cursor.rest, row.text = b"", b""

    # --- one chunk -------------------------------------------------------------------------------------------------

    def _take_plain(self, cursor: _Cursor, data: bytes, at: float) -> None:
        """Take text without any movement but to the next line."""
        head, newline, last = data.rpartition(b"\n")
        row = cursor.row
        if len(data) > _BULK_BYTES and newline:
            while self._finished:
                self._let_go()
            self._keep(cursor.stream, b"%b%b\n" % (row.text, head), at)
            row.text, row.at = last, at
        elif newline:
            for text in head.split(b"\n"):
                row.text, row.at = row.text + text, at
                self._finish(cursor, at)
                row = cursor.row
            row.text = last
        else:
            row.text, row.at = row.text + last, at
        if len(cursor.row.text) > _MOST_ROW_BYTES:
            self._keep_part(cursor)

    def _take(self, cursor: _Cursor, data: bytes, at: float) -> None:
        position = 0
        for move in _MOVE.finditer(data):
            if move.start() > position:
                cursor.write(data[position : move.start()], at)
            position = move.end()
            kind = move[0][-1:]
            if kind == b"\n":
                if cursor.is_on_last_row:
                    self._finish(cursor, at)
                else:
                    cursor.go_down()
            else:
                cursor.move(kind, move[1] or b"")
        if position < len(data):
            cursor.write(data[position:], at)
        if len(cursor.row.text) > _MOST_ROW_BYTES and cursor.is_on_last_row:
            self._keep_part(cursor)

    def _finish(self, cursor: _Cursor, at: float) -> None:
        self._finished.append(cursor.row)
        cursor.begin_row(at)
        if len(self._finished) > WINDOW:
            self._let_go()

    def _let_go(self) -> None:
        line = self._finished.popleft()
        self._cursors[line.stream].forget(line)
        self._keep(line.stream, line.text + b"\n", line.at)

    def _keep_part(self, cursor: _Cursor) -> None:
        """Keep the beginning of a line that is too long to be gone back to."""
        while self._finished:
            self._let_go()
        self._keep(cursor.stream, cursor.row.text, cursor.row.at)
        cursor.row.text = b""


class _Cursor:
    """Where one stream writes: a row among those that it can still reach."""

    def __init__(self, stream: int, at: float) -> None:
        self.stream = stream
        self.rest = b""
        self._rows = deque([Line(stream, b"", at)])
        self._place = 0
        self._is_returned = False

    @property
    def row(self) -> Line:
        """The row that it is in."""
        return self._rows[self._place]

    @property
    def last_row(self) -> Line:
        """The row that was begun last: the only one that is not finished."""
        return self._rows[-1]

    @property
    def is_on_last_row(self) -> bool:
        """Whether nothing is below it."""
        return self._place == len(self._rows) - 1

    @property
    def is_at_end(self) -> bool:
        """Whether text that comes now is added to all that there is."""
        return self.is_on_last_row and not self._is_returned

    def begin_row(self, at: float) -> None:
        """Go to a new row below the last."""
        self._rows.append(Line(self.stream, b"", at))
        self._place += 1
        self._is_returned = False

    def forget(self, line: Line) -> None:
        """Take a row away that can no longer be changed: the uppermost."""
        if self._rows[0] is line:
            self._rows.popleft()
            self._place = max(0, self._place - 1)

    def go_down(self) -> None:
        """Go to the beginning of a row that is there already."""
        self._place += 1
        self._is_returned = True

    def write(self, text: bytes, at: float) -> None:
        """Add text, or begin the row anew with it."""
        row = self.row
        row.text, row.at = (text if self._is_returned else row.text + text), at
        self._is_returned = False

    def move(self, kind: bytes, told: bytes) -> None:
        """Follow a carriage return, a backspace, or an escape sequence; those that mean nothing here are left out."""
        count = int(told) if told.isdigit() else 1
        if kind == b"\r" or (kind == b"G" and count <= 1):
            self._is_returned = True
        elif kind == b"\x08":
            if not self._is_returned:
                self.row.text = self.row.text[:-1]
        elif kind in b"AF":
            self._place = max(0, self._place - count)
            self._is_returned = self._is_returned or kind == b"F"
        elif kind in b"BE":
            self._place = min(len(self._rows) - 1, self._place + count)
            self._is_returned = self._is_returned or kind == b"E"
        elif kind == b"K" and (told == b"2" or self._is_returned):
            self.row.text = b""
        elif kind == b"J" and told in (b"", b"0"):
            for line in list(self._iterate_below()):
                line.text = b""
            if self._is_returned:
                self.row.text = b""

    def _iterate_below(self) -> Iterator[Line]:
        return (line for place, line in enumerate(self._rows) if place > self._place)
