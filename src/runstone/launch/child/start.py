"""Started in place of a script: `python start.py FD script.py …`, `… FD -m module …` or `… FD -c code …`.

Makes everything as Python would have made it, and runs the script.
"""

import sys


def _load(name: str):  # type: ignore[no-untyped-def]
    """Return a module of this folder, which no `import` can find."""
    path = f"{__file__.rpartition('/')[0]}/{name}.py"
    loader = type(globals()["__loader__"])(f"runstone_child_{name}", path)
    module = type(sys)(loader.name)
    module.__file__ = path
    exec(loader.get_code(loader.name), module.__dict__)  # noqa: S102 - our own file
    return module


_load("runner").run(globals(), _load("observe").Observer)
