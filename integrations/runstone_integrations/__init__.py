"""Callbacks and helpers, one module for each framework. Imports nothing: a missing framework hurts nobody."""
