"""The router: one endpoint for clients, forwarding to list servers and to daemons by name.

    service        the wiring: requests in, and on to where they go
    answers        what whoever asked is told
    in_flight      the requests that are not answered yet
    daemon_shares  how much of the room what waits for one daemon takes
    pacing         how much of one client's work goes on at a time
    routing        requests to lists: which list server owns the partition, what waits while it moves
    table          what the cache says of the partitions, checked
    named          requests to daemons by name: what waits, what goes out
    named_links    the connections to those daemons, and who has a name
    door_keeper    whether it listens over TCP, and to whom
    keyed_clients  clients with a key: what each may do
    key_use        what each key uses, against its quota
    list_count     how many lists a key has
"""
