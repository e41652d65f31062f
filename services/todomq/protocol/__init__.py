"""What travels between processes: limits, the bounded msgpack codec, messages, partitions. No sockets here."""
