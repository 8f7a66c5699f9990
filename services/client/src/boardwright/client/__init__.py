"""The Python SDK: what a training script needs to hand a model over, and all that the command line does.

    from boardwright.client import Client
    version = Client().push("digits", "model.onnx", input_spec="input.json")

    client.py        Client: push and optimize, and the verbs of
    starting.py      compile, build, measure
    releasing.py     release, promote, roll back
    project.py       what they share: the connection and one project's resources
    pushing.py       what a push uploads and records
    models.py        versions, variants, artifacts, measurements, releases, stages, lineage, history
    datasets.py      samples in, sealed dataset versions out
    jobs.py          compile and build jobs, and the files that their steps made
    optimizing.py    recipes tried from cheap to dear, judged by `boardwright.selection`
    board_figures.py what a variant costs on a board
    delivery.py      fleets, devices, rollouts
    catalogue.py     boards, toolchains, recipes
    auditing.py      who did what, over all services
    content.py       blobs up and down
    references.py    shorthand: digits@3, digits@production
    credentials.py   where the server is and which token to show
    connection.py    one gRPC channel to one authority; statuses become exceptions
    provenance.py    commit and run, as CI or git tell them
    ultralytics.py   attach(model): push at the end of a training run

Results are the API's own messages (`boardwright.api.…_pb2`), so that everything the protos describe is there.
Everything that goes wrong is a `BoardwrightError` with a stable `reason` and a message that says what to do.
"""

from boardwright.client.client import Client
from boardwright.client.credentials import Credentials, CredentialsMissing, find_credentials
from boardwright.client.jobs import JobFailed
from boardwright.rpc.errors import (
    Aborted,
    AlreadyExists,
    BoardwrightError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from boardwright.selection import Constraints, Selection

__all__ = [
    "Aborted",
    "AlreadyExists",
    "BoardwrightError",
    "Client",
    "Constraints",
    "Credentials",
    "CredentialsMissing",
    "FailedPrecondition",
    "InvalidArgument",
    "JobFailed",
    "NotFound",
    "PermissionDenied",
    "ResourceExhausted",
    "Selection",
    "Unauthenticated",
    "Unavailable",
    "find_credentials",
]
