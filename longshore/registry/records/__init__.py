"""What the broker writes to git, and reads again: the state and its history, remembered tags, error files."""
