"""Locales that are not UTF-8: names stay what they are, and every command prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from arrivals import picture_number

import audit
from machine import lacking, needs
from service import STUB, Service, environment

CHARMAPS = Path("/usr/share/i18n/charmaps")
NAMES = (
    "θώρακας.jpg".encode(),
    "Röntgen ß.jpg".encode(),
    b"latin \xe9\x8e.jpg",
    "胸部.jpg".encode(),
)
PLAIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""Names are ASCII and foreign bytes, as far as Python can tell."""


@pytest.fixture(params=["ISO-8859-1", "ASCII"])
def old_locale(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The variables that set a locale with this encoding."""
    if request.param == "ASCII":
        return PLAIN
    needs(lacking(localedef="libc-bin"))
    needs(None if CHARMAPS.is_dir() else "apt-get install locales (for its charmaps)")
    definition = ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(tmp_path / "de_latin1")]
    subprocess.run(definition, check=True, capture_output=True)
    return {"LC_ALL": "de_latin1", "LOCPATH": str(tmp_path)}


def test_names_are_in_the_records_and_on_disk_as_they_came(
    tmp_path: Path, old_locale: dict[str, str]
) -> None:
    asked = [sys.executable, "-c", "import sys; print(sys.getfilesystemencoding())"]
    encoding = subprocess.run(asked, capture_output=True, check=True, env=environment(**old_locale))
    assert b"utf-8" not in encoding.stdout, "the locale is not in force, and nothing is shown"
    service = Service(tmp_path / "root", command=STUB, **old_locale)
    inbox = os.fsencode(service.inbox)
    for number, name in enumerate(NAMES):
        path = os.path.join(inbox, name)
        with open(path, "wb") as file:
            file.write(picture_number(number))
    service.start("--once")
    assert service.ended() == 0, service.log.read_text()
    names = {record["filename"] for record in audit.jsonl_records(service.root)}
    assert names == {"θώρακας.jpg", "Röntgen ß.jpg", "latin %E9%8E.jpg", "胸部.jpg"}
    assert {row["filename"] for row in audit.csv_rows(service.root)} == names
    filed = [p.name.partition("_")[2] for p in service.root.glob("classified_images/*/*")]
    assert set(filed) == names


def test_every_command_prints_in_an_old_terminal(
    tmp_path: Path, old_locale: dict[str, str]
) -> None:
    service = Service(tmp_path / "root", command=STUB)
    (service.inbox / "Θάλαμος ä").mkdir()
    (service.inbox / "Θάλαμος ä" / "θώρακας.jpg").write_bytes(picture_number(1))
    (service.inbox / "Θάλαμος ä" / "άδειο.jpg").write_bytes(b"no picture")
    (service.inbox / os.fsdecode(b"f\xff.jpg")).write_bytes(b"no picture either")
    service.start("--once")
    assert service.ended() == 3
    (service.root / "rejected" / "Ξένο ö.txt").write_text("a stranger")

    def printed(*command: str) -> bytes:
        found = subprocess.run(
            [*STUB, *command, "--config", str(service.config)],
            capture_output=True,
            env=environment(**old_locale),
            check=False,
        )
        assert b"Traceback" not in found.stderr, found.stderr
        assert b"please report" not in found.stderr, found.stderr
        return found.stdout

    is_latin = "LOCPATH" in old_locale
    stranger = printed("fsck")
    assert ("Ξένο ö".encode("latin-1", "backslashreplace") in stranger) == is_latin
    assert ("Ξένο ö".encode() in stranger) != is_latin
    for command in (["status"], ["summary"], ["retention", "--dry-run"], ["check-config"]):
        assert printed(*command)
    assert json.loads(printed("status", "--json"))["today"]["Rejected"] == 2
    assert b"2 files wait" in printed("retry", "--all")
