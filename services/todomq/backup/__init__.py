"""Backups: taken from a running stack, verified, restored into an empty home.

    take         a backup of a running stack
    checkpoints  its shards as they are at one moment, asked of the workers
    restore      a whole stack, or one shard
    verify       every record read, of a stack that is stopped, a backup, checkpoints
    contents     what the records of a shard must be: the pure core
    catalogue    which files a backup has
"""

NOT_READ = "not read"
"""Stands in place of a kind of records if they just could not be read at the moment, which is no damage."""
