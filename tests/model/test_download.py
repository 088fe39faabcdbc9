"""`model.download`: against servers that cut, stall, redirect and lie."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from server import Manner, serving

from xray_watcher.errors import WeightsError
from xray_watcher.model import download as module
from xray_watcher.model.download import download

CONTENT = random.Random(1).randbytes(400_000)


def fetched(url: str, path: Path, expected_bytes: int | None = len(CONTENT)) -> bytes:
    download(url, str(path), expected_bytes=expected_bytes, timeout_s=0.5)
    return path.read_bytes()


def left_behind(path: Path) -> list[str]:
    return sorted(found.name for found in path.parent.iterdir())


def test_a_file_comes_whole_and_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    path = tmp_path / "x.part"
    with serving(CONTENT) as shop:
        download(shop.url, str(path), expected_bytes=None, progress=lambda *n: told.append(n))
    assert path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert left_behind(path) == ["x.part"]


def test_a_cut_download_is_gone_on_with_by_itself(tmp_path: Path) -> None:
    with serving(CONTENT, "cuts-once") as shop:
        assert fetched(shop.url, tmp_path / "x.part") == CONTENT
    assert shop.asked == [None, "bytes=200000-"]


def test_a_download_that_is_cut_again_and_again_is_kept_for_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "x.part"
    with serving(CONTENT, "cuts") as shop, pytest.raises(WeightsError, match="go on there"):
        fetched(shop.url, path)
    kept = path.stat().st_size
    assert 0 < kept < len(CONTENT)
    with serving(CONTENT) as shop:
        note = path.with_name("x.part.json")
        note.write_text(note.read_text().replace(note.read_text().split('"')[3], shop.url))
        assert fetched(shop.url, path) == CONTENT
    assert shop.asked == [f"bytes={kept}-"]
    assert left_behind(path) == ["x.part"]


def test_a_part_of_another_address_is_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "x.part"
    path.write_bytes(b"something else")
    with serving(CONTENT) as shop:
        assert fetched(shop.url, path) == CONTENT
    assert shop.asked == [None]


def test_a_file_that_changed_on_the_server_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "x.part"
    with serving(CONTENT, "cuts-once") as shop:
        shop.manner = "cuts"
        with pytest.raises(WeightsError):
            fetched(shop.url, path)
        shop.manner = "changes"
        assert fetched(shop.url, path) == CONTENT


def test_a_server_that_falls_silent_is_given_up_with_a_message(tmp_path: Path) -> None:
    with serving(CONTENT, "stalls") as shop, pytest.raises(WeightsError, match="silent"):
        fetched(shop.url, tmp_path / "x.part")


@pytest.mark.parametrize(
    ("manner", "said"),
    [
        ("page", "web page"),
        ("missing", "404"),
        ("to-a-file", "not followed|not allowed"),
        ("lies-long", "has 800000 bytes"),
        ("lies-short", "has 200000 bytes"),
        ("endless", "sends more"),
    ],
)
def test_what_is_not_the_file_is_refused_and_nothing_is_left(
    manner: Manner, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.part"
    with serving(CONTENT, manner) as shop, pytest.raises(WeightsError, match=said):
        fetched(shop.url, path)
    assert left_behind(path) == []


def test_a_redirect_within_http_is_followed(tmp_path: Path) -> None:
    with serving(CONTENT, "elsewhere") as shop:
        assert fetched(shop.url, tmp_path / "x.part") == CONTENT


def test_a_file_of_unknown_size_has_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 100_000)
    with serving(CONTENT, "endless") as shop, pytest.raises(WeightsError, match="more than"):
        fetched(shop.url, tmp_path / "x.part", expected_bytes=None)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.org/x", "x.pt"])
def test_other_addresses_than_http_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="only http"):
        fetched(url, tmp_path / "x.part")


def test_an_unreachable_server_is_said_to_be_so_with_the_way_round(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="weights import"):
        fetched("http://127.0.0.1:9/x.pt", tmp_path / "x.part")


def test_a_full_disk_is_said_to_be_so_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_received", full)
    path = tmp_path / "x.part"
    with serving(CONTENT) as shop, pytest.raises(WeightsError, match="No space left"):
        fetched(shop.url, path)
    assert left_behind(path) == []
