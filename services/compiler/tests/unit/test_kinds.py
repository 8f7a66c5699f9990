"""Step kinds: what the service declares is what the step process finds."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

from boardwright.compiler.domain.passes import PASSES
from boardwright.compiler.kinds import KINDS
from boardwright.jobs.step_api import ENTRY_POINT_GROUP, kind_of


def test_each_kind_has_an_entry_point_that_implements_it():
    points = {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)}
    for name, kind in KINDS.items():
        assert kind_of(points[name].load()) is kind


def test_each_pass_has_a_kind():
    assert {kind.step_kind for kind in PASSES.values()} == set(KINDS)


def test_environments_name_versions_and_the_cpus_integers():
    environment = KINDS["compile/quantize"].environment()
    assert environment["onnxruntime"] == importlib.metadata.version("onnxruntime")
    assert environment["integer-arithmetic"]


def test_the_service_loads_nothing_heavy():
    code = (
        "import sys, boardwright.compiler.app\n"
        "heavy = {'numpy', 'onnx', 'onnxruntime', 'torch', 'PIL', 'sqlalchemy', 'jsonschema', 'yaml'}\n"
        "print(','.join(sorted(heavy & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
