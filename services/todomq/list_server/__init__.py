"""The list server: a daemon that hosts many list actors, one for each list of the partitions it owns."""
