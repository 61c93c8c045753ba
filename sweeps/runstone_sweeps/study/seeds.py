"""Seeds derived from a sweep's seed. Imports nothing of Optuna."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *parts: object) -> int:
    """Return a seed below 2^32 for one purpose, so that no two draw the same numbers."""
    text = "/".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest())
