"""SECURITY.md is true to the letter: each sentence that promises, and the test that holds it."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import re
import resource
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from promises import check_held
from service import STUB, Service
from xray_watcher.ledger.ledger import Ledger
from xray_watcher.ledger.reader import LedgerReader
from xray_watcher.model import checkpoint, checkpoint_worker
from xray_watcher.system import sandbox

HERE = Path(__file__).parent
PAGE = HERE.parent / "SECURITY.md"
WITHOUT_SANDBOX = (sys.executable, str(HERE / "without_sandbox.py"))

HELD = {
    "its child ends; the file is rejected with the reason; others go on": "test_hostile.py::"
        "test_hostile_files_are_set_aside_and_harm_neither_neighbours_nor_the_service",
    "bytes that crash, hang or bloat a decoder": "imaging/test_crashers.py::"
        "test_a_file_that_ended_another_program_ends_no_decoder",
    "escaped, cut and prefixed before it becomes a path":
        "core/test_naming.py::test_every_name_becomes_one_safe_component",
    "defused in CSV": "test_spreadsheet.py::test_no_cell_of_our_csv_is_a_formula",
    "ASCII in JSON": "test_spreadsheet.py::test_names_are_told_as_they_are_in_the_jsonl",
    "never followed or opened as a picture":
        "test_hostile.py::test_what_is_no_file_is_never_opened_and_stays_where_it_is",
    "a file with two names gets an inode of its own first":
        "intake/test_spool.py::test_a_file_with_a_second_name_gets_an_inode_of_its_own",
    "refused; nothing of it is run": "model/test_checkpoint.py::"
        "test_a_name_with_no_business_in_a_checkpoint_is_refused_and_nothing_is_run",
    "its process ends by its limits":
        "model/test_checkpoint.py::test_what_would_compute_for_ever_is_refused_in_a_sentence",
    "changes what is allowed": "model/test_checkpoint.py::"
        "test_a_file_that_sets_attributes_of_what_is_allowed_leaves_no_trace_here",
    "Ctrl-C works": "model/test_checkpoint.py::test_ctrl_c_ends_the_reading",
    "It has the file that it works on, a socket on which it gets the next one":
        "test_sandbox.py::test_a_decoder_is_confined_before_it_is_given_anything",
    "each refused with EPERM":
        "test_sandbox.py::test_all_that_a_child_which_was_taken_over_tries_is_refused",
    "for aarch64 the filter is run in a model of it": "test_sandbox.py::"
        "test_the_filter_allows_what_is_on_the_list_and_refuses_the_rest",
    "the same under the systemd unit": "deploy/test_confined.py::"
        "test_all_that_a_child_which_was_taken_over_tries_is_refused_under_the_unit",
    "the same in a container": "deploy/installing/on_podman.py::"
        "test_all_that_a_child_which_was_taken_over_tries_is_refused_in_the_container",
    "answers without sense, too long, out of range": "imaging/test_decode_pool.py::"
        "test_a_child_that_was_taken_over_can_do_no_more_than_spoil_its_picture",
    "its error output is /dev/null":
        "test_sandbox.py::test_a_decoder_is_confined_before_it_is_given_anything",
    "refused; the limits are the parent's":
        "test_sandbox.py::test_a_child_has_a_limit_of_processor_time_and_cannot_lift_it",
    "`check-config`, `status` and the log then say which one. The rest holds":
        "test_security_page.py::test_what_the_kernel_lacks_is_told_and_nothing_else_changes",
    "With Landlock alone": "test_sandbox.py::"
        "test_landlock_alone_keeps_files_and_connections_away",
    "what was scored is filed; else the file is examined anew":
        "intake/test_spool.py::test_a_claimed_file_that_changed_after_it_was_hashed_is_not_filed",
    "nothing that exists is overwritten":
        "intake/test_spool.py::test_a_name_that_is_taken_is_never_overwritten",
    "what the daemon locks can be opened by its user alone":
        "test_process.py::test_the_files_that_are_locked_can_be_opened_by_the_service_alone",
    "what others lock in the inbox counts for nothing":
        "test_process.py::test_what_a_sender_locks_keeps_no_service_from_starting",
    "nothing is claimed below `min_free_bytes`; images wait": "test_full_disk.py::"
        "test_below_the_low_water_mark_it_stops_claiming_says_so_and_goes_on_by_itself",
    "401 or 403 where there are tokens":
        "web/test_security.py::test_the_matrix_of_routes_and_roles",
    "settings that the installer writes name a token file":
        "deploy/test_install.py::test_the_pages_are_for_those_who_have_a_token",
    "uploads, other people's sessions, hostile parameters":
        "web/test_security.py::test_a_viewer_who_signed_in_may_not_upload",
    "bounded in size, number, pace and rate":
        "web/test_limits.py::test_more_than_is_taken_ends_the_reading",
    "each token and address has a share, counted when it is taken": "web/test_slots.py::"
        "test_slots_are_bounded_in_all_and_for_each_and_counted_when_they_are_taken",
    "others are served (docs/api.md, Limits)":
        "web/test_shares.py::test_others_are_served_within_a_second",
    "to change anything, or to frame a page":
        "web/test_security.py::test_every_answer_carries_the_security_headers",
    "another site in a visitor's browser":
        "web/test_security.py::test_another_site_s_page_changes_nothing",
    "they are opaque":
        "deploy/test_confined.py::test_nobody_of_the_services_user_reads_its_memory",
    "leave no core dump": "test_security_page.py::test_an_opaque_process_leaves_no_core_dump",
    "refused but for loopback, without the drop-in `network.conf`":
        "deploy/test_confined.py::test_no_other_machine_is_reached_without_the_drop_in_for_that",
    "refused by the units": "deploy/test_confined.py::test_the_restrictions_are_in_force",
    "becomes that user before it opens anything":
        "test_root_commands.py::test_no_trap_in_their_folders_leads_a_command_of_root_s_outside",
    "for the rest of its life": "test_root_commands.py::"
        "test_there_is_no_way_back_and_nothing_of_root_s_session_is_left",
    "or it refuses": "test_root_commands.py::"
        "test_where_this_python_is_out_of_their_reach_it_says_so",
    "nothing that lies where the service can write": "deploy/installing/on_debian.py::"
        "test_links_of_the_service_lead_the_installer_nowhere",
    "refuses a file whose SHA-256 is not in `deploy/locks`": "deploy/test_install.py::"
        "test_a_package_with_another_hash_is_not_installed_and_that_is_said",
    "builds nothing from sources but this checkout":
        "deploy/test_supply.py::test_no_lock_lets_a_source_be_built",
    "`make sbom` writes what a server gets": "deploy/test_supply.py::"
        "test_the_bill_names_every_package_that_a_server_gets_with_its_hashes",
    "Downloads use named addresses over HTTP(S) only":
        "model/test_download.py::test_other_addresses_than_http_are_refused",
    "with limits": "model/test_download.py::test_a_file_of_unknown_size_has_a_limit",
    "never at the service's start":
        "test_security_page.py::test_the_service_asks_no_other_machine_for_what_is_missing",
    "hold no file names, patient data or secrets at INFO":
        "test_privacy.py::test_planted_names_are_nowhere_in_the_service_s_log",
    "One process writes it": "test_process.py::test_a_ledger_has_one_holder_and_says_who",
    "all others open it read-only":
        "test_security_page.py::test_whoever_reads_the_ledger_cannot_write_it",
}  # fmt: skip
"""The beginning or the middle of each sentence that promises, and the test."""


@pytest.mark.parametrize(("sentence", "test"), HELD.items())
def test_each_promise_stands_on_the_page_and_its_test_exists(sentence: str, test: str) -> None:
    check_held(PAGE, sentence, test, HERE)


def test_each_row_of_the_threat_model_names_tests_that_exist_or_is_not_defended() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = [
        line.strip("|").split("|")
        for line in text.splitlines()
        if line.startswith("| ") and not line.startswith(("| tried", "| who"))
    ]
    assert len(rows) > 20
    for *_, became, test in rows:
        named = re.findall(r"`(tests/[\w/.]+)`", test)
        assert named or "**" in became, became
        assert all((PAGE.parent / path).exists() for path in named), named


def test_the_limits_of_a_reader_of_checkpoints_are_those_of_the_page() -> None:
    assert f"{checkpoint._SECONDS:.0f} s of processor time" in PAGE.read_text()
    assert f"{checkpoint_worker._MEMORY_BYTES / 1e9:.1f} GB" in PAGE.read_text()


def test_what_the_kernel_lacks_is_told_and_nothing_else_changes(tmp_path: Path) -> None:
    """By all three, in a process that can make neither of the two parts."""
    service = Service(tmp_path / "root", command=(*WITHOUT_SANDBOX, *STUB))
    lacks = "without landlock and seccomp"
    try:
        service.start()
        told = lambda: service.command("status").stdout  # noqa: E731
        service.wait_until(lambda: lacks in told())
        assert "healthy" in told()
        (warning,) = (e for e in service.events() if e["event"] == "decoders are less confined")
        assert warning["missing"] == ["landlock", "seccomp"]
        assert service.stop() == 0
    finally:
        service.kill()
    command = [*WITHOUT_SANDBOX, sys.executable, "-m", "xray_watcher", "check-config"]
    done = subprocess.run([*command, "--root", "/r"], capture_output=True, text=True, check=True)
    assert lacks in done.stdout


@pytest.mark.parametrize("is_opaque", [True, False])
def test_an_opaque_process_leaves_no_core_dump(tmp_path: Path, is_opaque: bool) -> None:
    """Whereas another does, where the kernel writes any."""
    child = os.fork()
    if child == 0:
        try:
            faulthandler.disable()  # pytest's own report of the crash
            os.chdir(tmp_path)
            hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
            resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
            # A change of user, as other tests make it in this process, takes this away for ever.
            ctypes.CDLL(None).prctl(sandbox._PR_SET_DUMPABLE, 1, 0, 0, 0)
            if is_opaque:
                sandbox.be_opaque()
            os.abort()
        finally:
            os._exit(99)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status)
    if is_opaque:
        assert not os.WCOREDUMP(status)
        assert list(tmp_path.iterdir()) == []
    else:
        assert os.WCOREDUMP(status) or resource.getrlimit(resource.RLIMIT_CORE)[1] == 0


def test_the_service_asks_no_other_machine_for_what_is_missing(tmp_path: Path) -> None:
    """Not even for its weights: any look-up or connection would end it with 77."""
    program = (
        "import os, sys\n"
        "asks = ('socket.connect', 'socket.getaddrinfo', 'socket.sendto')\n"
        "sys.addaudithook(lambda event, _: event in asks and os._exit(77))\n"
        "from xray_watcher.cli.main import main\n"
        "main()\n"
    )
    where = ("--root", str(tmp_path / "root"), "--state-dir", str(tmp_path / "state"))
    command = [sys.executable, "-c", program, "run", "--once", *where]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 10, done
    assert "weights fetch" in done.stderr


def test_whoever_reads_the_ledger_cannot_write_it(tmp_path: Path) -> None:
    path = str(tmp_path / "ledger.sqlite3")
    refused = pytest.raises(sqlite3.OperationalError, match="readonly")
    with Ledger(path), LedgerReader.open(path) as reader, refused:
        reader.db.sqlite.execute("CREATE TABLE mine (name TEXT)")
