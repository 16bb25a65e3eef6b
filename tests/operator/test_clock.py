"""The clock: steps of the wall clock are not seen, small corrections are, and a machine's sleep is time that passed."""

from __future__ import annotations

import logging

import pytest

from collective_operator.clock import Clock


class Machine:
    """One that runs since 1970-01-01T01:00:00Z, whose clocks are set by hand."""

    def __init__(self) -> None:
        self.wall = 3600.0
        self.steady = 5.0
        self.clock = Clock(wall=lambda: self.wall, steady=lambda: self.steady)

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds

    def seconds(self) -> float:
        return self.clock.now().timestamp()


@pytest.mark.parametrize("step", [3600.0, -3600.0, 86400.0 * 365])
def test_a_step_is_not_seen_forth_nor_back(step: float, caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine()
    machine.passes(10)
    machine.wall += step
    assert machine.seconds() == 3610
    machine.passes(60)
    assert machine.seconds() == 3670
    machine.wall -= step
    assert machine.seconds() == 3670
    machine.wall += step
    assert machine.seconds() == 3670
    told = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 2, "once for each time that it is off"
    assert f"was set by {step:+.0f} s" in told[0].message


def test_what_a_time_daemon_corrects_is_followed() -> None:
    machine = Machine()
    for _ in range(100):
        machine.passes(60)
        machine.wall += 2
        assert machine.seconds() == machine.wall
