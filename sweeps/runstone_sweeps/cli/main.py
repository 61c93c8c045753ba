"""The `sweep` command: parses, calls, presents."""

from __future__ import annotations

import sys

import click

from runstone import RunstoneError, __version__
from runstone_sweeps.cli import configs, control, following, looking, reporting, running, workers
from runstone_sweeps.cli._shared import INTERRUPTED

# Everything else of this package is imported where it is used: `--help` answers without the extra `sweeps`,
# and `sweep list` without Optuna.


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sweep")
def cli() -> None:
    """Search for better training runs: trials in parallel, pruning, resume."""


for _module in (running, configs, control, following, looking, reporting, workers):
    for _command in vars(_module).copy().values():
        if isinstance(_command, click.Command):
            cli.add_command(_command)


def main() -> None:
    """Run the command line; what a user can do wrong ends in one line, not in a traceback."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.exit(0)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("runstone"):
            raise
        click.echo(f'sweeps need {error.name}, which is not installed: pip install "runstone[sweeps]"', err=True)
        sys.exit(1)
    except (RunstoneError, OSError) as error:
        for line in str(error).splitlines() or [type(error).__name__]:
            click.echo(f"sweep: {line}" if not isinstance(error, RunstoneError) else line, err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
