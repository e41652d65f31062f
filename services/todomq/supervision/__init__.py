"""What the process manager lacks: quick restarts, a limit of restarts with escalation, an end to a hung registry.

supervisord starts and restarts every daemon; the listener here (``service.py``) tells it to hurry and when to stop.
``stack.py`` starts and stops the whole. Nothing here knows what the daemons do.
"""
