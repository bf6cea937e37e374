"""The shape every event contract has."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

#: owner.fact.version, at most 128 characters, so that a type is always a valid AMQP routing key.
EVENT_TYPE = re.compile(r"^(?=.{1,128}$)[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)+\.v[0-9]+$")


class Event(BaseModel):
    """Something that happened: the data of one CloudEvent.

    A contract names its CloudEvents type, `owner.fact.version`, as `type`. Unknown fields are ignored, so that a
    listener survives a newer sayer; a field that changes meaning takes a new class and a new version.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True, allow_inf_nan=False)

    type: ClassVar[str] = ""
    #: The CloudEvents `subject`: the one thing the event is about, for people who search.
    subject_field: ClassVar[str | None] = None

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Refuse a contract whose type could not be routed."""
        if not EVENT_TYPE.match(cls.type):
            message = f"{cls.__name__}.type is {cls.type!r}; write it as owner.fact.v1, in lower case"
            raise TypeError(message)

    @property
    def subject(self) -> str | None:
        """The value of the field that names what this event is about."""
        return None if self.subject_field is None else str(getattr(self, self.subject_field))
