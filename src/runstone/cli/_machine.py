"""What the machine did during a run, in a few lines of `runstone runs show`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.text import Text

from runstone import settings
from runstone.capture.metrics.energy import energy_of
from runstone.cli._output import size
from runstone.names import SYSTEM
from runstone.runinfo import RunInfo
from runstone.values import MetricSummary

_GPU = re.compile(r"(?P<place>system/(?:rank\.(?P<rank>\d+)/)?gpu\.(?P<gpu>\d+)/)util_percent")


def system_lines(info: RunInfo) -> Iterator[tuple[str, Text]]:
    """Yield titles and texts; every series is in `info.metrics`."""
    for title, name in (("CPU", "cpu/percent"), ("memory", "memory/percent")):
        if (summary := _figures(info, f"{SYSTEM}{name}")) is not None:
            yield title, Text(f"{summary.mean:.0f} % on average, at most {summary.max:.0f} %")
    if (summary := _figures(info, f"{SYSTEM}process/rss_bytes")) is not None:
        largest = f"{size(int(summary.mean or 0))} on average, at most {size(int(summary.max or 0))}"
        yield "largest process", Text(largest)
    yield from _gpus(info)
    energy = energy_of(info)
    if energy.total_j is not None:
        text = f"{energy.total_j / 1000:,.1f} kJ"
        price, carbon = settings.number("RUNSTONE_PRICE_PER_KWH"), settings.number("RUNSTONE_CARBON_G_PER_KWH")
        text += f", cost {energy.cost(price):.4g}" if price is not None else ""
        text += f", {energy.carbon_g(carbon):,.1f} g CO2" if carbon is not None else ""
        yield "energy", Text(text)
    count = sum(name.startswith(SYSTEM) for name in info.metrics)
    if count:
        yield "series", Text(f"{count} under {SYSTEM}")


def _gpus(info: RunInfo) -> Iterator[tuple[str, Text]]:
    """Yield a line a GPU: how busy it was, and what that took."""
    found = [match for name in info.metrics if (match := _GPU.fullmatch(name))]
    for match in sorted(found, key=lambda match: (int(match["rank"] or 0), int(match["gpu"]))):
        place, parts = match["place"], []
        if (util := _figures(info, f"{place}util_percent")) is not None:
            parts.append(f"{util.mean:.0f} % on average")
        if (memory := _figures(info, f"{place}memory_used_bytes")) is not None:
            parts.append(f"at most {size(int(memory.max or 0))}")
        if (power := _figures(info, f"{place}power_w")) is not None:
            parts.append(f"{power.mean:.0f} W on average")
        if (heat := _figures(info, f"{place}temperature_c")) is not None:
            parts.append(f"at most {heat.max:.0f} °C")
        of_rank = f" of rank {match['rank']}" if match["rank"] else ""
        yield f"GPU {match['gpu']}{of_rank}", Text(", ".join(parts))


def _figures(info: RunInfo, name: str) -> MetricSummary | None:
    """Return what a series comes down to, `None` where it has no numbers."""
    summary = info.metrics.get(name)
    return summary if summary is not None and summary.mean is not None else None
