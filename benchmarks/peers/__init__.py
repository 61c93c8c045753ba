"""What Runstone costs beside other trackers, measured in one run. `python -m benchmarks.peers` runs it."""
