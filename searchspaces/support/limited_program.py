"""A program: run another one with limited time and memory. It is never imported.

python limited_program.py SECONDS BYTES PROGRAM [ARGUMENT ...]
"""

import runpy
import sys


def _limit(seconds: int, size: int) -> None:
    try:
        import resource
    except ImportError:  # there are no such limits on Windows
        return
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


if __name__ == "__main__":
    _limit(int(sys.argv[1]), int(sys.argv[2]))
    del sys.argv[:3]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except Exception as error:  # libraries have many types for a damaged file
        sys.exit(str(error) or type(error).__name__)
