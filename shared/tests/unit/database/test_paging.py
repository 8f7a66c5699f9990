import pytest

from boardwright.database import paging
from boardwright.rpc.errors import InvalidArgument


def test_a_token_gives_its_key_back_for_the_same_list():
    token = paging.encode([41, "x"], "models", 'task = "text"')
    assert paging.decode(token, "models", 'task = "text"', kinds=(int, str)) == [41, "x"]


def test_the_first_page_has_no_key():
    assert paging.decode("", "models") is None


@pytest.mark.parametrize("token", ["nonsense", "e30", "W10", "bnVsbA", "%%%", "Ä"])
def test_what_is_no_token_is_refused(token):
    with pytest.raises(InvalidArgument) as caught:
        paging.decode(token, "models")
    assert caught.value.reason == "PAGE_TOKEN_MISMATCH"


def test_a_token_of_another_filter_is_refused():
    token = paging.encode([1], "models", "a = 1")
    with pytest.raises(InvalidArgument) as caught:
        paging.decode(token, "models", "a = 2")
    assert caught.value.reason == "PAGE_TOKEN_MISMATCH"


@pytest.mark.parametrize(
    ("key", "kinds"),
    [(["x"], (int,)), ([1], (str,)), ([1], (int, str)), ([2**63], (int,)), (["\0"], (str,)), ([True], (int,)),
     ([{"a": 1}], (int,)), ([None], (int,)), ([1.5], (int,))],
)  # fmt: skip
def test_a_made_up_key_that_no_column_could_have_is_refused(key, kinds):
    with pytest.raises(InvalidArgument) as caught:
        paging.decode(paging.encode(key, "models"), "models", kinds=kinds)
    assert caught.value.reason == "PAGE_TOKEN_MISMATCH"


def test_page_sizes_have_a_default_and_a_ceiling():
    assert [paging.page_size(n) for n in (0, 7, 1000, 100_000)] == [50, 7, 1000, 1000]
    with pytest.raises(InvalidArgument):
        paging.page_size(-1)


def test_a_full_page_without_more_rows_is_the_last():
    assert paging.cut([1, 2], 2, lambda r: [r], "s") == ([1, 2], "")
    page, token = paging.cut([1, 2, 3], 2, lambda r: [r], "s")
    assert page == [1, 2]
    assert paging.decode(token, "s") == [2]
