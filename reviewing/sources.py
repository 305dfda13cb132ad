"""Where tables to review are: folders that explore.py and evaluate.py have written."""

from collections.abc import Sequence
from pathlib import Path

from reviewing.queues import TABLES
from system.errors import UserError


def find_folders(output_dir: Path, named: Sequence[str] | None = None) -> list[Path]:
    """Finds the newest explore folder of output_dir and its evaluated runs; or the folders named, and no others.

    Raises:
        UserError: A folder that is named has no table.
    """
    if named:
        for name in named:
            if not _tables(Path(name)):
                raise UserError(
                    f"{name}: none of {', '.join(TABLES)} is there; name a folder of explore.py or evaluate.py"
                )
        return [Path(name) for name in named]
    found = [folder for folder in sorted(output_dir.glob("*")) if _tables(folder)]
    explored = [folder for folder in found if folder.name.startswith("explore-")]
    newest = max(explored, key=lambda folder: max(file.stat().st_mtime_ns for file in _tables(folder)), default=None)
    return [folder for folder in found if folder not in explored or folder == newest]


def _tables(folder: Path) -> list[Path]:
    return [folder / name for name in TABLES if (folder / name).is_file()]
