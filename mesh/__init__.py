"""The overlay: identity, handshake, sessions, routes."""
