"""Processes of trials on this machine, from fork to burial. Apart from `trials`, standard library only."""
