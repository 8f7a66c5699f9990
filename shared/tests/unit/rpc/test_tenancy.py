"""The server looks for foreign names everywhere in a request, and leaves text alone."""

import pytest

from boardwright.api.builder.v1 import builder_pb2
from boardwright.api.calibration.v1 import calibration_pb2
from boardwright.api.compiler.v1 import compiler_pb2
from boardwright.api.registry.v1 import registry_pb2
from boardwright.rpc.errors import InvalidArgument
from boardwright.rpc.tenancy import check_names

OWN, FOREIGN = "projects/mine/models/m/versions/1", "projects/other/models/m/versions/1"


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (builder_pb2.CreateBuildJobRequest(golden_dataset=FOREIGN), "golden_dataset"),
        (builder_pb2.CreateMeasureJobRequest(artifacts=[OWN, FOREIGN]), "artifacts"),
        (compiler_pb2.CreateCompileJobRequest(datasets={"a": OWN, "b": FOREIGN}), "datasets"),
        (registry_pb2.SetAliasRequest(alias=registry_pb2.Alias(name=OWN, version=FOREIGN)), "alias.version"),
        (
            registry_pb2.CreateMeasurementRequest(measurement=registry_pb2.Measurement(dataset=FOREIGN)),
            "measurement.dataset",
        ),
    ],
)
def test_a_foreign_name_is_refused_by_its_field(request_, field):
    with pytest.raises(InvalidArgument) as error:
        check_names(request_, "mine")
    assert (error.value.reason, error.value.metadata["field"]) == ("FIELD_INVALID", field)
    assert "project other" in error.value.message


@pytest.mark.parametrize(
    "request_",
    [
        builder_pb2.CreateBuildJobRequest(parent="projects/mine", variant=OWN),
        registry_pb2.PromoteReleaseRequest(name=OWN, reason=FOREIGN),
        registry_pb2.CreateModelVersionRequest(
            version=registry_pb2.ModelVersion(labels={"copied": FOREIGN}, description=FOREIGN)
        ),
        calibration_pb2.AddSamplesRequest(samples=[{"name": "projects/cats/1.jpg"}]),
    ],
)
def test_own_names_and_text_pass(request_):
    check_names(request_, "mine")
