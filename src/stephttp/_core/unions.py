"""Which member of a union a step returned, where JSON does not tell (`date | str`): it is kept
beside the result.

`"2030-05-06"` may have been a `date` or a `str`. The returned value is compared with what its
JSON decodes to; where the types differ, the place and the type are kept beside the result, which
stays plain JSON for other SDKs and for people who edit it. The members of a set have no places in
it, but they have in its JSON, so the types of all of them are kept, in that order.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from msgspec import Struct
from msgspec.structs import force_setattr

from stephttp._core.reach import name_of

Key = str | int | None
"""`None` leads to the one part as which a value is written: that of a root model."""


class Choice(Struct, frozen=True, array_like=True):
    """At `path`, in the JSON, was a value of `type`, or the last of `path` was a key of it."""

    path: tuple[Key, ...]
    type: str
    is_key: bool = False
    members: tuple[str, ...] = ()
    """The types of the members of a set."""


def choices(
    value: Any, decoded: Any, types: Mapping[str, Any], text: Callable[[Any], str]
) -> list[Choice]:
    """The places where `decoded` is of another type than `value`, if that is among `types`.

    Args:
        text: how a key is written.
    """
    return list(_differences(value, decoded, types, (), text))


def _differences(
    value: Any,
    decoded: Any,
    types: Mapping[str, Any],
    path: tuple[Key, ...],
    text: Callable[[Any], str],
) -> Iterator[Choice]:
    if type(value) is not type(decoded):
        if name := _member(value, decoded, types):
            yield Choice(path, name)
        return
    if isinstance(value, bytes):
        # pydantic reads text as it is, and not as base64, as which bytes are written.
        if value != decoded and name_of(bytes) in types:
            yield Choice(path, name_of(bytes))
        return
    if isinstance(value, set | frozenset):
        if {(type(one), one) for one in value} != {(type(one), one) for one in decoded}:
            members = tuple(_member(one, None, types) or name_of(type(one)) for one in value)
            yield Choice(path, name_of(type(value)), members=members)
        return
    pairs = zip(_parts(value, text), _parts(decoded, text), strict=False)
    for (key, at, ours), (_, place, theirs) in pairs:
        inner = (*path, key)
        if type(at) is not type(place) and (name := _member(at, place, types)):
            yield Choice(inner, name, is_key=True)
        yield from _differences(ours, theirs, types, inner, text)


def _member(value: Any, decoded: Any, types: Mapping[str, Any]) -> str:
    """The class among `types` of which `value` is, unless `decoded` is of it; empty without one.

    It may be of a subclass, as the paths of each system are.
    """
    names = (name_of(cls) for cls in type(value).__mro__)
    name = next((name for name in names if name in types), "")
    return "" if name == name_of(type(decoded)) else name


def chosen(
    decoded: Any,
    plain: Any,
    stored: Sequence[Choice],
    convert: Callable[[str, Any], Any],
    convert_key: Callable[[str, str], Any],
    text: Callable[[Any], str],
) -> Any:
    """`decoded`, with the parts that `stored` names converted into their types.

    Args:
        text: how a key is written.

    `plain` may have been edited since: what does not fit any more stays as it was decoded.
    """

    def put(choice: Choice, plain: Any) -> Any:
        if not choice.members:
            return convert(choice.type, plain)
        pairs = zip(choice.members, plain, strict=True)
        made = [convert(member, part) for member, part in pairs]
        return frozenset(made) if choice.type == name_of(frozenset) else set(made)

    for choice in stored:
        try:
            if choice.is_key:
                make = partial(convert_key, choice.type)
                _put_key(decoded, plain, choice.path, make, text)
            else:
                decoded = _put(decoded, plain, choice.path, partial(put, choice), text)
        except Exception:  # whatever a class raises about a value that is not its own
            continue
    return decoded


def _put(
    node: Any,
    plain: Any,
    path: Sequence[Key],
    make: Callable[[Any], Any],
    text: Callable[[Any], str],
) -> Any:
    if not path:
        return make(plain)
    for key, at, part in _parts(node, text, plain):
        if key is None or key == path[0]:
            inner = plain if key is None else plain[key]
            return _replaced(node, at, _put(part, inner, _rest(path, key), make, text))
    raise KeyError


def _put_key(
    node: Any,
    plain: Any,
    path: Sequence[Key],
    convert: Callable[[str], Any],
    text: Callable[[Any], str],
) -> None:
    for key, at, part in _parts(node, text, plain):
        if key is None:
            return _put_key(part, plain, _rest(path, None), convert, text)
        if key == path[0] and len(path) > 1:
            return _put_key(part, plain[key], path[1:], convert, text)
        if key == path[0] and isinstance(node, dict) and isinstance(key, str):
            made = convert(key)
            items = [(made if one == at else one, inner) for one, inner in node.items()]
            node.clear()
            node.update(items)  # in the same order
            return None
    raise KeyError


def _rest(path: Sequence[Key], key: Key) -> Sequence[Key]:
    """Return the path that is left behind a key. Earlier versions kept none for a root model."""
    return path[1:] if path[0] == key else path


def _parts(
    node: Any, text: Callable[[Any], str], plain: Any = None
) -> Iterator[tuple[Key, Any, Any]]:
    """What a value is made of: key in the JSON, place, part.

    Args:
        plain: what it was decoded from, if it was: keys may read otherwise now.
    """
    cls = type(node)
    if isinstance(node, dict):
        if isinstance(plain, dict) and len(plain) == len(node):
            for key, (at, part) in zip([*plain], [*node.items()], strict=True):
                yield key, at, part
            return
        for at, part in node.items():
            yield at if type(at) is str else text(at), at, part
    elif isinstance(node, tuple | list | deque):
        for index, part in enumerate(node):
            yield index, index, part
    elif isinstance(node, Struct):
        keys: Sequence[Key] = node.__struct_encode_fields__
        if node.__struct_config__.array_like:
            keys = range(len(keys))
        for key, name in zip(keys, node.__struct_fields__, strict=True):
            yield key, name, getattr(node, name)
    elif getattr(cls, "__pydantic_root_model__", False):
        yield None, "root", node.root
    elif isinstance(fields := getattr(cls, "__pydantic_fields__", None), dict):
        for name in fields:
            yield name, name, getattr(node, name)
    elif dataclasses.is_dataclass(cls):
        for field in dataclasses.fields(cls):
            yield field.name, field.name, getattr(node, field.name)
    elif hasattr(cls, "__attrs_attrs__"):
        for attribute in cls.__attrs_attrs__:
            yield attribute.name, attribute.name, getattr(node, attribute.name)


def _replaced(node: Any, at: Any, part: Any) -> Any:
    """`node` with `part` at a place: itself where it can be changed. It is ours alone."""
    if isinstance(node, dict | list | deque):
        node[at] = part
    elif isinstance(node, tuple):
        parts = (*node[:at], part, *node[at + 1 :])
        return type(node)(*parts) if hasattr(node, "_fields") else parts
    elif isinstance(node, Struct):
        force_setattr(node, at, part)
    else:
        # Past frozen classes and validation: the value was of this type when it was returned.
        object.__setattr__(node, at, part)
    return node
