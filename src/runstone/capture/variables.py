"""Environment variables that change what a training does, by an allowlist."""

from __future__ import annotations

from runstone.capture import redact
from runstone.capture.context import Context
from runstone.capture.facts import Facts

_PREFIXES = tuple(
    "CUDA_ CUDNN_ CUBLAS_ NVIDIA_ NVTE_ NCCL_ RCCL_ GLOO_ UCX_ HIP_ HSA_ ROCR_ OMP_ GOMP_ KMP_ MKL_ OPENBLAS_ BLIS_ "
    "VECLIB_ NUMEXPR_ ATEN_ TORCH_ TORCHINDUCTOR_ TORCHDYNAMO_ PYTORCH_ TRITON_ JAX_ XLA_ TF_ KERAS_ ACCELERATE_ "
    "DEEPSPEED_ MALLOC_ PYTHON".split()
)
_NAMES = frozenset(
    "HF_HOME HF_HUB_OFFLINE HF_DATASETS_OFFLINE TRANSFORMERS_OFFLINE TRANSFORMERS_CACHE TOKENIZERS_PARALLELISM "
    "PL_GLOBAL_SEED PL_SEED_WORKERS RUNSTONE_SEED LD_PRELOAD LD_LIBRARY_PATH LANG LC_ALL TZ TMPDIR".split()
)
# Terraform's, which TensorFlow shares a prefix with.
_NOT_OURS = ("TF_VAR_", "TF_CLI_", "TF_LOG_")
# Names with a word of secrets in them that hold none.
_HARMLESS = frozenset({"TOKENIZERS_PARALLELISM"})


def read_variables(facts: Facts, context: Context) -> None:
    """Each variable that is set and allowed; one whose name says that it is a secret is null."""
    for name in sorted(context.environment):
        is_allowed = name in _NAMES or (name.startswith(_PREFIXES) and not name.startswith(_NOT_OURS))
        if not is_allowed:
            continue
        if redact.is_secret_variable(name) and name not in _HARMLESS:
            facts.miss(name, "redacted: the name says that it is a secret")
        else:
            facts.put(name, redact.text(context.environment[name]))
