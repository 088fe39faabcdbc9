"""A multipart body in whatever pieces it comes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webservice import multipart
from xray_watcher.core.naming import client_name
from xray_watcher.web.multipart import FileBegin, FileEnd, MalformedBody, events, parse_boundary

BOUNDARY = b"xyz"
ENCODED_WORD = "=?utf-8?B?w6kvcG5n?="  # what .NET puts in `filename` beside a `filename*`


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
        ("form-data; name=\"files\"; filename*=UTF-8''a.png", "a.png"),
        (
            f"form-data; name=files; filename=\"{ENCODED_WORD}\"; filename*=utf-8''%C3%A9.png",
            "é.png",
        ),
        ("form-data; name=images; filename*=utf-8''%C3%A9.png", "é.png"),
        ("form-data; name=files; filename=x.png; filename*=utf8''%C3%A9.png", "é.png"),
        ("form-data; name=images; FileName* = ISO-8859-1'en'%e9.png; x=y", "é.png"),
        ("form-data; name=images; filename*=\"UTF-8''%C3%A9 (1).png\"", "é (1).png"),
        ("form-data; filename*=UTF-8''%C3%A9.png; filename=a.png", "é.png"),
        ("form-data; name=files; filename*=UTF-8''" + "%C3%A9" * 600, "é" * 600),
        (
            "form-data; name=files; filename=\"a; filename*=UTF-8''b.png\"",
            "a; filename*=UTF-8''b.png",
        ),
        ('form-data; name="files"; filename="é.png"', "é.png"),
        (f'form-data; name="files"; filename="{ENCODED_WORD}"', "é/png"),
        (f'form-data; name="files"; filename="{ENCODED_WORD}.png"', f"{ENCODED_WORD}.png"),
        ('form-data; name="files"; filename="a%22b%20c.png"', 'a"b%20c.png'),
    ],
)
def test_names_are_read_as_clients_write_them(disposition: str, name: str) -> None:
    head = f"--xyz\r\nContent-Disposition: {disposition}\r\n\r\n".encode()
    assert files_of(head + b"X\r\n--xyz--\r\n") == [(name, b"X")]


@pytest.mark.parametrize(
    "extended",
    [
        "",
        "b.png",
        "UTF-8'b.png",
        "UTF-8''",
        "UTF-8''b%.png",
        "UTF-8''b%C3.png",
        "UTF-8''b%+3.png",
        "UTF-8''b%ED%B3%BF.png",  # a surrogate
        "UTF-8''é.png",
        "UTF-16''%00b",
        "idna''b.png",
        "rot13''b.png",
        "%00''b.png",
        "''b.png",
    ],
)
def test_an_extended_name_that_is_broken_leaves_the_plain_one(extended: str) -> None:
    for plain, name in (('filename="a.png"; ', "a.png"), ("", "")):
        disposition = f"form-data; name=images; {plain}filename*={extended}"
        head = f"--xyz\r\nContent-Disposition: {disposition}\r\n\r\n".encode()
        assert files_of(head + b"X\r\n--xyz--\r\n") == [(name, b"X")]


def test_an_extended_name_is_as_hostile_as_any() -> None:
    hostile = "form-data; name=files; filename*=UTF-8''..%2F..%5C%0D%0A%00%E2%80%AEa.png"
    head = f"--xyz\r\nContent-Disposition: {hostile}\r\n\r\n".encode()
    ((name, _),) = files_of(head + b"X\r\n--xyz--\r\n")
    assert client_name(name) == "%0D%0A%00%E2%80%AEa.png"


def test_an_extended_name_beyond_all_measure_is_refused_with_its_form() -> None:
    head = b"--xyz\r\nContent-Disposition: form-data; filename*=UTF-8''" + b"a" * 9999
    with pytest.raises(MalformedBody):
        files_of(head + b"\r\n\r\nX\r\n--xyz--\r\n")


@pytest.mark.parametrize(
    "disposition",
    ['form-data; name="mode"', 'form-data; name="files"; filename=""', "form-data"],
)
def test_fields_that_are_no_files_are_passed_over(disposition: str) -> None:
    head = f"--xyz\r\nContent-Disposition: {disposition}\r\n\r\n".encode()
    assert files_of(head + b"X\r\n" + multipart([("a", b"b")])) == [("a", b"b")]


@pytest.mark.parametrize("header", ["", "Content-Disposition: \r\n", "X: a\r\n"])
def test_a_part_that_does_not_say_what_it_is_makes_no_form(header: str) -> None:
    """RFC 7578, 4.2: each part has a Content-Disposition of the type form-data."""
    with pytest.raises(MalformedBody):
        files_of(f"--xyz\r\n{header}\r\nX\r\n".encode() + multipart([("a", b"b")]))


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "multipart/form-data", "multipart/mixed; boundary=a"]
)
def test_a_request_that_is_no_form_is_refused(content_type: str) -> None:
    with pytest.raises(MalformedBody, match="files"):
        parse_boundary(content_type)
