"""What the server's routes tell of sweeps and do to them. Knows no HTTP."""
