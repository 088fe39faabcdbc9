"""A multipart body in whatever pieces it comes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webservice import multipart
from xray_watcher.web.multipart import FileBegin, FileEnd, MalformedBody, boundary_of, events

BOUNDARY = b"xyz"


async def pieces(body: bytes, cuts: Sequence[int]) -> AsyncIterator[bytes]:
    edges = [0, *sorted({cut % (len(body) + 1) for cut in cuts}), len(body)]
    for start, end in itertools.pairwise(edges):
        if start < end:
            yield body[start:end]


def files_of(body: bytes, cuts: Sequence[int] = ()) -> list[tuple[str, bytes]]:
    """Name and content of each whole file."""

    async def read() -> list[tuple[str, bytes]]:
        found: list[tuple[str, bytes]] = []
        name, content = "", b""
        async for event in events(pieces(body, cuts), BOUNDARY):
            if isinstance(event, FileBegin):
                name, content = event.filename, b""
            elif isinstance(event, FileEnd):
                found.append((name, content))
            else:
                content += event
        return found

    return asyncio.run(read())


contents = st.one_of(
    st.binary(max_size=300),
    st.lists(st.sampled_from([b"\r\n", b"--", b"xyz", b"\r\n--xy", b"\r\n--xyz-", b"x"])).map(
        b"".join
    ),
).filter(lambda content: b"\r\n--xyz" not in b"\r\n" + content + b"\r\n")


@given(st.lists(st.tuples(st.sampled_from("abc"), contents), min_size=1, max_size=5), st.data())
def test_files_come_out_as_they_went_in_wherever_the_body_is_cut(
    files: list[tuple[str, bytes]], data: st.DataObject
) -> None:
    body = multipart(files)
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=20))
    assert files_of(body, cuts) == files
    assert files_of(body, range(len(body))) == files, "byte by byte"


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=10))
def test_whatever_is_no_form_is_said_to_be_none(body: bytes, cuts: list[int]) -> None:
    with pytest.raises(MalformedBody):
        files_of(body, cuts)


@given(st.integers(0, 10_000))
def test_a_body_that_is_cut_off_is_never_whole(cut: int) -> None:
    body = multipart([("a", b"first"), ("b", b"second" * 10)])
    end = body.rindex(b"--")
    with pytest.raises(MalformedBody):
        files_of(body[: cut % end])


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('form-data; name="files"; filename="a.png"', "a.png"),
        ('form-data; name="files"; filename="a \\"b\\".png"', 'a "b".png'),
        ("form-data; name=files; filename=a.png", "a.png"),
        ('FORM-DATA; NAME="files"; FILENAME="a.png"', "a.png"),
        ('form-data; name="image"; filename="a.png"', "a.png"),
        ('form-data; name="files"', ""),
        ("form-data; name=\"files\"; filename*=UTF-8''a.png", ""),
        ('form-data; name="files"; filename="é.png"', "é.png"),
    ],
)
def test_names_are_read_as_clients_write_them(disposition: str, name: str) -> None:
    head = f"--xyz\r\nContent-Disposition: {disposition}\r\n\r\n".encode()
    assert files_of(head + b"X\r\n--xyz--\r\n") == [(name, b"X")]


@pytest.mark.parametrize(
    "disposition",
    ['form-data; name="mode"', 'form-data; name="files"; filename=""', "form-data", ""],
)
def test_fields_that_are_no_files_are_passed_over(disposition: str) -> None:
    head = f"--xyz\r\nContent-Disposition: {disposition}\r\n\r\n".encode()
    assert files_of(head + b"X\r\n" + multipart([("a", b"b")])) == [("a", b"b")]


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "multipart/form-data", "multipart/mixed; boundary=a"]
)
def test_a_request_that_is_no_form_is_refused(content_type: str) -> None:
    with pytest.raises(MalformedBody, match="files"):
        boundary_of(content_type)
