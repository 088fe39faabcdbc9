"""Broken configuration files, given to the real program: one clear complaint each, exit code 78."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service import call
from test_config import BROKEN, ROOT

HIGH = '"Consolidation", "Pneumothorax", "Edema", "Pneumonia", "Lung Lesion", "Mass", "Nodule"'
MORE = {
    "no such log level": (ROOT + '[log]\nlevel = "loud"', "log.level", '"info"'),
    "no such device": (ROOT + '[model]\ndevice = "gpu"', "model.device", '"cuda"'),
    "no such engine": (ROOT + '[model]\nengine = "tensor"', "model.engine", '"torch"'),
    "no such precision": (ROOT + '[model]\nprecision = "float16"', "model.precision", '"float32"'),
    "threads below none": (ROOT + "[model]\nthreads = -1", "model.threads", "at least 0"),
    "no such policy": (ROOT + '[risk]\npolicy = "first"', "risk.policy", '"highest-risk"'),
    "margin above all scores": (ROOT + "[risk]\nlow_margin = 2", "risk.low_margin", "at most 1"),
    "no such level for no finding": (
        ROOT + '[risk]\nno_finding_level = "None"',
        "risk.no_finding_level",
        '"Low"',
    ),
    "summary all the time": (
        ROOT + "[summary]\nsummary_seconds = 0",
        "summary_seconds",
        "is not allowed",
    ),
    "no such way with duplicates": (
        ROOT + '[intake]\nduplicates = "drop"',
        "intake.duplicates",
        '"set-aside"',
    ),
    "no pixels": (ROOT + "[intake]\nmax_megapixels = 0", "max_megapixels", "is not allowed"),
    "no side": (ROOT + "[intake]\nmin_side = 0", "intake.min_side", "at least 1"),
    "size below none": (ROOT + "[intake]\nmax_bytes = -1", "intake.max_bytes", "is not allowed"),
    "text for a list": (ROOT + '[intake]\nignore = "*.bak"', "intake.ignore", "a list of texts"),
    "date for a text": (ROOT + "timezone = 2026-11-23", "timezone", "is not allowed"),
    "one label misspelt": (
        ROOT + f'[risk.levels]\nHigh = [{HIGH}, "Oedema"]',
        "risk.levels.High",
        'did you mean "Edema"',
    ),
}
FILES = {name: case for name, case in BROKEN.items() if name != "no such label"} | MORE


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """What the program says to each file; exit code and standard error."""
    folder = tmp_path_factory.mktemp("broken")

    def run(item: tuple[int, str]) -> tuple[int, str]:
        number, text = item
        file = folder / str(number) / "x.toml"
        file.parent.mkdir()
        file.write_text(text)
        ended = call("run", "--config", str(file), HOME=str(folder))
        assert not ended.stdout
        return ended.returncode, ended.stderr

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = threads.map(run, enumerate(text for text, _, _ in FILES.values()))
        return dict(zip(FILES, found, strict=True))


def test_there_are_at_least_forty() -> None:
    assert len(FILES) >= 40


@pytest.mark.parametrize("name", FILES)
def test_a_broken_file_gets_one_clear_complaint_and_exit_code_78(
    name: str, told: dict[str, tuple[int, str]]
) -> None:
    _, key, said = FILES[name]
    code, error = told[name]
    assert code == 78
    head, *complaints = error.splitlines()
    assert head == "The configuration has a mistake:"
    (complaint,) = complaints
    assert key in complaint
    assert said in complaint
    assert "Traceback" not in error


def test_no_folder_is_made_by_a_broken_configuration(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text(f'root = "{tmp_path}/root"\n[batch]\nmax_size = 0\n')
    assert call("run", "--config", str(file)).returncode == 78
    assert os.listdir(tmp_path) == ["x.toml"]
