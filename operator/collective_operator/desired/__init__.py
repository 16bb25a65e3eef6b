"""Pure builders: from a task's spec to the manifests of its children, one file a kind of child."""

from collective_operator.desired.children import Child, desired_children
from collective_operator.desired.platform import Endpoint, NetworkRules, Platform

__all__ = ["Child", "Endpoint", "NetworkRules", "Platform", "desired_children"]
