"""MLflow's REST protocol over a workspace: its clients log here, and see what is here. Written from the protocol."""
