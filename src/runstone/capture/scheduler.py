"""The job that this process is part of, as its scheduler or service names it. By an allowlist."""

from __future__ import annotations

from functools import partial

from runstone.capture import redact
from runstone.capture.context import Context
from runstone.capture.facts import Facts, absent

# For each scheduler: the variable that tells it is there, then field and variable.
_JOBS: dict[str, tuple[str, dict[str, str]]] = {
    "slurm": (
        "SLURM_JOB_ID",
        {
            "job_id": "SLURM_JOB_ID",
            "job_name": "SLURM_JOB_NAME",
            "cluster": "SLURM_CLUSTER_NAME",
            "partition": "SLURM_JOB_PARTITION",
            "array_job_id": "SLURM_ARRAY_JOB_ID",
            "array_task_id": "SLURM_ARRAY_TASK_ID",
            "step_id": "SLURM_STEP_ID",
            "nodes": "SLURM_JOB_NUM_NODES",
            "node_list": "SLURM_JOB_NODELIST",
            "tasks": "SLURM_NTASKS",
            "cpus_per_task": "SLURM_CPUS_PER_TASK",
            "memory_per_node_mib": "SLURM_MEM_PER_NODE",
            "gpus": "SLURM_GPUS",
            "gpus_per_node": "SLURM_GPUS_PER_NODE",
            "gpus_on_node": "SLURM_GPUS_ON_NODE",
            "restarts": "SLURM_RESTART_COUNT",
        },
    ),
    "pbs": (
        "PBS_JOBID",
        {
            "job_id": "PBS_JOBID",
            "job_name": "PBS_JOBNAME",
            "queue": "PBS_QUEUE",
            "array_index": "PBS_ARRAY_INDEX",
            "nodes": "PBS_NUM_NODES",
            "gpus": "PBS_NGPUS",
        },
    ),
    "lsf": (
        "LSB_JOBID",
        {
            "job_id": "LSB_JOBID",
            "job_name": "LSB_JOBNAME",
            "queue": "LSB_QUEUE",
            "array_index": "LSB_JOBINDEX",
            "hosts": "LSB_HOSTS",
        },
    ),
    "ray": ("RAY_JOB_ID", {"job_id": "RAY_JOB_ID", "submission_id": "RAY_JOB_SUBMISSION_ID"}),
    "torchelastic": (
        "TORCHELASTIC_RUN_ID",
        {
            "run_id": "TORCHELASTIC_RUN_ID",
            "restarts": "TORCHELASTIC_RESTART_COUNT",
            "max_restarts": "TORCHELASTIC_MAX_RESTARTS",
        },
    ),
    "sagemaker": (
        "TRAINING_JOB_NAME",
        {
            "job_name": "TRAINING_JOB_NAME",
            "host": "SM_CURRENT_HOST",
            "hosts": "SM_HOSTS",
            "instance_type": "SM_CURRENT_INSTANCE_TYPE",
            "gpus": "SM_NUM_GPUS",
        },
    ),
    "vertex": (
        "CLOUD_ML_JOB_ID",
        {"job_id": "CLOUD_ML_JOB_ID", "project": "CLOUD_ML_PROJECT_ID", "region": "CLOUD_ML_REGION"},
    ),
    "azureml": (
        "AZUREML_RUN_ID",
        {
            "run_id": "AZUREML_RUN_ID",
            "experiment": "AZUREML_ARM_PROJECT_NAME",
            "workspace": "AZUREML_ARM_WORKSPACE_NAME",
        },
    ),
    "github_actions": (
        "GITHUB_RUN_ID",
        {
            "run_id": "GITHUB_RUN_ID",
            "workflow": "GITHUB_WORKFLOW",
            "repository": "GITHUB_REPOSITORY",
            "sha": "GITHUB_SHA",
        },
    ),
    "gitlab_ci": (
        "CI_JOB_ID",
        {"job_id": "CI_JOB_ID", "pipeline_id": "CI_PIPELINE_ID", "project": "CI_PROJECT_PATH"},
    ),
}


def _told(context: Context, variable: str) -> str | None:
    value = context.environment.get(variable)
    return redact.text(value) if value else None


def read_scheduler(facts: Facts, context: Context) -> None:
    """One object for each scheduler that left its mark; several do where one runs inside another."""
    found = False
    for kind, (mark, fields) in _JOBS.items():
        if not context.environment.get(mark):
            continue
        found = True
        job = facts.part(kind)
        for field, variable in fields.items():
            job.read(field, partial(_told, context, variable), if_none=f"{variable} is not set")
    if not found:
        raise absent("no scheduler's variables are set")
