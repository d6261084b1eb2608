"""Watching a run: live on a terminal, recorded, or as an HTML page."""
