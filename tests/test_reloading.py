"""`reloading`: a new configuration takes effect between two batches, whole or not at all."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

import audit
from rig import Rig
from service import Service
from xray_watcher.config.keys import KEYS
from xray_watcher.config.loading import load_settings, value_of
from xray_watcher.config.settings import Settings
from xray_watcher.core.batching import Batching
from xray_watcher.core.settling import Settling
from xray_watcher.daemon import Timetable
from xray_watcher.errors import ConfigError
from xray_watcher.imaging.decode_pool import DecodePool
from xray_watcher.imaging.limits import DecodeLimits
from xray_watcher.live_parts import live_parts, timetable
from xray_watcher.reloading import LivePart, Reloading, RenewableDecoder
from xray_watcher.system.signals import Bell, ReloadRequest

WAIT_FOR_A_RESTART = frozenset(
    {
        "root",
        "state_dir",
        "timezone",
        "intake.inbox",
        "intake.classified",
        "intake.rejected",
        "intake.duplicates_folder",
        "intake.logs",
        "intake.watch",
        *(key for key in KEYS if key.startswith("model.")),
    }
)


def settings(**tables: Any) -> Settings:
    """All settings, sections given as tables."""
    return Settings(root="/srv/xray", **tables)


class Reloader:
    """A reloading whose configuration and whose one part a test has in hand."""

    def __init__(self, *keys: str, started: Settings | None = None) -> None:
        self.new: Settings | ConfigError = started or settings()
        self.used: list[Settings] = []
        self.bell = Bell()
        self.request = ReloadRequest(self.bell)
        parts = [LivePart(keys, self.used.append)]
        self.reloading = Reloading(self.request, started or settings(), self.load, parts)

    def load(self) -> Settings:
        if isinstance(self.new, ConfigError):
            raise self.new
        return self.new

    def reload(self, new: Settings | ConfigError) -> tuple[str | None, dict[str, Any]]:
        """What is complained of, and what is logged."""
        self.new = new
        with capture_logs() as logged:
            problem = self.reloading.carry_out()
        (event,) = logged
        return problem, dict(event)


def test_the_parts_get_the_new_settings_and_the_log_says_what_has_changed() -> None:
    reloader, new = Reloader("batch"), settings(batch={"max_size": 3})
    problem, event = reloader.reload(new)
    assert problem is None
    assert reloader.used == [new]
    assert event["event"] == "configuration reloaded"
    assert (event["changed"], event["needs_restart"]) == (["batch.max_size"], [])


def test_what_waits_for_a_restart_is_said_each_time() -> None:
    reloader = Reloader("batch")
    new = settings(model={"threads": 3}, batch={"max_size": 3})
    first, second = (reloader.reload(new)[1] for _ in range(2))
    assert (first["changed"], first["needs_restart"]) == (["batch.max_size"], ["model.threads"])
    assert (second["changed"], second["needs_restart"]) == ([], ["model.threads"])


def test_a_configuration_with_a_mistake_changes_nothing_and_is_reported() -> None:
    reloader = Reloader("batch")
    problem, event = reloader.reload(ConfigError(["config.toml:3: batch.max_size: 0 is too few"]))
    assert reloader.used == []
    assert problem is not None
    assert "config.toml:3" in problem
    assert event["log_level"] == "error"
    assert event["problems"] == ["config.toml:3: batch.max_size: 0 is too few"]
    assert reloader.reload(settings(batch={"max_size": 3}))[0] is None


def test_levels_that_have_no_place_for_the_network_in_use_change_nothing() -> None:
    """Sound for the new weights, but those come with a restart only."""
    levels = {"High": ("Pneumonia",), "Medium": (), "Low": ()}
    reloader = Reloader("risk", started=settings(model={"weights": "phantom"}))
    problem, _ = reloader.reload(settings(risk={"levels": levels}))
    assert reloader.used == []
    assert problem is not None
    assert re.search("no level names Atelectasis, .* restart the service", problem)


def test_the_signal_asks_and_rings_and_a_later_one_asks_again() -> None:
    reloader = Reloader("batch")
    before = signal.getsignal(signal.SIGHUP)
    with reloader.request.on_signal():
        for count in (1, 2):
            signal.raise_signal(signal.SIGHUP)
            assert reloader.reloading.is_wanted
            assert reloader.bell.wait(0)
            reloader.reload(settings())
            assert not reloader.reloading.is_wanted
            assert reloader.reloading.count == count
    assert signal.getsignal(signal.SIGHUP) == before


# -- in the daemon ------------------------------------------------------------------------


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.crash()


def live(
    rig: Rig, decoder: RenewableDecoder, used: Callable[[Timetable], None]
) -> tuple[LivePart, ...]:
    daemon = rig.daemon
    return live_parts(
        rig.arrivals.inbox._inbox, rig.settling, rig.arrivals._batching, decoder, rig.pipeline,
        rig.pipeline._completion._sealer, daemon._summaries, used,
    )  # fmt: skip


class LimitedDecoder:
    """Stands for the decoding children; remembers the limits."""

    def use(self, new: Settings) -> None:
        self.limits = new.intake.max_bytes, new.images.deep_range


def facts(rig: Rig, decoder: LimitedDecoder, timetables: list[Timetable]) -> dict[str, Any]:
    """What the parts go by."""
    inbox, batching, settling = rig.arrivals.inbox._inbox, rig.arrivals._batching, rig.settling
    assert isinstance(batching, Batching)
    assert isinstance(settling, Settling)
    return {
        "suffixes": inbox._suffixes,
        "ignore": (inbox._ignores("x1"), inbox._ignores("a.tmp")),
        "incomplete_s": settling._incomplete_after_s,
        "batch": (batching._max_size, batching._quiet_s, batching._max_wait_s),
        "urgent": batching._urgent_sources,
        "duplicates": "set-aside" if rig.pipeline._judge.sets_duplicates_aside else "flag",
        "rules": rig.pipeline._completion._sealer._rules,
        "summary_s": rig.daemon._summaries._every_s,
        "timetable": timetables[-1],
        "limits": decoder.limits,
    }


OTHER: dict[str, tuple[dict[str, Any], str]] = {
    "intake.suffixes": ({"intake": {"suffixes": (".bmp",)}}, "suffixes"),
    "intake.ignore": ({"intake": {"ignore": ("x*",)}}, "ignore"),
    "intake.settle_seconds": ({"intake": {"settle_seconds": 7.0}}, "timetable"),
    "intake.incomplete_after_minutes": (
        {"intake": {"incomplete_after_minutes": 7.0}},
        "incomplete_s",
    ),
    "intake.scan_seconds": ({"intake": {"scan_seconds": 7.0}}, "timetable"),
    "intake.min_free_bytes": ({"intake": {"min_free_bytes": 7}}, "timetable"),
    "intake.max_bytes": ({"intake": {"max_bytes": 7000}}, "limits"),
    "images.deep_range": ({"images": {"deep_range": "observed"}}, "limits"),
    "intake.urgent": ({"intake": {"urgent": ("ER",)}}, "urgent"),
    "intake.duplicates": ({"intake": {"duplicates": "set-aside"}}, "duplicates"),
    "batch.max_size": ({"batch": {"max_size": 7}}, "batch"),
    "batch.quiet_seconds": ({"batch": {"quiet_seconds": 7.0}}, "batch"),
    "batch.max_wait_seconds": ({"batch": {"max_wait_seconds": 7.0}}, "batch"),
    "risk.policy": ({"risk": {"policy": "highest-risk"}}, "rules"),
    "risk.no_finding_level": ({"risk": {"no_finding_level": "High"}}, "rules"),
    "risk.low_margin": ({"risk": {"low_margin": 0.7}}, "rules"),
    "risk.thresholds": ({"risk": {"thresholds": {"Edema": 0.7}}}, "rules"),
    "risk.levels.High": ({"risk": {"levels": {"High": ("Edema",)}}}, "rules"),
    "summary.summary_seconds": ({"summary": {"summary_seconds": 7.0}}, "summary_s"),
}


@pytest.mark.parametrize("key", OTHER)
def test_a_key_that_is_live_reaches_the_part_that_goes_by_it(rig: Rig, key: str) -> None:
    tables, fact = OTHER[key]
    decoder, timetables = LimitedDecoder(), [Timetable(5.0, 2.0, 30.0, 3600.0, 0, ())]
    parts = live(rig, decoder, timetables.append)  # type: ignore[arg-type]
    for part in parts:
        part.use(settings())
    before = facts(rig, decoder, timetables)
    (part,) = (part for part in parts if part.reads(key))
    part.use(settings(**tables))
    after = facts(rig, decoder, timetables)
    assert {name for name in before if before[name] != after[name]} == {fact}


def test_folders_that_wait_for_a_restart_are_not_looked_at_before(rig: Rig) -> None:
    moved = Settings(root="/nowhere", state_dir="/nowhere/state")
    for part in live(rig, LimitedDecoder(), rig.daemon.use):  # type: ignore[arg-type]
        part.use(moved)
    arrived = rig.drop("a.jpg", "picture:Edema")
    rig.settle()
    audit.check(rig.root, [arrived])
    assert not rig.health.troubles


def test_every_key_is_live_or_known_to_wait_for_a_restart(rig: Rig) -> None:
    parts = live(rig, LimitedDecoder(), lambda _timetable: None)  # type: ignore[arg-type]
    is_live = {key for key in KEYS if any(part.reads(key) for part in parts)}
    assert is_live.isdisjoint(WAIT_FOR_A_RESTART)
    assert set(OTHER) <= is_live
    for part in parts:
        for own in part.keys:
            assert any(key == own or key.startswith(f"{own}.") for key in KEYS), own


def test_new_rules_decide_from_the_next_batch_on(tmp_path: Path) -> None:
    levels = {"High": ("Fracture",), "Low": ("Hernia",)}
    others = tuple(label for label in settings().risk.levels.High if label != "Fracture")
    new = settings(
        model={"weights": "untrained"},
        risk={"levels": {**levels, "Medium": (*settings().risk.levels.Medium, *others)}},
    )
    rig = Rig(tmp_path)
    bell = Bell()
    request = ReloadRequest(bell)
    started = settings(model={"weights": "untrained"})
    part = LivePart(("risk",), lambda s: rig.pipeline._completion._sealer.use(s.risk_rules()))
    rig.daemon._reloading = Reloading(request, started, lambda: new, [part])
    arrived = [rig.drop("a.jpg", "picture:Fracture")]
    rig.settle()
    arrived.append(rig.drop("b.jpg", "picture:Fracture"))
    request._is_wanted = True
    rig.settle()
    audit.check(rig.root, arrived)
    levels_filed = [record["risk_level"] for record in audit.jsonl_records(rig.root)]
    assert levels_filed == ["Low", "High"]
    assert rig.daemon.reloads == 1
    bell.close()
    rig.crash()


def test_a_reload_waits_for_the_batch_in_hand_and_none_is_begun_meanwhile(rig: Rig) -> None:
    bell = Bell()
    request = ReloadRequest(bell)
    in_hand: list[int] = []
    part = LivePart(("batch",), lambda _s: in_hand.append(rig.pipeline.batches_in_hand))
    rig.daemon._reloading = Reloading(request, settings(), settings, [part])
    decoded = rig.pipeline.batches.is_decoded
    rig.pipeline.batches.is_decoded = lambda _wait_s: False  # type: ignore[method-assign]
    arrived = [rig.drop("a.jpg", "picture:Edema")]
    while not rig.pipeline.batches_in_hand:
        rig.tick(0.5)
    request._is_wanted = True
    arrived.append(rig.drop("b.jpg", "picture:Edema#b"))
    rig.ticks(30)
    assert (in_hand, rig.pipeline.batches_in_hand) == ([], 1)
    rig.pipeline.batches.is_decoded = decoded  # type: ignore[method-assign]
    rig.settle()
    assert in_hand == [0]
    audit.check(rig.root, arrived)
    bell.close()


def test_what_is_wrong_with_the_new_configuration_stands_in_the_status(rig: Rig) -> None:
    bell = Bell()
    request = ReloadRequest(bell)

    def broken() -> Settings:
        raise ConfigError(["config.toml:3: nonsense"])

    rig.daemon._reloading = Reloading(request, settings(), broken, [])
    request._is_wanted = True
    rig.tick()
    assert rig.health.last_error is not None
    assert "config.toml:3: nonsense" in rig.health.last_error
    assert not rig.health.troubles
    bell.close()


def test_children_that_decode_are_replaced_only_when_their_limits_change() -> None:
    made: list[Settings] = []

    def make(new: Settings) -> DecodePool:
        made.append(new)
        return DecodePool(1, DecodeLimits(new.intake.max_bytes, 50.0, 64))

    with RenewableDecoder(make, settings()) as decoder:
        decoder.use(settings(intake={"settle_seconds": 9.0}))
        assert len(made) == 1
        decoder.use(settings(intake={"max_bytes": 5000}))
        assert [value_of(one, "intake.max_bytes") for one in made] == [67_108_864, 5000]


# -- the real service ---------------------------------------------------------------------


def test_a_running_service_takes_a_new_file_and_refuses_a_broken_one(tmp_path: Path) -> None:
    service = Service(tmp_path / "root")

    def logged(event: str) -> list[Any]:
        return [e for e in service.events() if e["event"] == event]

    try:
        service.start()
        service.wait_until(lambda: bool(logged("network ready")))
        text = service.config.read_text()
        assert service.process is not None
        service.config.write_text(text.replace("quiet_seconds = 0.3", "quiet_seconds = -1"))
        service.process.send_signal(signal.SIGHUP)
        service.wait_until(lambda: bool(logged("configuration not reloaded")))
        (refused,) = logged("configuration not reloaded")
        assert re.search(r"root.toml:\d+: batch.quiet_seconds: -1", refused["problems"][0])
        secret = tmp_path / "secret"
        secret.write_text("too short")
        secret.chmod(0o600)
        hook = f'[notify.webhook]\nurl = "http://h/"\nsecret_file = "{secret}"\n'
        service.config.write_text(text + hook)
        service.process.send_signal(signal.SIGHUP)
        service.wait_until(lambda: len(logged("configuration not reloaded")) == 2)
        assert "too short" in logged("configuration not reloaded")[1]["problems"][0]
        service.config.write_text(text.replace("quiet_seconds = 0.3", "quiet_seconds = -1"))
        service.process.send_signal(signal.SIGHUP)
        service.wait_until(lambda: len(logged("configuration not reloaded")) == 3)
        service.config.write_text(text)  # for `status` must read it too
        service.wait_until(lambda: "batch.quiet_seconds" in service.command("status").stdout)
        service.config.write_text(
            text.replace("quiet_seconds = 0.3", "quiet_seconds = 0.4")
            .replace("min_side = 16", "min_side = 17")
            .replace('timezone = "Europe/Athens"', 'timezone = "Europe/Rome"')
            + '[log]\nlevel = "debug"\n'
        )
        service.process.send_signal(signal.SIGHUP)
        service.wait_until(lambda: bool(logged("configuration reloaded")))
        (taken,) = logged("configuration reloaded")
        assert taken["changed"] == ["intake.min_side", "batch.quiet_seconds", "log.level"]
        assert taken["needs_restart"] == ["timezone"]
        assert service.stop() == 0
    finally:
        service.kill()


def test_the_shipped_file_can_be_loaded_anew(tmp_path: Path) -> None:
    example = Path(__file__).parents[1] / "config" / "xray-watcher.toml"
    flags = {"state_dir": str(tmp_path)}
    first, second = (load_settings(str(example), flags, {}).settings for _ in range(2))
    assert first == second
    assert timetable(first) == timetable(second)
