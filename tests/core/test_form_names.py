"""`core.form_names`: what clients do to a name is undone, and no other name is changed."""

from __future__ import annotations

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_watcher.core.form_names import form_name


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("=?utf-8?B?S29hbGHDhMOWw6TDti5qcGc=?=", "KoalaÄÖäö.jpg"),
        ("=?utf-8?B?w7/Dv8O/LnBuZw==?=", "ÿÿÿ.png"),
        ("=?UTF-8?Q?th=C3=B4rax_1.png?=", "thôrax 1.png"),
        ("=?iso-8859-1?q?th=F4rax.png?=", "thôrax.png"),
        ("=?windows-1253?Q?=E8=FE.png?=", "θώ.png"),
        ("=?utf-8*el?B?zrg=?=", "θ"),
        ("=?utf-8?B?zrg=?= =?utf-8?Q?.png?=", "θ.png"),
        ("=?utf-8?Q?=CE?=\t=?utf-8?Q?=B8.png?=", "θ.png"),
        (" =?utf-8?Q?a?= ", "a"),
        ("=?utf-8?B??=", ""),
        ("=?utf-8?Q?=3D=3Futf-8=3FQ=3Fa=3F=3D?=", "=?utf-8?Q?a?="),
        ("=?utf-8?Q?a%22b?=", "a%22b"),
        ("a%22b.png", 'a"b.png'),
        ("a%0D%0Ab.png", "a\r\nb.png"),
    ],
)
def test_what_a_client_did_to_a_name_is_undone(sent: str, meant: str) -> None:
    assert form_name(sent) == meant


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a.png",
        "x%41.png",
        "50% done.png",
        "chest%20film%201.png",
        "a%0ab.png",
        "=?utf-8?B?S29h?=.png",
        "x =?utf-8?B?S29h?=",
        "=?utf-8?B?S29h?==?utf-8?B?S29h?=",
        "=?utf-8?B?S29?=",
        "=?utf-8?B?****?=",
        "=?utf-8?Q?=FF.png?=",
        "=?utf-8?X?S29h?=",
        "=?utf-7?Q?+AGE-?=",
        "=?punycode?Q?a?=",
        "=?unicode_escape?Q?a?=",
        "=?rot13?Q?a?=",
        "=?utf-8?Q?a b?=",
        "=?utf-8?Q?ä?=",
        "=?utf-8?Q?a\udcff?=",
        "=?utf-8?Q?",
        "=?utf-8?Q?" + "a" * 5000 + "?=",
    ],
)
def test_any_other_name_stays_as_it_came(name: str) -> None:
    assert form_name(name) == name


@given(name=st.text())
def test_a_name_in_an_encoded_word_comes_out_whatever_it_is(name: str) -> None:
    try:
        word = base64.b64encode(name.encode()).decode()
    except UnicodeEncodeError:
        return
    if len(word) <= 4000:
        assert form_name(f"=?utf-8?B?{word}?=") == name


@pytest.mark.parametrize(
    "piece", ["=?utf-8?Q?a?= ", "=?utf-8?Q?", "=?", " ", "\t", "%22", "=?utf-8?B?AA==?="]
)
def test_a_hostile_name_costs_no_time(piece: str) -> None:
    began_s = time.process_time()
    for length in (4096, 200_000):
        form_name((piece * length)[:length])
    assert time.process_time() - began_s < 2
