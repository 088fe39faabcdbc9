"""The service with each engine: what it needs, when it begins, what it says of itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import audit
from service import COMMAND, Service
from test_end_to_end import put, small_picture

SLOW_NETWORK = Path(__file__).parent / "slow_network.py"
WITHOUT_ONNX = (
    "import importlib.util\n"
    "found = importlib.util.find_spec\n"
    "importlib.util.find_spec = lambda name: None if 'onnx' in name else found(name)\n"
    "from xray_watcher.cli.main import main\n"
    "main()"
)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path / "root")
    yield made
    made.kill()


def with_model(service: Service, line: str) -> None:
    service.config.write_text(service.config.read_text() + line + "\n")


def filed(service: Service) -> int:
    return len(audit.filed(service.root))


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_images_are_filed_and_say_by_which_network(service: Service, engine: str) -> None:
    with_model(service, f'engine = "{engine}"')
    content = [put(service.inbox, f"{n}.png", small_picture(n)) for n in range(5)]
    service.start()
    service.wait_until(lambda: filed(service) == len(content))
    assert service.stop() == 0
    audit.check(service.root, content)
    (model,) = {json.dumps(record["model"]) for record in audit.jsonl_records(service.root)}
    assert json.loads(model)["precision"] == "float32"


def test_files_are_claimed_while_the_network_is_loaded(tmp_path: Path) -> None:
    """The network of this service is loaded when the test says so, and not before."""
    service = Service(tmp_path / "root", (sys.executable, str(SLOW_NETWORK)))
    may_load = tmp_path / "may-load"
    service.env = {"MAY_LOAD": str(may_load)}
    content = [put(service.inbox, f"{n}.png", small_picture(n)) for n in range(3)]
    service.start()
    try:
        service.wait_until(lambda: not list(service.inbox.glob("*.png")))
        assert filed(service) == 0
        may_load.touch()
        service.wait_until(lambda: filed(service) == 3)
        assert service.stop() == 0
    finally:
        service.kill()
    audit.check(service.root, content)


def test_without_the_extra_the_service_ends_at_once_with_the_line_that_installs_it(
    service: Service,
) -> None:
    with_model(service, 'engine = "onnx"')
    put(service.inbox, "a.png", small_picture(1))
    command = [sys.executable, "-c", WITHOUT_ONNX, "run", "--config", str(service.config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 2
    assert 'pip install "xray-watcher[onnx]"' in done.stderr
    assert (service.inbox / "a.png").exists()


def test_a_processor_without_bfloat16_ends_the_service_as_a_wrong_configuration(
    service: Service,
) -> None:
    with_model(service, 'precision = "bfloat16"')
    code = (
        "from xray_watcher.model import processor\n"
        "processor.CPU_FACTS = '/dev/null'\n"
        "from xray_watcher.cli.main import main\n"
        "main()"
    )
    command = [sys.executable, "-c", code, "run", "--config", str(service.config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 78
    assert 'set precision = "float32"' in done.stderr


def test_help_costs_little() -> None:
    """Measured in processor time, which a busy machine moves less than the clock."""
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_utime + used.ru_stime)"
    )
    command = [sys.executable, "-c", code, *COMMAND, "--help"]
    seconds = [float(subprocess.check_output(command)) for _ in range(3)]
    assert min(seconds) < 0.5


def test_a_service_of_onnx_imports_no_torch(service: Service) -> None:
    with_model(service, 'engine = "onnx"')
    put(service.inbox, "a.png", small_picture(1))
    service.start()
    service.wait_until(lambda: filed(service) == 1)
    service.stop()
    service.start()  # the network was exported by the first start, which needed torch to draw it
    service.wait_until(lambda: "network ready" in service.log.read_text().split("stopped")[-1])
    mapped = Path(f"/proc/{service.worker_pid}/maps").read_text()
    assert "libtorch" not in mapped
    assert "onnxruntime" in mapped
    assert service.stop() == 0
