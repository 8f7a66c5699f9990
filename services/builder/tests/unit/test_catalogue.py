"""The shipped catalogue is whole, and a wrong file is named with the place in it."""

from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from boardwright.builder.catalogue import BoardUnknown, CatalogueError, load_catalogue, shipped_catalogue
from boardwright.model.host import detect_host
from boardwright.toolchains.catalogue import toolchain_named


def test_the_first_boards_are_there() -> None:
    names = [board.name for board in shipped_catalogue().boards()]
    assert names == ["imx8m-plus", "jetson-orin-nx", "raspberry-pi-5", "sk-tda4vm", "x86-64"]


@pytest.mark.parametrize("board", shipped_catalogue().boards(), ids=lambda board: board.name)
def test_every_toolchain_exists_and_its_runtime_is_on_the_board(board) -> None:  # type: ignore[no-untyped-def]
    for name in board.toolchains:
        toolchain = toolchain_named(name)
        assert board.architecture in toolchain.architectures
        assert board.runtime(toolchain.runtime).quantization_profile


@pytest.mark.parametrize("board", shipped_catalogue().boards(), ids=lambda board: board.name)
def test_every_source_that_a_comment_cites_is_listed(board) -> None:  # type: ignore[no-untyped-def]
    import re

    text = (files("boardwright.builder") / "boards" / f"{board.name}.yaml").read_text(encoding="utf-8")
    cited = {name for line in text.splitlines() for name in re.findall(r"#.*?\[([a-z0-9-]+)", line)}
    listed = {source.id for source in board.sources}
    assert cited <= listed
    assert board.sources and all(source.url.startswith("https://") for source in board.sources)


def test_profiles_say_what_each_kind_of_kernel_likes() -> None:
    profiles = {board.name: board.quantization_profile for board in shipped_catalogue().boards()}
    shorts = {
        name: (p.activation_type, p.weight_type, p.activation_symmetric, p.per_channel)
        for name, p in profiles.items()
    }
    assert shorts == {
        "x86-64": ("uint8", "int8", False, True),
        "raspberry-pi-5": ("int8", "int8", False, True),
        "jetson-orin-nx": ("int8", "int8", True, True),
        "imx8m-plus": ("int8", "int8", False, False),
        "sk-tda4vm": ("int8", "int8", True, False),
    }
    assert [name for name, profile in profiles.items() if profile.power_of_two] == ["sk-tda4vm"]


def test_a_profile_is_what_the_quantize_pass_takes() -> None:
    scheme = shipped_catalogue().board("x86-64").quantization_profile.to_scheme()
    assert scheme == {
        "activation_type": "uint8",
        "weight_type": "int8",
        "activation_symmetric": False,
        "weight_symmetric": True,
        "per_channel": True,
        "reduce_range": False,
        "power_of_two": False,
        "operators": [],
        "float16": "none",
    }


def test_a_host_without_vnni_keeps_weights_to_seven_bits() -> None:
    runtime = shipped_catalogue().board("x86-64").runtimes[0]
    assert runtime.profile_on(frozenset({"avx2"})).name == "x86"
    assert runtime.profile_on(frozenset({"avx2"})).reduce_range
    assert runtime.profile_on(frozenset({"avx2", "vnni"})).name == "x86-vnni"


def test_this_machine_is_in_the_catalogue() -> None:
    host = detect_host()
    if host.architecture != "x86_64":
        pytest.skip("only x86-64 machines are known without a device tree")
    assert shipped_catalogue().board(host.board).architecture == "x86_64"


def test_an_unknown_board_gets_the_nearest() -> None:
    with pytest.raises(BoardUnknown, match="raspberry-pi-5"):
        shipped_catalogue().board("raspbery-pi5")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of the catalogue to break."""
    source = files("boardwright.builder") / "boards"
    (tmp_path / "operators").mkdir()
    for part in ("", "operators"):
        for file in (source / part if part else source).iterdir():
            if file.name.endswith(".yaml"):
                (tmp_path / part / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    return tmp_path


def _change(path: Path, change) -> None:  # type: ignore[no-untyped-def]
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(yaml.safe_dump(document), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d.update(colour="green"), "colour"),
        (lambda d: d.pop("sources"), "sources"),
        (lambda d: d["soc"].update(cores="four"), r"\$\.soc\.cores"),
        (lambda d: d["runtimes"][0].update(quantization_profile="arm64"), "no profile 'arm64'"),
        (lambda d: d["runtimes"][0].update(operator_support="nothing"), r"operators/nothing\.yaml"),
        (lambda d: d["runtimes"][0].update(runs_on="npu"), "unknown 'npu'"),
        (lambda d: d.update(board="raspberry-pi-6"), "carry its name"),
    ],
)
def test_a_wrong_entry_is_named(folder: Path, change, told: str) -> None:  # type: ignore[no-untyped-def]
    _change(folder / "raspberry-pi-5.yaml", change)
    with pytest.raises(CatalogueError, match=told) as caught:
        load_catalogue(folder)
    assert str(caught.value).startswith("raspberry-pi-5.yaml")


def test_powers_of_two_go_with_symmetric_integers_alone(folder: Path) -> None:
    _change(folder / "profiles.yaml", lambda d: d["profiles"]["tidl-mma1"].update(activation_type="uint8"))
    with pytest.raises(CatalogueError, match=r"\['tidl-mma1'\]\.activation_type: 'int8'"):
        load_catalogue(folder)


def test_a_file_that_is_no_yaml_is_named(folder: Path) -> None:
    (folder / "x86-64.yaml").write_text("a: [1", encoding="utf-8")
    with pytest.raises(CatalogueError, match=r"x86-64\.yaml: not YAML"):
        load_catalogue(folder)
