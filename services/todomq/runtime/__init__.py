"""What every daemon runs on: one poll loop, all sockets and their options, calls, the registry link, log lines.

Only this package and ``todomq.client`` import zmq. It knows messages but not what any request means.

    daemon         what every daemon has: its lock, its socket, its connections, its stop
    registry_link  its name and lease in the registry, the news of others
    loop           the poll loop: sockets, timers, work off the loop
    calls          being asked: a ROUTER, a service's operations, the replies
    call_queue     calls that wait for their turn
    backlog        replies that wait for who does not read
    callee         asking: a DEALER to one daemon
    pipes          one way: PUSH and PULL
    sockets        every socket and its options
    door           clients with a key over TCP, connection by connection
    zap            which keys are let in
    curve          CURVE on a socket
    locks          one daemon per name
    parent         the end with the process manager
    local_process  a process of this machine: alive, stopped, ended
    log            log lines
"""
