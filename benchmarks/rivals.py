"""The process in which PyTorch's activations are measured, see `benchmarks.torch_rivals`."""

import json
import os
import subprocess
from pathlib import Path

from training.config import UserError

ROOT = Path(__file__).parents[1]


class Rivals:
    """A process under another Python; it waits without using the processor.

    Args:
        python: path of a Python that has torch, and rational-activations if that is wanted too.
    """

    def __init__(self, python: str):
        try:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.torch_rivals"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                # A thread that has nothing to do sleeps at once.
                env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"},
            )
        except OSError as error:
            raise UserError(
                f"--torch_python must be a Python. Received: {python} ({error})"
            ) from None
        self.names = self._answer()
        if not self.names:
            self.close()
            raise UserError(f"--torch_python must have torch. Received: {python}, which has not.")

    def prepare(self, size: int) -> None:
        """Makes inputs of `size` numbers and compiles."""
        self._ask({"size": size})

    def round(self, number: int) -> dict:
        """The seconds of one round, by (name, pass): what `Clock.round` gives."""
        return {(name, part): seconds for name, part, seconds in self._ask({"round": number})}

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _ask(self, request):
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("The process of --torch_python has ended: see its message above.")
        return json.loads(line)
