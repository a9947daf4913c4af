"""The command line: its commands, tables of jobs, resuming."""
