"""Values of the user's into JSON and back into their types (docs/steps.md has the table): msgspec,
pydantic, and `Converter` for types that neither knows.

msgspec converts what it knows (plain data, dataclasses, TypedDict, NamedTuple, `msgspec.Struct`,
attrs). Where an annotation leads to something else, pydantic's `TypeAdapter` does, if pydantic is
installed: models, unions of classes, `datetime | str`. Models are written and read by the names of
their fields: an alias is how the outside world names a field. A type that neither can convert,
and no `Converter` of the user's either, is an error before the step's body runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

from stephttp._core import pydantic_types
from stephttp._core.plain import is_text, plain_form
from stephttp._core.pydantic_types import Unconvertible
from stephttp._core.reach import Reach, is_made_of_plain, reach
from stephttp._core.unions import Choice, choices, chosen
from stephttp.errors import ConfigurationError

T = TypeVar("T")

_MOST_KNOWN = 4096
"""Conversions that are kept; then all are forgotten, since annotations can be made at run time."""


class Converter(Struct, Generic[T], frozen=True):
    """How values of a type of yours are stored; for `setup(converters=[...])`.

    Attributes:
        type: the class; its subclasses are converted, too.
        encode: makes plain JSON of a value (`dict`, `list`, `str`, `int`, `float`, `bool`, `None`).
        decode: makes a value of that again.
    """

    type: type[T]
    encode: Callable[[T], Any]
    decode: Callable[[Any], T]


class Conversion:
    """What is known of one annotation, and the way back from JSON into it.

    Attributes:
        refusal: why values of this type cannot be stored; empty where they can. They may well be
            read.
        unresolved: a name in the annotation that does not exist at run time. The step works as if
            it had no annotation.
        keeps_choices: whether JSON may not tell what was returned: see `unions`.
    """

    __slots__ = ("_types", "annotation", "decode", "keeps_choices", "refusal", "unresolved")

    def __init__(
        self,
        annotation: Any,
        decode: Callable[[Any], Any],
        found: Reach | None = None,
        refusal: str = "",
    ) -> None:
        self.annotation = annotation
        self.decode = decode
        self.refusal = refusal
        self._types = {} if found is None else found.types
        self.keeps_choices = found is not None and found.union
        self.unresolved = "" if found is None else found.unresolved

    def choices(self, value: Any, decoded: Any, all_: Conversions) -> list[Choice]:
        """Which members of unions `value` was made of, where `decoded` has others."""
        return choices(value, decoded, self._types, all_.key_text)

    def apply(self, decoded: Any, plain: Any, stored: Sequence[Choice], all_: Conversions) -> Any:
        """`decoded`, but with the members of unions that were stored.

        Args:
            plain: what `decoded` was decoded from, as plain JSON.
        """

        def convert(name: str, part: Any) -> Any:
            return all_.of(self._types[name]).decode(msgspec.json.encode(part))

        def convert_key(name: str, key: str) -> Any:
            type_ = dict[self._types[name], None]  # type: ignore[name-defined]
            return next(iter(all_.of(type_).decode(msgspec.json.encode({key: None}))))

        types = self._types.keys()
        usable = [one for one in stored if types >= {one.type, *one.members}]
        return chosen(decoded, plain, usable, convert, convert_key, all_.key_text)


_NO_DATA = frozenset(
    f"collections.abc.{name}"
    for name in ("Callable", "Iterator", "Generator", "AsyncIterator", "AsyncGenerator")
)

_plain_decoder = msgspec.json.Decoder()
PLAIN = Conversion(Any, _plain_decoder.decode)
"""The conversion without an annotation."""


class Conversions:
    """All conversions of a process.

    Args:
        converters: how types of the user's are stored.
    """

    def __init__(self, converters: Sequence[Converter[Any]] = ()) -> None:
        self._converters: dict[Any, Converter[Any]] = {}
        self._encoder = msgspec.json.Encoder(enc_hook=self._encode_other)
        self.encode = self._encoder.encode
        """Any value as JSON. Raises what the value's own conversion raises, or `TypeError`."""
        self._known: dict[Any, Conversion] = {}
        self.register(converters)

    def register(self, converters: Sequence[Converter[Any]]) -> None:
        """Add converters.

        Raises:
            ConfigurationError: there is another one for the same type.
        """
        for one in converters:
            if not isinstance(one, Converter):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ConfigurationError(
                    f"converters: {one!r} is not a Converter; write "
                    "stephttp.Converter(Money, encode=..., decode=...)"
                )
            if self._converters.get(one.type, one) != one:
                raise ConfigurationError(
                    f"converters: {one.type.__qualname__} has another converter already; types are "
                    "shared by all providers of a process, so give all of them the same one"
                )
            self._converters[one.type] = one
            self._known.clear()

    def builtins(self, value: Any) -> Any:
        """Any value as plain data."""
        return msgspec.to_builtins(value, enc_hook=self._encode_other)

    def key_text(self, key: Any) -> str:
        """A key as it is written in JSON."""
        (text,) = _plain_decoder.decode(self.encode({key: None}))
        return str(text)

    def of(self, annotation: Any) -> Conversion:
        """The conversion into `annotation`, or one with a `refusal`."""
        if annotation is Any:
            return PLAIN
        try:
            known = self._known.get(annotation)
        except TypeError:  # it cannot be hashed
            return self._tried(annotation)
        if known is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            known = self._known[annotation] = self._tried(annotation)
        return known

    def _tried(self, annotation: Any) -> Conversion:
        try:
            return self._make(annotation)
        except Unconvertible as error:
            return Conversion(annotation, _plain_decoder.decode, refusal=str(error))

    def _make(self, annotation: Any) -> Conversion:
        found = reach(annotation)
        if found.unresolved:
            return Conversion(Any, _plain_decoder.decode, Reach(unresolved=found.unresolved))
        if found.secret and not self._converter(found.types):
            raise Unconvertible(
                f"{found.secret} hides its value from JSON; return the plain text of something "
                "that may be stored, or a reference to the secret"
            )
        if no_data := _NO_DATA.intersection(found.types):
            raise Unconvertible(f"{', '.join(sorted(no_data))} cannot be stored: it is not data")
        if found.unreadable and not self._converter(found.types):
            raise Unconvertible(found.unreadable)
        refusal = ""
        if found.excluded and not self._converter(found.types):
            refusal = (
                f"{found.excluded} is excluded from what pydantic writes, so its value would be "
                "lost; return a model without exclude, or give stephttp.setup a Converter for it"
            )
        decode = self._by_msgspec(annotation)
        if decode is not None:
            # msgspec knows only unions whose members JSON tells apart, unless they are keys.
            found.union = found.union and found.union_key
        else:
            if found.enum_key:
                raise Unconvertible(found.enum_key)
            decode = pydantic_types.decoder(annotation, self._converters, found.types)
            pydantic_types.refuse_arbitrary(found.arbitrary)
            found.union = found.union or "builtins.bytes" in found.types
        return Conversion(annotation, decode, found, refusal)

    def _by_msgspec(self, annotation: Any) -> Callable[[Any], Any] | None:
        """The decoder of msgspec, if that knows all of `annotation`."""
        try:
            decoder = msgspec.json.Decoder(annotation, dec_hook=self._decode_other)
            import msgspec.inspect as types  # not with `import stephttp`, which is to be fast

            known = _is_known(types.type_info(annotation), self._converters)
        except Exception:  # a TypeError for what it does not know, or whatever a class raises
            return None
        return decoder.decode if known else None

    def reader(self, annotation: Any) -> Callable[[bytes], Any]:
        """Return what reads JSON that frameworks write, in which pydantic's models have the names
        of their aliases, into `annotation`."""
        return self._by_msgspec(annotation) or pydantic_types.reader(annotation)

    def read_truth_as_number(self, raw: Any, annotation: Any) -> Any:
        """Decode into `annotation`, where Python takes `True` for an `int`, and JSON does not."""
        plain = _numbers(_plain_decoder.decode(raw))
        return msgspec.convert(plain, annotation, strict=False, dec_hook=self._decode_other)

    def _converter(self, types: dict[str, Any]) -> bool:
        return any(cls in self._converters for cls in types.values())

    def _encode_other(self, value: Any) -> Any:
        for cls in type(value).__mro__ if self._converters else ():
            if (converter := self._converters.get(cls)) is not None:
                return converter.encode(value)
        return plain_form(value)

    def _decode_other(self, type_: Any, value: Any) -> Any:
        converter = self._converters.get(type_)
        return type_(value) if converter is None else converter.decode(value)


def _numbers(plain: Any) -> Any:
    if isinstance(plain, dict):
        return {key: _numbers(part) for key, part in plain.items()}
    if isinstance(plain, list):
        return [_numbers(part) for part in plain]
    return int(plain) if isinstance(plain, bool) else plain


def _is_known(info: Any, converters: dict[Any, Any], seen: set[int] | None = None) -> bool:
    """Whether msgspec needs no help with a type, or only that of `converters`."""
    seen = set() if seen is None else seen
    if id(info) in seen:
        return True
    seen.add(id(info))
    if isinstance(info, msgspec.inspect.CustomType):
        return info.cls in converters or is_text(info.cls) or is_made_of_plain(info.cls)
    if isinstance(info, msgspec.inspect.DictType):
        keys = getattr(info.key_type, "types", (info.key_type,))
        if any(isinstance(key, msgspec.inspect.BoolType) for key in keys):
            return False
    if isinstance(info, tuple):
        return all(_is_known(one, converters, seen) for one in info)
    if isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field):
        return all(
            _is_known(getattr(info, name), converters, seen) for name in info.__struct_fields__
        )
    return True


CONVERSIONS = Conversions()
"""Those of this process: a type is stored in one way, whichever provider a request belongs to."""
