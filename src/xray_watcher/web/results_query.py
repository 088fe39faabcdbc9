"""What an address says of the list of results: its filter, its order, a place in it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, TypeVar
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xray_watcher.core.image_record import RiskLevel
from xray_watcher.ledger.results_queries import Filter, Sort
from xray_watcher.web.refusals import Refused

INBOX_ITSELF = "."
"""The source of files that lay in the inbox itself; a form has no empty one beside "any"."""

Index = Annotated[int, Field(ge=0, lt=1 << 62)]

_Query = TypeVar("_Query", bound=BaseModel)


class ResultsQuery(BaseModel):
    """Which results are asked for."""

    model_config = ConfigDict(extra="forbid")

    day: date | None = Field(None, description="Local day on which they were received.")
    first_day: date | None = Field(None, alias="from", description="First such day.")
    last_day: date | None = Field(None, alias="to", description="Last such day.")
    level: RiskLevel | None = Field(None, description="Risk level.")
    condition: str | None = Field(None, description="Condition at or above its operating point.")
    label: str | None = Field(None, description="Condition with the highest score.")
    flag: str | None = Field(None, description="A flag that they have.")
    source: str | None = Field(
        None, description='First folder below the inbox, "." for the inbox itself, or "web".'
    )
    q: str | None = Field(
        None, max_length=255, description="A part of the file's own name, in any case."
    )
    sort: Sort = Field(
        "newest",
        description='Newest first; "score": by level, those with a finding first, then by score.',
    )
    cursor: Index | None = Field(
        None, description="`next` of the page before; without it the list begins."
    )

    @property
    def filter(self) -> Filter:
        """The same for the ledger."""
        first = [day.isoformat() for day in (self.day, self.first_day) if day]
        last = [day.isoformat() for day in (self.day, self.last_day) if day]
        return Filter(
            first_day=max(first, default=None),
            last_day=min(last, default=None),
            level=self.level,
            source="" if self.source == INBOX_ITSELF else self.source,
            condition=self.condition,
            label=self.label,
            flag=self.flag,
            text=self.q,
        )

    @property
    def address(self) -> str:
        """Filter and order as they stand in an address, without a place in the list."""
        given = self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=_PLACE)
        if self.source == "":
            given["source"] = INBOX_ITSELF
        return urlencode(given)


_PLACE = {"cursor", "before", "limit"}


class ListQuery(ResultsQuery):
    """A page of the list for people."""

    before: Index | None = Field(None, description="The page ends before this one.")


def parsed(model: type[_Query], parameters: Mapping[str, str]) -> _Query:
    """Take the parameters of an address.

    Raises:
        Refused: one is unknown or wrong.
    """
    try:
        return model.model_validate(parameters)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise Refused("wrong_query", f"{name!a}: {first['msg']}.") from error


def list_query(parameters: Mapping[str, str]) -> ListQuery:
    """The same as a form sends it: what was left empty is not asked for.

    Raises:
        Refused: one is unknown or wrong.
    """
    return parsed(ListQuery, {name: value for name, value in parameters.items() if value.strip()})
