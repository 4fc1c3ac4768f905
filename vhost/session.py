"""What one connection has agreed upon and built up: the state that all message handlers share.

A ring is started or stopped, and enabled or disabled, independently: it starts when it has
a kick, addresses and memory, and stops with GET_VRING_BASE ("Ring states" in the specification).
"""

from collections import Counter
from dataclasses import dataclass, field

from vhost import messages as m
from vhost.errors import RefusedError, RemoteError
from vhost.messages import Feature, ProtocolFeature, RegionSpec
from vhost.rings import Device, Ring, RingSpec

MAX_PAIRS = 128
# A control ring stands behind the rings of all pairs, and messages with descriptors have room for
# ring numbers up to 255.
MAX_PAIRS_WITH_CONTROL = 127


@dataclass
class Session:
    """One connection's state.

    offered: virtio feature bits.  mac (6 bytes) and mtu_bytes stand in the configuration space.
    """

    device: Device
    offered: int
    mac: bytes
    mtu_bytes: int
    features: int = 0
    protocol_features: int = 0
    regions: tuple[RegionSpec, ...] = ()
    repeats: Counter[RegionSpec] = field(default_factory=Counter)  # of ADD_MEM_REG
    rings: dict[int, Ring] = field(default_factory=dict)
    last_step: str = "connected"
    backend_fd: int = -1
    is_ack_wanted: bool = False  # for the message that is being served
    status: int = 0  # DeviceStatus
    is_loading: bool = False  # device state comes in

    # ---- what was negotiated

    def has(self, feature: ProtocolFeature) -> bool:
        return bool(self.protocol_features & feature)

    @property
    def pairs_offered(self) -> int:
        """A front-end that reads our configuration space lets our number say where the control ring
        is; any other has counted its pairs itself, and keeps the control ring."""
        return MAX_PAIRS_WITH_CONTROL if self.has(ProtocolFeature.CONFIG) else MAX_PAIRS

    @property
    def max_pairs(self) -> int:
        """Pairs the guest may use: one unless the front-end can tell us about more."""
        is_many = self.features & Feature.MQ and self.has(ProtocolFeature.MQ)
        return self.pairs_offered if is_many else 1

    @property
    def has_memory(self) -> bool:
        return bool(self.regions)

    # ---- rings

    def ring(self, index: int) -> Ring:
        if index >= m.MAX_RINGS:
            raise RemoteError(f"ring {index} of {m.MAX_RINGS}")
        if index not in self.rings:
            # Without protocol features rings are enabled from the start.
            enabled = not self.features & Feature.PROTOCOL_FEATURES and self.features != 0
            self.rings[index] = Ring(enabled=enabled)
        return self.rings[index]

    def stopped_ring(self, index: int) -> Ring:
        ring = self.ring(index)
        if ring.started:
            raise RefusedError(f"ring {index} is running")
        return ring

    def enable(self, index: int, enabled: bool) -> None:
        ring = self.rings.get(index)
        if ring is None or ring.enabled == enabled:
            return
        ring.enabled = enabled
        if ring.started:
            self.device.enable_ring(index, enabled)

    def start_if_ready(self, index: int, ring: Ring) -> None:
        if ring.kick_fd is None or ring.addresses is None or not ring.num or not self.has_memory:
            return
        desc, avail, used = ring.addresses
        self.device.start_ring(
            RingSpec(
                index=index,
                role=self._role(index),
                num=ring.num,
                features=self.features,
                desc=desc,
                avail=avail,
                used=used,
                kick_fd=ring.kick_fd,
                call_fd=ring.call_fd,
                enabled=ring.enabled,
                base=ring.base,
                told=ring.told,
                log_gpa=ring.log_gpa,
            )
        )
        ring.started = True
        ring.reason = ""

    def stop(self, index: int, ring: Ring) -> None:
        ring.base = self.device.stop_ring(index)
        if self.features & Feature.RING_PACKED:
            ring.base |= ring.base << 16  # the used descriptors' position is the same
        ring.started = False

    def restart_rings(self) -> None:
        """What a ring does is chosen by its features when it starts."""
        with self.device.traffic_held():
            for index, ring in self.rings.items():
                if ring.started:
                    self.stop(index, ring)
                    self.start_if_ready(index, ring)

    def role_name(self, index: int) -> str:
        """ "rx", "tx" or "control"; "none" with the negotiated features."""
        control = 2 * self.max_pairs
        if index < control:
            return "tx" if index % 2 else "rx"
        return "control" if index == control and self.features & Feature.CTRL_VQ else "none"

    def reset_rings(self) -> None:
        """Stop all, and let nothing of them be gone on from."""
        for index, ring in self.rings.items():
            if ring.started:
                self.stop(index, ring)
            self.device.forget_ring(index)

    def _role(self, index: int) -> str:
        role = self.role_name(index)
        if role == "none":
            raise RefusedError(f"ring {index} has no role with the negotiated features")
        return role

    # ---- descriptors

    def close_fd(self, fd: int | None) -> None:
        """Of none (None, -1) there is nothing to close."""
        if fd is not None and fd >= 0:
            self.device.close_fd(fd)
