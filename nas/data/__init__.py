"""Clips and targets: what students are trained, scored and tested on."""
