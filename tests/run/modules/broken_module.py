"""A module that cannot be imported."""

raise RuntimeError("this module needs the moon to be full")
