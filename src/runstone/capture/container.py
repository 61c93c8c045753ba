"""What stands between this process and the hardware: container, Kubernetes pod, virtual machine."""

from __future__ import annotations

import re
from contextlib import suppress

from runstone.capture.context import Context
from runstone.capture.facts import Facts, absent

_ID = re.compile(r"[0-9a-f]{64}")
# In the paths of control groups and mounts; the first that fits wins.
_MARKS = {
    "containerd": "containerd",
    "cri-o": "crio",
    "podman": "libpod",
    "docker": "docker",
    "lxc": "lxc",
}
# Where the downward API is mounted by custom.
_POD_FOLDERS = ("etc/podinfo", "etc/pod-info", "etc/downward-api")
# The namespace lies beside the token, which is never opened.
_NAMESPACE = "var/run/secrets/kubernetes.io/serviceaccount/namespace"
_VENDORS = {
    "amazon ec2": "aws",
    "google": "gcp",
    "google compute engine": "gcp",
    "microsoft corporation": "azure or hyper-v",
    "qemu": "qemu",
    "vmware, inc.": "vmware",
    "xen": "xen",
    "innotek gmbh": "virtualbox",
    "alibaba cloud": "alibaba",
    "digitalocean": "digitalocean",
    "hetzner": "hetzner",
    "openstack foundation": "openstack",
}


def read_container(facts: Facts, context: Context) -> None:
    """Kind, id and image of the container, pod, and kind of virtual machine."""
    facts.read("kind", lambda: _kind(context), if_none="no sign of a container")
    facts.read("id", lambda: _id(context), if_none="no id in the control groups and mounts")
    facts.read("image", lambda: _image(context), if_none="nothing inside a container tells its image")
    if context.environment.get("KUBERNETES_SERVICE_HOST"):
        pod = facts.part("kubernetes")
        pod.read("namespace", lambda: _pod(context, "POD_NAMESPACE", "namespace") or context.text(_NAMESPACE))
        pod.read(
            "pod",
            lambda: _pod(context, "POD_NAME", "name") or context.environment.get("HOSTNAME"),
            if_none="the downward API gives no POD_NAME",
        )
        pod.read(
            "node",
            lambda: _pod(context, "NODE_NAME", "nodename"),
            if_none="the downward API gives no NODE_NAME",
        )
    else:
        facts.miss("kubernetes", "absent: KUBERNETES_SERVICE_HOST is not set")
    facts.read("vm", lambda: _virtual_machine(context), if_none="no sign of a virtual machine")


def container_key(context: Context) -> list[str | None]:
    """Return the variables that tell of containers and pods."""
    kubernetes = ("KUBERNETES_SERVICE_HOST", "POD_NAMESPACE", "POD_NAME", "NODE_NAME", "HOSTNAME")
    names = ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER", "container", *kubernetes)
    return [context.environment.get(name) for name in names]


def _kind(context: Context) -> str | None:
    if "APPTAINER_CONTAINER" in context.environment or "SINGULARITY_CONTAINER" in context.environment:
        return "apptainer"
    if (context.root / "run/.containerenv").exists():
        return "podman"
    paths = _traces(context)
    for kind, mark in _MARKS.items():
        if mark in paths:
            return kind
    if (context.root / ".dockerenv").exists():
        return "docker"
    if "kubepods" in paths or context.environment.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes"
    return context.environment.get("container")  # systemd-nspawn and its like


def _id(context: Context) -> str | None:
    found = _ID.search(_traces(context))
    return found[0] if found else None


def _traces(context: Context) -> str:
    """Return the paths of this process's control groups, and the mounts that runtimes make from their own folders."""
    groups = mounts = ""
    with suppress(OSError):
        groups = context.text("proc/self/cgroup")
    with suppress(OSError):
        mounts = context.text("proc/self/mountinfo")
    # Elsewhere in the mount table stand the paths of *other* containers, where this is their host.
    own = (" /etc/hostname ", " /etc/resolv.conf ")
    return "\n".join([groups, *(line for line in mounts.splitlines() if any(place in line for place in own))])


def _image(context: Context) -> str | None:
    for variable in ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER"):
        if value := context.environment.get(variable):
            return value
    try:
        stated = re.search(r'^image="(.*)"$', context.text("run/.containerenv"), re.MULTILINE)
    except OSError:
        return None
    return stated[1] if stated else None


def _pod(context: Context, variable: str, file: str) -> str | None:
    if value := context.environment.get(variable):
        return value
    for folder in _POD_FOLDERS:
        try:
            return context.text(f"{folder}/{file}")
        except OSError:
            continue
    return None


def _virtual_machine(context: Context) -> str | None:
    try:
        vendor = context.text("sys/class/dmi/id/sys_vendor")
    except OSError:
        vendor = ""
    if kind := _VENDORS.get(vendor.lower()):
        return kind
    flags = re.search(r"^flags\s*:.*\bhypervisor\b", context.text("proc/cpuinfo"), re.MULTILINE)
    if not flags and not vendor:
        raise absent("no sign of a virtual machine")
    return "unknown hypervisor" if flags else None
