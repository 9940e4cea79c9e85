"""A program: open an ONNX file and run it on one black image, with little memory and time.

A file from outside can crash ONNX Runtime, or take any memory and time, so that it is tried in a
process of its own first. This imports nothing of ours, and is never imported.

    python onnx_trial.py FILE SIDE SECONDS BYTES
"""

import sys

import numpy as np
import onnxruntime


def _limit(seconds: int, size: int) -> None:
    try:
        import resource
    except ImportError:  # there are no such limits on Windows
        return
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _run(file: str, side: int) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    batch = given.shape[0] if isinstance(given.shape[0], int) else 1
    session.run(None, {given.name: np.zeros((batch, 3, side, side), np.float32)})


if __name__ == "__main__":
    _limit(int(sys.argv[3]), int(sys.argv[4]))
    try:
        _run(sys.argv[1], int(sys.argv[2]))
    except Exception as error:  # onnxruntime's errors share no public type
        sys.exit(str(error) or type(error).__name__)
