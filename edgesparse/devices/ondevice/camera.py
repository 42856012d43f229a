"""Shows what the model answers for a camera's frames: python camera.py [CAMERA]

With picamera2 on a Raspberry Pi (apt install python3-picamera2), else with OpenCV (pip install
opencv-python-headless), whose camera has the number CAMERA, 0 by default. Ctrl-C ends it.
"""

import sys
import time

from edgesparse_model import Model


def picamera_frames(size):
    """Yield frames, uint8 [height, width, 3] in RGB."""
    from picamera2 import Picamera2

    camera = Picamera2()
    # Named from the last byte to the first: its arrays are in RGB.
    camera.configure(camera.create_video_configuration({"format": "BGR888", "size": size}))
    camera.start()
    while True:
        yield camera.capture_array()


def opencv_frames(number):
    """Yield frames, uint8 [height, width, 3] in RGB."""
    import cv2

    camera = cv2.VideoCapture(number)
    if not camera.isOpened():
        sys.exit("error: camera %d cannot be opened; name another number" % number)
    while True:
        read, frame = camera.read()
        if not read:
            return
        yield frame[:, :, ::-1]  # OpenCV's are in BGR.


def frames(number):
    try:
        import picamera2  # noqa: F401
    except ImportError:
        return opencv_frames(number)
    return picamera_frames((640, 480))


def main(arguments):
    # A terminal that cannot show a label's letters shows their numbers.
    sys.stdout.reconfigure(errors="backslashreplace")
    model = Model()
    start, count = time.time(), 0
    for frame in frames(int(arguments[0]) if arguments else 0):
        scores = model(frame)
        count += 1
        rate = count / (time.time() - start)
        top = model.top(scores, 3) if model.labels else ()
        text = "  ".join("%s %.2f" % pair for pair in top)
        print("%5.1f frames/s  %s" % (rate, text or scores.reshape(-1)[:5]), flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        pass
