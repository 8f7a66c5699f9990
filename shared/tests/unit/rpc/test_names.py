import pytest
from hypothesis import given
from hypothesis import strategies as st

from boardwright.rpc.errors import InvalidArgument
from boardwright.rpc.names import NameTemplate, check_id, project_of

VERSION = NameTemplate("projects/{project}/models/{model}/versions/{version#}")
ID = st.from_regex(r"[a-z][a-z0-9-]{0,62}", fullmatch=True)


@given(ID, ID, st.integers(1, 10**15))
def test_a_name_gives_its_parts_back(project, model, number):
    name = VERSION.format(project, model, number)
    assert VERSION.parse(name) == (project, model, str(number))
    assert project_of(name) == project


@pytest.mark.parametrize(
    "name",
    ["", "projects/p/models/m", "projects/p/models/m/versions/0", "projects/p/models/m/versions/x",
     "projects/P/models/m/versions/1", "projects/p/models/m/versions/1/", "x/p/models/m/versions/1",
     "projects/p/models/../versions/1", "projects/p/models/m/versions/1\n", "projects//models/m/versions/1",
     "projects/p/models/" + "m" * 64 + "/versions/1"],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_the_template(name):
    assert VERSION.match(name) is None
    with pytest.raises(InvalidArgument) as caught:
        VERSION.parse(name, "parent")
    assert caught.value.metadata == {"field": "parent", "template": VERSION.template}
    assert "projects/{project}/models/{model}/versions/{version}" in caught.value.message


@given(st.text(max_size=40))
def test_any_text_either_fits_or_is_refused(name):
    if VERSION.match(name) is None:
        with pytest.raises(InvalidArgument):
            VERSION.parse(name)


def test_ids():
    assert check_id("yolo-v5n") == "yolo-v5n"
    for wrong in ("", "A", "1a", "a_b", "a" * 64, "a\n", "é"):
        with pytest.raises(InvalidArgument):
            check_id(wrong, "model_id")


def test_names_without_a_project_have_none():
    assert project_of("models/m") == ""
    assert project_of("") == ""
