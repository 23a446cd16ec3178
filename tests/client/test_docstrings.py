"""Every public name says what it takes, gives and raises: the reference is made of that."""

from collections.abc import Iterator
from types import FunctionType, ModuleType

import griffe
import pytest

import stephttp
import stephttp.sync

NOT_FOR_USERS = {
    "stephttp.provider.Provider": {
        "drive", "drive_sync", "idempotency_key", "journal", "new_run", "new_run_id",
        "renew_leases", "stream", "stream_sync",
    },
}  # fmt: skip
"""Methods that other parts of the package call; docs/reference leaves them out."""
METHODS = (FunctionType, classmethod, staticmethod)


def public(path: str, found: object) -> Iterator[str]:
    """Find a public name, and those that belong to it, as they are at run time."""
    yield path
    if isinstance(found, type):
        hidden = NOT_FOR_USERS.get(f"{found.__module__}.{found.__qualname__}", set())
        for name, member in vars(found).items():
            if not name.startswith("_") and name not in hidden and isinstance(member, METHODS):
                yield from public(f"{path}.{name}", member)
    elif isinstance(found, ModuleType):
        for exported in found.__all__:
            yield from public(f"{path}.{exported}", getattr(found, exported))


PATHS = [
    path
    for name in [*stephttp.__all__, "sync"]
    for path in public(f"stephttp.{name}", getattr(stephttp, name))
]


def documented(
    path: str, found: griffe.Object | griffe.Alias
) -> Iterator[tuple[str, griffe.Object]]:
    """A public name, and what belongs to it."""
    thing = found.final_target if isinstance(found, griffe.Alias) else found
    yield path, thing
    if thing.is_class:
        hidden = NOT_FOR_USERS.get(thing.path, set())
        for name, member in thing.members.items():
            if not name.startswith("_") and name not in hidden and member.is_function:
                yield from documented(f"{path}.{name}", member)
    elif thing.is_module:
        for exported in thing.exports or ():
            yield from documented(f"{path}.{exported}", thing[str(exported)])


@pytest.fixture(scope="module")
def names() -> dict[str, griffe.Object]:
    """Read the source as the builder of the site does; not at import, which takes 2 s in each
    worker."""
    package = griffe.load(
        "stephttp",
        search_paths=["src"],
        docstring_parser="google",
        resolve_aliases=True,
        extensions=griffe.load_extensions("unpack_typeddict"),  # as in mkdocs.yml
    )
    return dict(
        pair
        for name in [*stephttp.__all__, "sync"]
        for pair in documented(f"stephttp.{name}", package[name])
    )


@pytest.mark.parametrize("path", PATHS)
def test_it_is_documented(path: str, names: dict[str, griffe.Object]) -> None:
    thing = names[path]
    docstring = thing.docstring
    assert docstring is not None, "no docstring"
    if not isinstance(thing, griffe.Function) or "ee `stephttp." in docstring.value:
        return  # the blocking tools point to their counterparts
    sections = {section.kind.value: section for section in docstring.parsed}
    documented_names = (
        {parameter.name for parameter in sections["parameters"].value}
        if "parameters" in sections
        else set()
    )
    takes = {parameter.name for parameter in thing.parameters} - {"self", "cls"}
    assert {name.lstrip("*") for name in takes} <= {name.lstrip("*") for name in documented_names}
    gives = str(thing.returns or "None")
    if takes and gives not in {"None", "Maybe"} and not docstring.value.startswith("Whether "):
        assert "returns" in sections


def test_the_blocking_tools_have_counterparts(names: dict[str, griffe.Object]) -> None:
    assert list(names) == PATHS  # what is read of the source is what is there at run time
    for path in names:
        if path.startswith("stephttp.sync.step."):
            assert path.replace(".sync.", ".") in names
