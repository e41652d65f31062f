"""Every limit of one message and of what it says. ``docs/protocol.md`` prints this table; a test compares the two.

How much may wait is said next to the code that keeps it waiting; ``docs/architecture.md`` ("When somebody is slow")
names all these limits.
"""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB

# What a person meets: refused with ``InvalidRequest`` that names the limit.
LIST_NAME_BYTES = 255
TITLE_CHARACTERS = 10_000
ENTRY_BYTES = 64 * KIB
CHANGE_BYTES = 2560 * KIB
EXTRA_NESTING = 16
REQUEST_BYTES = MIB
NAME_BYTES = KIB
ADDRESS_BYTES = KIB
LEASE_MOST_MS = 600_000
KEY_BYTES = 4 * KIB
DEADLINE_AHEAD_MS = 60_000

# What a connection meets: past these it is refused as ``ProtocolError`` or cut off.
TRANSPORT_BYTES = 4 * MIB
DOOR_BYTES = 2 * MIB
SENDER_BYTES = 64
MESSAGE_FRAMES = 3
MESSAGE_REQUESTS = 16_384
DECODED_ITEMS = 131_072

# How large messages are made.
BATCH_BYTES = 512 * KIB
PAGE_BYTES = 256 * KIB

GAP_MS = 250
"""How long a request waits at its list for missing lower numbers before its client is asked to send both again."""

# How long what has taken effect is remembered, so that a request sent again is recognised.
REMEMBERED_MS = 600_000
