"""Push and pull of 200 MB beside plain clients on the same servers: `python bench/transfer.py [--json FILE]`.

Boardwright runs as it does in production: a registry and a gateway process, the client here. Each round moves
a new random file four ways, in turn, so that all of them meet the same noise:

- S3: Boardwright over SeaweedFS, and the plain `minio` client on the same SeaweedFS;
- directory: Boardwright over a folder, and a plain HTTP PUT and GET to a server of the same kind (uvicorn)
  that writes the body to a file in the same file system and syncs it, as Boardwright does.

The figure of each way is its median. Boardwright's includes hashing on both sides, the registry's commits
and the verification of what was stored; plain ways verify nothing. On loopback a plain GET of a cached file
may be faster than SHA-256 itself, and client and server share the processors. So a third way tells what is
left to gain: the plain one that verifies too, and does nothing else. It hashes what it pulls while it
comes, and what it pushes before it goes (content is asked for by digest before it travels) and, at the
directory, while it arrives.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import http.client
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from boardwright.api.registry.v1.blobs_pb2_grpc import BlobsStub
from boardwright.content import Digest
from boardwright.content.digest import digest_file
from boardwright.content.transfer import BlobTransfer
from boardwright.rpc.client import connect_sync
from boardwright.testing.asgi_server import listening_socket
from boardwright.testing.seaweedfs import ACCESS_KEY, SECRET_KEY, seaweed_server
from boardwright.testing.services import running_service

LIMIT_SHARE = 0.7
CHUNK_BYTES = 1 << 20
WAYS = ("s3", "s3 plain", "s3 verifying", "directory", "directory plain", "directory verifying")

Move = Callable[[Path, Path], None]
"""`move(source, destination)`: push the source, or pull what was pushed from it into the destination."""


def digest_of(path: Path) -> Digest:
    """Return the digest of a pushed file, which its maker wrote beside it."""
    return Digest(path.with_suffix(".sha256").read_text())


def free_addresses() -> tuple[str, str]:
    """Return two loopback addresses with ports that are free now."""
    with listening_socket() as (_, one), listening_socket() as (_, two):
        return one, two


@contextmanager
def boardwright(name: str, folder: Path, environment: dict[str, str]) -> Iterator[tuple[Move, Move]]:
    """Run a registry and a gateway; give push and pull."""
    with ExitStack() as stack:
        gateway_url, gateway_grpc = free_addresses()
        environment = {**environment, "BOARDWRIGHT_GATEWAY_URL": gateway_url}
        environment.setdefault("BOARDWRIGHT_BLOBS_URL", f"file://{folder / 'blobs'}")
        registry = stack.enter_context(running_service("registry", environment, folder=folder / "registry"))
        endpoints = {
            f"BOARDWRIGHT_{service}_ENDPOINT": registry.endpoint
            for service in ("REGISTRY", "CALIBRATION", "COMPILER", "BUILDER", "DELIVERY")
        }
        listen = {
            "BOARDWRIGHT_GATEWAY_LISTEN": gateway_url.removeprefix("http://"),
            "BOARDWRIGHT_GATEWAY_GRPC_LISTEN": gateway_grpc.removeprefix("http://"),
        }
        gateway_environment = {**environment, **endpoints, **listen}
        stack.enter_context(running_service("gateway", gateway_environment, folder=folder / "gateway"))
        channel = stack.enter_context(connect_sync(gateway_grpc, token=registry.tokens["developer"]))
        transfer = BlobTransfer(BlobsStub(channel))
        stack.callback(transfer.close)

        def push(source: Path, destination: Path) -> None:
            transfer.upload("default", source, what=name)

        def pull(source: Path, destination: Path) -> None:
            transfer.download("default", digest_of(source), destination, what=name)

        yield push, pull


def plain_s3(endpoint: str, bucket: str, *, verify: bool = False) -> tuple[Move, Move]:
    """Give push and pull with the plain client, which hashes what it moves where it shall verify."""
    from minio import Minio

    client = Minio(
        endpoint=endpoint.removeprefix("http://"),
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
        secure=False,
        region="us-east-1",
    )

    def push(source: Path, destination: Path) -> None:
        if verify:
            check(digest_file(source), source)
        client.fput_object(bucket_name=bucket, object_name=source.name, file_path=str(source))

    def pull(source: Path, destination: Path) -> None:
        if not verify:
            client.fget_object(bucket_name=bucket, object_name=source.name, file_path=str(destination))
            return
        answer = client.get_object(bucket_name=bucket, object_name=source.name)
        with destination.open("wb") as file, contextlib.closing(answer):
            check(copy_hashed(answer.stream(CHUNK_BYTES), file.write), source)
            answer.release_conn()

    return push, pull


def copy_hashed(chunks: Iterable[bytes], write: Callable[[bytes], object]) -> Digest:
    """Write chunks and return their digest; the hash has a thread of its own, one chunk behind."""
    hasher = hashlib.sha256()
    with ThreadPoolExecutor(1) as executor:
        hashing = None
        for chunk in chunks:
            if hashing is not None:
                hashing.result()
            hashing = executor.submit(hasher.update, chunk)
            write(chunk)
    return Digest(hasher.hexdigest())


def check(found: Digest, source: Path) -> None:
    """Refuse other bytes than the source's."""
    if found != digest_of(source):
        raise RuntimeError(f"{found} came instead of {source.name}")


@contextmanager
def plain_http(folder: Path, *, verify: bool = False) -> Iterator[tuple[Move, Move]]:
    """Run a plain file server in its own process; give push and pull, which hash where they shall verify."""
    folder.mkdir(parents=True)
    with listening_socket() as (listener, url):
        listener.set_inheritable(True)
        arguments = [sys.executable, __file__, "--serve", str(listener.fileno()), "--folder", str(folder)]
        with subprocess.Popen(arguments, pass_fds=[listener.fileno()]) as server:
            address = url.removeprefix("http://")

            def push(source: Path, destination: Path) -> None:
                query = f"?digest={digest_file(source).hex}" if verify else ""
                connection = http.client.HTTPConnection(address, blocksize=CHUNK_BYTES, timeout=60)
                with source.open("rb") as file:
                    size = str(source.stat().st_size)
                    connection.request(
                        "PUT", f"/{source.name}{query}", body=file, headers={"Content-Length": size}
                    )
                    answer = connection.getresponse()
                    answer.read()
                connection.close()
                if answer.status != 200:
                    raise RuntimeError(f"the plain server answered {answer.status}")

            def pull(source: Path, destination: Path) -> None:
                connection = http.client.HTTPConnection(address, timeout=60)
                connection.request("GET", f"/{source.name}")
                answer = connection.getresponse()
                with destination.open("wb") as file:
                    if verify:
                        check(copy_hashed(iter(lambda: answer.read(CHUNK_BYTES), b""), file.write), source)
                    else:
                        shutil.copyfileobj(answer, file, CHUNK_BYTES)
                connection.close()

            try:
                yield push, pull
            finally:
                server.terminate()


def serve_plain(descriptor: int, folder: Path) -> None:
    """Serve PUT and GET of files: what one would write without Boardwright."""
    import socket

    import uvicorn

    async def app(scope: Any, receive: Any, send: Any) -> None:
        path = folder / Path(scope["path"]).name
        headers: list[tuple[bytes, bytes]] = []
        if scope["method"] == "PUT":
            wanted = scope["query_string"].decode().removeprefix("digest=")
            found = await receive_file(path, receive, verify=bool(wanted))
            status = 200 if found == wanted else 400
            await send(
                {"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]}
            )
        else:
            headers = [(b"content-length", str(path.stat().st_size).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            with path.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    listener = socket.socket(fileno=descriptor)
    uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off")).run(sockets=[listener])


async def receive_file(path: Path, receive: Any, *, verify: bool) -> str:
    """Write a body to a file that is synced; returns its SHA-256, or "" where nobody asked for it.

    The hash runs beside the arrival of the next 4 MiB.
    """
    hasher, loop = hashlib.sha256(), asyncio.get_running_loop()
    pending, hashing = bytearray(), None
    with path.open("wb") as file:
        more = True
        while more:
            message = await receive()
            body = message.get("body", b"")
            more = message.get("more_body", False)
            file.write(body)
            if verify:
                pending += body
                if len(pending) >= 4 * CHUNK_BYTES or not more:
                    if hashing is not None:
                        await hashing
                    hashing = loop.run_in_executor(None, hasher.update, pending)
                    pending = bytearray()
        file.flush()
        os.fsync(file.fileno())
    if hashing is not None:
        await hashing
    return hasher.hexdigest() if verify else ""


def make_file(path: Path, size: int) -> None:
    """Write a random file, and its digest beside it."""
    data = os.urandom(size)
    path.write_bytes(data)
    path.with_suffix(".sha256").write_text(hashlib.sha256(data).hexdigest())


def free_memory(folder: Path, size: int) -> None:
    """Leave memory free that the host has backed already: on virtual machines the first touch costs more than
    writing, and would fall on whichever way comes next.
    """
    scratch = folder / "scratch"
    block = bytes(CHUNK_BYTES)
    with scratch.open("wb") as file:
        for _ in range(size // CHUNK_BYTES):
            file.write(block)
    scratch.unlink()
    os.sync()


def measure(folder: Path, size: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of every push and pull, by way."""
    seconds: dict[str, dict[str, list[float]]] = {way: {"push": [], "pull": []} for way in WAYS}
    with ExitStack() as stack:
        seaweed = stack.enter_context(seaweed_server(folder / "seaweedfs"))
        for bucket in ("boardwright", "plain", "verifying"):
            seaweed.make_bucket(bucket)
        s3 = {
            "BOARDWRIGHT_BLOBS_URL": f"s3://boardwright?endpoint={seaweed.endpoint}",
            "BOARDWRIGHT_S3_ACCESS_KEY": ACCESS_KEY,
            "BOARDWRIGHT_S3_SECRET_KEY": SECRET_KEY,
        }
        moves = {
            "s3": stack.enter_context(boardwright("s3", folder / "s3", s3)),
            "s3 plain": plain_s3(seaweed.endpoint, "plain"),
            "s3 verifying": plain_s3(seaweed.endpoint, "verifying", verify=True),
            "directory": stack.enter_context(boardwright("directory", folder / "directory", {})),
            "directory plain": stack.enter_context(plain_http(folder / "plain")),
            "directory verifying": stack.enter_context(plain_http(folder / "verifying", verify=True)),
        }
        for number in range(rounds + 1):  # the first warms everything up
            source, destination = folder / f"source-{number}.bin", folder / "destination"
            make_file(source, size)
            ways = WAYS if number % 2 else WAYS[::-1]
            for verb, index in (("push", 0), ("pull", 1)):
                for way in ways:
                    destination.unlink(missing_ok=True)
                    free_memory(folder, 2 * size)
                    started = time.monotonic()
                    moves[way][index](source, destination)
                    taken = time.monotonic() - started
                    if number:
                        seconds[way][verb].append(taken)
                    if verb == "pull" and Digest.of(destination.read_bytes()) != digest_of(source):
                        raise RuntimeError(f"{way} gave back other bytes")
            source.unlink()
    return seconds


def hashing_seconds(size: int) -> float:
    """Return how long SHA-256 of this many bytes in memory takes here, at best of three."""
    data = bytes(size)
    taken = []
    for _ in range(3):
        started = time.monotonic()
        hashlib.sha256(data).digest()
        taken.append(time.monotonic() - started)
    return min(taken)


def judge(seconds: dict[str, dict[str, list[float]]], size: int) -> dict[str, Any]:
    """Return medians in MB/s and shares."""
    rates = {
        way: {verb: size / 1e6 / statistics.median(values) for verb, values in verbs.items()}
        for way, verbs in seconds.items()
    }

    def shares(peer: str) -> dict[str, dict[str, float]]:
        return {
            store: {verb: rates[store][verb] / rates[f"{store} {peer}"][verb] for verb in ("push", "pull")}
            for store in ("s3", "directory")
        }

    return {
        "bench": "transfer",
        "machine": {"cpus": os.cpu_count(), "platform": platform.platform()},
        "size_bytes": size,
        "seconds": seconds,
        "megabytes_per_second": rates,
        "hashing_megabytes_per_second": size / 1e6 / hashing_seconds(size),
        "share_of_plain": shares("plain"),
        "share_of_verifying": shares("verifying"),
        "limits": {"share_of_plain": LIMIT_SHARE},
    }


def table(result: dict[str, Any]) -> str:
    """Return the result for people."""
    header = f"{'MB/s (median)':<18}{'Boardwright':>12}{'plain':>10}{'share':>8}{'verifying':>12}{'share':>8}"
    lines = [header]
    rates = result["megabytes_per_second"]
    for store in ("s3", "directory"):
        for verb in ("push", "pull"):
            line = f"{store + ' ' + verb:<18}{rates[store][verb]:>12.0f}"
            for peer, width in (("plain", 10), ("verifying", 12)):
                share = result[f"share_of_{peer}"][store][verb]
                line += f"{rates[f'{store} {peer}'][verb]:>{width}.0f}{share:>8.0%}"
            lines.append(line)
    hashing = result["hashing_megabytes_per_second"]
    lines.append(f"SHA-256 alone     {hashing:>12.0f}   once on each side of a push, once in a pull")
    lines.append(
        f"plain: minio client, HTTP PUT and GET (limit {LIMIT_SHARE:.0%}); verifying: those, hashing"
    )
    return "\n".join(lines)


def main() -> int:
    """Run the bench; exit status 1 where a limit is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, default=Path("runs/transfer.json"))
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve_plain(options.serve, options.folder)
        return 0
    folder = Path(tempfile.mkdtemp(prefix="boardwright-transfer-"))
    try:
        result = judge(
            measure(folder, options.megabytes * 1_000_000, options.rounds), options.megabytes * 10**6
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(table(result))  # noqa: T201
    shares = [share for store in result["share_of_plain"].values() for share in store.values()]
    return int(min(shares) < LIMIT_SHARE)


if __name__ == "__main__":
    sys.exit(main())
