"""Files that anybody may have written, tried in a process of their own with little memory and time.

Some libraries crash, hang or fill the memory over a prepared file; then only that process ends.
"""

import subprocess
import sys
from pathlib import Path

from searchspaces.support.errors import reason

_LIMITED = Path(__file__).with_name("limited_program.py")
_WAIT = 10  # times the seconds of one core, on a busy machine


def problem_in_trial(
    program: Path, *arguments: str, seconds: int, memory: int, library: str
) -> str | None:
    """Run a program that tries a file, and say what is wrong with the file.

    Args:
        program: A Python file that writes what is wrong to standard error and ends with a code
            other than 0. It can import what is installed, but nothing of its folder.
        arguments: For the program.
        seconds: Of one core.
        memory: Bytes of addresses.
        library: What reads the file there, as a sentence names it.

    Returns:
        A short clause; None for a file that was read.
    """
    command = [sys.executable, "-P", str(_LIMITED), str(seconds), str(memory), str(program)]
    try:
        done = subprocess.run(
            [*command, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_WAIT * seconds,
        )
    except subprocess.TimeoutExpired:
        return f"it takes more than {seconds} s"
    if done.returncode == 0:
        return None
    if done.returncode < 0:
        return f"it crashes {library}, or takes too much time or memory"
    return reason(ValueError(done.stderr.strip()))
