"""The calibration service, over gRPC."""

from __future__ import annotations

import grpc

from boardwright.api.calibration.v1 import calibration_pb2 as pb
from boardwright.api.calibration.v1 import calibration_pb2_grpc
from boardwright.rpc.errors import FailedPrecondition, from_rpc_error


class CalibrationClient:
    """``Datasets`` over a channel to the calibration service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._calibration = calibration_pb2_grpc.CalibrationStub(channel)

    async def manifest_digest(self, actor: str, name: str) -> tuple[str, str]:
        """See ``Datasets``."""
        try:
            version = await self._calibration.GetDatasetVersion(
                pb.GetDatasetVersionRequest(name=name), metadata=(("x-boardwright-principal", actor),)
            )
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        if version.state != pb.DatasetVersion.STATE_SEALED:
            raise FailedPrecondition(
                "DATASET_NOT_SEALED", f"{version.name} is still open; seal it first.", dataset=version.name
            )
        return version.name, version.manifest_digest
