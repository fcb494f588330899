"""Longshore: a GitOps orchestrator that delivers ML models to fleets of devices.

Each sub-package is a room; its docstring says what may live there and what it may import.
`docs/architecture.md` shows how a commit flows through them.
"""
