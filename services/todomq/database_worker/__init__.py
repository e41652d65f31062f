"""The database worker: a shard of durable ordered key-value storage; it sees keys and bytes, not lists and entries."""
