"""Every public name says what it takes, gives and raises: the reference is made of that."""

from collections.abc import Iterator

import griffe
import pytest

import stephttp

NOT_FOR_USERS = {
    "stephttp.provider.Provider": {
        "drive", "drive_sync", "idempotency_key", "journal", "new_run", "new_run_id",
        "renew_leases", "stream", "stream_sync",
    },
}  # fmt: skip
"""Methods that other parts of the package call; docs/reference leaves them out."""

PACKAGE = griffe.load(
    "stephttp",
    search_paths=["src"],
    docstring_parser="google",
    resolve_aliases=True,
    extensions=griffe.load_extensions("unpack_typeddict"),  # as in mkdocs.yml
)


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


NAMES = dict(
    pair
    for name in [*stephttp.__all__, "sync"]
    for pair in documented(f"stephttp.{name}", PACKAGE[name])
)


@pytest.mark.parametrize("path", NAMES)
def test_it_is_documented(path: str) -> None:
    thing = NAMES[path]
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


def test_the_blocking_tools_have_counterparts() -> None:
    for path in NAMES:
        if path.startswith("stephttp.sync.step."):
            assert path.replace(".sync.", ".") in NAMES
