"""Tests of the web face: HTTP, sockets, and the console in a browser."""
