"""Types that pydantic converts (models, `datetime | str`). The only module of the core that
imports it, when it must.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from functools import lru_cache
from threading import RLock
from typing import Annotated, Any, get_args, get_origin, is_typeddict

from stephttp._core.pydantic_classes import own_serializer
from stephttp._core.reach import Reach, fields_of, is_made_of_plain, reach, with_parts


class Unconvertible(Exception):
    """A type cannot be converted; the text says which, and why."""


def decoder(
    annotation: Any, converters: Mapping[Any, Any], classes: Mapping[str, Any]
) -> Callable[[Any], Any]:
    """The way from JSON into `annotation`, by the names of fields and not by aliases.

    Args:
        classes: all that it leads to.

    Raises:
        Unconvertible: pydantic is not installed, or does not know it either.
    """
    try:
        from pydantic import TypeAdapter
    except ImportError:
        raise Unconvertible(
            f"{_shown(annotation)} is not known to msgspec, and pydantic is not installed; give "
            "stephttp.setup a Converter for it"
        ) from None
    try:
        with _made_known(classes.values(), converters):
            adapter = TypeAdapter(_translated(annotation, converters))
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise Unconvertible(
            f"{_shown(annotation)} is known neither to msgspec nor to pydantic ({reason}); give "
            "stephttp.setup a Converter for it"
        ) from error

    def decode(raw: Any) -> Any:
        return adapter.validate_json(bytes(raw), by_alias=False, by_name=True)

    return decode


def reader(annotation: Any) -> Callable[[bytes], Any]:
    """Return what pydantic reads JSON of others with, by aliases.

    Raises:
        TypeError: it is not installed, or does not know the annotation.
    """
    try:
        from pydantic import PydanticSchemaGenerationError, TypeAdapter
    except ImportError:
        raise TypeError(f"JSON cannot be read as {_shown(annotation)}") from None
    try:
        read: Callable[[bytes], Any] = TypeAdapter(annotation).validate_json
    except PydanticSchemaGenerationError:
        raise TypeError(f"JSON cannot be read as {_shown(annotation)}") from None
    return read


def refuse_arbitrary(classes: Iterable[type]) -> None:
    """Refuse classes that pydantic can check, but not make of JSON.

    Raises:
        Unconvertible: one is.
    """
    for cls in classes:
        if not _is_known(cls):
            raise Unconvertible(
                f"pydantic does not know {cls.__qualname__}, and cannot make one of JSON; give the "
                "field a PlainSerializer and a BeforeValidator, or use another type"
            )


@lru_cache(maxsize=1024)
def _is_known(kind: Any) -> bool:
    from pydantic import TypeAdapter

    try:
        with _hooking:  # not while we answer for a class
            TypeAdapter(kind)
    except Exception:  # whatever a class raises
        return False
    return True


def dump(value: Any) -> Any:
    """A value of a type of pydantic's as plain data, by the names of its fields.

    Raises:
        TypeError: it holds a secret.
    """
    cls: Any = type(value)
    known = _known(cls)
    if known.secret:
        raise TypeError(f"{known.secret} hides its value from JSON")
    if known.serializer and hasattr(cls, "model_fields"):
        return _fields(value)
    return _write(_adapter(cls), value)


def _write(adapter: Any, value: Any) -> Any:
    # `round_trip` leaves computed fields out, and writes the text of a field that holds JSON.
    write = adapter.dump_python
    try:
        return write(value, mode="json", by_alias=False, round_trip=True)
    except ValueError:  # bytes that are not text: msgspec writes them as base64
        return write(value, mode="python", by_alias=False, round_trip=True)


@lru_cache(maxsize=1024)
def _known(cls: type) -> Reach:
    return reach(cls)


_OWN = "its own"


def _fields(model: Any) -> Any:
    """The fields of a model that says itself how they are written: that is for people or another
    program, and the model may not be able to read it."""
    cls: Any = type(model)
    written = {}
    for name, adapter in _writers(cls).items():
        part = getattr(model, name)
        if adapter is _OWN:
            part = model.model_dump(mode="json", include={name}, by_alias=False)[name]
        written[name] = part if adapter in (None, _OWN) else _write(adapter, part)
    if getattr(cls, "__pydantic_root_model__", False):
        return written["root"]
    return written | (getattr(model, "__pydantic_extra__", None) or {})


@lru_cache(maxsize=1024)
def _writers(cls: Any) -> dict[str, Any]:
    """What writes each field; `None`: the field as it is, of which msgspec finds the parts.

    Of what pydantic knows only by the field's own serializer, that one: `_OWN`.
    """
    from pydantic import TypeAdapter

    writers: dict[str, Any] = {}
    for name, field in cls.__pydantic_fields__.items():
        if field.exclude:
            continue
        kind: Any = field.annotation
        if own_serializer(cls, name) and not _is_known(kind):
            writers[name] = _OWN
        elif own_serializer(cls, name) or reach(kind).serializer:
            writers[name] = None
        else:
            if field.metadata:
                kind = Annotated[(kind, *field.metadata)]  # pyright: ignore
            writers[name] = TypeAdapter(kind)
    return writers


@lru_cache(maxsize=1024)
def _adapter(cls: type) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(cls)


def _translated(annotation: Any, converters: Mapping[Any, Any]) -> Any:
    """`annotation` as pydantic takes it: with the user's converters, and with the TypedDict of
    typing_extensions before Python 3.12."""
    if (decode := _own_decoder(annotation, converters)) is not None:
        from pydantic import PlainValidator

        return Annotated[annotation, PlainValidator(decode)]
    if is_typeddict(annotation) and sys.version_info < (3, 12):
        return _typed_dict(annotation, converters)
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation is Iterable or origin is Iterable:  # pydantic would read it once, and late
        inner: Any = _translated(args[0], converters) if args else Any
        return list[inner]

    def translated(one: Any) -> Any:
        return _translated(one, converters) if _is_type(one) else one

    return with_parts(annotation, translated)


def _is_type(one: Any) -> bool:
    return isinstance(one, type) or get_origin(one) is not None


def _own_decoder(annotation: Any, converters: Mapping[Any, Any]) -> Callable[[Any], Any] | None:
    """What makes a value of a class that pydantic does not know."""
    try:
        converter = converters.get(annotation)
    except TypeError:  # it cannot be hashed
        return None
    if converter is not None:
        decode: Callable[[Any], Any] = converter.decode
    elif type(annotation) is type and is_made_of_plain(annotation):
        decode = annotation
    else:
        return None

    def validate(value: Any) -> Any:
        try:
            return decode(value)
        except Exception as error:  # it is the value of another member of a union
            raise ValueError(str(error)) from error

    return validate


_HOOK = "__get_pydantic_core_schema__"
_hooking = RLock()


def _answer(schema: Any) -> Any:
    def answer(*_: Any) -> Any:
        return schema

    return staticmethod(answer)


@contextmanager
def _made_known(classes: Iterable[Any], converters: Mapping[Any, Any]) -> Generator[None]:
    """Let pydantic find our decoders of classes that are in the fields of others, too.

    It asks the classes themselves, and only while it prepares a type.
    """
    from pydantic_core import core_schema

    from stephttp._core.attrs_types import is_attrs, schema_of

    with _hooking:
        answers: dict[Any, Any] = {}
        under_way: set[str] = set()
        for kind in classes:
            decode, cls = _own_decoder(kind, converters), kind
            if decode is not None:
                answer = _answer(core_schema.no_info_plain_validator_function(decode))
            elif is_attrs(cls := get_origin(kind) or kind):
                answer = staticmethod(schema_of(cls, under_way))
            else:
                continue
            if not hasattr(cls, _HOOK):  # and no class of these inherits that of another one
                answers[cls] = answer
        hooked: list[Any] = []
        for cls, answer in answers.items():
            try:
                setattr(cls, _HOOK, answer)
            except TypeError:  # it is not written in Python
                continue
            hooked.append(cls)
        try:
            yield
        finally:
            for cls in hooked:
                delattr(cls, _HOOK)


def _typed_dict(cls: Any, converters: Mapping[Any, Any]) -> Any:
    from typing import NotRequired, Required

    from typing_extensions import TypedDict

    # Where annotations are text, `__required_keys__` has not seen what they say themselves.
    said = {"Required": Required, "NotRequired": NotRequired}
    fields = {}
    for name, kind in fields_of(cls):
        default = Required if name in cls.__required_keys__ else NotRequired
        marker = said.get(getattr(get_origin(kind), "_name", ""), default)
        fields[name] = marker[_translated(_bare(kind), converters)]
    return TypedDict(cls.__name__, fields)  # type: ignore[operator]


def _bare(kind: Any) -> Any:
    """Without `Required` or `NotRequired`."""
    name = getattr(get_origin(kind), "_name", "")
    return get_args(kind)[0] if name in ("Required", "NotRequired") else kind


def _shown(annotation: Any) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)
