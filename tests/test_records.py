"""`records`: a line of JSON and a row of CSV that nobody's file name can break."""

from __future__ import annotations

import base64
import csv
import json
import os
import re
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_watcher.core.catalogue import WEIGHT_SETS, WeightSet
from xray_watcher.core.image_record import ImageRecord, ModelFields, Prediction, Timings
from xray_watcher.core.values import Assessment, ModelInfo, Rejection, Scores
from xray_watcher.records import (
    CSV_COLUMNS,
    CsvLayout,
    Facts,
    Placement,
    classified_record,
    from_jsonl,
    rejected_record,
    to_jsonl,
)

AT = datetime(2026, 11, 23, 23, 30, 0, 500_000, tzinfo=UTC)
LABELS = ("Edema", "Effusion", "Fracture", "Lung Lesion")
MODEL = ModelInfo("phantom", "ab" * 32, "float32", simulated=True)
TIMINGS = Timings(2000.123, 1.5, 10.25, 40.0, 2.0)
LAYOUT = CsvLayout(LABELS, ZoneInfo("Europe/Athens"))
DOCS = re.findall(
    r"```python\n(.*?)```", (Path(__file__).parents[1] / "docs" / "csv.md").read_text(), re.DOTALL
)
PATHS = st.binary(min_size=1, max_size=120).map(os.fsdecode)


def facts(path: str = "er/a.jpg", **more: object) -> Facts:
    made: dict[str, object] = {
        "path": path, "size": 1234, "sha256": "cd" * 32, "width": 300, "height": 250,
        "received_at": AT, "batch_id": "b000001", "batch_size": 4,
    }  # fmt: skip
    return Facts(**(made | more))  # type: ignore[arg-type]


def classified(path: str = "er/a.jpg", **more: object) -> ImageRecord:
    scores = Scores(LABELS, (0.4, 0.3, 0.2, 0.1), (0.9, 0.5, 0.25, 0.125))
    ranking = tuple(zip(LABELS, scores.calibrated, strict=True))
    assessment = Assessment("High", "Edema", 0.9, ranking, ("low_margin",))
    placement = Placement(7, "classified_images/High/0007_a.jpg", AT)
    return classified_record(
        facts(path, **more), placement, MODEL, TIMINGS, scores, assessment, "top-condition"
    )


def rejected(path: str = "a.jpg") -> ImageRecord:
    placement = Placement(8, "rejected/0008_a.jpg", AT)
    return rejected_record(
        facts(path), placement, MODEL, TIMINGS, Rejection("corrupt", "The picture is damaged.")
    )


SEPARATORS = ",;|\t"
JOINED = st.lists(
    st.sampled_from([*SEPARATORS, *"=+-@\"' \n\\", "\uff1d", "\u2028", "\0", "\\x3b", "=1+1", "a"]),
    min_size=1,
    max_size=12,
).map("".join)
"""Names made of what separates, quotes, escapes and begins a formula."""


def cells_of(line: str, separators: str, quote: str) -> list[str]:
    """The cells of a row as a spreadsheet with these settings has them."""
    plain, quoted = f"[^{separators}]*", f"{quote}((?:[^{quote}]|{quote}{quote})*)(?:{quote}|$)"
    found = re.findall(f"(?:^|[{separators}])(?:{quoted}({plain})|({plain}))", line)
    return [inner.replace(quote * 2, quote) + rest + bare for inner, rest, bare in found]


def undefused(text: str) -> str:
    """What docs/csv.md says brings a name back as it came."""
    (code,) = [block for block in DOCS if "def as_it_came" in block]
    scope: dict[str, Any] = {}
    exec(code, scope)
    found: str = scope["as_it_came"](text)
    return found


def typed(line: bytes) -> list[object]:
    """The cells of a row as a strict reader has them: a text only where it is quoted."""
    cells = re.findall(r'(?:^|,)("(?:[^"]|"")*"|[^,"]*)', line.decode().removesuffix("\r\n"))
    return [
        cell[1:-1].replace('""', '"') if cell[:1] == '"' else float(cell) if cell else None
        for cell in cells
    ]


def row(record: ImageRecord) -> dict[str, str]:
    text = (LAYOUT.header + LAYOUT.row(record)).decode("utf-8-sig")
    (found,) = csv.DictReader(text.splitlines(keepends=True))
    return found


def test_the_record_has_the_fields_of_the_guide_and_of_the_design() -> None:
    record = classified(duplicate_of=3)
    assert record.filename == "a.jpg"
    assert record.index == 7
    assert record.top_label == "Edema"
    assert record.top_probability == 0.9
    assert record.risk_level == "High"
    assert record.top_predictions == (
        Prediction("Edema", 0.9), Prediction("Effusion", 0.5), Prediction("Fracture", 0.25),
    )  # fmt: skip
    assert list(record.all_probs or ()) == list(LABELS)
    assert record.raw_probs is not None
    assert record.raw_probs["Edema"] == 0.4
    assert record.saved_path == "classified_images/High/0007_a.jpg"
    assert record.source == "er"
    assert record.flags == ("low_margin", "duplicate_of")
    assert record.received_at == "2026-11-23T23:30:00.500Z"
    assert record.model == ModelFields("phantom", "ab" * 32, "float32")
    assert record.simulated
    assert record.timings_ms == Timings(2000.12, 1.5, 10.25, 40.0, 2.0)
    assert record.schema == 1


def test_low_contrast_is_a_flag_of_the_record_and_the_csv() -> None:
    record = classified(has_low_contrast=True, duplicate_of=3)
    assert record.flags == ("low_margin", "low_contrast", "duplicate_of")
    assert row(record)["flags"] == "low_margin;low_contrast;duplicate_of"


def test_a_rejected_image_has_its_reason_and_no_scores() -> None:
    record = rejected()
    assert record.rejected == Rejection("corrupt", "The picture is damaged.")
    assert record.all_probs is None
    assert b"all_probs" not in to_jsonl(record)
    found = row(record)
    assert found["risk_level"] == "Rejected"
    assert found["reject_code"] == "corrupt"
    assert found["Edema"] == found["top_label"] == ""


@given(path=PATHS)
def test_whatever_the_name_a_record_is_one_line_of_ascii_and_comes_back(path: str) -> None:
    record = classified(path)
    line = to_jsonl(record)
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert from_jsonl(line) == record
    if record.inbox_path_b64 is not None:
        assert base64.b64decode(record.inbox_path_b64) == os.fsencode(path)
    else:
        assert record.inbox_path == path


@given(path=PATHS)
def test_whatever_the_name_a_row_is_one_line_with_all_its_columns(path: str) -> None:
    line = LAYOUT.row(classified(path))
    assert line.endswith(b"\r\n")
    assert len(line.decode().splitlines()) == 1
    (cells,) = csv.reader([line.decode()])
    assert len(cells) == len(CSV_COLUMNS) + len(LABELS)


@pytest.mark.parametrize(
    "name",
    ["=1+1.jpg", "+1.jpg", "-1.jpg", "@SUM(A1).jpg", " =1.jpg", "\t=1.jpg", "\uff1dcmd.jpg",
     "=cmd|' C calc'!A0.jpg", "\n=1.jpg"],
)  # fmt: skip
def test_names_that_a_spreadsheet_would_run_are_defused(name: str) -> None:
    found = row(classified(name))
    assert found["filename"].startswith("'")
    assert found["inbox_path"].startswith("'")


@given(name=JOINED, folder=JOINED)
@pytest.mark.parametrize("quote", ['"', "'"])
@pytest.mark.parametrize("separators", [*SEPARATORS, ",;", ",;\t|"])
def test_no_cell_begins_as_a_formula_whatever_separates(
    separators: str, quote: str, name: str, folder: str
) -> None:
    """Also in a reader that takes other characters for those that separate and quote."""
    line = LAYOUT.row(classified(f"{folder}/{name}")).decode().removesuffix("\r\n")
    assert line.count("\n") == line.count("\r") == 0
    for cell in cells_of(line, separators, quote):
        assert not re.match('[\\s\0"]*[=+\\-@\uff1d\uff0b\uff0d\uff20]', cell), cell


@given(name=JOINED)
def test_the_name_as_it_came_can_be_told_from_its_cell(name: str) -> None:
    """By the rule of docs/csv.md, whatever the name: no two names look alike."""
    assert undefused(row(classified(name))["filename"]) == classified(name).filename


def test_a_missing_number_is_an_empty_cell_and_a_text_is_quoted() -> None:
    """As PostgreSQL, polars and csv.QUOTE_STRINGS want it: what is quoted is no number."""
    columns = [*CSV_COLUMNS, *LABELS]
    scored = dict(zip(columns, typed(LAYOUT.row(classified("a.jpg"))), strict=True))
    aside = dict(zip(columns, typed(LAYOUT.row(rejected())), strict=True))
    numbers = {*LABELS, "index", "top_probability", "duplicate_of", "bytes", "width", "height"}
    numbers |= {"batch_size", *(f"{step}_ms" for step in vars(TIMINGS))}
    for column in columns:
        kinds = {type(cells[column]) for cells in (scored, aside)} - {type(None)}
        assert kinds <= {float if column in numbers else str}, column
    assert [aside[column] for column in ("top_probability", "duplicate_of", *LABELS)] == [None] * 6
    assert scored["source"] == ""
    assert scored["Edema"] == 0.9
    assert aside["top_label"] is None
    assert scored["reject_code"] is None


@pytest.mark.parametrize("name", ["a=1.jpg", "1-2.jpg", "a@b.jpg", "a,b;\"c'.jpg"])
def test_other_names_are_left_as_they_are(name: str) -> None:
    assert row(classified(name))["filename"] == name


def test_the_csv_begins_as_excel_wants_it_and_has_fixed_first_columns() -> None:
    assert LAYOUT.header.startswith(b"\xef\xbb\xbf")
    assert not LAYOUT.row(classified()).startswith(b"\xef\xbb\xbf")
    first = "index classified_at filename source risk_level top_label top_probability flags"
    assert list(CSV_COLUMNS[:8]) == first.split()
    assert list(row(classified()))[-len(LABELS) :] == list(LABELS)


def test_times_are_local_with_offset_and_scores_numbers_in_the_csv() -> None:
    found = row(classified())
    assert found["classified_at"] == "2026-11-24T01:30:00.500+02:00"
    assert float(found["Edema"]) == 0.9
    assert found["simulated"] == "true"
    assert found["flags"] == "low_margin"
    assert "diagnosis" in found["notice"]


def test_numbers_that_are_none_never_get_into_a_record() -> None:
    record = replace(classified(), top_probability=float("nan"))
    with pytest.raises(ValueError, match="JSON"):
        to_jsonl(record)


def test_a_record_is_read_by_any_reader_of_json() -> None:
    assert json.loads(to_jsonl(classified()))["filename"] == "a.jpg"


@pytest.mark.parametrize("weights", WEIGHT_SETS.values(), ids=lambda weights: weights.name)
def test_outputs_without_a_name_have_no_column(weights: WeightSet) -> None:
    header = CsvLayout(weights.labels, None).header.decode("utf-8-sig")
    (columns,) = csv.reader([header])
    assert columns == [*CSV_COLUMNS, *weights.labels]
    assert all(columns)
    assert len(weights.labels) == sum(point is not None for point in weights.operating_points)


OLD_LINES = (
    b'{"schema":1,"index":7,"filename":"a.jpg","source":"er","inbox_path":"er/a.jpg","received_at"'
    b':"2026-11-23T23:30:00.500Z","classified_at":"2026-11-23T23:30:00.500Z","sha256":"%s","bytes":'
    b'1234,"width":300,"height":250,"top_label":"Edema","top_probability":0.9,"risk_level":"High",'
    b'"policy":"top-condition","flags":["low_margin","duplicate_of","retry_of"],"top_predictions":'
    b'[{"label":"Edema","prob":0.9},{"label":"Effusion","prob":0.5},{"label":"Fracture","prob":0.25'
    b'}],"all_probs":{"Edema":0.9,"Effusion":0.5,"Fracture":0.25,"Lung Lesion":0.125},"raw_probs":'
    b'{"Edema":0.4,"Effusion":0.3,"Fracture":0.2,"Lung Lesion":0.1},"duplicate_of":3,"retry_of":2,'
    b'"saved_path":"classified_images/High/0007_a.jpg","batch_id":"b000001","batch_size":4,"model":'
    b'{"name":"phantom","sha256":"%s","precision":"float32"},"timings_ms":{"settle":2000.12,"queue"'
    b':1.5,"decode":10.25,"infer":40.0,"file":2.0},"simulated":true,"notice":"Research and triage'
    b' aid, not a diagnosis."}\n' % (b"cd" * 32, b"ab" * 32),
    b'{"schema":1,"index":8,"filename":"a.jpg","source":"","inbox_path":"a.jpg","received_at":'
    b'"2026-11-23T23:30:00.500Z","classified_at":"2026-11-23T23:30:00.500Z","sha256":"%s","bytes":'
    b'1234,"width":300,"height":250,"risk_level":"Rejected","flags":[],"rejected":{"code":"corrupt"'
    b',"detail":"The picture is damaged."},"duplicate_of":null,"saved_path":"rejected/0008_a.jpg",'
    b'"batch_id":"b000001","batch_size":4,"model":{"name":"phantom","sha256":"%s","precision":'
    b'"float32"},"timings_ms":{"settle":2000.12,"queue":1.5,"decode":10.25,"infer":40.0,"file":2.0}'
    b',"simulated":true,"notice":"Research and triage aid, not a diagnosis."}\n'
    % (b"cd" * 32, b"ab" * 32),
)
"""As commit 86a8508 wrote them, before there was a `request_id`."""


def test_an_image_of_the_inbox_has_the_bytes_that_earlier_versions_wrote() -> None:
    """Both logs are projections that `fsck` compares byte by byte."""
    assert to_jsonl(classified(duplicate_of=3, retry_of=2)) == OLD_LINES[0]
    assert to_jsonl(rejected()) == OLD_LINES[1]
    assert LAYOUT.row(rejected()) == (
        b'8,"2026-11-24T01:30:00.500+02:00","a.jpg","","Rejected",,,"",,"corrupt","The picture is'
        b' damaged.","2026-11-24T01:30:00.500+02:00","rejected/0008_a.jpg","a.jpg","%s",1234,300,'
        b'250,,"phantom","%s","float32","true","b000001",4,2000.12,1.5,10.25,40.0,2.0,"Research and'
        b' triage aid, not a diagnosis.",,,,,\r\n' % (b"cd" * 32, b"ab" * 32)
    )


@pytest.mark.parametrize("line", OLD_LINES)
def test_a_line_of_an_earlier_version_is_read_and_written_as_it_was(line: bytes) -> None:
    record = from_jsonl(line)
    assert record.request_id is None
    assert to_jsonl(record) == line
    assert record in (classified(duplicate_of=3, retry_of=2), rejected())


def test_what_a_later_version_adds_is_passed_over() -> None:
    """After a downgrade the ledger holds such lines."""
    found = json.loads(OLD_LINES[0])
    found |= {"laterality": "L"}
    found["timings_ms"]["wait"] = 1.0
    record = from_jsonl(json.dumps(found).encode())
    assert record == from_jsonl(OLD_LINES[0])


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"[1]", b"7", b"null", b'"text"', b"{}", OLD_LINES[0].replace(b'"flags"', b'"f"'),
     OLD_LINES[1].replace(b'"timings_ms":{', b'"timings_ms":7,"x":{')],
)  # fmt: skip
def test_a_line_that_holds_no_record_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"record|JSON|EOF|parsing|column"):
        from_jsonl(line)


def test_the_request_of_an_upload_stands_in_line_and_row() -> None:
    record = classified("web/a.jpg", request_id="20261123T120000-0123456789ab")
    assert json.loads(to_jsonl(record))["request_id"] == "20261123T120000-0123456789ab"
    assert row(record)["request_id"] == "20261123T120000-0123456789ab"
    assert b"request_id" not in to_jsonl(classified())
    assert LAYOUT.row(classified()).endswith(b'not a diagnosis.",,0.9,0.5,0.25,0.125\r\n')


def test_a_record_cannot_be_changed() -> None:
    for record in (classified(), from_jsonl(OLD_LINES[0])):
        for value in (record, record.model, record.timings_ms):
            with pytest.raises(FrozenInstanceError):
                value.sha256 = "other"  # type: ignore[misc, union-attr, attr-defined]
