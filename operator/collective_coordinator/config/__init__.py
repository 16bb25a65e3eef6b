"""What a coordinator is to do: the JSON that the operator writes, as typed, frozen objects."""

from collective_coordinator.config.parse import parse_config
from collective_coordinator.config.reader import ConfigError
from collective_coordinator.config.spec import (
    FORMATS,
    STRATEGIES,
    TRACKERS,
    Component,
    Config,
    LearnerSpec,
    OptimizerSpec,
    Policy,
    StrategySpec,
)

__all__ = [
    "FORMATS",
    "STRATEGIES",
    "TRACKERS",
    "Component",
    "Config",
    "ConfigError",
    "LearnerSpec",
    "OptimizerSpec",
    "Policy",
    "StrategySpec",
    "parse_config",
]
