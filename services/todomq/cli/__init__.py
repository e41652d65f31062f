"""The command line: ``todomq``. Everything a person or a script does with a stack, and nothing a daemon imports."""
