"""The vhost-user backend: protocol, sockets, guest memory."""
