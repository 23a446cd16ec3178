"""What is known of pydantic's classes before their values are written: secrets, own writers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

import pytest
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    SecretBytes,
    SecretStr,
    WrapSerializer,
    field_serializer,
    field_validator,
    model_serializer,
)

from stephttp._core.reach import reach


class Model(BaseModel):
    id: UUID


class Token(BaseModel):
    key: SecretStr


class Tokens(BaseModel):
    tokens: list[Token]


@dataclass
class Plain:
    key: SecretBytes
    other: SecretStr


class Secretary(BaseModel):
    pass


@pytest.mark.parametrize(
    ("annotation", "secret"),
    [
        (SecretStr, "SecretStr"),
        (list[SecretBytes], "SecretBytes"),
        (Token, "SecretStr in Token.key"),
        (Tokens, "SecretStr in Token.key"),
        (tuple[Token, int], "SecretStr in Token.key"),
        (tuple[int, Token], "SecretStr in Token.key"),
        (Plain, "SecretStr in Plain.other"),
        (Secretary, ""),
        (int, ""),
    ],
)
def test_where_a_secret_is(annotation: Any, secret: str) -> None:
    assert reach(annotation).secret == secret


class ByModel(BaseModel):
    name: str

    @model_serializer
    def _write(self) -> str:
        return self.name


class ByField(BaseModel):
    name: str
    other: str

    @field_serializer("other")
    def _write(self, value: str) -> str:
        return value


class ByAll(BaseModel):
    name: str

    @field_serializer("*")
    def _write(self, value: str) -> str:
        return value


class ByPlain(BaseModel):
    name: Annotated[str, PlainSerializer(str)]


class ByWrap(BaseModel):
    name: Annotated[str, WrapSerializer(lambda value, write: write(value))]


class ByNothing(BaseModel):
    name: Annotated[str, BeforeValidator(str), Field(max_length=3)]


@dataclass
class Holder:
    inner: ByField
    last: int


@pytest.mark.parametrize(
    ("annotation", "serializer"),
    [
        (ByModel, True),
        (ByField, True),
        (ByAll, True),
        (ByPlain, True),
        (ByWrap, True),
        (ByNothing, False),
        (Holder, True),
        (tuple[ByField, ByNothing], True),
        (tuple[ByNothing, ByField], True),
        (int, False),
    ],
)
def test_whether_a_model_writes_itself(annotation: Any, serializer: bool) -> None:
    assert reach(annotation).serializer is serializer


class Excluding(BaseModel):
    id: int
    note: str = Field(default="", exclude=True)
    second: str = Field(default="", exclude=True)


class Sometimes(BaseModel):
    note: int = Field(default=0, exclude_if=lambda note: note == 0)


class Kept(BaseModel):
    note: Annotated[int, Field(exclude=False)] = 0


@dataclass
class Noted:
    note: Annotated[int, "text", Field(exclude=True)] = 0


class Parts(BaseModel):
    parts: list[Noted]


@pytest.mark.parametrize(
    ("annotation", "excluded"),
    [
        (Excluding, "Excluding.note"),
        (list[Excluding], "Excluding.note"),
        (Sometimes, "Sometimes.note"),
        (Kept, ""),
        (Noted, ""),
        (Parts, "Noted.note"),
        (Model, ""),
    ],
)
def test_which_field_pydantic_leaves_out(annotation: Any, excluded: str) -> None:
    assert reach(annotation).excluded == excluded


class Foreign:
    pass


class Loose(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    one: Foreign
    many: list[UUID]


class Validated(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    one: Annotated[Foreign, PlainValidator(lambda value: value)]
    two: Foreign

    @field_validator("two", mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        return value


class OfLoose(BaseModel):
    inner: Loose


def test_classes_that_pydantic_may_not_know() -> None:
    assert set(reach(Loose).arbitrary) == {Foreign, UUID, list}
    assert set(reach(OfLoose).arbitrary) == {Foreign, UUID, list}
    assert reach(Validated).arbitrary == []
    assert reach(Model).arbitrary == []
