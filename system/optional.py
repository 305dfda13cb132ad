"""Optional libraries: imported on first use, or an error that names the package to install."""

import importlib
import importlib.util
from types import ModuleType

from system.errors import UserError


def is_installed(*names: str) -> bool:
    """Returns True if all of these packages are installed; imports none of them."""
    return all(importlib.util.find_spec(name) is not None for name in names)


def load(name: str, where: str, install: str) -> ModuleType:
    """Imports an optional library.

    Args:
        name: Dotted name of the module.
        where: The option or setting that needs it; errors begin with it.
        install: Requirement that `pip install` takes.

    Raises:
        UserError: It is not installed.
    """
    if not is_installed(name.partition(".")[0]):
        raise UserError(f"{where}: {name.partition('.')[0]} is not installed; run `pip install {install}`")
    return importlib.import_module(name)
