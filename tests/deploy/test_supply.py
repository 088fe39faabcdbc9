"""What a release is made of: locks, bill of materials, and the steps in CONTRIBUTING.md."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import sbom
import yaml

HOME = Path(__file__).parents[2]
LOCKS = HOME / "deploy" / "locks"
PROJECT = tomllib.loads((HOME / "pyproject.toml").read_text())
PINS = {
    part: {pin.name: pin for pin in sbom.read_lock((LOCKS / f"{part}.txt").read_text(), part)}
    for part in (*sbom.PARTS, "build")
}


def plain(requirement: str) -> str:
    """A requirement's name as all spell it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=; ]", requirement, maxsplit=1)[0]).lower()


@pytest.mark.parametrize(
    ("part", "declared"),
    [
        ("base", PROJECT["project"]["dependencies"]),
        ("web", PROJECT["project"]["optional-dependencies"]["web"]),
        ("onnx", PROJECT["project"]["optional-dependencies"]["onnx"]),
        ("build", PROJECT["build-system"]["requires"]),
    ],
)
def test_what_is_declared_is_locked(part: str, declared: list[str]) -> None:
    """After a change of pyproject.toml or constraints.txt: `make lock`."""
    locked = PINS[part] if part == "build" else {**PINS["base"], **PINS[part]}
    assert {plain(one) for one in declared} <= set(locked)


def test_a_server_gets_the_versions_that_are_tested() -> None:
    lines = (HOME / "constraints.txt").read_text().splitlines()
    tested = {plain(line): line.partition("==")[2] for line in lines if "==" in line}
    locked = {name: pin.version for pins in PINS.values() for name, pin in pins.items()}
    shared = tested.keys() & locked.keys()
    assert len(shared) > 40
    assert {name: locked[name] for name in shared} == {name: tested[name] for name in shared}


def test_no_lock_says_again_what_base_says() -> None:
    names = [name for part in sbom.PARTS for name in PINS[part]]
    assert len(names) == len(set(names))


def test_no_lock_lets_a_source_be_built() -> None:
    """It would be built with whatever the index has."""
    for part in PINS:
        assert "--only-binary :all:" in (LOCKS / f"{part}.txt").read_text().splitlines()


@pytest.mark.parametrize(
    ("lock", "words"),
    [
        ("click==8.5.1 \\\n", "no hash of click"),
        ("click==8.5.1\n", "no known form"),
        ("click>=8 \\\n    --hash=sha256:" + "0" * 64, "no known form"),
        ("click==8.5.1 \\\n    --hash=md5:" + "0" * 32, "no known form"),
    ],
)
def test_a_lock_that_holds_less_makes_no_bill(lock: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        sbom.read_lock(lock, "base")


@pytest.fixture(scope="module")
def bill(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return written(tmp_path_factory.mktemp("bill") / "new" / "bill.json")


def written(target: Path) -> bytes:
    subprocess.run([sys.executable, HOME / "deploy" / "sbom.py", target], check=True)
    return target.read_bytes()


def test_the_bill_names_every_package_that_a_server_gets_with_its_hashes(bill: bytes) -> None:
    told = json.loads(bill)
    assert (told["bomFormat"], told["specVersion"], told["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", told["serialNumber"])
    assert (
        told["metadata"]["component"]["purl"] == f"pkg:pypi/xray-watcher@{sbom.project_version()}"
    )
    parts = {one["name"]: one for one in told["components"]}
    assert set(parts) == {name for part in sbom.PARTS for name in PINS[part]}
    for part in sbom.PARTS:
        for name, pin in PINS[part].items():
            one = parts[name]
            assert (one["version"], one["purl"]) == (pin.version, f"pkg:pypi/{name}@{pin.version}")
            assert one["scope"] == ("required" if part == "base" else "optional")
            hashes = one["externalReferences"][0]["hashes"]
            assert [each["content"] for each in hashes] == pin.hashes
            assert {each["alg"] for each in hashes} == {"SHA-256"}


def test_the_bill_says_licences_and_who_needs_whom(bill: bytes) -> None:
    told = json.loads(bill)
    licences = {one["name"]: one.get("licenses") for one in told["components"]}
    assert licences["pydantic"] == [{"expression": "MIT"}]
    assert licences["kornia-rs"] == [{"license": {"name": "Apache Software License"}}]
    refs = {one["bom-ref"] for one in told["components"]}
    root = told["metadata"]["component"]["bom-ref"]
    needs = {one["ref"]: set(one["dependsOn"]) for one in told["dependencies"]}
    assert set(needs) == refs | {root}
    assert set().union(*needs.values()) == refs, "each is there because something needs it"
    version = {name: pin.version for name, pin in PINS["base"].items()}
    assert f"pkg:pypi/torch@{version['torch']}" in needs[root]
    assert f"pkg:pypi/sympy@{version['sympy']}" in needs[f"pkg:pypi/torch@{version['torch']}"]


def test_a_licence_of_another_version_is_not_told() -> None:
    assert sbom.licences("pydantic", "0.0") == []
    assert sbom.licences("no-such-package", "1.0") == []


def test_the_same_checkout_makes_the_same_bill(bill: bytes, tmp_path: Path) -> None:
    assert written(tmp_path / "bill.json") == bill


def test_every_command_that_contributing_names_is_a_target_of_make() -> None:
    text = (HOME / "CONTRIBUTING.md").read_text()
    code = re.findall(r"`([^`\n]+)`", text) + re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line.partition("#")[0].strip() for piece in code for line in piece.splitlines()]
    named = {
        word
        for line in lines
        if line.startswith("make ")
        for word in line.split()[1:]
        if "=" not in word
    }
    assert {"lock", "audit", "release", "install-test"} <= named
    makefile = (HOME / "Makefile").read_text()
    assert named <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    phony = re.search(r"^\.PHONY:((?:.*\\\n)*.*)$", makefile, re.MULTILINE)
    assert phony is not None
    assert named <= set(phony[1].replace("\\", " ").split())


def test_help_names_every_target_with_its_sentence() -> None:
    # `make test` runs this too: one make below another prints the folders that it enters.
    asked = ["make", "--no-print-directory", "help"]
    done = subprocess.run(asked, cwd=HOME, capture_output=True, text=True, check=True)
    named = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    makefile = (HOME / "Makefile").read_text()
    assert list(named) == re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)
    assert done.stderr == ""


def test_the_forge_and_the_hooks_call_what_is_there() -> None:
    workflow = yaml.safe_load((HOME / ".github/workflows/ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert os.access(HOME / ".ci/run", os.X_OK)
    hooks = yaml.safe_load((HOME / ".pre-commit-config.yaml").read_text())
    called = [hook["entry"] for repo in hooks["repos"] for hook in repo["hooks"]]
    assert called == ["make lint", "make types"]
