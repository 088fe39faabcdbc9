"""docs/api.md is true to the letter: each sentence that promises, and the test that holds it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from promises import check_held
from rig import HandClock
from xray_watcher.web import connections, limits, shared_limits, slots, tokens
from xray_watcher.web.shared_limits import SharedLimits

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "api.md"

HELD = {
    "10,000 files in one request are fine, and nothing is held in memory": "test_predicting.py::"
        "test_more_files_than_the_library_takes_are_answered_in_order_with_flat_memory",
    "one for each file, in the order of the request":
        "test_predicting.py::test_the_answer_holds_every_file_in_the_order_of_the_request",
    "the same scores, folders, logs and records": "test_predicting.py::"
        "test_the_records_are_those_of_the_folder_with_the_source_web",
    "the last part of what the client calls the file":
        "test_predicting.py::test_names_of_every_kind_are_data_and_never_a_path",
    "the others are not affected, and the status is 200": "test_predicting.py::"
        "test_a_file_that_cannot_be_scored_says_so_in_its_place_and_harms_no_other",
    "each result is a line of its own as soon as it is known":
        "test_predicting.py::test_asked_for_lines_it_sends_each_result_as_soon_as_it_is_known",
    "answers 202 at once":
        "test_predicting.py::test_a_batch_is_taken_at_once_and_asked_for_later",
    "`next` of a page of records is the `cursor` of the page after it":
        "test_reading.py::test_pages_join_without_a_gap_and_without_a_repeat",
    "with a text in the file's own name, in any case":
        "test_reading.py::test_records_are_found_by_what_they_hold",
    "refused with 503 `unavailable`":
        "pages/test_results_page.py::test_a_list_that_is_being_filled_says_so_and_refuses_the_files",
    "`/openapi.json` describes every call":
        "test_reading.py::test_the_documentation_has_every_route_of_the_api",
    "one record, as the JSONL log has it":
        "test_reading.py::test_the_records_are_those_of_the_log_newest_first",
    "what `xray-watcher status --json` says":
        "test_reading.py::test_the_status_is_that_of_the_command",
    "whoever may view gets them in words too":
        "test_security.py::test_health_tells_whoever_has_no_token_no_detail",
    "handed over, and filed whatever happens afterwards": "test_predicting.py::"
        "test_a_web_that_is_killed_has_lost_nothing_that_it_had_handed_over",
    "when a client or the web process went away":
        "test_predicting.py::test_a_client_that_goes_away_loses_nothing_that_it_had_sent",
    "the answer comes when it runs again": "test_predicting.py::"
        "test_a_daemon_that_is_killed_meanwhile_loses_nothing_and_the_answer_comes_later",
    "or after 20 seconds a 503 with the request's id":
        "test_answers.py::test_a_daemon_that_is_gone_is_not_waited_for_without_end",
    "one file above `intake.max_bytes` is refused alone":
        "test_predicting.py::test_a_file_that_is_too_large_harms_no_other_of_its_request",
    "the disk is nearly full (`intake.min_free_bytes`)": "test_predicting.py::"
        "test_a_disk_that_is_nearly_full_takes_nothing_and_goes_on_by_itself",
    "an address with a slash too many leads nowhere (404)":
        "test_refusals.py::test_a_slash_too_many_leads_nowhere",
    "No redirect names a host": "test_refusals.py::test_no_redirect_names_a_host",
    "Every refusal has one form": "test_refusals.py::test_a_program_gets_json_and_a_person_a_page",
    "without a token it is sent to the sign-in page":
        "test_security.py::test_a_person_without_a_session_is_sent_to_the_sign_in_page",
    "the one closes on which nothing has been asked for longest":
        "test_shares.py::test_others_are_served_within_a_second",
    "the one ends whose client takes nothing of its answer for longest":
        "test_slots.py::test_of_requests_the_one_ends_whose_client_takes_nothing_for_longest",
    "whoever holds fewest places comes first":
        "test_slots.py::test_whoever_holds_fewest_comes_first",
    "Between two of its files an upload gives way":
        "test_slots.py::test_between_two_files_an_upload_gives_way_and_goes_on_afterwards",
    "ends the slowest of those slower than 64 kB/s":
        "test_slots.py::test_one_that_waits_ends_the_slowest_within_a_second",
    "after 5 s it ends the slowest of a holder who has more than half": "test_slots.py::"
        "test_a_fast_one_ends_when_its_holder_has_more_than_half_and_another_waits_long",
    "gets 408 `too_slow`, which says how many of its images were taken": "test_shares.py::"
        "test_a_slow_upload_that_makes_room_is_told_so_and_what_came_whole_is_filed",
    "not that of our own disk":
        "test_slots.py::test_the_time_of_our_own_disk_costs_a_client_nothing",
    "of a holder with two more than the newcomer the newest ends": "test_slots.py::"
        "test_of_streams_the_newest_of_whoever_has_most_ends_for_one_with_less",
    "the oldest ends": "test_slots.py::test_of_forms_the_oldest_ends",
    "the oldest of that token ends":
        "test_tokens.py::test_ten_thousand_sign_ins_end_nobody_else_s_session",
    "of IPv6 for each network of 64 bits":
        "test_slots.py::test_an_address_is_counted_as_one_machine_has_it",
    "comes in for 20 s is cut off (408)":
        "test_limits.py::test_a_client_that_sends_nothing_for_a_window_is_cut_off",
    "a head has 15 s to come in":
        "test_slow_clients.py::test_a_head_that_comes_byte_by_byte_is_cut_off",
    "takes less than 1 kB/s of an answer":
        "test_slow_clients.py::test_a_client_that_takes_next_to_nothing_is_cut_off",
    "What is taken stands in `/api/v1/status`":
        "test_shares.py::test_what_is_taken_stands_in_status_and_metrics",
    "prints the token once": "test_serving.py::test_the_command_makes_tokens_and_shows_each_once",
    "must belong to the service's user alone":
        "test_security.py::test_a_token_file_that_others_may_read_is_not_used",
    "remove a line, and its token and all that signed in with it are out within a second":
        "test_security.py::test_a_token_whose_line_is_removed_opens_nothing_any_more",
    "Signing out and the end of a session (12 hours) close live pages too":
        "test_live_sessions.py::test_a_stream_ends_when_its_reader_signs_out_and_not_when_another_does",
    "is tried again every second": "test_tokens.py::"
        "test_a_file_that_could_not_be_read_for_a_moment_is_read_again_within_a_second",
    "its name begins with `__Host-`":
        "test_security.py::test_behind_a_proxy_with_tls_the_cookie_is_for_tls_alone",
    "a right one always gets in": "test_security.py::"
        "test_wrong_tokens_are_not_heard_without_end_and_a_right_one_always_gets_in",
    "Requests whose `Host` is not exactly one of these names are refused":
        "test_security.py::test_the_names_that_are_answered_are_exact",
    "changes that a page of another site asks for":
        "test_security.py::test_another_site_s_page_changes_nothing",
    "There is no CORS": "test_security.py::test_no_origin_is_ever_allowed_to_read",
    "`serve` listens on loopback only":
        "test_serving.py::test_any_address_but_loopback_needs_a_token_file",
    "`xray-watcher up` starts both":
        "test_guide.py::test_one_that_ends_ends_the_other_and_gives_its_exit_code",
    "describes every call and every field":
        "test_reading.py::test_the_documentation_of_an_upload_is_what_a_client_needs",
    "The field is `files`, any number of times":
        "test_multipart.py::test_fields_that_are_no_files_are_passed_over",
    "The answer comes when every image is filed":
        "test_predicting.py::test_the_answer_holds_every_file_in_the_order_of_the_request",
    "Other percent signs are the name's own":
        "test_multipart.py::test_names_are_read_as_clients_write_them",
    "The last line has `summary`, `output_directory`, `request_id` and `batch`":
        "test_predicting.py::test_asked_for_lines_it_sends_each_result_as_soon_as_it_is_known",
    "`state` (receiving, working, done), `done` of `files`, and the results so far":
        "test_predicting.py::test_a_batch_is_taken_at_once_and_asked_for_later",
    "records, newest first, by the filters below; `sort`, `limit`, `cursor`":
        "test_reading.py::test_records_are_found_by_what_they_hold",
    "the figures of a local day":
        "test_reading.py::test_the_figures_of_a_day_are_those_of_the_summary",
    "for Prometheus": "test_reading.py::test_prometheus_is_told_the_totals_of_the_ledger",
    "200, or 503 with `reasons`":
        "test_reading.py::test_health_is_unavailable_without_a_daemon_and_says_why",
    "They then have the flag `duplicate_of`": "test_predicting.py::"
        "test_the_same_bytes_twice_are_two_results_of_which_the_second_has_a_flag",
    "`code` is for programs and does not change": "test_refusals.py::"
        "test_every_code_stands_in_the_documents_with_its_status_and_no_other",
    "broke off also has `request_id`, `batch` and `accepted`": "test_predicting.py::"
        "test_ten_thousand_part_headers_are_refused_and_the_files_before_them_are_filed",
    "use the method that the table of calls names":
        "test_refusals.py::test_a_wrong_method_names_the_right_ones",
    "`web.max_request_bytes`, `web.max_files`":
        "test_predicting.py::test_a_request_that_says_it_is_too_large_is_refused_before_it_is_read",
    "nothing was taken, or the message says what was":
        "test_predicting.py::test_without_the_daemon_uploads_are_refused_and_the_rest_is_answered",
    "counts only where there is no token":
        "test_slots.py::test_an_address_is_counted_as_one_machine_has_it",
    "Connections and requests are fewer where the process may open fewer than 1,024 files":
        "test_promises.py::test_the_limits_that_are_promised_are_those_of_the_code",
    "`xray_watcher_web_taken` and `xray_watcher_web_limit`":
        "test_shares.py::test_what_is_taken_stands_in_status_and_metrics",
    "every user of that machine may do everything": "test_serving.py::test_loopback_needs_none",
    "The file holds hashes": "test_security.py::test_a_token_stands_nowhere_but_its_hash_does",
    "page gets nothing more within two":
        "test_live_sessions.py::test_a_stream_ends_when_the_line_of_its_token_is_removed",
    "A batch that has begun is still answered": "test_predicting.py::"
        "test_a_batch_that_has_begun_is_answered_although_its_token_is_removed",
    "A file that cannot be read for a moment lets nobody in":
        "test_tokens.py::test_a_file_that_is_gone_for_a_moment_is_read_again",
    "People sign in on the page `/login` with the same tokens":
        "test_security.py::test_a_person_signs_in_with_a_token_and_holds_a_strict_cookie",
    "`Bearer` has no such limit. A token has 256 random bits": "test_security.py::"
        "test_a_program_with_a_wrong_token_is_refused_each_time_and_keeps_nobody_out",
    "one form, wherever it arises":
        "test_shares.py::test_a_refusal_of_a_large_upload_comes_through_nginx",
    "uploads stream through":
        "test_shares.py::test_others_are_served_within_a_second_through_nginx",
}  # fmt: skip
"""The beginning or the middle of each sentence that promises, and the test."""


@pytest.mark.parametrize(("sentence", "test"), HELD.items())
def test_each_promise_stands_on_the_page_and_its_test_exists(sentence: str, test: str) -> None:
    check_held(PAGE, sentence, test, HERE)


def limits_row(what: str) -> list[str]:
    table = PAGE.read_text(encoding="utf-8").split("## Limits", 1)[1].split("\n## ", 1)[0]
    (row,) = re.findall(rf"^\| {what} \|(.*)\|$", table, re.MULTILINE)
    return [cell.strip() for cell in row.split("|")]


def test_the_limits_that_are_promised_are_those_of_the_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_limits.resource, "getrlimit", lambda _which: (1024, 1024))
    all_ = SharedLimits.of(8, HandClock())
    expected = {
        "connections": (all_.connections.total, all_.connections.total // 2),
        "requests at work": (all_.requests.total, all_.requests.each),
        "live pages": (all_.streams.total, all_.streams.each),
    }
    for what, (total, each) in expected.items():
        assert limits_row(what)[:2] == [str(total), str(each)]
    assert limits_row("sign-in forms that come in")[0] == str(all_.forms.total)
    assert limits_row("sessions")[1] == str(tokens._SESSIONS_EACH)
    assert limits_row("uploads")[2].startswith(f"a queue for {slots.SLOT_WAIT_S:.0f} s")
    assert (slots.END_SLOW_S, slots.END_LARGE_S, slots.SLOW_BYTES_S) == (0.25, 5, 64_000)
    assert (limits.PACE_WINDOW_S, limits.PACE_BYTES) == (20, 20_000)
    assert (connections.HEAD_S, connections.STALL_S) == (15, 60)
    assert tokens.SESSION_S == 12 * 3600
    monkeypatch.setattr(shared_limits.resource, "getrlimit", lambda _which: (256, 256))
    assert SharedLimits.of(8, HandClock()).connections.total == 128
