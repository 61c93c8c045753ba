"""What the loaded frameworks were built with and set to. Reads `sys.modules`; imports none of them.

Nothing here may start a device: no call that creates a CUDA context, no `jax.devices()`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from runstone import settings
from runstone.capture.context import Context
from runstone.capture.facts import Facts, Missing, absent
from runstone.capture.forks import importing
from runstone.values import JSON


def read_frameworks(facts: Facts, context: Context) -> None:
    """One object for each framework; null where it is not loaded."""
    for name, read in _FRAMEWORKS.items():
        context.pause()
        module = sys.modules.get(name)
        if module is None:
            facts.miss(name, "absent: not imported")
        elif getattr(getattr(module, "__spec__", None), "_initializing", False):
            facts.miss(name, "absent: it was still being imported")
        else:
            inner = facts.part(name)
            inner.read("version", partial(_version, module))
            read(inner, module)


def _version(module: Any) -> str | None:
    return _text(getattr(module, "__version__", None))


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _setting(module: Any, path: str) -> Callable[[], JSON]:
    """Return a source that follows attributes, as far as modules that are loaded have them."""

    def read() -> JSON:
        value = module
        for name in path.split("."):
            value = getattr(value, name, None)
            if value is None:
                raise absent(f"this version has no {path}")
        return _plain(value() if callable(value) else value)

    return read


def _plain(value: Any) -> JSON:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value)


def _read_torch(facts: Facts, torch: Any) -> None:
    for field, path in {
        "git_commit": "version.git_version",
        "is_debug_build": "version.debug",
        "cuda": "version.cuda",
        "hip": "version.hip",
        "cudnn": "backends.cudnn.version",
        "threads": "get_num_threads",
        "interop_threads": "get_num_interop_threads",
        "default_dtype": "get_default_dtype",
        "seed": "initial_seed",
        "is_deterministic": "are_deterministic_algorithms_enabled",
        "is_deterministic_warn_only": "is_deterministic_algorithms_warn_only_enabled",
        "fills_uninitialized_memory": "utils.deterministic.fill_uninitialized_memory",
        "matmul_precision": "get_float32_matmul_precision",
        "is_anomaly_detection_on": "is_anomaly_enabled",
        "is_cuda_initialized": "cuda.is_initialized",
        "cudnn_is_enabled": "backends.cudnn.enabled",
        "cudnn_is_deterministic": "backends.cudnn.deterministic",
        "cudnn_is_benchmarking": "backends.cudnn.benchmark",
    }.items():
        facts.read(field, _setting(torch, path), if_none="this build has none")
    # The newer setting first: reading the older one warns where the newer one is in use.
    facts.read("cuda_matmul_precision", lambda: _precision(torch, "backends.cuda.matmul"))
    facts.read("cudnn_precision", lambda: _precision(torch, "backends.cudnn"))
    facts.read("nccl", lambda: _nccl(torch), if_none="this build has none")
    facts.read("allocator", lambda: _allocator(torch))
    facts.read("is_compile_disabled", lambda: _dynamo("disable"))


def _precision(torch: Any, path: str) -> JSON:
    """Precision of float32 products: `ieee`, `tf32`, or `none` where it follows the general setting."""
    if torch.version.cuda is None:
        raise absent("this build of torch has no CUDA")
    try:
        return _setting(torch, f"{path}.fp32_precision")()
    except Missing:
        return "tf32" if _setting(torch, f"{path}.allow_tf32")() else "ieee"


def _nccl(torch: Any) -> JSON:
    if torch.version.cuda is None:
        raise absent("this build of torch has no CUDA")
    version = _setting(torch, "cuda.nccl.version")()
    return ".".join(map(str, version)) if isinstance(version, list) else version


def _allocator(torch: Any) -> JSON:
    if torch.version.cuda is None:
        raise absent("this build of torch has no CUDA")
    return _setting(torch, "cuda.memory.get_allocator_backend")()


def _dynamo(name: str) -> bool:
    config = sys.modules.get("torch._dynamo.config")
    if config is None:
        raise absent("torch.compile has not been used")
    return bool(getattr(config, name))


def _read_jax(facts: Facts, jax: Any) -> None:
    facts.read("jaxlib", lambda: _version(sys.modules.get("jaxlib")))
    for field, name in {
        "is_x64": "jax_enable_x64",
        "matmul_precision": "jax_default_matmul_precision",
        "platforms": "jax_platforms",
        "debugs_nans": "jax_debug_nans",
        "is_jit_disabled": "jax_disable_jit",
        "prng": "jax_default_prng_impl",
    }.items():
        facts.read(field, _setting(jax, f"config.{name}"), if_none="not set")


def _read_tensorflow(facts: Facts, tensorflow: Any) -> None:
    facts.read("git_commit", _setting(tensorflow, "version.GIT_VERSION"))
    facts.read("cuda", lambda: _text(tensorflow.sysconfig.get_build_info().get("cuda_version")))
    facts.read("cudnn", lambda: _text(tensorflow.sysconfig.get_build_info().get("cudnn_version")))
    facts.read("is_deterministic", _setting(tensorflow, "config.experimental.is_op_determinism_enabled"))
    facts.read("is_tf32_on", _setting(tensorflow, "config.experimental.tensor_float_32_execution_enabled"))
    facts.read("threads", _setting(tensorflow, "config.threading.get_intra_op_parallelism_threads"))
    facts.read("interop_threads", _setting(tensorflow, "config.threading.get_inter_op_parallelism_threads"))


def _read_keras(facts: Facts, keras: Any) -> None:
    facts.read("backend", _setting(keras, "config.backend"))
    facts.read("floatx", _setting(keras, "config.floatx"))


def _read_sklearn(facts: Facts, sklearn: Any) -> None:
    facts.read("config", lambda: {name: _plain(value) for name, value in sklearn.get_config().items()})


def _read_version_only(facts: Facts, module: Any) -> None:
    """Nothing but the version."""


_FRAMEWORKS: dict[str, Callable[[Facts, Any], None]] = {
    "torch": _read_torch,
    "lightning": _read_version_only,
    "jax": _read_jax,
    "tensorflow": _read_tensorflow,
    "keras": _read_keras,
    "sklearn": _read_sklearn,
    "numpy": _read_version_only,
    "transformers": _read_version_only,
    "xgboost": _read_version_only,
    "lightgbm": _read_version_only,
}


def read_blas(facts: Facts, _: Context) -> None:
    """Libraries of linear algebra and OpenMP that are loaded, and their threads."""
    if "numpy" not in sys.modules and "torch" not in sys.modules:
        raise absent("neither numpy nor torch is imported")
    # Importing it sets a variable that would go on to the processes of the user.
    with importing, settings.variable_kept("KMP_DUPLICATE_LIB_OK"):
        import threadpoolctl  # optional, and scikit-learn brings it

        pools = threadpoolctl.threadpool_info()
    for pool in pools:
        library = facts.item("libraries")
        for field, key in {
            "api": "user_api",
            "library": "internal_api",
            "version": "version",
            "threads": "num_threads",
            "layer": "threading_layer",
            "architecture": "architecture",
            "path": "filepath",
        }.items():
            if pool.get(key) is not None:
                library.put(field, _plain(pool[key]))
