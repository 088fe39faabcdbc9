"""`core.addresses`: what is taken is sent as browsers do, what is not is told without echo."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_watcher.core.addresses import WebAddress, host_name, mail_address, web_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://h", WebAddress(False, "h", 80, "/")),
        ("HTTPS://H.example/x?a=b#part", WebAddress(True, "h.example", 443, "/x?a=b")),
        ("http://h:8027/?q", WebAddress(False, "h", 8027, "/?q")),
        ("http://h:/x", WebAddress(False, "h", 80, "/x")),
        ("http://[::1]/x", WebAddress(False, "::1", 80, "/x")),
        ("http://[::1]:99/x", WebAddress(False, "::1", 99, "/x")),
        ("http://localhost./x", WebAddress(False, "localhost.", 80, "/x")),
        ("http://h/x?to=θ/α%20&b='\"", WebAddress(False, "h", 80, "/x?to=%CE%B8/%CE%B1%20&b='\"")),
        ("https://h/ü", WebAddress(True, "h", 443, "/%C3%BC")),
        ("http://röntgen.example/", WebAddress(False, "xn--rntgen-wxa.example", 80, "/")),
        ("http://under_score.local/", WebAddress(False, "under_score.local", 80, "/")),
    ],
)
def test_an_address_is_read_into_what_is_sent(text: str, address: WebAddress) -> None:
    assert web_address(text) == address


BAD = {
    "http://u:geheim@h/": "user or password",
    "https://geheim@h/": "user or password",
    "http://u:geheim": "port",
    "http://u:ge/heim@h/": "port",
    "http://h:99999/geheim": "port",
    "http://h:0/": "port",
    "http://h:abc/": "port",
    "http://h:²/": "port",
    "http://[::1/x": "host",
    "http://[geheim]/x": "host",
    "http:///x": "host",
    "http://h..x/": "host",
    f"http://{'h' * 64}/": "host",
    "http://h\\x/": "host",
    "http://straße.example/": "xn--",
    "http://h\u2100x/": "host",
    "http://h/a b": "blank",
    "http://h/\u0001": "control",
    "http://h/\r\nX: geheim": "control",
    "ftp://h/geheim": "neither http",
    "h/geheim": "neither http",
    "//h/": "neither http",
    "": "neither http",
}


@pytest.mark.parametrize(("text", "said"), BAD.items(), ids=map(repr, BAD))
def test_an_address_that_cannot_be_used_is_told_why_and_not_repeated(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as raised:
        web_address(text)
    assert "geheim" not in str(raised.value)


@given(rest=st.text(), prefix=st.sampled_from(["", "http://", "https://", "http://h:", "http://["]))
def test_whatever_is_written_is_ascii_or_a_complaint(prefix: str, rest: str) -> None:
    complaint = ""
    try:
        address = web_address(prefix + rest)
    except ValueError as error:
        complaint = str(error)
    if complaint:
        assert complaint.startswith(("it ", "its ", "a user "))
        return
    assert (address.host + address.target).isascii()
    assert address.target.isprintable()
    assert " " not in address.target
    assert 0 < address.port < 65536


@pytest.mark.parametrize("text", ["mail", "10.0.0.1", "::1", "mail.krankenhaus-köln.example"])
def test_a_host_is_a_name_or_an_ip_address(text: str) -> None:
    assert host_name(text).isascii()


@pytest.mark.parametrize("text", ["", "mail:25", "u:geheim@mail", "smtp://mail", "ma il", "m\0"])
def test_a_host_that_is_none_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="neither a name nor an IP address"):
        host_name(text)


def test_the_host_of_a_mail_address_gets_its_ascii_form_and_the_name_stays() -> None:
    assert mail_address("it@köln.example") == "it@xn--kln-sna.example"
    assert mail_address("röntgen@h.example") == "röntgen@h.example"


@pytest.mark.parametrize(
    "text", ["", "it", "@h", "it@", "a b@h", "a\nb@h", "a@b@h", "<a@h", "a\u0001@h"]
)
def test_what_is_no_mail_address_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=r"form name@host|neither a name"):
        mail_address(text)
