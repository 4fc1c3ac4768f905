"""mesh/handshake.py: the table of states, the three steps, and the protocol's golden vector."""

import itertools
import json
from pathlib import Path
from random import Random

import pytest

from mesh import handshake, noise, wire
from mesh.errors import LocalError, Refusal, RemoteError
from mesh.handshake import TRANSITIONS, PeerKeys, State, Trigger, advance
from mesh.identity import Identity, static_public
from mesh.wire import Cipher

ROOT = Path(__file__).parent.parent.parent
GOLDEN = ROOT / "tests" / "golden" / "mesh_handshake.json"
A, B = Identity(bytes([1]) * 32), Identity(bytes([2]) * 32)
NOW = 1_700_000_000_000_000_000
BOTH = (Cipher.AES_256_GCM, Cipher.CHACHA20_POLY1305)


def keys_of(own: Identity, peer: Identity, psk: bytes = noise.NO_PRESHARED_KEY) -> PeerKeys:
    static = static_public(peer.public_key)
    return PeerKeys(peer.public_key, static, noise.dh(own.static_private, static), psk)


class FixedRng:
    """Gives out what it was given."""

    def __init__(self, *values: bytes) -> None:
        self._values = list(values)

    def randbytes(self, n: int, /) -> bytes:
        value = self._values.pop(0)
        assert len(value) == n
        return value


def shake(
    *, cipher: Cipher = Cipher.AES_256_GCM, psk_a: bytes = bytes(32), psk_b: bytes = bytes(32)
) -> tuple[bytes, bytes, handshake.Keys, handshake.Keys]:
    """(initiation and response without macs, A's keys, B's keys)."""
    a_keys, b_keys = keys_of(A, B, psk_a), keys_of(B, A, psk_b)
    attempt = handshake.begin(
        A, a_keys, local_index=7, timestamp_ns=NOW, ciphers=BOTH, rng=FixedRng(bytes([3]) * 32)
    )
    initiation = wire.parse(attempt.message + bytes(32))
    assert isinstance(initiation, wire.Initiation)
    responder = handshake.open_initiation(B, initiation)
    assert responder.remote_static == A.static_public
    offer = wire.parse_offer(responder.read_payload(b_keys.static_shared))
    assert offer == (NOW, frozenset(BOTH))
    body, answered = handshake.answer(
        responder,
        b_keys,
        remote_index=initiation.sender,
        local_index=9,
        cipher=cipher,
        rng=FixedRng(bytes([4]) * 32),
    )
    response = wire.parse(body + bytes(32))
    assert isinstance(response, wire.Response)
    return attempt.message, body, handshake.finish(attempt, response), answered


@pytest.mark.parametrize("cipher", BOTH)
def test_both_ends_have_the_same_keys(cipher: Cipher) -> None:
    _, _, a, b = shake(cipher=cipher)
    assert (a.send_key, a.receive_key) == (b.receive_key, b.send_key)
    assert a.send_key != a.receive_key
    assert (a.relay_send_key, a.relay_receive_key) == (b.relay_receive_key, b.relay_send_key)
    assert len({a.relay_send_key, a.relay_receive_key, a.send_key[:16], a.receive_key[:16]}) == 4
    assert (a.local_index, a.remote_index, b.local_index, b.remote_index) == (7, 9, 9, 7)
    assert a.cipher is b.cipher is cipher


def test_keys_depend_on_the_cipher() -> None:
    split = (bytes([5]) * 32, bytes([6]) * 32)
    seen = {k for c in Cipher for k in handshake.traffic_keys(split, c)}
    seen |= set(handshake.traffic_keys((split[1], split[0]), Cipher.AES_256_GCM))
    assert len(seen) == 6


def test_other_preshared_key() -> None:
    with pytest.raises(RemoteError) as caught:
        shake(psk_a=bytes(32), psk_b=bytes([1]) * 32)
    assert caught.value.refusal is Refusal.DECRYPTION


def test_choice_that_was_not_offered_is_a_downgrade() -> None:
    a_keys, b_keys = keys_of(A, B), keys_of(B, A)
    attempt = handshake.begin(
        A,
        a_keys,
        local_index=7,
        timestamp_ns=NOW,
        ciphers=(Cipher.AES_256_GCM,),
        rng=Random(1),
    )
    initiation = wire.parse(attempt.message + bytes(32))
    assert isinstance(initiation, wire.Initiation)
    responder = handshake.open_initiation(B, initiation)
    responder.read_payload(b_keys.static_shared)
    body, _ = handshake.answer(
        responder,
        b_keys,
        remote_index=7,
        local_index=9,
        cipher=Cipher.CHACHA20_POLY1305,
        rng=Random(2),
    )
    response = wire.parse(body + bytes(32))
    assert isinstance(response, wire.Response)
    with pytest.raises(RemoteError) as caught:
        handshake.finish(attempt, response)
    assert caught.value.refusal is Refusal.CIPHER


def test_initiator_s_static_key_is_not_on_the_wire() -> None:
    message, body, _, _ = shake()
    for secret in (A.static_public, A.public_key, A.node_id, B.static_public):
        assert secret not in message + body


def test_golden_vector() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="ascii"))
    psk = bytes.fromhex(golden["preshared_key"])
    initiation, response, a, _ = shake(psk_a=psk, psk_b=psk)
    assert golden["initiation_up_to_mac1"] == initiation.hex()
    assert golden["response_up_to_mac1"] == response.hex()
    assert golden["key_initiator_to_responder"] == a.send_key.hex()
    assert golden["key_responder_to_initiator"] == a.receive_key.hex()
    assert golden["relay_key_initiator_to_responder"] == a.relay_send_key.hex()
    assert golden["relay_key_responder_to_initiator"] == a.relay_receive_key.hex()
    document = (ROOT / "docs" / "mesh-protocol.md").read_text(encoding="utf-8")
    for key, value in golden.items():
        assert key == "source" or value in document.replace("\n    ", ""), f"{key} is not in docs"


# ---- the table


@pytest.mark.parametrize(("state", "trigger"), list(itertools.product(State, Trigger)))
def test_only_what_the_table_allows(state: State, trigger: Trigger) -> None:
    if (state, trigger) in TRANSITIONS:
        assert advance(state, trigger) is TRANSITIONS[state, trigger]
    else:
        with pytest.raises(LocalError, match=f"{trigger.name} is not allowed in {state.name}"):
            advance(state, trigger)


def test_every_state_can_be_left_and_reached() -> None:
    for state in State:
        assert any(old is state and new is not state for (old, _), new in TRANSITIONS.items())
        assert any(new is state and old is not state for (old, _), new in TRANSITIONS.items())


def test_diagram_in_the_document_is_the_table() -> None:
    document = (ROOT / "docs" / "mesh-protocol.md").read_text(encoding="utf-8")
    assert f"```mermaid\n{handshake.mermaid()}\n```" in document
