"""Messages to the domain and back."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from boardwright.api.calibration.v1 import calibration_pb2 as pb
from boardwright.calibration import errors, names
from boardwright.calibration.domain.dataset import (
    MAX_NAME_LENGTH,
    Dataset,
    DatasetVersion,
    Invalid,
    Sample,
    State,
)
from boardwright.calibration.domain.statistics import Statistics, Summary
from boardwright.calibration.ports import AuditEvent
from boardwright.calibration.sealing import NAMED_AT_MOST
from boardwright.rpc.errors import InvalidArgument
from boardwright.samples.labels import Box, Label

_STATES = {
    State.OPEN: pb.DatasetVersion.STATE_OPEN,
    State.SEALED: pb.DatasetVersion.STATE_SEALED,
}


def timestamp(microseconds: int) -> Timestamp | None:
    """A moment; None for 0, which stands for "not yet"."""
    if not microseconds:
        return None
    return Timestamp(seconds=microseconds // 1_000_000, nanos=microseconds % 1_000_000 * 1000)


def dataset(value: Dataset) -> pb.Dataset:
    """A dataset as a message."""
    return pb.Dataset(
        name=names.dataset_name(value.key),
        task=value.task,
        description=value.description,
        create_time=timestamp(value.create_us),
    )


def version(value: DatasetVersion) -> pb.DatasetVersion:
    """A version as a message."""
    return pb.DatasetVersion(
        name=names.version_name(value.key),
        number=value.key.number,
        state=_STATES[value.state],
        classes=value.classes,
        sample_count=value.sample_count,
        labelled_count=value.labelled_count,
        size_bytes=value.size_bytes,
        manifest_digest=value.manifest_digest,
        statistics=statistics(value.statistics) if value.statistics else None,
        left_out=[pb.Invalid(sample=entry.sample, reason=entry.reason) for entry in value.left_out],
        creator=value.creator,
        create_time=timestamp(value.create_us),
        seal_time=timestamp(value.seal_us),
    )


def statistics(value: Statistics) -> pb.Statistics:
    """Statistics as a message."""
    return pb.Statistics(
        count=value.count,
        size_bytes=value.size_bytes,
        width=_summary(value.width),
        height=_summary(value.height),
        brightness=_summary(value.brightness),
        contrast=_summary(value.contrast),
        channels=[pb.Histogram(counts=counts) for counts in value.channels()],
        class_counts=dict(value.class_counts),
    )


def _summary(value: Summary) -> pb.Statistics.Summary:
    return pb.Statistics.Summary(mean=value.mean, std=value.deviation, min=value.minimum, max=value.maximum)


def sample(value: Sample) -> pb.Sample:
    """A sample as a message."""
    message = pb.Sample(
        name=value.name,
        digest=value.digest,
        size_bytes=value.size_bytes,
        media_type=value.media_type,
        pack_digest=value.pack_digest,
        pack_offset=value.pack_offset,
    )
    if isinstance(value.label, int):
        message.label.class_id = value.label
    elif value.label is not None:
        message.label.boxes.SetInParent()
        for box in value.label:
            message.label.boxes.boxes.add(
                class_id=box.class_id,
                center_x=box.center_x,
                center_y=box.center_y,
                width=box.width,
                height=box.height,
                crowd=box.crowd,
            )
    return message


def to_sample(message: pb.Sample) -> Sample:
    """A sample from its message. Raises: InvalidArgument LABEL_INVALID for a label without content."""
    return Sample(
        message.name,
        message.digest,
        message.size_bytes,
        message.media_type,
        message.pack_digest,
        message.pack_offset,
        _label(message),
    )


def to_invalid(messages: Sequence[pb.Invalid]) -> tuple[Invalid, ...]:
    """What a caller left out. Raises: InvalidArgument FIELD_INVALID for more, or longer, than is kept."""
    longest = max((len(text) for entry in messages for text in (entry.sample, entry.reason)), default=0)
    if len(messages) > NAMED_AT_MOST or longest > MAX_NAME_LENGTH:
        raise InvalidArgument(
            "FIELD_INVALID",
            f"left_out may name {NAMED_AT_MOST} samples, in texts of up to {MAX_NAME_LENGTH} characters",
            field="left_out",
        )
    return tuple(Invalid(entry.sample, entry.reason) for entry in messages)


def _label(message: pb.Sample) -> Label:
    if not message.HasField("label"):
        return None
    kind = message.label.WhichOneof("label")
    if kind == "class_id":
        return message.label.class_id
    if kind == "boxes":
        return tuple(
            Box(box.class_id, box.center_x, box.center_y, box.width, box.height, box.crowd)
            for box in message.label.boxes.boxes
        )
    raise errors.sample_invalid(message.name, "the label is neither a class nor boxes", label=True)


def audit_event(project: str, value: AuditEvent) -> pb.AuditEvent:
    """An audit line as a message."""
    return pb.AuditEvent(
        name=names.AUDIT_EVENT.format(project, value.id),
        actor=value.actor,
        service=value.service,
        method=value.method,
        resource=value.resource,
        create_time=timestamp(value.create_us),
    )
