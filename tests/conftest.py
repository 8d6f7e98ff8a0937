"""One thread for each test process and its children: tests run side by side, and more threads than cores are slow."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
