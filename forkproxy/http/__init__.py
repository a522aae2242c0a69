"""Floor 2: HTTP without sockets: codecs, streams, the HttpFilter contract and the connection manager."""
