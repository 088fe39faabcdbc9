"""`notify.notifier`: what is told, when, and that none is lost or told over."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from sinks import http_sink, wait_for

from rig import Rig
from xray_watcher.config.upkeep import EVENTS, WebhookSettings
from xray_watcher.core.notices import Subscriptions
from xray_watcher.core.times import to_us
from xray_watcher.errors import Unavailable
from xray_watcher.notify.channels import Channel, DeliveryFailed, Webhook
from xray_watcher.notify.notifier import Notifier
from xray_watcher.notify.sender import Attempt, Sender

GIVE_UP_S = 3600.0


class HandSender(Sender):
    """Delivers when it is told to, in this thread."""

    def __init__(self) -> None:
        super().__init__({}, lambda: None)
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.open: list[tuple[str, str]] = []

    def send(self, channel: str, message_id: str, event: str, body: bytes) -> None:
        told = json.loads(body)
        assert (told["id"], told["event"]) == (message_id, event)
        self.sent.append((channel, told))
        self.open.append((channel, message_id))

    def answer(self, error: str | None = None) -> None:
        """Everything that is under way was taken, or was not."""
        for channel, message_id in self.open:
            self._results.put(Attempt(channel, message_id, error))
        self.open.clear()

    def events(self) -> list[str]:
        return [told["event"] for _, told in self.sent]


class Telling:
    """A rig with a notifier; make another on the same root to start it again."""

    def __init__(
        self,
        root: Path,
        before: Telling | None = None,
        *,
        channels: Collection[str] = ("webhook",),
        include_names: bool = False,
        sender: Sender | None = None,
    ) -> None:
        self.sender = HandSender()
        subscriptions = Subscriptions(dict.fromkeys(channels, EVENTS))

        def chores(rig: Rig) -> list[Notifier]:
            self.notifier = Notifier(
                ledger=rig.ledger,
                sender=sender or self.sender,
                subscriptions=subscriptions,
                channels=channels,
                problems=lambda: {c: t.reason for c, t in rig.health.problems.items()},
                clock=rig.clock,
                per_minute=3,
                degraded_after_s=60,
                give_up_after_s=GIVE_UP_S,
                include_names=include_names,
            )
            return [self.notifier]

        clock = None if before is None else before.rig.clock
        self.rig = Rig(root, chores=chores, subscriptions=subscriptions, clock=clock)
        self._number = 0 if before is None else before._number

    def high(self, images: int = 1) -> None:
        """File images with a High result."""
        for _ in range(images):
            self.rig.drop(f"patient-{self._number}.jpg", f"picture:Edema#{self._number}")
            self._number += 1
        self.rig.settle()

    def taken(self) -> list[dict[str, Any]]:
        """What was sent since the last call; it is taken."""
        sent = [told for _, told in self.sender.sent]
        self.sender.sent.clear()
        self.sender.answer()
        self.rig.tick(0.1)
        return sent

    def rows(self, table: str) -> int:
        (count,) = self.rig.ledger.db.sqlite.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(count)


def test_a_high_result_is_told_by_its_index_and_by_no_name(tmp_path: Path) -> None:
    telling = Telling(tmp_path)
    telling.high()
    (told,) = telling.taken()
    assert told["event"] == "high"
    assert told["count"] == 1
    assert told["simulated"]
    (item,) = told["items"]
    assert item["index"] == 0
    assert item["risk_level"] == "High"
    assert item["top_label"] == "Edema"
    assert "patient" not in json.dumps(told)
    assert telling.rows("notice") == 0


def test_names_are_told_when_that_is_allowed(tmp_path: Path) -> None:
    telling = Telling(tmp_path, include_names=True)
    telling.high()
    (told,) = telling.taken()
    assert told["items"][0]["filename"] == "patient-0.jpg"
    assert "High/0000_patient-0.jpg" in told["items"][0]["saved_path"]


def test_a_rejected_image_is_told_with_its_reason_and_a_low_one_is_not(tmp_path: Path) -> None:
    telling = Telling(tmp_path)
    telling.rig.drop("a.jpg", "unreadable")
    telling.rig.drop("b.jpg", "picture:Fracture")
    telling.rig.settle()
    (told,) = telling.taken()
    assert told["event"] == "rejected"
    assert [item["rejected"] for item in told["items"]] == ["corrupt"]


def test_a_thousand_high_results_in_a_minute_make_few_messages(tmp_path: Path) -> None:
    telling = Telling(tmp_path)
    sent: list[tuple[float, dict[str, Any]]] = []
    began_s = telling.rig.clock.passed_s
    for number in range(1040):
        telling.rig.drop(f"{number}.jpg", f"picture:Edema#{number}")
    while len(telling.rig.records()) < 1040:
        telling.rig.tick(0.5)
        sent += [(telling.rig.clock.passed_s, told) for told in telling.taken()]
    assert telling.rig.clock.passed_s - began_s < 60, "the images came within a minute"
    for _ in range(200):
        telling.rig.tick(1.0)
        sent += [(telling.rig.clock.passed_s, told) for told in telling.taken()]
    assert sum(told["count"] for _, told in sent) == 1040
    assert len(sent) <= 4
    times_s = [at_s for at_s, _ in sent]
    assert all(sum(t <= s < t + 60 for s in times_s) <= 3 for t in times_s)
    indexes = [item["index"] for _, told in sent for item in told["items"]]
    assert len(indexes) == len(set(indexes))
    for _, told in sent:
        assert told["count"] == len(told["items"]) + told["more"]
        assert len(told["items"]) <= 50


def test_what_was_taken_is_not_told_again_after_a_kill(tmp_path: Path) -> None:
    telling = Telling(tmp_path)
    telling.high()
    telling.taken()
    telling.rig.crash()
    again = Telling(tmp_path, telling)
    again.rig.ticks(30)
    assert again.sender.sent == []


def test_what_was_under_way_at_a_kill_is_told_again_under_the_same_id(tmp_path: Path) -> None:
    telling = Telling(tmp_path)
    telling.high()
    ((_, first),) = telling.sender.sent
    telling.rig.crash()
    again = Telling(tmp_path, telling)
    again.rig.tick(1)
    (told,) = again.taken()
    assert told == first, "the same id and the same text"


def test_what_was_not_even_a_message_at_a_kill_is_told(tmp_path: Path) -> None:
    telling = Telling(tmp_path)
    telling.high()
    telling.high()  # waits: the first message is not taken yet
    assert telling.rows("notice") == 1
    telling.rig.crash()
    again = Telling(tmp_path, telling)
    again.rig.tick(1)
    assert [told["items"][0]["index"] for told in again.taken()] == [0]
    again.rig.ticks(10)
    assert [told["items"][0]["index"] for told in again.taken()] == [1]


def test_a_message_is_tried_again_with_growing_waits_and_under_one_id(tmp_path: Path) -> None:
    telling = Telling(tmp_path)
    telling.high()
    began_s, times_s = telling.rig.clock.passed_s, [0.0]
    for _ in range(240):
        telling.sender.answer("the answer was 503")
        before = len(telling.sender.sent)
        telling.rig.tick(0.5)
        if len(telling.sender.sent) > before:
            times_s.append(telling.rig.clock.passed_s - began_s)
    gaps_s = [b - a for a, b in itertools.pairwise(times_s)]
    for gap_s, wait_s in zip(gaps_s, (5, 10, 20, 40), strict=False):
        assert wait_s - 1 <= gap_s <= wait_s + 6
    assert len({told["id"] for _, told in telling.sender.sent}) == 1
    assert "503" in telling.notifier.problems["notify-webhook"]
    while not telling.sender.open:
        telling.rig.tick(1)
    telling.taken()
    telling.rig.ticks(10)
    assert telling.notifier.problems == {}
    assert telling.sender.sent == []


def test_while_a_channel_is_out_of_order_the_news_gather_in_one_message(tmp_path: Path) -> None:
    telling = Telling(tmp_path)
    telling.high()
    for _ in range(5):
        telling.sender.answer("no")
        telling.high(2)
    telling.sender.sent.clear()
    telling.rig.ticks(700, 5.0)
    telling.taken()
    telling.rig.ticks(90, 1.0)
    (told,) = telling.taken()
    assert told["count"] == 10


def test_a_channel_that_is_out_of_order_holds_up_no_other(tmp_path: Path) -> None:
    telling = Telling(tmp_path, channels=("webhook", "command"))
    telling.high()
    assert {channel for channel, _ in telling.sender.sent} == {"webhook", "command"}
    telling.sender.open = [key for key in telling.sender.open if key[0] == "command"]
    telling.sender.sent.clear()
    telling.sender.answer()
    telling.rig.tick(0.1)
    telling.high()
    assert [channel for channel, _ in telling.sender.sent] == ["command"]


def test_a_message_that_nobody_takes_is_given_up_in_the_end(tmp_path: Path) -> None:
    telling = Telling(tmp_path)
    telling.high()
    for _ in range(int(GIVE_UP_S / 10) + 100):
        telling.sender.answer("no")
        telling.rig.tick(10)
    assert telling.rig.ledger.totals().tally["notify_given_up", "webhook", ""] == 1
    assert telling.rig.ledger.totals().messages == {}
    telling.high()
    assert telling.taken()[-1]["items"][0]["index"] == 1


def test_messages_for_a_channel_that_was_taken_away_are_dropped(tmp_path: Path) -> None:
    telling = Telling(tmp_path, channels=("webhook", "command"))
    telling.high()
    telling.high()
    telling.rig.crash()
    again = Telling(tmp_path, telling, channels=("command",))
    again.rig.tick(1)
    assert [channel for channel, _ in again.sender.sent] == ["command"]
    assert set(again.rig.ledger.totals().notices) == {"command"}


# -- troubles and days --------------------------------------------------------------------


def test_a_trouble_and_its_end_are_told_once_each(tmp_path: Path) -> None:
    telling = Telling(tmp_path)
    telling.rig.engine.broken = True
    telling.rig.drop("a.jpg", "picture:Fracture")
    for _ in range(60):
        telling.rig.tick(1)
        telling.sender.answer()
    assert telling.sender.events() == []
    for _ in range(120):
        telling.rig.tick(1)
        telling.sender.answer()
    assert telling.sender.events() == ["degraded"]
    ((_, told),) = telling.sender.sent
    assert told["items"][0]["cause"] == "model"
    assert "out of memory" in told["items"][0]["detail"]
    telling.rig.engine.broken = False
    for _ in range(240):
        telling.rig.tick(1)
        telling.sender.answer()
    assert telling.sender.events() == ["degraded", "recovered"]


def test_the_end_of_a_trouble_is_told_after_a_restart(tmp_path: Path) -> None:
    telling = Telling(tmp_path)
    telling.rig.engine.broken = True
    telling.rig.drop("a.jpg", "picture:Fracture")
    telling.rig.ticks(180, 1.0)
    telling.taken()
    telling.rig.crash()
    again = Telling(tmp_path, telling)
    again.rig.ticks(120, 1.0)
    assert again.sender.events() == ["recovered"]


def test_the_figures_of_a_day_are_told_when_it_is_over_and_once(tmp_path: Path) -> None:
    telling = Telling(tmp_path)
    telling.rig.drop("ward-7/a.jpg", "picture:Fracture")
    telling.rig.settle()
    telling.rig.tick(12 * 3600.0)
    telling.rig.ticks(120, 10.0)
    (told,) = telling.taken()
    assert told["event"] == "summary"
    (item,) = told["items"]
    assert item["day"] == "2026-11-23"
    assert item["received"] == item["classified"] == 1
    assert item["by_level"] == {"High": 0, "Medium": 0, "Low": 1}
    assert "ward-7" not in json.dumps(told)
    telling.rig.crash()
    again = Telling(tmp_path, telling)
    again.rig.ticks(120, 10.0)
    assert again.sender.sent == []


def test_a_full_disk_of_the_ledger_is_told_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    telling = Telling(tmp_path)
    telling.rig.tick(1)
    ledger = telling.rig.ledger
    left_mb = itertools.count(1000, -1)

    def full(*_: object, **__: object) -> None:
        raise Unavailable("disk", f"The disk of the ledger is full: only {next(left_mb)} MB.")

    for time in ("first", "second"):
        with monkeypatch.context() as patch:
            patch.setattr(ledger, "begin_claims", full)
            patch.setattr(ledger, "transaction", full)
            telling.rig.drop(f"{time}.jpg", f"picture:Fracture#{time}")
            telling.rig.ticks(300, 1.0)
            assert telling.sender.events() == ["degraded"], f"told once, the {time} time"
            assert "full" in telling.sender.sent[0][1]["items"][0]["detail"]
            telling.sender.answer()
            telling.rig.ticks(120, 1.0)
            assert telling.sender.events() == ["degraded"]
        for _ in range(300):
            telling.rig.tick(1.0)
            telling.sender.answer()
        assert "notify" not in telling.rig.health.problems
        telling.sender.sent.clear()


# -- real threads -------------------------------------------------------------------------


def test_a_receiver_that_hangs_does_not_slow_the_loop(tmp_path: Path) -> None:
    with http_sink() as sink:
        sink.mode = "hang"
        hook = Webhook(WebhookSettings(url=f"http://127.0.0.1:{sink.port}/", timeout_seconds=60))
        channels: dict[str, Channel] = {"webhook": hook}
        telling = Telling(tmp_path, sender=Sender(channels, lambda: None))
        telling.high(3)
        assert sink.arrived.wait(30)
        telling.high(20)  # waits for nothing
        assert len(telling.rig.records()) == 23
        sink.mode = "take"
        sink.released.set()
        wait_for(lambda: sum(json.loads(body)["count"] for body in sink.bodies) >= 23 + 3,
                 turn=lambda: telling.rig.tick(1.0))  # fmt: skip
        assert len({json.loads(body)["id"] for body in sink.bodies}) == len(sink.bodies) - 1


def test_a_fault_of_a_channel_s_own_is_told_and_ends_no_thread() -> None:
    class Broken(Channel):
        calls = 0

        def send(self, _id: str, _event: str, _body: bytes) -> None:
            self.calls += 1
            if self.calls == 1:
                raise ZeroDivisionError
            raise DeliveryFailed("as usual")

    sender = Sender({"x": Broken()}, lambda: None)
    results: list[Attempt] = []
    for number in "12":
        sender.send("x", number, "high", b"{}")
    wait_for(lambda: results.extend(sender.results()) or len(results) == 2)
    assert [result.error for result in results] == [
        "ZeroDivisionError in xray-watcher itself",
        "as usual",
    ]
    sender.stop(5)


def test_a_stop_notes_what_is_taken_meanwhile(tmp_path: Path) -> None:
    with http_sink() as sink:
        hook = Webhook(WebhookSettings(url=f"http://127.0.0.1:{sink.port}/"))
        channels: dict[str, Channel] = {"webhook": hook}
        telling = Telling(tmp_path, sender=Sender(channels, lambda: None))
        telling.high()
        telling.notifier.stop()
        assert len(sink.bodies) == 1
        assert telling.rig.ledger.totals().messages == {}
        assert telling.rig.ledger.totals().tally["notify_sent", "webhook", ""] == 1
        assert to_us(telling.rig.clock.now()) > 0
