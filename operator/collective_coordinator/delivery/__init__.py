"""What a task ends with, described and brought to where it was asked for."""
