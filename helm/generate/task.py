"""For who trains: how well a task learns, who votes how, where its time goes, and what privacy it has spent."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as model

from .parts import GREEN, RED, YELLOW, Mark, choice, datasource, lines, number, page, ranking

_TOLD = 'namespace="$namespace",name="$task"'
"""Of the operator's series."""
_TASK = 'namespace="$namespace",task="$task"'
"""Of the series of a task's own pods."""
_LEARNER = f'{_TASK},learner=~"$learner"'


def _mean(histogram: str, by: str, of: str) -> str:
    """Divide a histogram's sum by its count."""
    return (
        f"sum by ({by}) (rate({histogram}_sum{{{of}}}[$__rate_interval]))"
        f" / sum by ({by}) (rate({histogram}_count{{{of}}}[$__rate_interval]))"
    )


def _p95(histogram: str, by: str, of: str) -> str:
    return f"histogram_quantile(0.95, sum by (le, {by}) (rate({histogram}_bucket{{{of}}}[$__rate_interval])))"


def dashboard() -> model.Dashboard:
    """Build it."""
    now = [
        number(
            "Phase", "What the task does.", (f"collective_task_phase{{{_TOLD}}}", "{{phase}}"), name=True, absent="-"
        ),
        number("Round", "Rounds decided so far.", (f"collective_task_round{{{_TOLD}}}", "")),
        number("Of", "Rounds that the task asks for.", (f"collective_task_rounds_planned{{{_TOLD}}}", "")),
        number(
            "Test score",
            "Mean of the learners' last scores of a proposal, on their test sets.",
            (f'avg(collective_score{{{_TASK},kind="test"}})', ""),
            absent="-",
        ),
        number(
            "Learners ready",
            "Learners whose pods are ready.",
            (f'sum(collective_task_learners{{{_TOLD},state="ready"}})', ""),
            thresholds=((None, RED), (1, GREEN)),
        ),
        number(
            "Since a round",
            "How long ago the last round was decided.",
            (f"time() - collective_task_last_round_timestamp_seconds{{{_TOLD}}}", ""),
            unit="s",
            absent="-",
        ),
    ]
    learning = [
        lines(
            "Test scores",
            "Each learner's last score of a proposal on its test set, and their mean.",
            (f'collective_score{{{_LEARNER},kind="test"}}', "{{learner}}"),
            (f'avg(collective_score{{{_TASK},kind="test"}})', "mean"),
            unit="none",
            width=12,
            low=None,
            colors={"mean": "white"},
        ),
        lines(
            "Vote scores",
            "Each learner's last score of a proposal on its vote set: what it votes by.",
            (f'collective_score{{{_LEARNER},kind="vote"}}', "{{learner}}"),
            unit="none",
            width=12,
            low=None,
        ),
    ]
    decisions = [
        lines(
            "Rounds a minute, by result",
            "Accepted, rejected, or retried because they could not be decided.",
            (f"sum by (result) (rate(collective_rounds_total{{{_TASK}}}[$__rate_interval])) * 60", "{{result}}"),
            unit="cpm",
            width=6,
            stacked=True,
            colors={"accepted": GREEN, "rejected": YELLOW, "retried": RED},
        ),
        lines(
            "Votes a minute",
            "Votes that counted.",
            (f"sum by (vote) (rate(collective_votes_total{{{_TASK}}}[$__rate_interval])) * 60", "{{vote}}"),
            unit="cpm",
            width=6,
            stacked=True,
            colors={"for": GREEN, "against": RED},
        ),
        lines(
            "Rounds so far, by result",
            "Since the coordinator's last start.",
            (f"sum by (result) (collective_rounds_total{{{_TASK}}})", "{{result}}"),
            unit="none",
            width=6,
            colors={"accepted": GREEN, "rejected": YELLOW, "retried": RED},
        ),
        ranking(
            "Who was left out",
            "Rounds that were decided without a learner: it was late, away, or in error.",
            (f"collective_left_out_total{{{_LEARNER}}}", "{{learner}}"),
            unit="none",
            width=6,
            thresholds=((None, YELLOW),),
            absent="nobody",
        ),
    ]
    costs = [
        lines(
            "Time of a round, by phase",
            "Mean seconds that are spent on proposing (training), testing and accepting.",
            (_mean("collective_round_duration_seconds", "phase", _TASK), "{{phase}}"),
            unit="s",
            stacked=True,
        ),
        lines(
            "Calls to learners, 95th percentile",
            "How long calls take, by method; not those that find out whether a learner is there, as they wait for it.",
            (_p95("collective_rpc_duration_seconds", "method", f'{_TASK},method!~"Query.*"'), "{{method}}"),
            unit="s",
        ),
        lines(
            "Calls that failed",
            "By method and gRPC status code, since the coordinator's last start.",
            (
                f'sum by (method, code) (collective_rpc_duration_seconds_count{{{_TASK},code!="OK"}})',
                "{{method}} {{code}}",
            ),
            unit="none",
        ),
        lines(
            "Weights over the network",
            "Bytes of weights, with their frames, sent to learners and received from them.",
            (f"sum by (direction) (rate(collective_rpc_bytes_total{{{_TASK}}}[$__rate_interval]))", "{{direction}}"),
            unit="Bps",
        ),
        lines(
            "Checkpoints, 95th percentile",
            "Time until a decision was safe on disk; from 30 s on, CollectiveCheckpointSlow fires.",
            (_p95("collective_checkpoint_duration_seconds", "task", _TASK), "checkpoint"),
            unit="s",
        ),
        lines(
            "Memory of the coordinator",
            "Resident memory of its process.",
            (f'process_resident_memory_bytes{{{_TASK},component="coordinator"}}', "coordinator"),
            unit="bytes",
        ),
    ]
    learners = [
        lines(
            "Training speed",
            "Examples a second of the training that goes on, or else of the last one.",
            (f"collective_examples_per_second{{{_LEARNER}}}", "{{learner}}"),
            unit="eps",
        ),
        lines(
            "Time to train a proposal",
            "Mean, by learner.",
            (_mean("collective_train_seconds", "learner", _LEARNER), "{{learner}}"),
            unit="s",
        ),
        lines(
            "Time to test a proposal",
            "Mean, by learner.",
            (_mean("collective_test_seconds", "learner", _LEARNER), "{{learner}}"),
            unit="s",
        ),
        lines(
            "Examples trained on",
            "Since each learner's last start.",
            (f"collective_examples_total{{{_LEARNER}}}", "{{learner}}"),
            unit="short",
            width=12,
        ),
        lines(
            "Calls answered a minute",
            "By method, over all learners.",
            (f"sum by (method) (rate(collective_rpc_total{{{_LEARNER}}}[$__rate_interval])) * 60", "{{method}}"),
            unit="cpm",
            width=12,
        ),
    ]
    privacy = [
        ranking(
            "Privacy budget spent",
            "Consumed share of each learner's epsilon; from 90% on, CollectivePrivacyBudgetNearlySpent fires.",
            (
                f'collective_privacy_epsilon{{{_LEARNER},kind="consumed"}}'
                f' / ignoring (kind) collective_privacy_epsilon{{{_LEARNER},kind="target"}}',
                "{{learner}}",
            ),
            unit="percentunit",
            high=1,
            thresholds=((None, GREEN), (0.75, YELLOW), (0.9, RED)),
            absent="no private training",
            width=12,
        ),
        lines(
            "Epsilon",
            "What each learner has spent, and the smallest budget.",
            (f'collective_privacy_epsilon{{{_LEARNER},kind="consumed"}}', "{{learner}}"),
            (f'min(collective_privacy_epsilon{{{_LEARNER},kind="target"}})', "budget"),
            unit="none",
            width=12,
            colors={"budget": RED},
        ),
    ]
    variables = [
        datasource(),
        choice("namespace", "Namespace", "label_values(collective_task_info, namespace)", several=False),
        choice("task", "Task", 'label_values(collective_task_info{namespace="$namespace"}, name)', several=False),
        choice("learner", "Learner", f"label_values(collective_score{{{_TASK}}}, learner)", several=True),
    ]
    return page(
        "Collective / Task",
        "collective-task",
        "One task: its scores, its votes, its time and its learners.",
        variables,
        [
            ("Now", now),
            ("Learning", learning),
            ("Decisions", decisions),
            ("Time, bytes, disk", costs),
            ("Learners", learners),
            ("Differential privacy", privacy),
        ],
        since="now-1h",
        marks=[
            Mark(
                name="The coordinator started anew",
                expression=f'changes(process_start_time_seconds{{{_TASK},component="coordinator"}}[$__interval]) > 0',
            )
        ],
    )
