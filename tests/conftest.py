"""How test processes and their children run."""

import os
import signal

# Tests run side by side, and more threads than cores are slow.
os.environ["OMP_NUM_THREADS"] = "1"

# A shell that runs something in the background lets it ignore Ctrl-C, which children would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
