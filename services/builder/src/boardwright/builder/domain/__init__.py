"""Boards, compatibility, tolerances and latency statistics: frozen dataclasses and pure functions."""
