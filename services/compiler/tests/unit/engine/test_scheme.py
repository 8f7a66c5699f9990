"""The engine's schemes are the board catalogue's profiles, under the same names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from boardwright.compiler.domain.profiles import KNOWN_PROFILES, BoardProfile
from boardwright.compiler.engine.scheme import PROFILES, scheme_for

CATALOGUE = Path(__file__).parents[4] / "builder/src/boardwright/builder/boards/profiles.yaml"


def catalogue() -> dict[str, Any]:
    return dict(yaml.safe_load(CATALOGUE.read_text(encoding="utf-8"))["profiles"])


def test_names_are_the_same_everywhere() -> None:
    assert set(catalogue()) == set(PROFILES) == set(KNOWN_PROFILES)


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_a_profile_means_the_same_to_the_builder_and_the_engine(name: str) -> None:
    entry = {"power_of_two": False, "float16": "none", **catalogue()[name]}
    spelled_out = {key: entry[key] for key in PROFILES[name].to_json()}
    assert scheme_for(spelled_out) == scheme_for(name) == PROFILES[name]
    assert BoardProfile(name, spelled_out).parameter == name
