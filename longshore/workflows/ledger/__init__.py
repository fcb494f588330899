"""What the fleet knows and decides of itself, as a state machine without Temporal; `machine.py` is its door."""
