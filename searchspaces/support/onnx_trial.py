"""A program: open an ONNX file and run it on one black image, with little memory and time.

A file from outside can crash ONNX Runtime, or take any memory and time, so that it is tried in a
process of its own first. This imports nothing of ours, and is never imported.

    python onnx_trial.py FILE SIDE
"""

import sys

import numpy as np
import onnxruntime


def _run(file: str, side: int) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    batch = given.shape[0] if isinstance(given.shape[0], int) else 1
    session.run(None, {given.name: np.zeros((batch, 3, side, side), np.float32)})


if __name__ == "__main__":
    _run(sys.argv[1], int(sys.argv[2]))
