"""GPUs: the real pynvml, reading a driver that is not there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

Gpu = tuple[dict[str, Any], dict[str, str]]


@pytest.fixture
def gpu(fakenvml: Path, tmp_path: Path, snapshot_of: Callable[..., dict[str, Any]]) -> Callable[..., Gpu]:
    """Return a function that takes a snapshot of a machine with these GPUs: the section, and its reasons."""

    def take(state: Mapping[str, object], *, environment: Mapping[str, str] | None = None, arguments: str = "") -> Gpu:
        config = tmp_path / "nvml.conf"
        config.write_text("".join(f"{key} {value}\n" for key, value in state.items()))
        fake = {"FAKENVML": str(config), "LD_LIBRARY_PATH": str(fakenvml)}
        snapshot = snapshot_of(environment=fake | dict(environment or {}), arguments=arguments)
        why = {path: reason for path, reason in snapshot["why"].items() if path.startswith("gpu")}
        return snapshot["gpu"], why

    return take


def test_gpu_is_described_whole(gpu: Callable[..., Gpu]) -> None:
    found, why = gpu({"count": 1, "gpu0.nvlinks": 4, "gpu0.links.0.peer": "00000000:02:00.0", "gpu0.links.3.active": 0})
    assert (found["driver"], found["nvml"], found["cuda_driver"]) == ("999.99.01", "13.999.99", "13.0")
    assert found["count"] == 1
    assert found["devices"] == [
        {
            "index": 0,
            "name": "NVIDIA Fake H100 80GB",
            "uuid": "GPU-fake-0",
            "serial": None,
            "architecture": "Hopper",
            "compute_capability": "9.0",
            "cores": 16896,
            "bus_id": "00000000:01:00.0",
            "numa_node": 0,
            "memory_bytes": 80 << 30,
            "memory_bus_bits": 5120,
            "bar1_bytes": 128 << 30,
            "has_ecc_on": True,
            "is_persistent": True,
            "compute_mode": "default",
            "max_clock_graphics_mhz": 1980,
            "max_clock_sm_mhz": 1980,
            "max_clock_memory_mhz": 2619,
            "power_limit_w": 700.0,
            "power_limit_default_w": 700.0,
            "power_limit_min_w": 200.0,
            "power_limit_max_w": 700.0,
            "pcie_generation_max": 5,
            "pcie_width_max": 16,
            "nvlink": {
                "links": 4,
                "active": 3,
                "version": 4,
                "peers": {"00000000:02:00.0": 1, "00000000:FF:00.0": 2},
            },
            "vbios": "96.00.99.00.01",
            "is_mig_on": False,
            "mig_devices": None,
        }
    ]
    assert found["visible"] == [{"cuda": 0, "gpu": 0}]
    assert why == {
        "gpu.devices.0.serial": "redacted: off by default; privacy.keep_serials switches it on",
        "gpu.devices.0.mig_devices": "absent: multi-instance mode is not on",
        "gpu.connections": "absent: fewer than two GPUs",
    }


def test_serial_number_is_kept_on_request(gpu: Callable[..., Gpu]) -> None:
    found, why = gpu({"count": 1}, arguments="privacy=c.Privacy(keep_serials=True)")
    assert found["devices"][0]["serial"] == "1650000000042"
    assert "gpu.devices.0.serial" not in why


def test_eight_gpus_and_what_lies_between_them(gpu: Callable[..., Gpu]) -> None:
    found, _ = gpu({"count": 8, "topology.0.1": 10, "topology.0.2": 30})
    assert [device["uuid"] for device in found["devices"]] == [f"GPU-fake-{index}" for index in range(8)]
    assert len(found["connections"]) == 28
    assert found["connections"] | {"0-1": "PIX", "0-2": "PHB", "6-7": "SYS"} == found["connections"]


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"init": 4}, "denied: Insufficient Permissions (NVML 4): this user may not read it"),
        ({"init": 9}, "absent: Driver Not Loaded (NVML 9): the NVIDIA driver is not loaded"),
        ({"init": 18}, "error: RM has detected an NVML/RM version mismatch. (NVML 18): driver and library differ"),
        ({"init": 999}, "error: Unknown Error (NVML 999)"),
    ],
    ids=["no permission", "driver not loaded", "version mismatch", "unknown"],
)
def test_library_that_does_not_start_leaves_a_reason(
    gpu: Callable[..., Gpu], state: dict[str, int], reason: str
) -> None:
    found, why = gpu(state)
    assert found is None
    assert why["gpu"].startswith(reason)


def test_machine_without_driver_says_so(snapshot_of: Callable[..., dict[str, Any]]) -> None:
    snapshot = snapshot_of(environment={"LD_LIBRARY_PATH": ""})
    if snapshot["gpu"] is not None:
        pytest.skip("this machine has an NVIDIA driver")
    assert snapshot["why"]["gpu"].startswith("absent: no NVIDIA driver: libnvidia-ml.so.1")


@pytest.mark.parametrize(
    ("function", "field"),
    [
        ("nvmlDeviceGetName", "name"),
        ("nvmlDeviceGetUUID", "uuid"),
        ("nvmlDeviceGetArchitecture", "architecture"),
        ("nvmlDeviceGetCudaComputeCapability", "compute_capability"),
        ("nvmlDeviceGetNumGpuCores", "cores"),
        ("nvmlDeviceGetPciInfo_v3", "bus_id"),
        ("nvmlDeviceGetNumaNodeId", "numa_node"),
        ("nvmlDeviceGetMemoryInfo", "memory_bytes"),
        ("nvmlDeviceGetMemoryBusWidth", "memory_bus_bits"),
        ("nvmlDeviceGetBAR1MemoryInfo", "bar1_bytes"),
        ("nvmlDeviceGetEccMode", "has_ecc_on"),
        ("nvmlDeviceGetPersistenceMode", "is_persistent"),
        ("nvmlDeviceGetComputeMode", "compute_mode"),
        ("nvmlDeviceGetEnforcedPowerLimit", "power_limit_w"),
        ("nvmlDeviceGetPowerManagementDefaultLimit", "power_limit_default_w"),
        ("nvmlDeviceGetMaxPcieLinkGeneration", "pcie_generation_max"),
        ("nvmlDeviceGetMaxPcieLinkWidth", "pcie_width_max"),
        ("nvmlDeviceGetNvLinkState", "nvlink"),
        ("nvmlDeviceGetVbiosVersion", "vbios"),
        ("nvmlDeviceGetMigMode", "is_mig_on"),
    ],
)
def test_function_that_fails_costs_its_field_only(gpu: Callable[..., Gpu], function: str, field: str) -> None:
    found, why = gpu({"count": 1, "gpu0.nvlinks": 1, f"gpu0.err.{function}": 4})
    device = found["devices"][0]
    missing = {"serial", "mig_devices", field}
    assert {name for name, value in device.items() if value is None} == missing
    assert why[f"gpu.devices.0.{field}"].startswith("denied: Insufficient Permissions (NVML 4)")


@pytest.mark.parametrize(("code", "kind"), [(3, "absent"), (10, "timeout"), (13, "absent"), (999, "error")])
def test_reason_tells_kind_and_code(gpu: Callable[..., Gpu], code: int, kind: str) -> None:
    _, why = gpu({"count": 1, "err.nvmlDeviceGetNumGpuCores": code})
    assert why["gpu.devices.0.cores"].startswith(f"{kind}: ")
    assert f"(NVML {code})" in why["gpu.devices.0.cores"]


@pytest.mark.parametrize(
    ("function", "field"),
    [
        ("nvmlSystemGetDriverVersion", "driver"),
        ("nvmlSystemGetNVMLVersion", "nvml"),
        ("nvmlSystemGetCudaDriverVersion_v2", "cuda_driver"),
    ],
)
def test_versions_fail_one_by_one(gpu: Callable[..., Gpu], function: str, field: str) -> None:
    found, why = gpu({"count": 1, f"err.{function}": 999})
    assert found[field] is None
    assert why[f"gpu.{field}"] == "error: Unknown Error (NVML 999)"
    assert found["devices"][0]["name"] == "NVIDIA Fake H100 80GB"


def test_driver_without_the_newer_function_is_asked_by_the_older(gpu: Callable[..., Gpu]) -> None:
    found, _ = gpu({"count": 1, "err.nvmlSystemGetCudaDriverVersion_v2": 13, "cuda": 12040})
    assert found["cuda_driver"] == "12.4"


def test_lost_gpu_leaves_the_others_whole(gpu: Callable[..., Gpu]) -> None:
    found, why = gpu({"count": 3, "gpu1.lost": 1})
    assert found["count"] == 3
    assert found["devices"][1] == {"index": 1}
    assert why["gpu.devices.1"].startswith("error: GPU is lost (NVML 15)")
    assert found["devices"][2]["uuid"] == "GPU-fake-2"


def test_number_that_stands_for_none_is_null(gpu: Callable[..., Gpu]) -> None:
    garbage = 0xFFFFFFFF
    found, why = gpu(
        {
            "count": 1,
            "gpu0.power_limit_mw": garbage,
            "gpu0.max_clock1": garbage,
            "gpu0.numa": garbage,
            "gpu0.mem_total": 0xFFFFFFFFFFFFFFFF,
        }
    )
    device = found["devices"][0]
    for field in ("power_limit_w", "max_clock_sm_mhz", "numa_node", "memory_bytes"):
        assert device[field] is None
        assert why[f"gpu.devices.0.{field}"].startswith("error: NVML answered ")
    assert device["max_clock_memory_mhz"] == 2619


def test_gpu_of_a_later_kind_is_named_by_its_number(gpu: Callable[..., Gpu]) -> None:
    found, _ = gpu({"count": 1, "gpu0.arch": 77})
    assert found["devices"][0]["architecture"] == "unknown (77)"


def test_divided_gpu_lists_the_instances_in_use(gpu: Callable[..., Gpu]) -> None:
    found, why = gpu({"count": 2, "gpu1.mig_count": 3, "gpu1.mig1.free": 1})
    assert found["devices"][1]["is_mig_on"] is True
    assert found["devices"][1]["mig_devices"] == [
        {
            "index": index,
            "uuid": f"MIG-fake-1-{index}",
            "name": "NVIDIA Fake H100 80GB",
            "memory_bytes": 10 << 30,
            "gpu_instance": index + 1,
            "compute_instance": 0,
        }
        for index in (0, 2)
    ]
    assert found["visible"] is None
    assert why["gpu.visible"].startswith("absent: a GPU is divided")


@pytest.mark.parametrize(
    ("given", "visible"),
    [
        ("2,0", [2, 0]),
        ("", []),
        ("1,7,0", [1]),
        ("-1", []),
        ("GPU-fake-3", [3]),
        ("GPU-", []),
        ("NoDevFiles", []),
    ],
)
def test_cuda_counts_the_devices_that_its_variable_names(
    gpu: Callable[..., Gpu], given: str, visible: list[int]
) -> None:
    found, _ = gpu({"count": 4}, environment={"CUDA_VISIBLE_DEVICES": given})
    assert found["visible"] == [{"cuda": number, "gpu": index} for number, index in enumerate(visible)]
    assert found["count"] == 4


def test_cuda_counts_an_instance_by_its_uuid(gpu: Callable[..., Gpu]) -> None:
    found, _ = gpu({"count": 2, "gpu1.mig_count": 2}, environment={"CUDA_VISIBLE_DEVICES": "MIG-fake-1-1"})
    assert found["visible"] == [{"cuda": 0, "gpu": 1, "mig": 1}]


def test_order_of_unlike_gpus_is_not_guessed(gpu: Callable[..., Gpu]) -> None:
    state = {"count": 2, "gpu0.name": "NVIDIA Fake T4"}
    found, why = gpu(state)
    assert found["visible"] is None
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in why["gpu.visible"]
    found, _ = gpu(state, environment={"CUDA_DEVICE_ORDER": "PCI_BUS_ID"})
    assert found["visible"] == [{"cuda": 0, "gpu": 0}, {"cuda": 1, "gpu": 1}]


def test_machine_whose_gpus_have_gone_has_none(gpu: Callable[..., Gpu]) -> None:
    found, _ = gpu({"count": 0})
    assert (found["count"], found["devices"], found["visible"]) == (0, [], [])


@pytest.mark.parametrize(
    ("function", "kept"),
    [("nvmlInit", None), ("nvmlDeviceGetVbiosVersion", "NVIDIA Fake H100 80GB")],
    ids=["at the start", "in the middle"],
)
def test_driver_that_hangs_is_given_up(gpu: Callable[..., Gpu], function: str, kept: str | None) -> None:
    began = time.monotonic()
    found, why = gpu({"count": 1, f"delay_us.{function}": 30_000_000}, arguments="timeout_s=2.0")
    assert time.monotonic() - began < 10, "the process has waited for the driver when it ended"
    assert why["gpu"].startswith("timeout: no answer within")
    if kept is None:
        assert found is None
    else:
        assert found["devices"][0]["name"] == kept
        assert why["gpu"].endswith("while reading gpu.devices.0.vbios")


def test_import_of_the_bindings_warns_nobody(gpu: Callable[..., Gpu], tmp_path: Path) -> None:
    # The distribution `pynvml` puts such a hook in front of every import; here warnings are errors.
    (tmp_path / "_pynvml_redirector.py").write_text(
        "import sys, warnings\n"
        "class Finder:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name.startswith('pynvml'):\n"
        "            warnings.warn('pynvml is deprecated', FutureWarning, stacklevel=2)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    (tmp_path / "sitecustomize.py").write_text("import _pynvml_redirector\n")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    found, why = gpu({"count": 1}, environment={"PYTHONPATH": path})
    assert "gpu" not in why
    assert found["count"] == 1
