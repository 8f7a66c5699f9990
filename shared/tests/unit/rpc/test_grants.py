import pytest
from hypothesis import given
from hypothesis import strategies as st

from boardwright.rpc.errors import Unauthenticated
from boardwright.rpc.grants import Grant, mint, verify

GRANT = Grant("worker-1", "default", frozenset({"sha256:aa", "sha256:bb"}), "lease-7/", 2_000_000_000.0)


def test_a_grant_comes_back_whole():
    assert verify("key", mint("key", GRANT), now=1.0) == GRANT


def test_an_expired_grant_is_refused():
    with pytest.raises(Unauthenticated) as caught:
        verify("key", mint("key", GRANT), now=2_000_000_000.0)
    assert caught.value.reason == "GRANT_EXPIRED"


@pytest.mark.parametrize("key", ["other", ""])
def test_another_key_is_refused(key):
    with pytest.raises(Unauthenticated) as caught:
        verify(key, mint("key", GRANT), now=1.0)
    assert caught.value.reason == "GRANT_INVALID"


@given(st.data())
def test_no_changed_byte_is_accepted(data):
    token = mint("key", GRANT)
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(
        st.characters(codec="ascii", categories=["L", "N", "P"]).filter(lambda c: c != token[place])
    )
    with pytest.raises(Unauthenticated):
        verify("key", token[:place] + other + token[place + 1 :], now=1.0)


def test_minting_needs_a_key():
    with pytest.raises(ValueError, match="BOARDWRIGHT_GRANT_KEY"):
        mint("", GRANT)
