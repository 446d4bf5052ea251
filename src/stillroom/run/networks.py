"""Networks in a run folder: whether one stands in the folder of its role, and that one which is made again is the same.

Whatever makes a network is a function of the run's settings, data and seed, bit for bit on a CPU. So an unfinished run makes
one whose files are damaged again. The digest of its weights stands in the manifest: another one is refused, for what was made
with the first would be of two.
"""

from __future__ import annotations

from pathlib import Path

from stillroom.errors import RunError, UsageError
from stillroom.files.digests import state_of
from stillroom.files.reading import read_json
from stillroom.models.network import Network
from stillroom.models.saving import DESCRIPTION, WEIGHTS, save_network
from stillroom.models.weights import weights_digest
from stillroom.progress import remark
from stillroom.run.claims import MANIFEST, is_run
from stillroom.run.epochs import NOTED, noted
from stillroom.run.folder import Run


def stands(run: Run, role: str) -> bool:
    """Whether a network stands in the folder ``role``. One that is damaged and is made again is put away, which is said.

    Where it is not made again (in a finished run, on a GPU, in a run that did not note it) it stands: opening it says what
    is wrong.
    """
    folder = run.path / role
    if not (folder / DESCRIPTION).exists():
        return False
    damaged = next((folder / name for name in (DESCRIPTION, WEIGHTS) if state_of(folder / name) in _UNFIT), None)
    if damaged is None or not made_again(folder / DESCRIPTION):
        return True
    remark(f"{damaged} was changed or damaged after it was written: that network is made again.")
    (folder / DESCRIPTION).unlink()
    return False


def save(run: Run, role: str, network: Network) -> None:
    """Write a network into the folder ``role``, and note it in the manifest. Raises RunError where it is another by now."""
    _require_same(run, role, network)
    save_network(network, run.path / role)
    note(run, role, network)


def note(run: Run, role: str, network: Network) -> None:
    """Note in an unfinished run's manifest what stands in the folder ``role``. Raises RunError where it is another by now."""
    if _is_finished(run.path):
        return
    if not _require_same(run, role, network):
        epochs = len([line for line in run.history() if line["role"] == role])
        known = noted(run.manifest, run.path / MANIFEST)
        run.note(**{NOTED: known | {role: {"weights": weights_digest(network), "epochs": epochs}}})


def made_again(file: Path) -> bool:
    """Whether the run that a network's file is of makes that network again, if it is damaged, when it goes on."""
    for above in file.parents:
        if (above / MANIFEST).is_file():
            try:
                known = noted(read_json(above / MANIFEST), above / MANIFEST)
                run = _run_above(above)
                device = read_json(run / MANIFEST).get("device") if run else None
            except UsageError:
                return False
            role = file.parent.relative_to(above).as_posix()
            return role in known and device == "cpu" and not _is_finished(above)
    return False


_UNFIT = ("damaged", "missing")


def _require_same(run: Run, role: str, network: Network) -> bool:
    """Whether the manifest knows the network; raises RunError where it knows another."""
    begun = noted(run.manifest, run.path / MANIFEST).get(role)
    if begun is not None and begun["weights"] != weights_digest(network):
        raise RunError(
            f"The network in {run.path / role} was made again and is not the same bit for bit: what was made with the first "
            "would be of two networks. Put back a copy of it, or start a new run."
        )
    return begun is not None


def _is_finished(folder: Path) -> bool:
    run = _run_above(folder)
    return run is not None and (run / "report.html").exists()


def _run_above(folder: Path) -> Path | None:
    """The run that a folder is, or is a part of."""
    return next((above for above in (folder, *folder.absolute().parents) if is_run(above)), None)
