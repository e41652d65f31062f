"""The command line: ``todomq``. Everything a person or a script does with a stack, and nothing a daemon imports.

The commands (``__main__.py`` puts them together):

    lists           add, ls, done, edit, rm, clear, drop, lists
    transfer        import, export
    formats         CSV and todo.txt
    stack_commands  up, down, restart, status, logs, run
    backups         backup, restore, verify
    keys            keys
    demo            demo: its options
    demo_job        what it does
    demo_report     what it found
    probe           probe and its subcommands
    health          probe health
    tree            probe tree, probe top
    list_probe      probe on one list
    whereabouts     where a list lives, what its requests wait for
    killing         the end of a daemon

What they share:

    connection      one client for one command
    asking          many questions at once
    stack_parts     which parts there should be
    command         what makes a function a command, and how it ends
    exit_codes      what it ends with
    show            what reaches the terminal
    progress        progress bars
"""
