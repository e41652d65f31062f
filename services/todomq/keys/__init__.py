"""Keys: who may come in over TCP, what each may do, and the files that say so.

Owns: the rights of a key, the files of keys. Must not know: sockets, requests in flight. The router asks it, the
command line writes it, a client reads the one file that it was given.

    store        the keys of one stack
    required     which of them the stack's addresses need
    rights       what a key may do
    credentials  the file that a client gets
    files        private files, written whole
"""
