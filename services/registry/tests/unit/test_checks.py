import pytest

from boardwright.registry import checks
from boardwright.registry.domain.resources import File
from boardwright.rpc.errors import InvalidArgument

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a\\b", "a\x00", "x" * 600, "a/"]
)
def test_a_path_that_leads_elsewhere_is_refused(path):
    with pytest.raises(InvalidArgument):
        checks.files("files", [File(path, DIGEST, 1)])


@pytest.mark.parametrize(
    "digest", ["", "sha256:", "sha256:" + "A" * 64, "md5:" + "a" * 64, DIGEST + "\n", "a" * 64]
)
def test_what_is_no_digest_is_refused(digest):
    with pytest.raises(InvalidArgument):
        checks.digest("digest", digest)


def test_files_are_needed_and_named_once():
    for files in ([], [File("a", DIGEST, 1)] * 2, [File(f"f{i}", DIGEST, 1) for i in range(1001)]):
        with pytest.raises(InvalidArgument):
            checks.files("files", files)
    checks.files("files", [File("a/b.onnx", DIGEST, 1), File("c.json", DIGEST, 1)])


def test_json_becomes_canonical():
    assert checks.json_object("x", '{"b": 1,\n "a": "é"}') == '{"a":"é","b":1}'
    assert checks.json_object("x", "") == ""


@pytest.mark.parametrize(
    "value",
    ["[1]", "1", "{", '{"a": NaN}', "nul", "[" * 100_000, '{"a": "\\ud800"}', '"' + "x" * (1 << 20) + '"'],
)
def test_other_json_is_refused(value):
    with pytest.raises(InvalidArgument):
        checks.json_object("x", value)


@pytest.mark.parametrize(
    "labels", [{"": "x"}, {"a b": "x"}, {"k": "v" * 2000}, {str(i): "" for i in range(65)}]
)
def test_odd_labels_are_refused(labels):
    with pytest.raises(InvalidArgument):
        checks.labels("labels", labels)


@pytest.mark.parametrize(
    "values", [{}, {"a": float("nan")}, {"a": float("inf")}, {str(i): 0.0 for i in range(300)}]
)
def test_odd_figures_are_refused(values):
    with pytest.raises(InvalidArgument):
        checks.figures("values", values, needed=True)
