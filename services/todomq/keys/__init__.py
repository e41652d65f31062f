"""Keys: who may come in over TCP, what each may do, and the files in which that stands.

Owns: the rights of a key, the files of keys. Must not know: sockets, requests in flight. The router asks it, the
command line writes it, a client reads the one file that it was handed.

    store        the keys of one stack
    required     the same where a stack can't do without
    rights       what a key may do
    credentials  the file that a client gets
    files        private files, written whole
"""
