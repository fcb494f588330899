"""Names of log events and metrics, and the JSON log format of PRD §9.2.

May import: structlog, prometheus-client.
"""
