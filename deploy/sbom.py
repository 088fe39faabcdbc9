"""Writes a CycloneDX bill of materials of what a server gets: `make sbom`.

Names, versions, hashes and who needs whom are those of deploy/locks. Licences are what the metadata
of the same version says where this runs. The same locks and licences give the same bytes.
"""

from __future__ import annotations

import ast
import json
import os
import re
import sys
import uuid
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
PROJECT = "xray-watcher"
PARTS = ("base", "web", "onnx")
"""The locks of what runs; what builds is not on the server afterwards."""

PIN = re.compile(r"([a-z0-9.-]+)==([^ ;]+)(?: ; (.*?))? \\")
HASH = re.compile(r"    --hash=sha256:([0-9a-f]{64})( \\)?")
NEEDED_BY = re.compile(r"    # (?:via| ) ([a-z0-9][a-z0-9.-]*)(?:\[.*\])?(?: \(pyproject\.toml\))?")
OTHER = re.compile(r"|#.*|--only-binary :all:|    # via|    # (?:via| ) -[cr] .*")


@dataclass
class Pin:
    """One package of a lock."""

    name: str
    version: str
    part: str
    marker: str
    hashes: list[str] = field(default_factory=list)
    needed_by: list[str] = field(default_factory=list)

    @property
    def purl(self) -> str:
        """The package's URL, by which other programs know it."""
        return f"pkg:pypi/{self.name}@{self.version}"


def read_lock(text: str, part: str) -> list[Pin]:
    """The packages of one lock, as `make lock` writes it.

    Raises:
        ValueError: A line is of no known form, or a package has no hash.
    """
    pins: list[Pin] = []
    for line in text.splitlines():
        if pin := PIN.fullmatch(line):
            pins.append(Pin(pin[1], pin[2], part, pin[3] or ""))
        elif found := HASH.fullmatch(line):
            pins[-1].hashes.append(found[1])
        elif by := NEEDED_BY.fullmatch(line):
            pins[-1].needed_by.append(by[1])
        elif not OTHER.fullmatch(line):
            raise ValueError(f"The lock {part} has a line of no known form: {line!r}")
    without = [pin.name for pin in pins if not pin.hashes]
    if without:
        raise ValueError(f"The lock {part} has no hash of {', '.join(without)}")
    return pins


def licences(name: str, version: str) -> list[dict[str, object]]:
    """What the installed package of that version says of its licence; empty where it does not."""
    try:
        told = metadata(name)
    except PackageNotFoundError:
        return []
    if told["Version"] != version:
        return []
    if told["License-Expression"]:
        return [{"expression": told["License-Expression"]}]
    classified = [
        line.rpartition(" :: ")[2]
        for line in told.get_all("Classifier") or []
        if line.startswith("License :: ") and line != "License :: OSI Approved"
    ]
    # Some put the whole text there.
    free = [line for line in [told["License"] or ""] if line and "\n" not in line]
    return [{"license": {"name": one}} for one in sorted(set(classified)) or free]


def component(pin: Pin) -> dict[str, object]:
    """One package in CycloneDX's form."""
    told = {"part": pin.part} | ({"marker": pin.marker} if pin.marker else {})
    made: dict[str, object] = {
        "type": "library",
        "bom-ref": pin.purl,
        "name": pin.name,
        "version": pin.version,
        "purl": pin.purl,
        "scope": "required" if pin.part == "base" else "optional",
        # One release is many files: each server takes one that has one of these hashes.
        "externalReferences": [
            {
                "type": "distribution",
                "url": pin.purl,
                "hashes": [{"alg": "SHA-256", "content": one} for one in pin.hashes],
            }
        ],
        "properties": [{"name": f"{PROJECT}:{key}", "value": value} for key, value in told.items()],
    }
    if found := licences(pin.name, pin.version):
        made["licenses"] = found
    return made


def bill(pins: list[Pin], version: str) -> dict[str, object]:
    """The bill of materials of the program of that version."""
    root = f"pkg:pypi/{PROJECT}@{version}"
    purls = {PROJECT: root} | {pin.name: pin.purl for pin in pins}
    needs: dict[str, set[str]] = {purl: set() for purl in purls.values()}
    for pin in pins:
        for name in pin.needed_by:
            needs[purls[name]].add(pin.purl)
    body: dict[str, object] = {
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": root,
                "name": PROJECT,
                "version": version,
                "purl": root,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            }
        },
        "components": [component(pin) for pin in sorted(pins, key=lambda pin: pin.name)],
        "dependencies": [
            {"ref": ref, "dependsOn": sorted(needed)} for ref, needed in sorted(needs.items())
        ],
        # The lock of an extra does not repeat what base has, nor that the extra needs it too.
        "compositions": [
            {
                "aggregate": "incomplete",
                "dependencies": [root, *sorted(pin.purl for pin in pins if pin.part != "base")],
            }
        ],
    }
    # A number of its own for each content, and none by chance.
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(body, sort_keys=True))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{number}",
        "version": 1,
        **body,
    }


def project_version() -> str:
    """The version that the source says."""
    source = (HOME / "src/xray_watcher/__init__.py").read_text(encoding="utf-8")
    found = re.search(r"^__version__ = (.+)$", source, re.MULTILINE)
    if found is None:
        raise ValueError("src/xray_watcher/__init__.py has no __version__")
    return str(ast.literal_eval(found[1]))


def main(target: str) -> None:
    """Write the bill of this checkout into a file."""
    locks = HOME / "deploy" / "locks"
    pins = [pin for part in PARTS for pin in read_lock((locks / f"{part}.txt").read_text(), part)]
    os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
    text = json.dumps(bill(pins, project_version()), indent=1) + "\n"
    Path(target).write_text(text, encoding="utf-8")
    sys.stdout.write(f"{target}: {len(pins)} packages\n")


if __name__ == "__main__":
    main(sys.argv[1])
