"""Speed as ratios: two things, in turns, in one run; `python -m bench --help`."""
