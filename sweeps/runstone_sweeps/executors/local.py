"""The executor of this machine: trials as processes, with the cores, GPUs and memory that each is given."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence

from runstone_sweeps.executors.executor import News, TrialEnded, TrialLost, TrialStart, TrialStarted
from runstone_sweeps.executors.slots import GpuSlots, oom_kills, thread_variables, usable_cores
from runstone_sweeps.processes.trials import Ended, Started, TrialProcesses
from runstone_sweeps.spec.options import Resources


class LocalExecutor:
    """Runs trials as processes of this machine. They die with the coordinator.

    Args:
        processes: Starts them; closed by whoever made it.
        resources: What one trial takes.
        parallel: Trials at once, to divide the cores by.
        environment: Of the coordinator.
        is_warm: Whether trials are forked from a process that has imported what they need.

    Raises:
        NoGpus: trials take GPUs, and there are not enough.
    """

    def __init__(
        self,
        processes: TrialProcesses,
        resources: Resources,
        *,
        parallel: int,
        environment: Mapping[str, str],
        is_warm: bool = False,
    ) -> None:
        self._processes = processes
        self._resources = resources
        self._parallel = parallel
        self._cores = usable_cores()
        self._is_warm = is_warm
        self._gpus = GpuSlots(resources, environment) if resources.gpus else None
        self._oom_kills: dict[int, int] = {}
        self._kills_at_s, self._kills = 0.0, 0

    def has_room(self) -> bool:
        """Return whether the GPUs for one more trial are free, and their memory is."""
        return self._gpus is None or self._gpus.has_room()

    def start(self, start: TrialStart) -> None:
        """Start a process with GPUs and threads of its own."""
        env = {**start.env, **thread_variables(self._resources.cpus, self._parallel, start.env, cores=self._cores)}
        if self._gpus is not None:
            env |= self._gpus.take(start.key)
        self._oom_kills[start.key] = self._kills_lately()
        self._processes.start(
            start.key,
            start.argv,
            env=env,
            cwd=start.cwd,
            console=start.console,
            is_warm=self._is_warm,
            memory_bytes=self._resources.memory_bytes,
        )

    def send_signal(self, key: int, sent: signal.Signals) -> None:
        """Send a signal to every process of a trial."""
        self._processes.send_signal(key, sent)

    def poll(self, timeout_s: float) -> Sequence[News]:
        """Return what happened, after `timeout_s` at the latest."""
        return [self._told(news) for news in self._processes.poll(timeout_s)]

    def survivors(self) -> Sequence[TrialStarted]:
        """Return nothing: what an earlier coordinator started died with it."""
        return ()

    def take_notes(self) -> Sequence[str]:
        """Return why trials start otherwise than asked for."""
        return self._processes.take_notes()

    def close(self) -> None:
        """Let go of the GPUs."""
        if self._gpus is not None:
            self._gpus.close()

    def _kills_lately(self) -> int:
        """Return `oom_kills` of now or a tenth of a second ago: the system takes long to tell."""
        if time.monotonic() - self._kills_at_s > 0.1:
            self._kills_at_s, self._kills = time.monotonic(), oom_kills()
        return self._kills

    def _told(self, news: Started | Ended) -> News:
        if isinstance(news, Started):
            return TrialStarted(news.number, news.pid, news.pid_started, gpus=self._resources.gpus)
        if self._gpus is not None:
            self._gpus.give_back(news.number)
        kills = self._oom_kills.pop(news.number, 0)
        if news.reason == "server":
            return TrialLost(news.number, "the process that it was forked from was killed", is_preempted=False)
        return TrialEnded(
            news.number,
            news.code,
            is_over_memory=news.reason == "memory",
            was_oom_killer_here=news.code == -signal.SIGKILL and oom_kills() > kills,
            cpu_s=news.cpu_s,
            max_rss_bytes=news.max_rss_bytes,
        )
