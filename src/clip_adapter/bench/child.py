"""``Child``: a worker process, from the side of whoever started it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from clip_adapter.bench.data import Place
from clip_adapter.bench.runs import Run

_LAST_LINES = 3


class Child:
    """One process of :mod:`clip_adapter.bench.worker`; it ends with this one.

    Args:
        place: where data is; ``threads`` is how many the process gets.
    """

    def __init__(self, place: Place) -> None:
        # Read when torch loads.
        threads = {"OMP_NUM_THREADS": str(place.threads)}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "clip_adapter.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **threads},
            text=True,
            encoding="utf-8",
            # Ctrl-C is for this process, which then ends the other.
            start_new_session=True,
        )
        self._send(dataclasses.asdict(place))

    def do(self, unit: Sequence[Run], say: Callable[[str], None]) -> dict[str, Any]:
        """The process's last word on ``unit``: {"done"}, {"failed", "trace"}, {"fatal"}.

        A process that ends without a word has failed too; {"ended": True} says that it is gone.
        """
        try:
            self._send([run.to_dict() for run in unit])
            assert self._process.stdout is not None  # noqa: S101 - it is a pipe
            for line in self._process.stdout:
                message = json.loads(line)
                if set(message) == {"say"}:
                    say(message["say"])
                else:
                    return message
        except BrokenPipeError:
            pass
        code = self._process.wait()
        reason = f"signal {-code}, maybe for want of memory" if code < 0 else f"exit code {code}"
        return {"failed": f"The process ended by {reason}.", "trace": self._said(), "ended": True}

    def _send(self, value: Any) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        self._process.stdin.write(json.dumps(value) + "\n")
        self._process.stdin.flush()

    def _said(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").splitlines()
        return "\n".join(lines[-_LAST_LINES:])

    def close(self) -> None:
        """Ends the process, whatever it does; whole results are never half-written."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(OSError):  # unsent words to a process that is gone
                if pipe is not None:
                    pipe.close()
