"""Student's distribution, central and not: the only functions of SciPy that the statistics take."""

from __future__ import annotations

import math
from typing import Any

from runstone.errors import InvalidConfig


def t_quantile(share: float, freedom: float) -> float:
    """Return the value below which a share of Student's distribution lies.

    Raises:
        InvalidConfig: SciPy is not installed.
    """
    return float(_special().stdtrit(freedom, share))


def t_tails(t: float, freedom: float) -> float:
    """Return how likely a value as far from 0 as `t`, or farther, is."""
    return min(1.0, 2 * float(_special().stdtr(freedom, -abs(t))))


def shifted_share(t: float, freedom: float, shift: float) -> float:
    """Return the share of the noncentral distribution that lies below `t`."""
    share = float(_special().nctdtr(freedom, shift, t))
    if math.isfinite(share):
        return share
    spread = math.sqrt(1 + t * t / (2 * freedom))  # for large shifts the series does not converge; the normal law holds
    return float(_special().ndtr((t * (1 - 1 / (4 * freedom)) - shift) / spread))


def shift_for(t: float, freedom: float, share: float) -> float:
    """Return the shift with which a share of the noncentral distribution lies below `t`."""
    low, high = t - 40.0 - 2 * abs(t), t + 40.0 + 2 * abs(t)
    for _ in range(80):  # the share falls as the shift grows
        middle = (low + high) / 2
        low, high = (middle, high) if shifted_share(t, freedom, middle) > share else (low, middle)
    return (low + high) / 2


def _special() -> Any:
    try:
        from scipy import special  # an extra, only for statistics
    except ImportError:
        raise InvalidConfig("statistics of groups take SciPy: pip install 'runstone[compare]'") from None
    return special
