"""Found by every interpreter of a stack whose PYTHONPATH begins here: turns on the switch that the environment names.

Nothing happens in a process that is not one of TodoMQ's or of its clients, and none of this is installed.
"""

import os
import sys

if (name := os.environ.get("TODOMQ_TEST_MUTATION")) and any(
    part.startswith(("todomq.", "torture.")) for part in sys.orig_argv
):
    from mutations import switches
    from mutations.switch import break_for_good

    assert switches
    break_for_good(name)
