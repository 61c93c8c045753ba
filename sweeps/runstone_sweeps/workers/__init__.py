"""Trials on other hosts: workers connect to the one coordinator of a sweep and run trials for it."""
