"""The handlers of the matrix. Importing them puts them all into the table of cells."""

from tests.matrix.cells import CELLS
from tests.matrix.programs import answers, branches, failures, requests, results, tools

__all__ = ["CELLS", "answers", "branches", "failures", "requests", "results", "tools"]
