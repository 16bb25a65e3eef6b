"""What holds for every test: properties are judged by what is true, not by how fast a busy machine finds out."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("collective", deadline=None)
settings.load_profile("collective")
