"""A class of each kind, whose one field JSON writes as text."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

import attrs
import msgspec
from pydantic import BaseModel


class Pair(NamedTuple):
    id: UUID


class Packed(msgspec.Struct):
    id: UUID


@attrs.define
class Stop:
    id: UUID


class Model(BaseModel):
    id: UUID
