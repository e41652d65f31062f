"""The list server: a daemon that hosts many list actors, one for each list of the partitions it owns.

The way of a request, from file to file:

    service       the wiring: requests in, replies out, batches and reads to the database workers
    turns         whose requests are served in this turn
    hosting       which partitions are owned, where the list of a request is: finds its actor, or has it loaded
    partition     one owned partition and its actors
    actor         one list: serves its requests in order, each change once
    short_ways    the two commonest requests, each served in one place
    sessions      what the list remembers of one client
    operations    the operations by name: their arguments, what they do
    todo_list     the entries themselves
    recording     which records a change writes
    records       what a record looks like
    runs          which entries lie in a record together
    outgoing      what leaves at the end of a turn: replies and batches
    gate          batches that are not committed yet, and the replies that wait for them
    worker_link   the connection to one database worker

Beside it:

    ownership     the partitions themselves: claimed, asked about, given away
    list_calls    what is asked about one list: that its actor begins, ends, is described
    words         what the workers say of batches
    loading       the load of one list, page by page
    reading       the pages that lists wait for, many to a call of a worker
    pages         where a page of a long answer ends
    snapshots     long reads that are taken page by page
    sweeping      deletes what a clear has left
    remains       finds lists that nobody asks for and of which something is left to be cleared away
    housekeeping  rounds over all lists: idle ones leave memory
    weight        what a list takes in memory
    memory_budget what the lists may take together
    listing       the names of all stored lists, a page of them
    listing_queue the pages of names that are asked for, a few at a time
"""
