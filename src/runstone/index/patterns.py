"""Patterns of LIKE and GLOB, matched in time of at most pattern times text. Knows text only.

A pattern is pieces of a fixed length with any text between them, so that the first place where a piece fits is as good
as any later one, and nothing is ever tried twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_LIKE = re.compile(r"\\([\\%_])|(%)|(_)|(.)", re.DOTALL)
_GLOB = re.compile(r"(\*)|(\?)|\[([!^]?)(\]?[^\]]+|\])\]|(.)", re.DOTALL)
_ANY = ("", ".")
Match = Callable[[str], bool]
Atom = tuple[str, str]
"""The character that it stands for, empty where it may be several; and a regular expression."""


def like(pattern: str, *, ignore_case: bool = False) -> Match:
    """Return what tells whether a text as a whole is like a pattern: `%` any text, `_` a character, `\\` quotes."""
    pieces: list[list[Atom]] = [[]]
    for quoted, anything, one, plain in _LIKE.findall(pattern.casefold() if ignore_case else pattern):
        if anything:
            pieces.append([])
        else:
            pieces[-1].append(_ANY if one else _plain(quoted or plain))
    match = _matching(pieces)
    return (lambda text: match(text.casefold())) if ignore_case else match


def glob(pattern: str) -> Match:
    """Return what tells whether a text as a whole fits a glob: `*`, `?`, `[a-z]`, `[!a-z]`; letter case counts."""
    pieces: list[list[Atom]] = [[]]
    for anything, one, negation, members, plain in _GLOB.findall(pattern):
        if anything:
            pieces.append([])
        elif members:
            pieces[-1].append(_one_of(members, is_negated=bool(negation)))
        else:
            pieces[-1].append(_ANY if one else _plain(plain))
    return _matching(pieces)


def _plain(character: str) -> Atom:
    return character, re.escape(character)


def _one_of(members: str, *, is_negated: bool) -> Atom:
    """Return the class of characters; a range whose end comes before its begin holds none."""
    ranges, position = [], 0
    while position < len(members):
        first, last = members[position], members[position + 2 : position + 3]
        if last and members[position + 1] == "-":
            position += 3
            if first <= last:
                ranges.append(f"{re.escape(first)}-{re.escape(last)}")
        else:
            position += 1
            ranges.append(re.escape(first))
    if not ranges:
        return _ANY if is_negated else ("", "(?!)")
    return "", f"[{'^' if is_negated else ''}{''.join(ranges)}]"


def _matching(pieces: list[list[Atom]]) -> Match:
    """Return what tells whether the pieces follow each other, the first at the begin, the last at the end."""
    if all(character for piece in pieces for character, _expression in piece):
        return _matching_plain(["".join(character for character, _expression in piece) for piece in pieces])
    first, *middle = [re.compile("".join(expression for _, expression in piece), re.DOTALL) for piece in pieces]
    if not middle:
        return lambda text: first.fullmatch(text) is not None
    last, length = middle.pop(), len(pieces[-1])

    def match(text: str) -> bool:
        found = first.match(text)
        for piece in middle:
            if found is None:
                return False
            found = piece.search(text, found.end())
        begin = len(text) - length
        return found is not None and found.end() <= begin and last.match(text, begin) is not None

    return match


def _matching_plain(pieces: list[str]) -> Match:
    """Return the same for pieces of plain text."""
    match pieces:
        case [whole]:
            return whole.__eq__
        case [first, ""]:
            return lambda text: text.startswith(first)
        case ["", last]:
            return lambda text: text.endswith(last)
        case ["", middle, ""]:
            return lambda text: middle in text
        case _:
            return _matching_in_order(pieces)


def _matching_in_order(pieces: list[str]) -> Match:
    first, *middle, last = pieces

    def match(text: str) -> bool:
        if not text.startswith(first):
            return False
        end = len(first)
        for piece in middle:
            place = text.find(piece, end)
            if place < 0:
                return False
            end = place + len(piece)
        return end <= len(text) - len(last) and text.endswith(last)

    return match
