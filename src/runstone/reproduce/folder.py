"""Makes the folder in which a run can be done again, and says what of the run could not be put there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from runstone import settings
from runstone.capture import snapshot as take_snapshot
from runstone.environments import diff_environments, recorded_patch
from runstone.errors import AlreadyExists, InvalidValue, NotFound
from runstone.reproduce.checkout import not_kept, restore_code
from runstone.reproduce.command import import_from_the_copy, restore_command, restore_trial, restore_variables
from runstone.reproduce.data import restore_data
from runstone.reproduce.packages import packages_of
from runstone.reproduce.pages import write_pages
from runstone.reproduce.plan import field_of, is_safe_relative, text_of, texts_of, variables_of, with_home
from runstone.reproduce.restored import CODE, CONDA, LOCK, Restored
from runstone.runinfo import RunInfo

_MOST_NAMED = 8


def restore(
    run: RunInfo,
    folder: Path,
    *,
    workspace: Path,
    repository: str | None = None,
    links: Sequence[str] = (),
) -> Restored:
    """Make a folder with the code, data, packages, command and variables of a run. Runs none of it.

    Args:
        run: The run.
        folder: Where to; made, or empty.
        workspace: Folder of the workspace that the run lies in.
        repository: A clone, or its address, to take the commit from; default: the recorded checkout, then its remote.
        links: Files and folders of the recorded checkout, relative to it, to link into the new one: data that git
            does not keep.

    Raises:
        NotFound: the run has no environment, or its commit is nowhere to be had.
        AlreadyExists: something is in the folder.
        InvalidValue: a link leads out of the checkout.
    """
    environment = run.environment
    if environment is None:
        raise NotFound(
            f"run {run.name!r} has no environment: it was started with environment=False, or ended before it was "
            "taken; nothing else says which code and packages it used"
        )
    folder = folder.expanduser().resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AlreadyExists(f"{folder} is there already; name a new folder with --output")
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        made = Restored(run, workspace.resolve(), folder, present=settings.process_environment())
        return _restore(made, environment, repository, links)
    except BaseException:
        for entry in list(folder.iterdir()):  # all of it was made here
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink()
        if is_new:
            folder.rmdir()
        raise


def _restore(made: Restored, environment: Mapping[str, Any], repository: str | None, links: Sequence[str]) -> Restored:
    # Where the folder lies in another checkout, that one has nothing to say of it.
    (made.folder / ".gitignore").write_text("*\n")
    home = made.present.get("HOME", "")
    root = with_home(text_of(environment, "git.root"), home)
    if field_of(environment, "git") is not None:
        _restore_code(made, environment, root, home, repository, links)
    else:
        reason = field_of(environment, "why") or {}
        why = str(reason.get("git") or "not recorded").removeprefix("absent: ")
        made.lost.append(f"the code: none was recorded ({why})")
        made.obstacles.append(f"its code was not recorded ({why}); runs of a script in a git repository have it")
    now = take_snapshot()
    made.now = diff_environments(environment, now, is_same_program=False)
    code = made.checkout.folder if made.checkout is not None else None
    made.packages = packages_of(environment, home=home, root=root, code=code)
    restore_data(made, root, home)
    restore_command(made, root, home)
    _name_not_kept(made, root)
    restore_variables(made, variables_of(environment, now, home=home), root)
    restore_trial(made)
    _write_requirements(made, environment)
    import_from_the_copy(made)
    made.lost += _lost_data(made)
    write_pages(made)
    return made


def _restore_code(
    made: Restored,
    environment: Mapping[str, Any],
    root: str,
    home: str,
    repository: str | None,
    links: Sequence[str],
) -> None:
    code = made.folder / CODE
    code.mkdir()
    patch = recorded_patch(made.run)
    if patch is not None:
        (made.folder / "code.patch").write_bytes(patch)
    made.checkout = restore_code(environment, patch, code, home=home, repository=repository)
    made.lost += made.checkout.lost
    _link(made, root, links)


def _name_not_kept(made: Restored, root: str) -> None:
    """Say what the old checkout has that the commit has not; what the command names was told before."""
    if made.checkout is None:
        return
    code = made.checkout.folder
    missing = [
        path
        for path in not_kept(Path(root), code, but=made.folder)
        if not any(f"--link {path} " in line for line in made.lost)
    ]
    if missing:
        more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        made.notes.append(
            f"git does not keep {', '.join(missing[:_MOST_NAMED])}{more}: {CODE}/ has none of it; if it is needed, "
            f"--link {missing[0]} links it from {root}, as it is now"
        )


def _link(made: Restored, root: str, links: Sequence[str]) -> None:
    code = made.folder / CODE
    for name in links:
        target = Path(root) / name
        if not is_safe_relative(name) or not root:
            raise InvalidValue(f"--link {name!r} must be relative to the checkout of the run, and inside it")
        if not target.exists():
            raise NotFound(f"--link {name!r}: there is no {target}")
        place = code / name
        if place.exists() or place.is_symlink():
            raise AlreadyExists(f"--link {name!r}: the commit has a file or folder of this name")
        if code.resolve() not in (place.parent.resolve(), *place.parent.resolve().parents):
            raise InvalidValue(f"--link {name!r} leads out of the checkout")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)
        made.notes.append(f"{name} is a link to {target}: it is as it is now")


def _write_requirements(made: Restored, environment: Mapping[str, Any]) -> None:
    made.lost += [f"package {one}" for one in made.packages.lost]
    made.notes += made.packages.notes
    version = text_of(environment, "python.version") or "unknown"
    head = [f"# Packages of run {made.run.id}, Python {version}.", "# pip install --no-deps -r " + LOCK]
    (made.folder / LOCK).write_text("\n".join([*head, *made.packages.lines]) + "\n")
    conda = texts_of(environment, "conda.explicit")
    if conda:
        addresses = [address for address in conda if address.isprintable()]
        (made.folder / CONDA).write_text("\n".join(["@EXPLICIT", *addresses]) + "\n")


def _lost_data(made: Restored) -> Iterator[str]:
    from runstone.blobs import open_blobs  # only to look whether the content is there

    blobs = open_blobs(made.workspace)
    for artifact in made.run.artifacts:
        gone = 0
        for entry in artifact.files:
            try:
                blobs.size(entry.hash)
            except NotFound:
                gone += 1
        if gone:
            yield f"artifact {artifact.name!r}: {gone} of its files are no longer in the workspace"
