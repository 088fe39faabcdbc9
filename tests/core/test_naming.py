"""`core.naming`: one safe component, the index first, the suffix kept."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_watcher.core.naming import (
    LARGEST_INDEX,
    MAX_NAME_BYTES,
    PLAIN_NAME_BYTES,
    indexed_name,
    is_plain,
    parse_index,
    plain_name,
    safe_name,
)

NAMES = st.binary(min_size=1, max_size=255).map(os.fsdecode)


@pytest.mark.parametrize(
    ("index", "name", "filed"),
    [
        (0, "patient1_xray.jpg", "0000_patient1_xray.jpg"),
        (7, "a b'c\".PNG", "0007_a b'c\".PNG"),
        (9999, "a.jpg", "9999_a.jpg"),
        (10000, "a.jpg", "10000_a.jpg"),
        (1, "Ωμέγα 胸部.png", "0001_Ωμέγα 胸部.png"),
        (1, "new\nline.png", "0001_new%0Aline.png"),
        (1, "tab\tnul\0.png", "0001_tab%09nul%00.png"),
        (1, "a/b\\c.png", "0001_a%2Fb%5Cc.png"),
        (1, "\udcff\udcfe.png", "0001_%FF%FE.png"),
        (1, "right\u202eto left.png", "0001_right%E2%80%AEto left.png"),
        (1, "..", "0001_.."),
        (1, "=cmd.png", "0001_=cmd.png"),
    ],
)
def test_names_are_kept_where_they_are_safe_and_escaped_where_not(
    index: int, name: str, filed: str
) -> None:
    assert indexed_name(index, name) == filed


@pytest.mark.parametrize("length", [246, 250, 251, 255])
def test_a_long_name_is_cut_and_keeps_its_suffix(length: int) -> None:
    filed = indexed_name(12345678, "x" * (length - 5) + ".jpeg")
    assert len(filed.encode()) <= MAX_NAME_BYTES
    assert filed.endswith("x.jpeg")


def test_a_long_name_is_cut_between_characters() -> None:
    filed = indexed_name(1, "胸" * 83 + ".png")
    assert len(filed.encode()) <= 255
    assert set(filed.removeprefix("0001_").removesuffix(".png")) == {"胸"}


@given(index=st.integers(0, LARGEST_INDEX), name=NAMES)
def test_every_name_becomes_one_safe_component(index: int, name: str) -> None:
    filed = indexed_name(index, name)
    assert len(filed.encode("utf-8", "strict")) <= 255
    assert "/" not in filed
    assert "\0" not in filed
    assert filed.isprintable()
    assert parse_index(filed) == index


@pytest.mark.parametrize(
    ("name", "filed"),
    [
        ("patient-1_xray.v2.jpg", "0001_patient-1_xray.v2.jpg"),
        ("Müller 12:30?.jpg", "0001_M_ller_12_30_.jpg"),
        ("a\n\udcff.png", "0001_a_0A_FF.png"),
        ("胸部.png", "0001___.png"),
        ("x" * 200 + ".jpg", "0001_" + "x" * 91 + ".jpg"),
    ],
)
def test_a_plain_name_keeps_what_every_file_system_takes(name: str, filed: str) -> None:
    assert plain_name(1, name) == filed


@given(index=st.integers(0, LARGEST_INDEX), name=NAMES)
def test_every_name_has_a_plain_one_which_is_plain_and_has_the_index(index: int, name: str) -> None:
    filed = plain_name(index, name)
    assert is_plain(filed)
    assert len(filed) <= PLAIN_NAME_BYTES
    assert parse_index(filed) == index


@pytest.mark.parametrize("name", ["0001_ä.jpg", "0001_a b.jpg", "0001_a:b.jpg", "x" * 101])
def test_what_some_file_system_refuses_is_not_plain(name: str) -> None:
    assert not is_plain(name)


@given(name=NAMES)
def test_a_safe_name_is_not_escaped_again_into_something_else(name: str) -> None:
    assert safe_name(safe_name(name)) == safe_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "a.jpg",
        "12_a.jpg",
        "x0000_a.jpg",
        "0000",
        "٠٠٠٠_a.jpg",
        "9" * 13 + "_a.jpg",
        "9" * 200 + "_a.jpg",
        "",
    ],
)
def test_what_has_no_index_has_none(name: str) -> None:
    assert parse_index(name) is None


def test_a_number_that_is_too_large_is_no_index() -> None:
    assert parse_index(f"{LARGEST_INDEX}_a.jpg") == LARGEST_INDEX
    assert parse_index(f"{LARGEST_INDEX + 1}_a.jpg") is None
    assert parse_index("9" * 5000 + "_a.jpg") is None
