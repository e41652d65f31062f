"""The registry: which process answers to which name, where, and whether it lives.

    service        the requests, and the carrying out of what the registrations ask for
    registrations  which names are held, by whom, until when: the pure core
    processes      local processes: whether they live, and the end of those that hang
    journal        names that outlive the registry, on disk
"""
