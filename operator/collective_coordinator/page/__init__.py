"""The page for people: how the task goes, live, in one file that needs nothing from anywhere else."""

from collective_coordinator.page.page import HEADERS, render

__all__ = ["HEADERS", "render"]
