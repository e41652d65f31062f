"""What every daemon runs on: one poll loop, all sockets and their options, calls, the registry link, log lines.

Only this package and ``todomq.client`` import zmq. It knows messages but not what any request means.
"""
