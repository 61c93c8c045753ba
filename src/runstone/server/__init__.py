"""The server: the HTTP API and the page over one workspace. Knows HTTP; everything it says comes from the domain.

Nothing here is imported unless a server is started: FastAPI and uvicorn belong to the extra `server`.
"""
