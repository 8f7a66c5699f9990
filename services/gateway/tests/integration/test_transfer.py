"""The directory store's signed requests, through the gateway's own port."""

from __future__ import annotations

import os
from typing import Any

from boardwright.content.digest import Digest
from boardwright.content.directory import DirectoryStore


async def test_a_part_goes_up_and_ranges_come_down(gateway: Any) -> None:
    store = DirectoryStore(
        gateway.blobs, signing_key=b"a key for tests only", public_url=f"{gateway.url}/transfer"
    )
    data = os.urandom(3 << 20)
    handle = store.begin_upload(len(data))
    part = store.part_request(handle, 1, 60)
    answer = await gateway.http.request(part.method, part.url, content=data, headers=dict(part.headers))
    assert answer.status_code == 200, answer.text
    digest = Digest.of(data)
    store.finish_upload(handle, digest, len(data))
    wanted = store.download_request(digest, 60)
    whole = await gateway.http.get(wanted.url)
    assert whole.content == data
    some = await gateway.http.get(wanted.url, headers={"Range": "bytes=1000000-1000009"})
    assert (some.status_code, some.content) == (206, data[1000000:1000010])
    forged = await gateway.http.get(wanted.url[:-4] + "0000")
    assert (forged.status_code, forged.json()["reason"]) == (403, "REQUEST_REFUSED")
