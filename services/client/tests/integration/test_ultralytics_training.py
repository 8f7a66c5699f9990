"""A real short training run, whose end pushes."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from boardwright.model import detect_format

_SCRIPT = """
import json, random, sys
from pathlib import Path
from boardwright.compiler.engine.checkpoint.ultralytics_file import make_torchvision_importable
make_torchvision_importable()
from PIL import Image, ImageDraw
from ultralytics import YOLO
from boardwright.client.ultralytics import attach

folder = Path(sys.argv[1])
random.seed(7)
for split, count in (("train", 8), ("val", 4)):
    (folder / "images" / split).mkdir(parents=True)
    (folder / "labels" / split).mkdir(parents=True)
    for number in range(count):
        image = Image.new("RGB", (96, 96), (40, 40, 40))
        x, y = random.randint(10, 50), random.randint(10, 50)
        ImageDraw.Draw(image).rectangle((x, y, x + 30, y + 30), fill=(220, 60, 60))
        image.save(folder / "images" / split / f"{number}.png")
        box = f"0 {(x + 15) / 96} {(y + 15) / 96} {30 / 96} {30 / 96}"
        (folder / "labels" / split / f"{number}.txt").write_text(box)
data = f"path: {folder}\\ntrain: images/train\\nval: images/val\\nnames: [square]\\n"
(folder / "data.yaml").write_text(data)

class Recorder:
    def push(self, name, path, **options):
        record = {"name": name, "path": str(path), "task": options["task"], "metrics": options["metrics"]}
        (folder / "pushed.json").write_text(json.dumps(record))
        class Version:
            name = "projects/default/models/squares/versions/1"
        return Version

model = YOLO("yolo26n.yaml")
attach(model, "squares", client=Recorder(), strict=True)
model.train(data=str(folder / "data.yaml"), epochs=1, imgsz=96, batch=4, workers=0, device="cpu", plots=False,
            project=str(folder / "runs"), verbose=False, amp=False)
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ultralytics") is None, reason="Ultralytics is not installed")
def test_a_training_run_ends_with_a_push(tmp_path: Path) -> None:
    environment = os.environ | {
        "YOLO_OFFLINE": "1",
        "YOLO_AUTOINSTALL": "false",
        "YOLO_CONFIG_DIR": str(tmp_path / "config"),
        "OMP_NUM_THREADS": "2",
    }
    (tmp_path / "config").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(tmp_path / "data")],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    pushed = json.loads((tmp_path / "data" / "pushed.json").read_text())
    assert (pushed["name"], pushed["task"]) == ("squares", "detection")
    assert "map50" in pushed["metrics"]
    assert detect_format(Path(pushed["path"])) == "ultralytics"
