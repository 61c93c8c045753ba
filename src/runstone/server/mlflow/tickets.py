"""Short secrets for requests that cannot say who sends them: each is good for one thing, for some time."""

from __future__ import annotations

import hashlib
import hmac
import json

HEADER = "X-Runstone-Ticket"
"""Header that carries one: addresses are written to the logs of proxies, headers are not."""
_LONGEST = 100


def make_ticket(key: bytes, expires_at: int, *about: str | int) -> str:
    """Return a ticket, which nobody can make without the key.

    Args:
        key: At least 32 random bytes.
        expires_at: Until when it is good, in seconds since the epoch.
        about: What it is good for, and for whom.
    """
    told = json.dumps([expires_at, *about]).encode()
    return f"{expires_at}.{hmac.new(key, told, hashlib.sha256).hexdigest()}"


def is_good(ticket: str, key: bytes, now: float, *about: str | int) -> bool:
    """Return whether a ticket was made with a key for this, and is good still."""
    expires, dot, _mac = ticket.partition(".")
    if len(ticket) > _LONGEST or not dot or not (expires.isascii() and expires.isdigit()):
        return False
    right = make_ticket(key, int(expires), *about)
    return hmac.compare_digest(right.encode(), ticket.encode("utf-8", "replace")) and now < int(expires)
