"""What computes: the network, loaded beside everything else, and the children that decode."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future

import structlog

from xray_watcher.config.settings import Settings
from xray_watcher.imaging.decode_pool import DecodePool
from xray_watcher.model.engine import Engine, check_packages, load_engine
from xray_watcher.model.self_test import check_engine
from xray_watcher.model.weights import WeightStore
from xray_watcher.system.memory import memory_bytes

_BYTES_BESIDE_DECODERS = 1_500_000_000  # the network at work, and what the system keeps
_DECODER_BYTES = 600_000_000  # with the largest picture; docs/evidence/reliability.md has 554 MB

_log = structlog.get_logger()


def check_weights(settings: Settings) -> None:
    """See that what the network needs is installed, before anything is touched.

    Raises:
        WeightsError: the weights are not installed.
        UsageError: an extra is not installed.
    """
    check_packages(settings.model.engine)
    if not settings.model.weights_file:
        WeightStore(settings.folders.weights).check_installed(settings.model.weights)


def load_settings_engine(settings: Settings) -> Engine:
    """Load the network that the settings name.

    Raises:
        WeightsError: its weights are missing or wrong.
    """
    model = settings.model
    return load_engine(
        model.weights,
        model.weights_file,
        settings.folders.weights,
        kind=model.engine,
        threads=model.threads,
        device=model.device,
        precision=model.precision,
    )


def load_in_background(settings: Settings) -> Future[Engine]:
    """Load the network while files are claimed and decoded already.

    In a thread that does not keep the process from ending: importing torch takes seconds.
    """
    future: Future[Engine] = Future()

    def load() -> None:
        try:
            engine = load_settings_engine(settings)
            check_engine(engine)
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for it
            future.set_exception(error)
        else:
            _log.info(
                "network ready",
                code="network_ready",
                weights=engine.info.name,
                sha256=engine.info.sha256,
                precision=engine.info.precision,
                simulated=engine.info.simulated,
            )
            future.set_result(engine)

    threading.Thread(target=load, name="load-network", daemon=True).start()
    return future


def decode_pool(settings: Settings) -> DecodePool:
    """The child processes that decode, as the settings have them."""
    decoders = settings.model.decoders or choose_decoders(cores(), memory_bytes())
    return DecodePool(decoders, settings.decode_limits())


def choose_decoders(cores: int, memory: int) -> int:
    """One decoder per core, if memory has room for so many large pictures at once.

    Args:
        cores: that may be used.
        memory: bytes that may be used.
    """
    return max(1, min(cores, (memory - _BYTES_BESIDE_DECODERS) // _DECODER_BYTES))


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0))
