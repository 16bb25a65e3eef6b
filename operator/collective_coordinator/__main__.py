"""``python -m collective_coordinator``: what the coordinator's pod runs."""

from collective_coordinator.cli import coordinate

if __name__ == "__main__":
    coordinate(prog_name="python -m collective_coordinator")
