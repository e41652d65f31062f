"""What the process manager lacks: quick restarts, a limit of restarts with escalation, an end to what hangs unseen.

supervisord starts and restarts every daemon, as ``supervisord.conf`` says. Nothing here knows what the daemons do.

    service            the restart-intensity listener: tells supervisord to hurry, and when to stop
    restart_intensity  how many restarts are too many, and what follows: the pure core
    events             supervisord's events, as they are written to a listener
    answer_watch       whether a process that should be heard of has hung
    limits             how many restarts a group may have, from the settings
    manager            supervisord, asked over XML-RPC
    stack              the whole, started and stopped by the commands
    foreground         the same as a child of one command, and ended with it
    leftovers          sockets of those that have ended
    run_files          what the listener tells others: counts of restarts, why the stack gave up
    evidence           how a process ended, read from its log
"""
