"""What a run printed: kept as text beside its other files, within bounds, with times. Knows bytes, not processes.

`lines` turns what a program writes into lines, as a terminal would leave them; `store` keeps them; `reading` gives
them back. See docs/run.md.
"""

from __future__ import annotations

from runstone.console.reading import ConsoleLine, ConsoleTail, console_lines, console_text

__all__ = ["ConsoleLine", "ConsoleTail", "console_lines", "console_text"]
