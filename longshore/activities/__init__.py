"""Thin typed doors between Temporal and the rooms: classes that receive their collaborators.

A door names the activity, its one input and its one result, turns our failures into Temporal's, and calls
through. Workflows import these classes for their signatures only.
May import: `schemas`, `planning`, `registry`.
"""
