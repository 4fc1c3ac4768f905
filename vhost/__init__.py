"""The vhost-user backend: a virtual machine's network card as a port of the switch."""

from vhost.errors import VhostError
from vhost.port import Switch, VhostConfig, VhostPort

__all__ = ["Switch", "VhostConfig", "VhostError", "VhostPort"]
