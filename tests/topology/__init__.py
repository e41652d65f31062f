"""The whole topology in one process: the real daemons and sessions on a fake network, a virtual clock and a fake disk.

``clock`` is the time, ``processes`` who lives, ``loop`` the turn of one process, ``network`` what ZeroMQ does, ``disk``
what outlives a process, ``substitutes`` puts these in the place of the real ones, ``world`` holds them together.
``client`` and ``workload`` ask, ``nemesis`` breaks, ``trials`` are tried at the end, ``verdict`` judges, ``simulation``
is one run, ``__main__`` many.

One integer decides everything: ``PYTHONPATH=tests python -m topology --seed N --trace`` replays a run exactly.
"""
