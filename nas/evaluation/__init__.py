"""How good a decoder is: its frames against the teacher's and against the video, beside linear baselines."""
