"""What has to work on a GPU: the same tests run on the CPU everywhere, and on a CUDA device with `make test-gpu`."""
