"""For who runs the platform: what tasks wait for, and how the operator does."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as model

from .parts import BLUE, GREEN, RED, YELLOW, Mark, choice, datasource, lines, number, page, ranking, rows_of

_HERE = 'namespace=~"$namespace"'
_AND_OPEN = f'and on (namespace, name) collective_task_phase{{{_HERE},phase!~"Complete|Failed|Suspended"}}'
_TASK = (
    "/d/collective-task?${datasource:queryparam}&var-namespace=${__data.fields.Namespace}"
    "&var-task=${__data.fields.Task}&${__url_time_range}"
)
_ENDS = f'collective_task_phase{{{_HERE},phase=~"Complete|Failed"}}'
_BY = "max by (namespace, name, phase)"
_ENDED = f"{_BY} ({_ENDS})"
_NAMES = {"namespace": "Namespace", "name": "Task"}
_PHASES = {"Running": GREEN, "Starting": BLUE, "Pending": YELLOW, "Failed": RED, "Complete": "dark-green"}


def dashboard() -> model.Dashboard:
    """Build it."""
    now = [
        number(
            "Running",
            "Tasks whose rounds run.",
            (f'count(collective_task_phase{{{_HERE},phase="Running"}})', ""),
            width=3,
        ),
        number(
            "Waiting",
            "Tasks that have not begun, or wait for learners again.",
            (f'count(collective_task_phase{{{_HERE},phase=~"Pending|Starting"}})', ""),
            thresholds=((None, GREEN), (1, YELLOW)),
            width=3,
        ),
        number(
            "Failed",
            "Tasks that have failed and are not deleted yet.",
            (f'count(collective_task_phase{{{_HERE},phase="Failed"}})', ""),
            thresholds=((None, GREEN), (1, RED)),
            width=3,
        ),
        number(
            "Learners ready",
            "Share of the learners of running and waiting tasks that are ready.",
            (
                f'sum(collective_task_learners{{{_HERE},state="ready"}} {_AND_OPEN}) / '
                f'sum(collective_task_learners{{{_HERE},state="desired"}} {_AND_OPEN})',
                "",
            ),
            unit="percentunit",
            thresholds=((None, RED), (0.5, YELLOW), (1, GREEN)),
            absent="-",
            width=3,
        ),
        number(
            "GPUs asked for",
            "GPUs, or parts of them, that running and waiting tasks ask for.",
            (
                f"sum(collective_task_gpus{{{_HERE}}} {_AND_OPEN})",
                "",
            ),
            width=3,
        ),
        number(
            "Operators",
            "Operators that answer; one acts, the others stand by.",
            ("count(collective_build_info)", ""),
            thresholds=((None, RED), (1, GREEN)),
            width=3,
        ),
        number(
            "Leader",
            "How many operators say that they act: it must be one.",
            ("sum(collective_leader)", ""),
            thresholds=((None, RED), (1, GREEN), (2, RED)),
            width=3,
        ),
        number(
            "Alerts",
            "Alerts of this project that fire.",
            ('count(ALERTS{alertname=~"Collective.*",alertstate="firing"})', ""),
            thresholds=((None, GREEN), (1, RED)),
            width=3,
        ),
    ]
    tasks = [
        lines(
            "Tasks by phase",
            "How many tasks are in each phase.",
            (f"sum by (phase) (collective_task_phase{{{_HERE}}})", "{{phase}}"),
            unit="none",
            stacked=True,
            colors=_PHASES,
        ),
        lines(
            "Learners that are not at work, by state",
            "What status.learnerStatuses says of learners that do not take part.",
            (
                f'sum by (state) (collective_task_learner_states{{{_HERE},state!~"Ready|Finished|Suspended"}})',
                "{{state}}",
            ),
            unit="none",
            stacked=True,
        ),
        ranking(
            "Failures by reason",
            "Failed tasks that are not deleted yet; docs/conditions.md explains each reason.",
            (f'count by (reason) (collective_task_condition{{{_HERE},type="Failed",status="True"}})', "{{reason}}"),
            unit="none",
            thresholds=((None, RED),),
        ),
        rows_of(
            "What tasks wait for",
            "Tasks whose learners or coordinator are not ready, and why; a click opens the task.",
            [
                (
                    f'collective_task_condition{{{_HERE},type=~"LearnersReady|CoordinatorReady",status="False",'
                    'reason!~"Finished|TaskSuspended"} == 1',
                    "",  # always 1
                )
            ],
            columns={**_NAMES, "type": "Condition", "reason": "Reason"},
            link=_TASK,
            width=12,
        ),
        rows_of(
            "Tasks",
            "Every task with its round; a click opens it.",
            [
                (f"collective_task_round{{{_HERE}}}", "Round"),
                (f"collective_task_rounds_planned{{{_HERE}}}", "Of"),
                (f'sum by (namespace, name) (collective_task_learners{{{_HERE},state="ready"}})', "Ready"),
                (f'sum by (namespace, name) (collective_task_learners{{{_HERE},state="desired"}})', "Learners"),
                (f"time() - collective_task_last_round_timestamp_seconds{{{_HERE}}}", "Seconds since a round"),
            ],
            columns=_NAMES,
            link=_TASK,
            width=12,
        ),
    ]
    operator = [
        lines(
            "Reconciles",
            "Turns of the reconcile loop, by result.",
            ("sum by (result) (rate(collective_reconcile_total[$__rate_interval]))", "{{result}}"),
            unit="ops",
            colors={"error": RED, "success": GREEN},
        ),
        lines(
            "Share of reconciles that fail",
            "From 10% on for 15 minutes, CollectiveReconcileErrors fires.",
            (
                'sum(rate(collective_reconcile_total{result="error"}[$__rate_interval])) '
                "/ sum(rate(collective_reconcile_total[$__rate_interval]))",
                "errors",
            ),
            unit="percentunit",
            thresholds=((None, GREEN), (0.1, RED)),
        ),
        lines(
            "How long a reconcile takes",
            "Quantiles of the time of a turn.",
            *(
                (
                    f"histogram_quantile({quantile}, "
                    "sum by (le) (rate(collective_reconcile_duration_seconds_bucket[$__rate_interval])))",
                    name,
                )
                for quantile, name in ((0.5, "median"), (0.95, "95th percentile"), (0.99, "99th percentile"))
            ),
            unit="s",
        ),
        lines(
            "Kubernetes API calls",
            "Requests to the API server, by verb and resource.",
            (
                "sum by (verb, resource) (rate(collective_k8s_api_requests_total[$__rate_interval]))",
                "{{verb}} {{resource}}",
            ),
            unit="reqps",
        ),
        lines(
            "Kubernetes API calls that were refused",
            "By status code: 409 is a conflict that is tried again, 403 a missing right, 429 too many, 0 no answer.",
            (
                'sum by (code) (rate(collective_k8s_api_requests_total{code!~"2..|404"}[$__rate_interval]))',
                "{{code}}",
            ),
            unit="reqps",
        ),
        lines(
            "Who leads",
            "1 for the operator that acts.",
            ("collective_leader", "{{pod}}"),
            unit="none",
            high=1,
        ),
        lines(
            "Memory of the operators",
            "Resident memory of each operator's process.",
            ('process_resident_memory_bytes{component="operator"}', "{{pod}}"),
            unit="bytes",
            width=12,
        ),
        lines(
            "CPU of the operators",
            "Cores that each operator's process keeps busy.",
            ('rate(process_cpu_seconds_total{component="operator"}[$__rate_interval])', "{{pod}}"),
            unit="none",
            width=12,
        ),
    ]
    return page(
        "Collective / Platform",
        "collective-platform",
        "All tasks of a cluster, and the operator that runs them.",
        [datasource(), choice("namespace", "Namespace", "label_values(collective_task_info, namespace)", several=True)],
        [("Now", now), ("Tasks", tasks), ("The operator", operator)],
        since="now-3h",
        marks=[
            Mark(
                name="A task ended",
                # Not again when operators were silent for a while in between.
                expression=f"{_ENDED} unless {_BY} (last_over_time({_ENDS}[1h] offset $__interval))",
                text="{{namespace}}/{{name}}: {{phase}}. "
                '<a href="/d/collective-task?var-namespace={{namespace}}&var-task={{name}}">Open the task</a>',
            )
        ],
    )
