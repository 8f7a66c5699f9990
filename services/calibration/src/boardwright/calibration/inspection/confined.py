"""The confined process: reads samples from packs, decodes them, answers with their figures.

It gives up the network, files and most memory before it sees the first byte, and gets an empty environment.
It
speaks JSON lines: out `{}` once it is ready; then in `{"pack": path, "digest", "offset", "size"}`, and out
`{"figures": …}` or `{"problem": text}`. It ends with its standard input.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

from boardwright.calibration.inspection.figures import measure
from boardwright.jobs.confinement import ProcessLimits, confine
from boardwright.samples.errors import SampleError
from boardwright.samples.images import decode_image
from boardwright.samples.packs import read_packed


def inspect(request: dict[str, Any]) -> dict[str, Any]:
    """Decode and measure one sample."""
    try:
        with open(request["pack"], "rb") as pack:
            data = read_packed(pack, request["digest"], request["offset"], request["size"])
        return {"figures": asdict(measure(decode_image(data)))}
    except SampleError as error:
        return {"problem": error.message}
    except MemoryError:
        return {"problem": "decoding it needs more memory than is allowed"}


def main() -> None:
    """Confine this process and serve standard input."""
    # Decoders and their plugins load first: afterwards there may be no memory for it.
    from PIL import Image

    Image.init()
    confine(ProcessLimits(data_bytes=int(sys.argv[1]), file_bytes=1))
    sys.stdout.write("{}\n")
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(inspect(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
