"""What the tables of the settings are made of: strict sections, and values with their unit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo


def unit(name: str) -> FieldInfo:
    """The unit of a key's value, for people."""
    return Field(json_schema_extra={"unit": name})  # type: ignore[no-any-return]


def allowed(text: str, *, is_secret: bool = False) -> FieldInfo:
    """What a key may hold, in words. No message repeats a value that may be a secret."""
    return Field(  # type: ignore[no-any-return]
        json_schema_extra={"allowed": text, "is_secret": is_secret}
    )


def usable_path(path: str) -> str:
    """The path as it is.

    Raises:
        ValueError: no file can be called so.
    """
    if "\0" in path:
        raise ValueError("a path has no NUL character")
    return path


def readable(read: Callable[[str], object]) -> AfterValidator:
    """A text that is empty, or that `read` takes without a ValueError; it stays as written."""

    def check(text: str) -> str:
        if text:
            read(text)
        return text

    return AfterValidator(check)


Seconds = Annotated[float, unit("seconds")]
Minutes = Annotated[float, unit("minutes")]
Bytes = Annotated[int, unit("bytes")]
AnyPath = Annotated[str, AfterValidator(usable_path)]
PathText = Annotated[AnyPath, allowed("a path")]
OptionalFile = Annotated[AnyPath, allowed('a path, or "" for none')]
FolderText = Annotated[AnyPath, allowed('a path, below root if relative, or "" for the default')]


class Section(BaseModel):
    """One table of the file. Strict: 16 is not "16", 1 is not true."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean "X"?` for the known word that is most like this one, or nothing."""
    close = get_close_matches(word, [*known], n=1, cutoff=0.7)
    return f'did you mean "{close[0]}"?' if close else ""
