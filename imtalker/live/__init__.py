"""Live: a face that answers while you speak. engine.py is the way in for programs, server.py the page in a browser."""
