"""The peers, each small and fair: what it does is what its own users would do, with the promise that its row names."""

from __future__ import annotations

from benchmarks.peers.beam import Beam
from benchmarks.peers.fastapi_sqlite import FastAPISQLite
from benchmarks.peers.redis_server import RedisServer
from benchmarks.peers.rocksdb_alone import RocksDBAlone
from benchmarks.peers.zmq_echo import ZmqEcho
from benchmarks.plan import Contender

PEERS: tuple[Contender, ...] = (ZmqEcho(), RedisServer(), FastAPISQLite(), Beam(), RocksDBAlone())
