"""The comparison runs, and its plainest findings hold: one seed, few rounds, logistic regression."""

from __future__ import annotations

from dataclasses import replace

import pytest

from collective_learner.mli import Weights

from .code import digest_code
from .methods import Alone, Centralised, Method, Result, configured
from .report import BEGIN, END, write_page, write_plot
from .sites import Setting

pytest.importorskip("sklearn")

SKEWED = Setting(model="SKLEARN_DIGITS", loader="DIGITS", skew=0.93, batch_size=512, passes=20, epochs=5)
AVG = Method(name="FedAvg", strategy=configured({"type": "FedAvg"}))


def test_where_sites_differ_averaging_carries_and_voting_does_not():
    centralised = Centralised().run(SKEWED, 0).accuracy
    alone = Alone().run(SKEWED, 0).accuracy
    averaged = AVG.run(SKEWED, 0)
    voted = Method(name="Vote", strategy=configured({"type": "Vote"})).run(SKEWED, 0)
    adaptive = Method(name="FedAdam", strategy=configured({"type": "FedOpt"}), epochs=1).run(SKEWED, 0)
    assert alone + 0.2 < averaged.accuracy < centralised
    assert adaptive.accuracy > averaged.accuracy - 0.05
    assert voted.accuracy < alone and voted.accepted < voted.rounds / 4
    assert (averaged.rounds, averaged.accepted, voted.rounds, adaptive.rounds) == (4, 4, 20, 20)


def test_the_gate_keeps_the_voters_mean_loss_from_rising():
    hasty = {"type": "FedOpt", "fedOpt": {"method": "AvgM", "beta1": 0.9}}
    free = Method(name="", strategy=configured(hasty), epochs=1).run(SKEWED, 0)
    gated = Method(name="", strategy=configured({**hasty, "gate": {}}), epochs=1).run(SKEWED, 0)
    assert free.worst_step > 1e-3, "without a gate it does rise, else this shows nothing"
    assert gated.worst_step <= 1e-6
    assert 0 < gated.accepted < gated.rounds


def test_methods_share_their_data_and_the_judge_sees_none_of_it_in_training():
    sites, union = SKEWED.sites(3, epochs=1), SKEWED.union(3)
    rows = {tuple(row) for row in union.test_data.x.tolist()}
    assert len(union.train_data.y) == sum(len(site.train_data.y) for site in sites.values())
    assert len(union.test_data.y) == sum(len(site.test_data.y) for site in sites.values())
    assert not any(tuple(row) in rows for site in sites.values() for row in site.train_data.x.tolist())
    first = [site.mli_get_current_weights() for site in sites.values()]
    assert all(_same(first[0], other) for other in first)


def test_the_report_goes_between_the_marks_and_nowhere_else(tmp_path):
    page, picture = tmp_path / "quality.md", tmp_path / "images" / "quality.png"
    page.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n")
    table = {"iid": {"FedAvg": [Result(accuracy=0.9, rounds=5, accepted=4, worst_step=-0.1)]}, "skewed": {"FedAvg": []}}
    for _ in range(2):
        write_page(page, table)
        text = page.read_text()
        assert text.startswith("above\n") and text.endswith(f"{END}\nbelow\n") and "old" not in text
        assert text.count("| FedAvg |") == 3
    write_plot(picture, table)
    assert picture.read_bytes().startswith(b"\x89PNG")
    page.write_text("no marks")
    with pytest.raises(ValueError, match="needs one line"):
        write_page(page, table)


def test_the_report_says_what_is_reached_and_what_is_not(tmp_path):
    def results(*accuracies: float, worst_step: float = 0.0) -> list[Result]:
        return [Result(accuracy=each, rounds=5, accepted=4, worst_step=worst_step) for each in accuracies]

    page = tmp_path / "quality.md"
    table = {
        "digits, logistic, skewed": {
            "FedAvg": results(0.90, 0.92, 0.94),
            "FedAvg, gated": results(0.90, 0.91, 0.945),
        },
        "digits, CNN, skewed": {
            "centralised": results(0.98, 0.99, 0.97),
            "FedAvg": results(0.90, 0.82, 0.80),
            "FedAvg, gated": results(0.11, 0.03, 0.01, worst_step=0.002),
            "FedAvgM": results(0.93, 0.94, 0.92),
        },
    }
    table = {
        title: {name: methods.get(name, []) for name in ("FedAvg", "FedAvg, gated", "FedAvgM", "centralised")}
        for title, methods in table.items()
    }
    page.write_text(f"{BEGIN}\n{END}\n")
    write_page(page, table)
    lines = page.read_text().partition("| wanted")[2].splitlines()[2:]
    wanted = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    assert [(first.partition(":")[0], measured[:7], last) for first, measured, last in wanted] == [
        ("FedAvg on digits, logistic, skewed", "0.920", "yes"),
        ("FedAvg on digits, CNN, skewed", "0.820", "**no**"),
        ("FedAvg, gated no worse than FedAvg within noise on digits, logistic, skewed", "-0.0017", "yes"),
        ("FedAvg, gated no worse than FedAvg within noise on digits, CNN, skewed", "-0.7900", "**no**"),
        (
            "Behind the gate, no accepted round is worse for the voters' mean loss than the one before",
            "+0.0020",
            "**no**",
        ),
        ("A strategy within 0.05 of centralised on digits, CNN, skewed", "FedAvgM", "yes"),
    ]


def test_figures_are_bound_to_what_made_them():
    pytest.importorskip("torch")
    methods = (Centralised(), AVG)
    digest = digest_code({"skewed": SKEWED}, methods)
    assert digest == digest_code({"skewed": SKEWED}, methods)
    fewer = replace(AVG, strategy=replace(AVG.strategy, fraction="0.5"))
    others = ((Centralised(), fewer), (Centralised(), replace(AVG, epochs=1)), (Centralised(),))
    assert len({digest, *(digest_code({"skewed": SKEWED}, each) for each in others)}) == 4
    assert digest_code({"skewed": replace(SKEWED, passes=21)}, methods) != digest


def _same(one: Weights, other: Weights) -> bool:
    return all((one.weights[name] == other.weights[name]).all() for name in one.weights)
