"""The benchmark: TodoMQ and its peers, measured in turn on one machine by ``make bench``.

Owns: loads, peers, ratios, the table, the plots. Must not know: how any part of TodoMQ works; it sees the public
client, the ``stats`` of daemons and what the kernel says of processes. ``docs/performance.md`` explains the figures.
"""
