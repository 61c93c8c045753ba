"""Host, container, scheduler, packages and frameworks: in trees of files, and on this machine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runstone.capture.container import read_container
from runstone.capture.context import Context, Privacy
from runstone.capture.disk import read_disk
from runstone.capture.facts import Section
from runstone.capture.frameworks import read_frameworks
from runstone.capture.host import read_cpu, read_limits, read_memory, read_os
from runstone.capture.packages import read_conda, read_packages
from runstone.capture.process import read_identity, read_process, read_rank
from runstone.capture.scheduler import read_scheduler
from runstone.capture.variables import read_variables

SectionOf = Callable[..., Section]
ID = "0123456789abcdef" * 4


def values(section: Section) -> dict[str, Any]:
    """Return the fields of a section that has some."""
    assert section.values is not None, section.why
    return section.values


def _tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


# --- host ----------------------------------------------------------------------------------------------------
def test_processor_and_memory_are_read_from_the_kernel(tmp_path: Path, section_of: SectionOf) -> None:
    root = _tree(
        tmp_path,
        {
            "proc/cpuinfo": "processor: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Xeon X\nflags\t\t: avx avx2\n",
            "proc/meminfo": "MemTotal:  1024 kB\nMemAvailable: 512 kB\nSwapTotal: 0 kB\nHugePages_Total: 3\n",
            "sys/devices/system/node/node0/cpulist": "0-3\n",
            "sys/devices/system/node/node10/cpulist": "4-7\n",
            "sys/devices/system/node/node2/cpulist": "8-9\n",
            "sys/devices/system/cpu/smt/active": "1\n",
            "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "3500000\n",
            "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
        },
    )
    context = Context(environment={}, root=root)
    cpu = values(section_of(read_cpu, context))
    assert (cpu["model"], cpu["vendor"], cpu["flags"]) == ("Xeon X", "GenuineIntel", ["avx", "avx2"])
    assert (cpu["has_smt"], cpu["max_mhz"]) == (True, 3500.0)
    assert list(cpu["numa_nodes"].items()) == [("0", "0-3"), ("2", "8-9"), ("10", "4-7")]
    assert cpu["usable_cores"] <= cpu["logical_cores"]
    if sys.platform == "linux":
        section = section_of(read_memory, context)
        memory = values(section)
        assert (memory["total_bytes"], memory["available_bytes"], memory["swap_bytes"]) == (1 << 20, 1 << 19, 0)
        assert (memory["huge_pages"], memory["transparent_huge_pages"]) == (3, "madvise")
        assert section.why == {"section.huge_page_bytes": "absent: /proc/meminfo has no Hugepagesize"}


def test_masked_files_cost_their_own_fields_only(tmp_path: Path, section_of: SectionOf) -> None:
    root = _tree(tmp_path, {"proc/cpuinfo": "", "proc/meminfo": "garbage\n", "proc/uptime": "soon\n"})
    context = Context(environment={}, root=root)
    cpu = section_of(read_cpu, context)
    assert cpu.why["section.model"] == "absent: /proc/cpuinfo is empty"
    assert values(cpu)["logical_cores"] is not None
    system = section_of(read_os, context)
    assert system.why["section.uptime_s"].startswith("error: ValueError")
    assert values(system)["name"]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux namespaces")
def test_snapshot_without_proc_has_everything_else(snapshot_of: Callable[..., dict[str, Any]]) -> None:
    hide = "mount -t tmpfs none /proc"
    if not shutil.which("unshare") or subprocess.run(["unshare", "-m", "sh", "-c", hide], check=False).returncode:
        pytest.skip("this user may not make a mount namespace")
    snapshot = snapshot_of(before=("unshare", "-m", "sh", "-c", hide + ' && exec "$@"', "sh"))
    assert snapshot["cpu"]["model"] is None
    assert snapshot["why"]["cpu.model"] == "absent: /proc/cpuinfo: No such file or directory"
    assert snapshot["why"]["process.started_at"].startswith("absent: NoSuchProcess")
    assert snapshot["why"]["cgroup"].startswith("absent: /proc/self/mountinfo")
    assert snapshot["cpu"]["logical_cores"] > 0
    assert snapshot["process"]["pid"] > 0
    assert snapshot["os"]["release"]
    assert len(snapshot["packages"]["installed"]) > 5


def test_limit_of_the_system_is_a_number_or_unlimited(section_of: SectionOf) -> None:
    section = section_of(read_limits, Context(environment={}))
    for field, value in values(section).items():
        assert isinstance(value, int) or section.why[f"section.{field}"] == "absent: unlimited"


def test_file_system_of_the_run_is_described(tmp_path: Path, section_of: SectionOf) -> None:
    section = section_of(read_disk, Context(environment={}, store=tmp_path, log_backend="mmap"))
    store = values(section)["store"]
    assert store["path"] == str(tmp_path)
    assert store["log_backend"] == "mmap"
    assert 0 < store["free_bytes"] <= store["total_bytes"]
    if sys.platform == "linux":
        assert store["type"]


def test_store_that_has_gone_is_absent(tmp_path: Path, section_of: SectionOf) -> None:
    section = section_of(read_disk, Context(environment={}, store=tmp_path / "gone"))
    assert section.why["section.store.free_bytes"].startswith("absent: ")
    assert values(section)["tmp"]["total_bytes"] > 0


# --- container -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("files", "environment", "kind", "identifier"),
    [
        ({".dockerenv": ""}, {}, "docker", None),
        ({"proc/self/cgroup": f"0::/docker/{ID}\n"}, {}, "docker", ID),
        ({"run/.containerenv": 'engine="podman"\nimage="docker.io/x:1"\n'}, {}, "podman", None),
        (
            {"proc/self/cgroup": f"0::/kubepods.slice/cri-containerd-{ID}.scope\n"},
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
            "containerd",
            ID,
        ),
        (
            {
                "proc/self/cgroup": "0::/\n",
                "proc/self/mountinfo": f"1 1 8:1 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw - ext4 x rw",
            },
            {},
            "docker",
            ID,
        ),
        ({}, {"APPTAINER_CONTAINER": "/images/x.sif"}, "apptainer", None),
        ({"proc/self/cgroup": "0::/user.slice\n"}, {}, None, None),
    ],
    ids=["docker file", "docker group", "podman", "kubernetes", "docker mounts", "apptainer", "none"],
)
def test_container_is_known_by_its_traces(
    tmp_path: Path,
    section_of: SectionOf,
    files: dict[str, str],
    environment: dict[str, str],
    kind: str | None,
    identifier: str | None,
) -> None:
    section = section_of(read_container, Context(environment=environment, root=_tree(tmp_path, files)))
    assert values(section)["kind"] == kind
    assert values(section)["id"] == identifier


def test_container_of_another_process_is_not_ours(tmp_path: Path, section_of: SectionOf) -> None:
    mounts = f"1 1 8:1 / /var/lib/docker/overlay2/{ID}/merged rw - overlay overlay rw"
    root = _tree(tmp_path, {"proc/self/cgroup": "0::/user.slice\n", "proc/self/mountinfo": mounts})
    section = section_of(read_container, Context(environment={}, root=root))
    assert (values(section)["kind"], values(section)["id"]) == (None, None)


def test_pod_is_named_without_its_token(tmp_path: Path, section_of: SectionOf) -> None:
    account = "var/run/secrets/kubernetes.io/serviceaccount"
    root = _tree(
        tmp_path, {f"{account}/namespace": "team\n", f"{account}/token": "planted", "etc/podinfo/name": "p-0\n"}
    )
    section = section_of(read_container, Context(environment={"KUBERNETES_SERVICE_HOST": "x"}, root=root))
    assert values(section)["kubernetes"] == {"namespace": "team", "pod": "p-0", "node": None}
    assert "NODE_NAME" in section.why["section.kubernetes.node"]
    assert "planted" not in json.dumps(values(section))


def test_virtual_machine_is_known_by_its_vendor(tmp_path: Path, section_of: SectionOf) -> None:
    root = _tree(tmp_path, {"sys/class/dmi/id/sys_vendor": "Amazon EC2\n"})
    assert values(section_of(read_container, Context(environment={}, root=root)))["vm"] == "aws"


# --- job and variables ---------------------------------------------------------------------------------------
def test_job_is_read_from_an_allowlist(section_of: SectionOf) -> None:
    environment = {
        "SLURM_JOB_ID": "42",
        "SLURM_ARRAY_TASK_ID": "7",
        "SLURM_JWT": "planted",
        "TORCHELASTIC_RUN_ID": "abc",
    }
    section = section_of(read_scheduler, Context(environment=environment))
    assert section.values is not None
    told = {
        kind: {name: value for name, value in job.items() if value is not None} for kind, job in section.values.items()
    }
    assert told == {"slurm": {"job_id": "42", "array_task_id": "7"}, "torchelastic": {"run_id": "abc"}}
    assert section.why["section.slurm.partition"] == "absent: SLURM_JOB_PARTITION is not set"
    assert "planted" not in str(section)


def test_process_outside_a_job_says_so(section_of: SectionOf) -> None:
    section = section_of(read_scheduler, Context(environment={"SLURM_JOB_ID": ""}))
    assert section.values is None
    assert section.why == {"section": "absent: no scheduler's variables are set"}


@pytest.mark.parametrize(
    ("environment", "rank"),
    [
        ({}, (0, 1, 0, 0)),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "GROUP_RANK": "2"}, (5, 8, 1, 2)),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "3", "SLURM_NODEID": "0"}, (3, 4, 3, 0)),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, (1, 2, 0, 0)),
        ({"RANK": "nonsense"}, (0, 1, 0, 0)),
    ],
)
def test_rank_is_what_the_launcher_says(
    section_of: SectionOf, environment: dict[str, str], rank: tuple[int, ...]
) -> None:
    found = values(section_of(read_rank, Context(environment=environment)))
    assert (found["rank"], found["world_size"], found["local_rank"], found["node_rank"]) == rank


def test_variables_come_from_an_allowlist_without_secrets(section_of: SectionOf) -> None:
    environment = {
        "CUDA_VISIBLE_DEVICES": "0",
        "OMP_NUM_THREADS": "4",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_TOKEN": "planted",
        "NCCL_AUTH": "planted",
        "AWS_REGION": "planted",
        "TF_VAR_anything": "planted",
        "TORCH_HOME": "s3://user:planted@bucket/x",
    }
    section = section_of(read_variables, Context(environment=environment))
    assert section.values == {
        "CUDA_VISIBLE_DEVICES": "0",
        "NCCL_AUTH": None,
        "OMP_NUM_THREADS": "4",
        "TOKENIZERS_PARALLELISM": "false",
        "TORCH_HOME": "s3://<redacted>@bucket/x",
    }
    assert section.why == {"section.NCCL_AUTH": "redacted: the name says that it is a secret"}


@pytest.mark.parametrize("identity", ["plain", "hashed", "off"])
def test_user_and_host_are_named_as_far_as_allowed(section_of: SectionOf, identity: Any) -> None:
    section = section_of(read_identity, Context(environment={}, privacy=Privacy(identity=identity)))
    user = values(section)["user"]
    if identity == "off":
        assert user is None
        assert section.why["section.host"] == "redacted: switched off by privacy.identity"
    else:
        assert user.startswith("blake2b:") == (identity == "hashed")


def test_process_says_how_it_was_started(section_of: SectionOf) -> None:
    found = values(section_of(read_process, Context(environment={})))
    assert found["argv"][0] == sys.orig_argv[0]
    assert found["kind"] in ("module", "script", "command")  # the last where tests run side by side
    assert found["started_at"] > 1.6e9


# --- packages and frameworks ---------------------------------------------------------------------------------
def test_packages_agree_with_the_standard_library(section_of: SectionOf) -> None:
    import importlib.metadata

    found = values(section_of(read_packages, Context(environment={})))
    versions = {package["name"]: package["version"] for package in found["installed"]}
    for name in ("psutil", "pytest", "rich"):
        assert versions[name] == importlib.metadata.version(name)
    assert found["unreadable"] == []


def test_origin_of_a_package_is_kept_without_its_password(
    tmp_path: Path, section_of: SectionOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = {"url": "https://u:planted@host.example/p.git", "vcs_info": {"vcs": "git", "commit_id": "ab12"}}
    origin["subdirectory"] = "parts/own"
    archive = {"url": "https://host.example/q.whl", "archive_info": {"hashes": {"sha256": "ff"}}}
    _tree(
        tmp_path,
        {
            "My_Own-1.0.dist-info/direct_url.json": json.dumps(origin),
            "arch-2.dist-info/direct_url.json": json.dumps(archive),
            "here.egg-info/PKG-INFO": "Metadata-Version: 2.1\nName: Here\nVersion: 3\n\nName: not this\n",
            "old-4-py3.11.egg-info": "Name: old\nVersion: 4\n",
            "plain-5+cpu.dist-info/METADATA": "",
            "broken-6.dist-info/direct_url.json": "{",
            "nothing.dist-info/RECORD": "",
        },
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "gone"), ""])
    found = values(section_of(read_packages, Context(environment={})))
    assert found["installed"] == [
        {
            "name": "arch",
            "version": "2",
            "url": "https://host.example/q.whl",
            "is_editable": False,
            "hash": "sha256=ff",
        },
        {"name": "here", "version": "3"},
        {
            "name": "my-own",
            "version": "1.0",
            "url": "https://host.example/p.git",
            "is_editable": False,
            "commit": "ab12",
            "subdirectory": "parts/own",
        },
        {"name": "old", "version": "4"},
        {"name": "plain", "version": "5+cpu"},
    ]
    assert [text.partition(":")[0] for text in sorted(found["unreadable"])] == [
        "broken-6.dist-info",
        "nothing.dist-info",
    ]


def test_package_that_is_imported_hides_the_other(
    tmp_path: Path, section_of: SectionOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, version in (("first", "2"), ("second", "1")):
        _tree(tmp_path, {f"{folder}/a_b-{version}.dist-info/METADATA": ""})
    monkeypatch.setattr(sys, "path", [str(tmp_path / "first"), str(tmp_path / "second")])
    found = values(section_of(read_packages, Context(environment={})))
    assert found["installed"] == [{"name": "a-b", "version": "2"}]


def test_conda_environment_lists_its_addresses(tmp_path: Path, section_of: SectionOf) -> None:
    record = {"md5": "0" * 32, "name": "x", "url": "https://host.example/t/planted/linux-64/x-1-0.conda"}
    _tree(tmp_path, {"conda-meta/x-1-0.json": json.dumps(record), "conda-meta/y-2-0.json": "{}"})
    section = section_of(read_conda, Context(environment={"CONDA_PREFIX": str(tmp_path)}))
    explicit = values(section)["explicit"]
    assert explicit[1] == "y-2-0"
    assert explicit[0].endswith("/linux-64/x-1-0.conda#" + "0" * 32)
    assert "planted" not in explicit[0]


def test_framework_that_is_not_loaded_is_not_loaded_for_this(python: Callable[..., Any]) -> None:
    names = "('torch', 'numpy', 'sklearn')"
    code = f"import sys, runstone.capture as c; c.snapshot(); print([m for m in {names} if m in sys.modules])"
    assert python(code).stdout.strip() == "[]"


@pytest.mark.heavy
def test_torch_tells_what_decides_its_numbers(section_of: SectionOf) -> None:
    torch = pytest.importorskip("torch")
    section = section_of(read_frameworks, Context(environment={}))
    found = values(section)["torch"]
    assert found["version"] == torch.__version__
    assert found["is_deterministic"] is False
    assert found["seed"] == torch.initial_seed()
    assert found["threads"] == torch.get_num_threads()
    assert found["matmul_precision"] == torch.get_float32_matmul_precision()
    assert found["default_dtype"] == "torch.float32"
    for field, value in found.items():
        assert value is not None or section.why[f"section.torch.{field}"].startswith("absent: "), field
