"""What belongs together in a run folder, checked before a run goes on or is called done.

While a run is unfinished its state is the manifest: it holds the configuration, what the parts
mean, the digests of the best checkpoints and the log. Of a finished run it is the last checkpoint,
which is written last. Runs of earlier versions have none; of theirs, configurations, parents and
figures are compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from advkit import registry
from advkit.artifacts import checkpoint, identity
from advkit.artifacts.descriptions import Checkpoint, Metrics, State
from advkit.config.settings import UNTOLD, Settings
from advkit.config.stored import SINCE
from advkit.errors import InputError, MismatchError
from advkit.training import metrics_log, parts
from advkit.training.metrics_log import Row
from advkit.training.run_folder import ROLES, RunFolder
from advkit.training.selection import ACCURACIES, JUDGED
from advkit.training.state import log_of

BACK = "put the right one back, or train anew with --overwrite"
MADE = "move it away, and --resume makes it from the state"


@dataclass(frozen=True)
class Finished:
    """A finished run whose files belong together: what each says, by role, and its log."""

    checkpoints: Mapping[str, Checkpoint]
    rows: Sequence[Row]


def require(folder: RunFolder) -> None:
    """Check whatever run lies in a folder whose configuration can be read.

    Raises:
        InputError: a file is missing, damaged or no file of a run.
        MismatchError: files do not belong together, or a part was edited since the run began.
    """
    if folder.done:
        finished(folder)
    elif folder.state_file.exists():
        unfinished(folder)
    elif any(folder.checkpoint(role).exists() for role in ROLES) or folder.lines():
        raise InputError(f"{folder.state_file}: missing, and without it no run goes on: {BACK}")


def finished(folder: RunFolder) -> Finished:
    """Return what a finished run says, once all of it is checked.

    Raises:
        InputError: a file is missing or damaged.
        MismatchError: they do not belong together, or a part was edited since.
    """
    mark = folder.checkpoint("final")
    info = _own(folder, "final", BACK)
    beside = info.get("run")
    made = {"final": info}
    for role in (role for role in ROLES if role != "final"):
        path = folder.checkpoint(role)
        # The first versions did not say which checkpoints there are; all had a best one.
        wanted = beside["checkpoints"].get(role) if beside else None
        if not path.exists():
            if wanted or (beside is None and role == "best"):
                raise InputError(f"{path}: missing: {BACK}")
            continue
        made[role] = _own(folder, role, BACK)
        same = (
            made[role]["digest"] == wanted if beside else made[role]["parents"] == info["parents"]
        )
        if not same:
            raise MismatchError(f"{path} and {mark.name} are of different runs: {BACK}")
    rows, epochs = _rows(folder), folder.settings().epochs
    said = {role: one["metrics"] for role, one in made.items()}
    right = len(rows) == epochs == info["metrics"]["epoch"] and agree(said, rows)
    if not right or (beside and metrics_log.digest(rows) != beside["log"]):
        raise MismatchError(f"{folder.metrics_file} and {mark.name} are of different runs: {BACK}")
    return Finished(made, rows)


def unfinished(folder: RunFolder) -> None:
    """Check an unfinished run against its state.

    Raises:
        InputError: a file is missing or damaged and cannot be made from the state.
        MismatchError: they do not belong together, or a part was edited since.
    """
    tensors, state = checkpoint.read(folder.state_file, "state")
    settings = _require_own(folder, folder.state_file, state)
    for role in ROLES:
        path = folder.checkpoint(role)
        if role in state["best"]:
            _require_best(folder, role, state)
        # A run that is cut off at its very end leaves the last average without the last net.
        elif path.exists() and not (role == "final-ema" and state["epoch"] == settings.epochs):
            raise _strange(path, folder, "move it away")
    try:
        lines = log_of(tensors)
    except ValueError as error:
        raise InputError(f"{folder.state_file}: corrupt: {error}") from None
    if lines is None:  # the first versions kept no log in the state, and wrote its rows first
        rows = _rows(folder)
        if len(rows) < state["epoch"] or not agree(state["best"], rows[: state["epoch"]]):
            raise _strange(folder.metrics_file, folder, BACK)
        return
    metrics_log.rows(lines, folder.state_file)
    try:
        folder.rows()
    except InputError as error:
        raise InputError(f"{error}: {MADE}") from None
    # What is missing is made from the state; what is too much is of epochs that are trained again.
    if any(one != other for one, other in zip(folder.lines(), lines, strict=False)):
        raise _strange(folder.metrics_file, folder, MADE)


def _require_best(folder: RunFolder, role: str, state: State) -> None:
    """Check a best checkpoint against the state, or that it can be made from it."""
    path, metrics = folder.checkpoint(role), state["best"][role]
    # At the end of the epoch that it was chosen in, the state has its weights.
    fresh = metrics["epoch"] == state["epoch"] and state["step"] == 0
    if not path.exists():
        if fresh:
            return
        raise InputError(f"{path}: missing, and the state has other weights by now: {BACK}")
    info = _own(folder, role, MADE if fresh else BACK)
    wanted, epoch = state.get("written", {}).get(role), info["metrics"]["epoch"]
    if wanted is not None:
        right = info["digest"] == wanted or (fresh and epoch < state["epoch"])
    else:  # the first versions wrote it before the state, for which it may be too new
        right = info["metrics"] == metrics or epoch == state["epoch"] + 1
    if not right or info["parents"] != state["parents"]:
        raise _strange(path, folder, MADE if fresh else BACK)


def _own(folder: RunFolder, role: str, way: str) -> Checkpoint:
    """Return a checkpoint's description, checked to be of that role and of the folder's run."""
    path = folder.checkpoint(role)
    try:
        info = checkpoint.read_info(path)
    except InputError as error:
        raise InputError(f"{error}: {way}") from None
    _require_own(folder, path, info)
    if info["role"] != role:
        raise MismatchError(f"{path} is a checkpoint of role {info['role']}: {way}")
    return info


def _require_own(folder: RunFolder, path: Path, info: Checkpoint | State) -> Settings:
    """Check that a file is of the folder's configuration and of the parts as they are now."""
    settings = folder.settings()
    made, now = info["config"], settings.described()
    # What a version did before it could be asked for; other new options are left to their default.
    since = {key: value for key, value in {**UNTOLD, **SINCE}.items() if key in now}
    before = {**now, **since, **made}
    changed = identity.differences(before, now)
    if changed:
        raise MismatchError(
            f"{path} and {folder.config_file.name} are of different runs ({', '.join(changed)}): "
            f"{BACK}"
        )
    digests = parts.digests(settings)
    identity.require_parts(info, digests, path, registry.foreign(digests))
    return settings


def _rows(folder: RunFolder) -> list[Row]:
    if not folder.metrics_file.exists():
        raise InputError(f"{folder.metrics_file}: missing: {BACK}")
    return folder.rows()


def agree(said: Mapping[str, Metrics], rows: Sequence[Row]) -> bool:
    """Whether checkpoints have the figures of their epochs in the log."""
    for role, metrics in said.items():
        if not 1 <= metrics["epoch"] <= len(rows):
            return False
        row, suffix = rows[metrics["epoch"] - 1], "-ema" if role.endswith("-ema") else ""
        if any(metrics.get(key) != row.get(f"val_{key}{suffix}") for key in (*ACCURACIES, *JUDGED)):
            return False
    return True


def _strange(path: Path, folder: RunFolder, way: str) -> MismatchError:
    return MismatchError(f"{path} is not of the run of {folder.state_file.name}: {way}")
