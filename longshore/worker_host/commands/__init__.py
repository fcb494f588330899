"""What a device is told to do and how it is done: LOAD, RELOAD, UNLOAD, and the recovery of what crashed (PRD §6.2).

`execution` admits a command, `command_queue` gives it its turn, `loading` and `unloading` carry it out in named
`steps`, `lifecycle` is the table of states. What it acts on are the Protocols of `parts`.
"""
