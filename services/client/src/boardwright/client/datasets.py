"""Datasets: samples on disk become a sealed, immutable dataset version."""

from __future__ import annotations

import builtins
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boardwright.api.calibration.v1 import calibration_pb2 as pb
from boardwright.client import references
from boardwright.client.connection import Connection, every_page
from boardwright.client.content import Content
from boardwright.client.progress import Progress, silent
from boardwright.rpc.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound

if TYPE_CHECKING:
    from boardwright.samples import BadSample

_SAMPLES_PER_CALL = 2000
_NAMED_AT_MOST = 20
_LISTED_AT_MOST, _LONGEST_TEXT = 100, 1024
"""How many left out samples a version lists, and how long their texts may be."""
_DECODING_THREADS = 4
_CHECKED_PER_STEP = 50


class Datasets:
    """`client.datasets`. A dataset is named by its id, a version as id@number."""

    def __init__(self, connection: Connection, content: Content, project: str) -> None:
        self._connection = connection
        self._content = content
        self._project = project

    def add(
        self,
        dataset: str,
        path: str | Path,
        *,
        layout: str = "auto",
        split: str = "",
        limit: int = 0,
        skip_invalid: bool = False,
        seal: bool = True,
        reuse: bool = False,
        choose: Callable[[str], bool] | None = None,
        description: str = "",
        progress: Progress = silent,
    ) -> pb.DatasetVersion:
        """Pack and upload samples as the dataset's next version, and seal it.

        Nothing is added twice: packs are found by their digest, so a repeated or interrupted call sends only
        what is missing. The same content sealed again has the same manifest digest.

        Args:
            path: an image folder, a YOLO or COCO dataset, a CSV of labels, or NumPy arrays.
            layout: one of `boardwright.samples.LAYOUTS`, or "auto".
            split: only this part of the dataset ("val"), where its layout has parts.
            limit: take only the first so many samples (0: all).
            skip_invalid: leave bad images and labels out instead of refusing; the version lists them.
            seal: else the version stays open for more.
            reuse: when the newest sealed version holds exactly these samples, return that one. They are read
                once more to find out.
            choose: takes a sample by its name; for splits that the layout does not know.

        Raises:
            InvalidArgument: DATASET_UNREADABLE, and what else the layout's reader says.
            FailedPrecondition: SAMPLES_INVALID, naming file and line (nothing was sent then); DATASET_EMPTY.
        """
        from boardwright.samples import SampleError, read_layout

        try:
            source = read_layout(Path(path), layout, split=split)
            good, bad = self._sort_out(source, limit, choose)
        except SampleError as error:
            raise InvalidArgument(error.reason, error.message) from error
        except OSError as error:
            raise InvalidArgument("DATASET_UNREADABLE", f"cannot read {path}: {error}") from error
        if bad and not skip_invalid:
            raise _refusal(bad, len(bad) + len(good))
        if not good:
            held = f"none of {len(bad)} samples can be used, for example {bad[0]}" if bad else "no samples"
            raise FailedPrecondition(
                "DATASET_EMPTY", f"{path} ({source.layout} layout): {held}; nothing was added"
            )
        if reuse and (same := self._same(dataset, source, good)) is not None:
            return same
        if not skip_invalid:  # else sealing leaves them out, and the version lists them
            _check_images(good, progress)
        self._ensure(dataset, source.task, description)
        version = self.open_version(dataset, source.classes)
        self._add_samples(version.name, good, progress)
        if not seal:
            return version
        return self.seal(version.name, skip_invalid=skip_invalid, left_out=bad, progress=progress)

    def open_version(
        self, dataset: str, classes: Iterable[str] = (), *, request_id: str = ""
    ) -> pb.DatasetVersion:
        """Open a dataset's next version. Raises: NotFound DATASET_NOT_FOUND."""
        opened: pb.DatasetVersion = self._connection.calibration.CreateDatasetVersion(
            pb.CreateDatasetVersionRequest(
                parent=references.in_project(self._project, "datasets", dataset),
                classes=list(classes),
                request_id=request_id,
            )
        )
        return opened

    def seal(
        self,
        version: str,
        *,
        skip_invalid: bool = False,
        left_out: builtins.list[BadSample] | None = None,
        progress: Progress = silent,
    ) -> pb.DatasetVersion:
        """Verify every sample, compute the statistics, and make a version immutable.

        Args:
            left_out: what was not even added; the version lists it beside what sealing leaves out.

        Raises:
            FailedPrecondition: DATASET_EMPTY; SAMPLES_CORRUPT, naming up to 20.
            NotFound: DATASET_VERSION_NOT_FOUND.
        """
        name = references.dataset_version_name(self._project, version)
        request = pb.SealDatasetVersionRequest(
            name=name,
            skip_invalid=skip_invalid,
            left_out=[_invalid(sample) for sample in (left_out or [])[:_LISTED_AT_MOST]],
        )
        sealed: pb.DatasetVersion | None = None
        for message in self._connection.calibration.stream("SealDatasetVersion", request):
            progress(message.done, message.total, "sealing")
            if message.HasField("version"):
                sealed = message.version
        return sealed if sealed is not None else self.version(name)

    def get(self, dataset: str) -> pb.Dataset:
        """A dataset. Raises: NotFound DATASET_NOT_FOUND."""
        name = references.in_project(self._project, "datasets", dataset)
        found: pb.Dataset = self._connection.calibration.GetDataset(pb.GetDatasetRequest(name=name))
        return found

    def list(self, *, where: str = "", limit: int = 0) -> Iterator[pb.Dataset]:
        """The project's datasets by id."""
        request = pb.ListDatasetsRequest(parent=f"projects/{self._project}", filter=where)
        return every_page(self._connection.calibration.ListDatasets, request, "datasets", limit)

    def version(self, reference: str) -> pb.DatasetVersion:
        """A version: faces@2, or faces for the newest sealed one. Raises: NotFound."""
        name = references.dataset_version_name(self._project, reference)
        found: pb.DatasetVersion = self._connection.calibration.GetDatasetVersion(
            pb.GetDatasetVersionRequest(name=name)
        )
        return found

    def versions(self, dataset: str, *, where: str = "", limit: int = 0) -> Iterator[pb.DatasetVersion]:
        """A dataset's versions, newest first."""
        request = pb.ListDatasetVersionsRequest(
            parent=references.in_project(self._project, "datasets", dataset), filter=where
        )
        return every_page(self._connection.calibration.ListDatasetVersions, request, "versions", limit)

    def samples(self, version: str, *, where: str = "", limit: int = 0) -> Iterator[pb.Sample]:
        """A version's samples in the order they were added."""
        name = references.dataset_version_name(self._project, version)
        request = pb.ListSamplesRequest(parent=name, filter=where)
        return every_page(self._connection.calibration.ListSamples, request, "samples", limit)

    def _ensure(self, dataset: str, task: str, description: str) -> None:
        request = pb.CreateDatasetRequest(
            parent=f"projects/{self._project}",
            dataset_id=dataset,
            dataset=pb.Dataset(task=task, description=description),
        )
        try:
            self._connection.calibration.CreateDataset(request)
        except AlreadyExists as error:
            if error.reason != "DATASET_EXISTS":
                raise

    def _same(self, dataset: str, source: Any, samples: builtins.list[Any]) -> pb.DatasetVersion | None:
        """The newest sealed version, if its manifest is the one that these samples would get."""
        try:
            newest = self.version(dataset)
        except NotFound:
            return None
        if newest.sample_count != len(samples):
            return None
        return newest if newest.manifest_digest == _manifest_digest(source, samples) else None

    @staticmethod
    def _sort_out(
        source: Any, limit: int, choose: Callable[[str], bool] | None
    ) -> tuple[builtins.list[Any], builtins.list[Any]]:
        """The samples that can be read, and those that cannot."""
        from boardwright.samples import BadSample

        good: builtins.list[Any] = []
        bad: builtins.list[Any] = []
        for sample in source:
            if choose is not None and not choose(sample.name):
                continue
            (bad if isinstance(sample, BadSample) else good).append(sample)
            if limit and len(good) >= limit:
                break
        return good, bad

    def _add_samples(self, version: str, samples: builtins.list[Any], progress: Progress) -> None:
        from boardwright.samples import write_packs

        done = 0
        with tempfile.TemporaryDirectory(prefix="boardwright-packs-") as folder:
            for pack in write_packs(samples, Path(folder)):
                if pack.path is not None:
                    self._content.upload(pack.path)
                    pack.path.unlink()
                messages = [_message(sample) for sample in pack.samples]
                for start in range(0, len(messages), _SAMPLES_PER_CALL):
                    part = messages[start : start + _SAMPLES_PER_CALL]
                    self._connection.calibration.AddSamples(
                        pb.AddSamplesRequest(parent=version, samples=part)
                    )
                done += len(messages)
                progress(done, len(samples), "uploading samples")


def _check_images(samples: list[Any], progress: Progress) -> None:
    """Decode every image here, so that a bad one is named before anything is sent or opened.

    Raises: FailedPrecondition SAMPLES_INVALID.
    """
    from boardwright.samples import check_found

    bad: list[Any] = []
    # Pillow decodes outside of the interpreter's lock.
    with ThreadPoolExecutor(_DECODING_THREADS) as threads:
        for number, found in enumerate(threads.map(check_found, samples), start=1):
            if found is not None:
                bad.append(found)
            if number % _CHECKED_PER_STEP == 0 or number == len(samples):
                progress(number, len(samples), "checking samples")
    if bad:
        raise _refusal(bad, len(samples))


def _refusal(bad: list[Any], count: int) -> FailedPrecondition:
    named = "\n  ".join(str(sample) for sample in bad[:_NAMED_AT_MOST])
    more = f"\n  and {len(bad) - _NAMED_AT_MOST} more" if len(bad) > _NAMED_AT_MOST else ""
    samples = "1 sample" if count == 1 else f"{count} samples"
    return FailedPrecondition(
        "SAMPLES_INVALID",
        f"{len(bad)} of {samples} cannot be used:\n  {named}{more}\n"
        "Nothing was added. Repair them, or leave them out: --skip-invalid (SDK: skip_invalid=True).",
        count=str(len(bad)),
    )


def _invalid(bad: BadSample) -> pb.Invalid:
    place = f"{Path(bad.file).name}:{bad.line}: " if bad.line else ""
    return pb.Invalid(sample=bad.name[:_LONGEST_TEXT], reason=f"{place}{bad.reason}"[:_LONGEST_TEXT])


def _manifest_digest(source: Any, samples: builtins.list[Any]) -> str:
    """The digest of the manifest that sealing these samples gives (`boardwright.samples.manifest`)."""
    from boardwright.content import Digest
    from boardwright.samples import DatasetManifest, ManifestSample, PackEntry, write_packs

    sizes: dict[str, int] = {}
    packed: builtins.list[Any] = []
    with tempfile.TemporaryDirectory(prefix="boardwright-packs-") as folder:
        for pack in write_packs(samples, Path(folder)):
            if pack.path is not None:
                sizes[pack.digest] = pack.size_bytes
                pack.path.unlink()
            packed += pack.samples
    numbers = {digest: number for number, digest in enumerate(sorted(sizes))}
    entries = [
        ManifestSample(
            sample.name,
            sample.digest,
            sample.size_bytes,
            sample.media_type,
            numbers[sample.pack_digest],
            sample.pack_offset,
            sample.label,
        )
        for sample in sorted(packed, key=lambda sample: sample.name)
    ]
    packs = tuple(PackEntry(digest, sizes[digest]) for digest in sorted(sizes))
    manifest = DatasetManifest(source.task, tuple(source.classes), packs, tuple(entries))
    return str(Digest.of(manifest.to_bytes()))


def _message(sample: Any) -> pb.Sample:
    message = pb.Sample(
        name=sample.name,
        digest=sample.digest,
        size_bytes=sample.size_bytes,
        media_type=sample.media_type,
        pack_digest=sample.pack_digest,
        pack_offset=sample.pack_offset,
    )
    if isinstance(sample.label, int):
        message.label.class_id = sample.label
    elif sample.label is not None:
        boxes = [
            pb.Box(
                class_id=box.class_id,
                center_x=box.center_x,
                center_y=box.center_y,
                width=box.width,
                height=box.height,
                crowd=box.crowd,
            )
            for box in sample.label
        ]
        message.label.boxes.CopyFrom(pb.Boxes(boxes=boxes))
    return message
