"""For who pays for GPUs: what learners ask for and use, beside the rounds that come of it.

Learners tell memory and utilisation themselves. NVIDIA's DCGM exporter knows more of a GPU; it names pods in the label
`pod`, or in `exported_pod` where Prometheus has put the exporter's own pod there.
"""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as model

from .parts import GREEN, RED, YELLOW, choice, datasource, lines, number, page

_TOLD = 'namespace=~"$namespace",name=~"$task"'
_LEARNER = 'namespace=~"$namespace",task=~"$task",learner=~"$learner"'
_NAME = "{{task}} {{learner}} GPU {{gpu}}"
_DCGM_NAME = "{{pod}} GPU {{gpu}}"


def dcgm(metric: str) -> str:
    """Select a series of the DCGM exporter for the pods of tasks, whatever their label is called."""
    exported = f'{metric}{{exported_namespace=~"$namespace",exported_pod=~"($task)-learner-[0-9]+"}}'
    plain = f'{metric}{{namespace=~"$namespace",pod=~"($task)-learner-[0-9]+"}}'
    return f'label_replace({exported}, "pod", "$1", "exported_pod", "(.+)") or {plain}'


def dashboard() -> model.Dashboard:
    """Build it."""
    used, capacity = (f"collective_gpu_memory_{part}{{{_LEARNER}}}" for part in ("bytes", "capacity_bytes"))
    now = [
        number("GPUs asked for", "By the learners of these tasks.", (f"sum(collective_task_gpus{{{_TOLD}}})", "")),
        number("GPUs seen", "GPUs that learners see and tell of.", (f"count({used})", "")),
        number(
            "Utilisation",
            "Mean over the GPUs.",
            (f"avg(collective_gpu_utilization_ratio{{{_LEARNER}}})", ""),
            unit="percentunit",
            thresholds=((None, RED), (0.3, YELLOW), (0.7, GREEN)),
            absent="-",
        ),
        number(
            "Memory in use",
            "Share of all GPUs' memory.",
            (f"sum({used}) / sum({capacity})", ""),
            unit="percentunit",
            thresholds=((None, GREEN), (0.9, YELLOW), (0.97, RED)),
            absent="-",
        ),
        number(
            "Learners that wait for a node",
            "Unschedulable, or held by a queue.",
            (f'sum(collective_task_learner_states{{{_TOLD},state=~"Unschedulable|SchedulingGated"}})', ""),
            thresholds=((None, GREEN), (1, YELLOW)),
        ),
        number("Rounds", "Rounds decided by these tasks.", (f"sum(collective_task_round{{{_TOLD}}})", "")),
    ]
    learners = [
        lines(
            "Utilisation",
            "Share of time in which a GPU was at work, as its driver says.",
            (f"collective_gpu_utilization_ratio{{{_LEARNER}}}", _NAME),
            unit="percentunit",
            width=12,
            high=1,
        ),
        lines(
            "Rounds decided",
            "The rounds that come of it: a GPU that is idle while rounds stand still waits for somebody.",
            (f"collective_task_round{{{_TOLD}}}", "{{name}}"),
            unit="none",
            width=12,
        ),
        lines("Memory in use", "By whatever uses the GPU.", (used, _NAME), unit="bytes", width=12),
        lines(
            "Share of memory in use",
            "Near 100% the next larger batch ends in an error.",
            (f"{used} / {capacity}", _NAME),
            unit="percentunit",
            width=12,
            high=1,
            thresholds=((None, GREEN), (0.95, RED)),
        ),
        lines(
            "Training speed",
            "Examples a second of the training that goes on, or else of the last one.",
            (f"collective_examples_per_second{{{_LEARNER}}}", "{{task}} {{learner}}"),
            unit="eps",
            width=12,
        ),
        lines(
            "Where a round's time goes",
            "Share of the time that is spent on proposing (training), testing and accepting.",
            (
                'sum by (phase) (rate(collective_round_duration_seconds_sum{namespace=~"$namespace",task=~"$task"}'
                "[$__rate_interval])) / ignoring (phase) group_left sum(rate(collective_round_duration_seconds_sum"
                '{namespace=~"$namespace",task=~"$task"}[$__rate_interval]))',
                "{{phase}}",
            ),
            unit="percentunit",
            width=12,
            stacked=True,
            high=1,
        ),
    ]
    exporter = [
        lines(
            "Utilisation",
            "DCGM_FI_DEV_GPU_UTIL",
            (f"({dcgm('DCGM_FI_DEV_GPU_UTIL')}) / 100", _DCGM_NAME),
            unit="percentunit",
            high=1,
        ),
        lines(
            "Memory in use",
            "DCGM_FI_DEV_FB_USED",
            (f"({dcgm('DCGM_FI_DEV_FB_USED')}) * 1048576", _DCGM_NAME),
            unit="bytes",
        ),
        lines(
            "Tensor cores at work",
            "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE: low while utilisation is high: small batches, or float32.",
            (dcgm("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE"), _DCGM_NAME),
            unit="percentunit",
            high=1,
        ),
        lines("Power", "DCGM_FI_DEV_POWER_USAGE", (dcgm("DCGM_FI_DEV_POWER_USAGE"), _DCGM_NAME), unit="watt"),
        lines(
            "Temperature",
            "DCGM_FI_DEV_GPU_TEMP",
            (dcgm("DCGM_FI_DEV_GPU_TEMP"), _DCGM_NAME),
            unit="celsius",
            low=None,
            thresholds=((None, GREEN), (85, RED)),
        ),
        lines(
            "Errors (XID)",
            "DCGM_FI_DEV_XID_ERRORS: the number of the last error; 0 is none.",
            (dcgm("DCGM_FI_DEV_XID_ERRORS"), _DCGM_NAME),
            unit="none",
            bars=True,
        ),
    ]
    variables = [
        datasource(),
        choice("namespace", "Namespace", "label_values(collective_task_info, namespace)", several=True),
        choice("task", "Task", 'label_values(collective_task_info{namespace=~"$namespace"}, name)', several=True),
        choice(
            "learner",
            "Learner",
            'label_values(collective_examples_total{namespace=~"$namespace",task=~"$task"}, learner)',
            several=True,
        ),
    ]
    return page(
        "Collective / GPUs",
        "collective-gpu",
        "GPUs of learners, as they see them and as the DCGM exporter does, beside the rounds of their tasks.",
        variables,
        [("Now", now), ("As learners see them", learners), ("As the DCGM exporter sees them", exporter)],
        since="now-1h",
    )
