"""The database worker: a shard of durable ordered key-value storage; it sees keys and bytes, not lists and entries.

    service      the wiring: batches and requests in, words and answers out
    shard        one shard at work: its queue and its storage
    commit       the queue: what is committed, in which order, under which epochs
    call_turns   whose stores and gets are next
    senders      what is known of one sender of batches
    group        what goes to disk together
    records      the worker's own records
    words        the way back to the senders of batches
    checkpoints  copies of a shard, for backups
    storage      the engine, behind one narrow interface
"""
