"""A network on ONNX Runtime: wide when its caller is alone, one thread each when not.

Measured with detector and recogniser on two idle cores: with one-thread sessions
one caller takes 13.5 ms, and two callers 13.5 ms each, 145 pictures a second; with two-thread
sessions one caller takes 8 to 11 ms, but two callers 16 to 25 ms each, 80 to 110 a second, for
three and more threads fight over two cores. Both together, chosen at each run, give 8 to 11 ms
alone and 142 a second together. The wide session spins, but stops when its run ends
(`force_spinning_stop`), or it would take the core that the next network needs: 24 ms alone.
"""

from __future__ import annotations

import os
import threading
import time
from types import TracebackType

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

_TRIAL_RUNS = 10
_CHANCES = 8
_WORTH = 0.9
_WIDEST = 4
_QUIET = 3


class Callers:
    """Counts who is at work, as a context manager; shared by an analyser's networks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def __enter__(self) -> None:
        with self._lock:
            self._count += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._count -= 1

    @property
    def alone(self) -> bool:
        """Whether one caller has all cores."""
        return self._count <= 1


class OnnxNetwork:
    """One graph in a one-thread session, and in a wide one where that is faster."""

    def __init__(
        self,
        graph: bytes,
        sample: NDArray[np.float32],
        callers: Callers,
        threads: int | None = None,
    ) -> None:
        """Load a graph.

        Args:
            graph: a serialised ONNX model with one input.
            sample: an input to measure with.
            threads: of the wide session; None leaves it to `widen`, 1 has none.
        """
        self._callers = callers
        self._narrow = _session(graph, 1)
        self._input = self._narrow.get_inputs()[0].name
        self._to_measure = (graph, sample) if threads is None else None
        self._wide = _session(graph, threads) if threads and threads > 1 else self._narrow

    def widen(self) -> None:
        """Measure what is best for a lone caller; takes a while, and others may run meanwhile.

        Where one thread was best it is measured again: the machine may have been busy.
        """
        if self._to_measure is not None:
            self._wide = self._measured(*self._to_measure)
            if self.is_wide:
                self._to_measure = None

    @property
    def session(self) -> ort.InferenceSession:
        """The session for a run that starts now."""
        return self._wide if self._callers.alone else self._narrow

    @property
    def is_wide(self) -> bool:
        """Whether a lone caller gets several threads."""
        return self._wide is not self._narrow

    def run(self, inputs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """See `Network`."""
        outputs: list[NDArray[np.float32]] = self.session.run(None, {self._input: inputs})
        return outputs

    def _measured(self, graph: bytes, sample: NDArray[np.float32]) -> ort.InferenceSession:
        """Keep the fastest width; a wider one must be worth the memory that it costs."""
        best = self._narrow
        for threads in range(2, min(len(os.sched_getaffinity(0)), _WIDEST) + 1, 2):
            candidate = _session(graph, threads)
            if self._is_worth(candidate, best, sample):
                best = candidate
        return best

    def _is_worth(
        self,
        wide: ort.InferenceSession,
        narrow: ort.InferenceSession,
        sample: NDArray[np.float32],
    ) -> bool:
        """Time both by turns until the wide one has shown its worth, or had its chances.

        Whatever else starts at the same time slows the wide one more: one bad showing says little.
        """
        fastest = {wide: float("inf"), narrow: float("inf")}
        for _ in range(_CHANCES):
            for _ in range(_TRIAL_RUNS):
                for session, so_far_s in fastest.items():
                    start_s = time.perf_counter()
                    session.run(None, {self._input: sample})
                    fastest[session] = min(so_far_s, time.perf_counter() - start_s)
            if fastest[wide] < fastest[narrow] * _WORTH:
                return True
        return False


def _session(graph: bytes, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _QUIET
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(threads > 1)))
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.dynamic_block_base", "4")
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
