"""A program of its own that reads a faiss index: some files make faiss end the process it runs in.

    python faiss_program.py INDEX

Writes one line, a JSON list [vectors, dimension], then the vectors as float32, row by row.
"""

import json
import os
import resource
import sys

_SPARE = 2 << 30  # bytes of memory beside what the file itself may need
_SECONDS = 60
_BYTES_PER_SECOND = 1 << 20
_ROWS = 16_384


def main(path: str) -> None:
    """Write the vectors of an index to the standard output."""
    import faiss
    import numpy as np

    size = os.path.getsize(path)
    for limit, most in (
        (resource.RLIMIT_AS, _SPARE + 4 * size),
        (resource.RLIMIT_CPU, _SECONDS + size // _BYTES_PER_SECOND),
    ):
        resource.setrlimit(limit, (most, most))
    index = faiss.read_index(path)
    if isinstance(index, faiss.IndexIDMap):
        sys.exit("it maps ids of its own: save the index inside it, and name the ids apart")
    if isinstance(index, faiss.IndexIVF):
        index.make_direct_map()
    count = index.ntotal
    first = index.reconstruct_n(0, min(1, count)) if count else None  # fails here if it cannot
    sys.stdout.buffer.write(json.dumps([count, index.d]).encode() + b"\n")
    for start in range(0, count if first is not None else 0, _ROWS):
        rows = index.reconstruct_n(start, min(_ROWS, count - start))
        sys.stdout.buffer.write(np.ascontiguousarray(rows, dtype="<f4").data)


if __name__ == "__main__":
    main(sys.argv[1])
