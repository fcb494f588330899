"""The control process: the Temporal worker of the `broker` queue, the git webhook, the embedded server (PRD §5).

May import: every room but `worker_host` and `cli`.
"""
