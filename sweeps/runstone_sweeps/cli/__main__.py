"""Makes `python -m runstone_sweeps.cli` the `sweep` command."""

from runstone_sweeps.cli.main import main

main()
