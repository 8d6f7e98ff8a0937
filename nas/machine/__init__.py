"""What the program needs of the machine: files, locks, the hub, memory, devices."""
