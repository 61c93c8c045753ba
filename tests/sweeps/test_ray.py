"""Sweeps whose workers are tasks of a Ray cluster: placed by their resources, and started again when a node is lost."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from typing import Any

import pytest

from tests.sweeps.test_workers import SLOW, Cluster, cluster, wait_for

pytestmark = [
    pytest.mark.heavy,
    # Ray leaves sockets and files to the interpreter, and warns of its own changes to come.
    pytest.mark.filterwarnings("ignore"),
]
ray = pytest.importorskip("ray")

__all__ = ["cluster"]

IS_SOAK = bool(os.environ.get("RUNSTONE_SOAK"))


def start(cluster: Cluster, *words: str) -> subprocess.Popen[str]:
    """Start a coordinator in which warnings, of which Ray has some, are no errors."""
    process = subprocess.Popen(
        [sys.executable, "-m", "runstone_sweeps.cli", *words],
        cwd=cluster.path,
        env={**os.environ, "RUNSTONE_WORKSPACE": str(cluster.home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    cluster._started.append(process)
    return process


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=150)
    assert process.returncode == 0, f"{out}\n{err}"
    return out


def test_on_three_nodes_of_which_one_is_killed_the_sweep_completes_with_the_exact_budget(cluster: Cluster) -> None:
    from ray.cluster_utils import Cluster as RayCluster

    made: Any = RayCluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes = [made.add_node(num_cpus=1) for _ in range(3)]
        executor = f"executor: {{name: ray, cluster: '{made.address}', workers: 3, shared: false, lost_after: 60s}}\n"
        coordinator = start(cluster, "run", str(cluster.config(SLOW + executor, trials=6, parallel=3)))
        wait_for(lambda: bool(list(cluster.home.glob("sweeps/*/workers/mark"))), 60)
        wait_for(lambda: min(cluster.logged(number) for number in range(3)) >= 3, 90)
        made.remove_node(nodes[1], allow_graceful=False)
        out = finish(coordinator)
        cluster.check(6)
        requeued = cluster.events_of("requeued")
        assert [event["kind"] for event in requeued] == ["preempted"]
        assert "a worker ended" in out
        assert {trial.state.value for trial in cluster.record.trials.values()} == {"complete"}
        assert all(len(cluster.run_of(number).series("loss")) == 30 for number in range(6))
    finally:
        made.shutdown()


def test_a_cluster_of_its_own_is_started_and_ended_with_the_sweep(cluster: Cluster) -> None:
    executor = "executor: {name: ray, workers: 2}\n"
    out = finish(start(cluster, "run", str(cluster.config(executor, trials=4, parallel=2))))
    assert out.count("is here") == 2
    cluster.check(4)


class Network:
    """Three hosts: network namespaces at one bridge, each with an address of its own."""

    def __init__(self) -> None:
        self.name = f"rs{os.getpid() % 10_000}"
        self.hosts = [f"{self.name}-{number}" for number in (1, 2, 3)]
        ip("link", "add", self.name, "type", "bridge")
        ip("link", "set", self.name, "up")
        for number, host in enumerate(self.hosts, 1):
            ip("netns", "add", host)
            ip("link", "add", f"{self.name}v{number}", "type", "veth", "peer", "name", "eth0", "netns", host)
            ip("link", "set", f"{self.name}v{number}", "master", self.name, "up")
            ip("-n", host, "addr", "add", f"10.77.0.{number}/24", "dev", "eth0")
            ip("-n", host, "link", "set", "eth0", "up")
            ip("-n", host, "link", "set", "lo", "up")

    def command(self, host: int, *words: str) -> list[str]:
        """Return a command line that runs on a host."""
        return ["ip", "netns", "exec", self.hosts[host], *words]

    def cut_off(self, host: int) -> None:
        """Take a host off the network, with all that runs on it."""
        ip("link", "set", f"{self.name}v{host + 1}", "down")

    def kill(self, host: int) -> None:
        """End every process of a host."""
        for pid in ip("netns", "pids", self.hosts[host]).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def close(self) -> None:
        for number, host in enumerate(self.hosts):
            self.kill(number)
            ip("netns", "del", host)
        ip("link", "del", self.name)


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=20).stdout


@pytest.mark.soak
@pytest.mark.timeout(400)
@pytest.mark.skipif(not IS_SOAK, reason="`make soak` runs it")
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="network namespaces need root")
def test_a_host_that_falls_off_the_network_of_a_cluster_costs_no_trial(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    network, short = Network(), tempfile.mkdtemp(prefix="rs")
    try:
        program = "from ray.scripts.scripts import main; main()"
        # Ray's sockets need short names.
        head = [
            f"--temp-dir={short}",
            "--disable-usage-stats",
            "--head",
            "--port=6390",
            "--include-dashboard=false",
            "--node-ip-address=10.77.0.1",
        ]
        for host in range(3):
            words = head if host == 0 else ["--address=10.77.0.1:6390", f"--node-ip-address=10.77.0.{host + 1}"]
            started = [
                sys.executable,
                "-c",
                program,
                "start",
                *words,
                "--num-cpus=1",
            ]
            subprocess.run(network.command(host, *started), check=True, capture_output=True, timeout=90)
        executor = "executor: {name: ray, cluster: '10.77.0.1:6390', workers: 3, shared: false, lost_after: 3s}\n"
        config = cluster.config(SLOW.replace("0.1", "0.3") + executor, trials=6, parallel=3)
        coordinator = subprocess.Popen(
            network.command(0, sys.executable, "-m", "runstone_sweeps.cli", "run", str(config)),
            cwd=cluster.path,
            env={**os.environ, "RUNSTONE_WORKSPACE": str(cluster.home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        cluster._started.append(coordinator)
        wait_for(lambda: bool(list(cluster.home.glob("sweeps/*/workers/mark"))), 60)
        wait_for(lambda: min(cluster.logged(number) for number in range(3)) >= 3, 120)
        network.cut_off(2)
        out = finish(coordinator)
        assert "is gone" in out
        assert [event["kind"] for event in cluster.events_of("requeued")] == ["preempted"]
        network.kill(2)
        cluster.check(6)
        assert all(len(cluster.run_of(number).series("loss")) == 30 for number in range(6))
    finally:
        network.close()
        shutil.rmtree(short, ignore_errors=True)
