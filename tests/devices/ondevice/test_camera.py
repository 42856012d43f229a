"""The camera loop, with stand-ins for the camera: none is here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgesparse.devices.ondevice import edgesparse_model

CAMERA = Path(edgesparse_model.__file__).with_name("camera.py")
MODEL = """
import numpy

class Model:
    labels = ["red", "blue"]
    def __call__(self, frame):
        assert frame.shape == (4, 6, 3) and frame.dtype == numpy.uint8
        return numpy.array([frame[..., 0].mean(), frame[..., 2].mean()]) / 255
    def top(self, scores, count):
        return sorted(zip(self.labels, scores), key=lambda pair: -pair[1])[:count]
"""
CV2 = """
import numpy

class VideoCapture:
    def __init__(self, number):
        assert number == 1
        self.left = 3
    def isOpened(self):
        return True
    def read(self):
        self.left -= 1
        frame = numpy.zeros((4, 6, 3), numpy.uint8)
        frame[..., 2] = 255  # Red: OpenCV's frames are in BGR.
        return self.left >= 0, frame
"""
PICAMERA2 = """
import numpy

class Picamera2:
    count = 0
    def create_video_configuration(self, main):
        assert main["format"] == "BGR888"  # Whose arrays are in RGB.
    def configure(self, configuration): pass
    def start(self): pass
    def capture_array(self):
        self.count += 1
        if self.count > 2:
            raise KeyboardInterrupt
        frame = numpy.zeros((4, 6, 3), numpy.uint8)
        frame[..., 0] = 255
        return frame
"""


@pytest.mark.parametrize(
    ("camera", "source", "count"), [("cv2", CV2, 3), ("picamera2", PICAMERA2, 2)]
)
def test_frames_are_in_rgb(tmp_path, camera, source, count):
    (tmp_path / "edgesparse_model.py").write_text(MODEL)
    (tmp_path / f"{camera}.py").write_text(source)
    (tmp_path / "camera.py").write_bytes(CAMERA.read_bytes())
    done = subprocess.run(
        [sys.executable, "camera.py", "1"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == count
    assert all(line.endswith("red 1.00  blue 0.00") for line in lines)


def test_labels_are_shown_where_the_locale_lacks_their_letters(tmp_path):
    model = MODEL.replace('"red"', '"gr\u00fcn"')
    (tmp_path / "edgesparse_model.py").write_text(model, encoding="utf-8")
    (tmp_path / "cv2.py").write_text(CV2)
    (tmp_path / "camera.py").write_bytes(CAMERA.read_bytes())
    done = subprocess.run(
        [sys.executable, "camera.py", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr
    assert all(r"gr\xfcn 1.00" in line for line in done.stdout.splitlines())


def test_a_model_without_labels_shows_numbers(tmp_path):
    model = MODEL.replace('["red", "blue"]', "[]")
    model = model.replace("return sorted(", "assert self.labels; return sorted(")
    (tmp_path / "edgesparse_model.py").write_text(model)
    (tmp_path / "cv2.py").write_text(CV2)
    (tmp_path / "camera.py").write_bytes(CAMERA.read_bytes())
    done = subprocess.run(
        [sys.executable, "camera.py", "1"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert all(line.endswith("[1. 0.]") for line in done.stdout.splitlines())
