"""What is known of a port, for people: how far a handshake came, and what each ring is and does.

Reads the protocol machine and the device; changes nothing.
"""

from vhost import messages as m
from vhost.backend import Backend
from vhost.device import CoreDevice
from vhost.messages import DeviceStatus, Feature, ProtocolFeature
from vhost.rings import Ring

Row = dict[str, object]

# How a ring is laid out and told about: part of every ring's row.
_RING_FEATURES = (
    ("in_order", Feature.IN_ORDER),
    ("indirect", Feature.INDIRECT_DESC),
    ("event_idx", Feature.EVENT_IDX),
)


def connection_status(backend: Backend, device: CoreDevice) -> Row:
    """What the connected front-end and we agreed on."""
    return {
        "last_step": backend.last_step,
        "reason": handshake_reason(backend, device),
        "features": m.feature_names(backend.features),
        "protocol_features": m.feature_names(backend.protocol_features, ProtocolFeature),
        "device_status": m.feature_names(backend.status, DeviceStatus),
        "queues": queue_rows(backend, device),
        "regions": [
            {
                "guest": spec.guest,
                "size_bytes": spec.size_bytes,
                "offset": spec.offset,
                "numa_node": node,
            }
            for spec, node in device.regions
        ],
        "numa_node": device.numa_node,
    }


def handshake_reason(backend: Backend, device: CoreDevice) -> str:
    """What keeps the port from carrying frames; "" when it does.

    A guest may leave pairs unused, so one whole pair is enough.
    """
    broken = [
        f"ring {index} is broken: {queue.status().reason}"
        for index, queue in sorted(device.queues.items())
        if queue.status().reason != "ok"
    ]
    if broken:
        return "; ".join(broken)
    if not backend.features:
        return "waiting for SET_FEATURES"
    if not backend.has_memory:
        return "waiting for the guest's memory (SET_MEM_TABLE)"
    pairs = [(backend.rings.get(i), backend.rings.get(i + 1)) for i in range(0, m.MAX_RINGS - 1, 2)]
    if any(rx and tx and rx.started and tx.started for rx, tx in pairs):
        started = [ring for ring in backend.rings.values() if ring.started]
        return "" if any(ring.enabled for ring in started) else "waiting for SET_VRING_ENABLE"
    for index in (0, 1):
        missing = ring_reason(backend.rings.get(index) or Ring())
        if missing:
            return f"{missing} of ring {index}"
    return ""


def ring_reason(ring: Ring) -> str:
    """What a ring waits for before it starts; "" when it has."""
    if ring.started:
        return ""
    if ring.reason:
        return ring.reason
    if not ring.num:
        return "waiting for SET_VRING_NUM"
    if ring.addresses is None:
        return "waiting for SET_VRING_ADDR"
    if ring.kick_fd is None:
        return "waiting for SET_VRING_KICK"
    return "waiting for memory"


def queue_rows(backend: Backend, device: CoreDevice) -> list[Row]:
    """One row for each ring that the front-end has mentioned.

    kicks: None when they cannot be counted (no event counter).  calls_spared: those that the guest
    did not ask for.  next, waiting: position of the first unfinished chain, and how many there are.
    """
    kind = "packed" if backend.features & Feature.RING_PACKED else "split"
    rows = []
    for index, ring in sorted(backend.rings.items()):
        queue = device.queues.get(index)
        row: Row = {
            "index": index,
            "role": backend.role_name(index),
            "kind": kind,
            "size": ring.num,
            **{name: bool(backend.features & bit) for name, bit in _RING_FEATURES},
            "started": ring.started,
            "enabled": ring.enabled,
            "kick": ring.kick_fd is not None and ring.kick_fd >= 0,
            "call": ring.call_fd >= 0,
            "reason": ring_reason(ring),
        }
        if queue is not None:
            status = queue.status()
            row |= {
                "state": status.reason,
                "next": status.next_avail,
                "waiting": (status.avail_idx - status.next_avail) & 0xFFFF,
                "kicks": device.kicks(index),
                "calls_sent": status.calls_sent,
                "calls_spared": status.calls_spared,
                "drops": status.drops,
            }
        rows.append(row)
    return rows
