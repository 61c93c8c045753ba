"""A comment that CI finds again, so that it changes one instead of adding many."""

from __future__ import annotations

import re

from runstone.errors import InvalidName

# What GitHub and GitLab take; GitHub's is the smaller.
MOST_CHARACTERS = 65_000
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,79}")


def marker(key: str) -> str:
    """Return the line by which a comment is known, which nobody sees.

    Raises:
        InvalidName: the key could end the line.
    """
    if not _KEY.fullmatch(key) or "--" in key:
        raise InvalidName(f"the key is {key!r:.100}; it takes letters, digits and single ._/- between them")
    return f"<!-- runstone:{key} -->"


def comment_body(text: str, key: str = "report") -> str:
    """Return the body of a comment: the marker, and the text as far as a comment may be long.

    Raises:
        InvalidName: the key could end the marker.
    """
    head = marker(key)
    room = MOST_CHARACTERS - len(head) - 100
    if len(text) > room:
        cut = text[:room].rpartition("\n")[0]
        text = f"{cut}\n\n… the rest is left out: a comment cannot be longer.\n"
    return f"{head}\n{text}"
