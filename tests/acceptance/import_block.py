"""Imports a Python file by its name, with warnings as errors; the argument is the file.

The process may be a fork that has imported some of our modules (see `warm`). They are taken away:
the file has those that it imports.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from pathlib import Path

if __name__ == "__main__":
    file = Path(sys.argv[1])
    sys.warnoptions.append("error")
    warnings.simplefilter("error")
    # PyPI `inngest` defines its models in a way that pydantic has deprecated.
    warnings.filterwarnings("ignore", "Support for class-based `config`", DeprecationWarning)
    for name in [name for name in sys.modules if name.partition(".")[0] == "stephttp"]:
        del sys.modules[name]
    os.chdir(file.parent)
    sys.path[0] = str(file.parent)
    # As a user's own file, so that its annotations can be resolved.
    importlib.import_module(file.stem)
