"""What travels between processes: limits, the bounded msgpack codec, messages, partitions. No sockets here.

    messages          every message, made and read
    codec             msgpack within bounds, and the canonical form of keys and names
    limits            every limit of a message and of what it says
    forgetting_clock  the clock that says when a remembered change may be forgotten
    entries           what an entry and a list's name may be
    partitions        where a name or a key belongs
    addresses         where a daemon may be reached
    registration      who is registered, as the registry tells it
"""
