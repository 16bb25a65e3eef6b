"""What to do about a task: a pure function of what is there now, one file a question that it asks."""

from collective_operator.reconcile.actions import Action, Create, Decision, Delete, Release, Update
from collective_operator.reconcile.reconcile import reconcile

__all__ = ["Action", "Create", "Decision", "Delete", "Release", "Update", "reconcile"]
