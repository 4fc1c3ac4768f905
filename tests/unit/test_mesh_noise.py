"""mesh/noise.py against published vectors, and against everything that is not them."""

import json
from pathlib import Path

import pytest
from nacl import bindings

from mesh.errors import LocalError, Refusal, RemoteError
from mesh.noise import Initiator, Responder, SymmetricState, dh

VECTOR = json.loads(
    (Path(__file__).parent.parent / "golden" / "noise_ikpsk2.json").read_text(encoding="ascii")
)


def unhex(name: str) -> bytes:
    return bytes.fromhex(VECTOR[name])


PAYLOADS = [bytes.fromhex(m["payload"]) for m in VECTOR["messages"]]
CIPHERTEXTS = [bytes.fromhex(m["ciphertext"]) for m in VECTOR["messages"]]
INIT_PUBLIC = bindings.crypto_scalarmult_base(unhex("init_static"))
RESP_PUBLIC = bindings.crypto_scalarmult_base(unhex("resp_static"))
SHARED = dh(unhex("init_static"), RESP_PUBLIC)

# X25519 points of low order (RFC 7748, section 6.1, asks to look for the zero they give), and
# the same with the top bit set, which X25519 ignores.
LOW_ORDER = [
    bytes(32),
    b"\1" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes(31) + b"\x80",
]


def make_initiator(**change: bytes) -> Initiator:
    arguments = {
        "prologue": unhex("init_prologue"),
        "static_private": unhex("init_static"),
        "static_public": INIT_PUBLIC,
        "responder_static": RESP_PUBLIC,
        "static_shared": SHARED,
        "preshared_key": unhex("init_psk"),
        "ephemeral_private": unhex("init_ephemeral"),
        "payload": PAYLOADS[0],
    }
    return Initiator(**(arguments | change))


def make_responder(**change: bytes) -> Responder:
    arguments = {
        "prologue": unhex("resp_prologue"),
        "static_private": unhex("resp_static"),
        "static_public": RESP_PUBLIC,
        "message": CIPHERTEXTS[0],
    }
    return Responder(**(arguments | change))


def respond(responder: Responder, psk: bytes | None = None) -> tuple[bytes, SymmetricState]:
    return responder.write_response(
        ephemeral_private=unhex("resp_ephemeral"),
        preshared_key=psk or unhex("resp_psk"),
        payload=PAYLOADS[1],
    )


def test_vector_keys_belong_together() -> None:
    assert unhex("init_remote_static") == RESP_PUBLIC


def test_initiator_writes_message_1_and_reads_message_2() -> None:
    initiator = make_initiator()
    assert initiator.message == CIPHERTEXTS[0]
    payload, _ = initiator.read_response(CIPHERTEXTS[1])
    assert payload == PAYLOADS[1]


def test_responder_reads_message_1_and_writes_message_2() -> None:
    responder = make_responder()
    assert responder.remote_static == INIT_PUBLIC
    assert responder.read_payload(SHARED) == PAYLOADS[0]
    message, _ = respond(responder)
    assert message == CIPHERTEXTS[1]


def test_split_keys_seal_the_vector_s_transport_messages() -> None:
    _, state = make_initiator().read_response(CIPHERTEXTS[1])
    responder = make_responder()
    responder.read_payload(SHARED)
    assert respond(responder)[1].split() == state.split()
    to_responder, to_initiator = state.split()
    counters = {to_responder: 0, to_initiator: 0}
    for number, key in enumerate([to_responder, to_initiator] * 2):
        nonce = bytes(4) + counters[key].to_bytes(8, "little")
        counters[key] += 1
        sealed = bindings.crypto_aead_chacha20poly1305_ietf_encrypt(
            PAYLOADS[2 + number], b"", nonce, key
        )
        assert sealed == CIPHERTEXTS[2 + number]


TOP_BIT = 8 * 31 + 7  # of the ephemeral key: X25519 ignores it


@pytest.mark.parametrize("bit", sorted({*range(0, 8 * len(CIPHERTEXTS[0]), 7)} - {TOP_BIT}))
def test_message_1_with_a_flipped_bit_is_refused(bit: int) -> None:
    broken = bytearray(CIPHERTEXTS[0])
    broken[bit // 8] ^= 1 << bit % 8
    with pytest.raises(RemoteError):
        make_responder(message=bytes(broken)).read_payload(SHARED)


@pytest.mark.parametrize("bit", range(0, 8 * len(CIPHERTEXTS[1]), 5))
def test_message_2_with_a_flipped_bit_is_refused_and_the_right_one_still_taken(bit: int) -> None:
    broken = bytearray(CIPHERTEXTS[1])
    broken[bit // 8] ^= 1 << bit % 8
    initiator = make_initiator()
    with pytest.raises(RemoteError):
        initiator.read_response(bytes(broken))
    assert initiator.read_response(CIPHERTEXTS[1])[0] == PAYLOADS[1]


@pytest.mark.parametrize("length", [0, 1, 31, 32, 47, 48, 62])
def test_truncated_message_2_is_refused(length: int) -> None:
    with pytest.raises(RemoteError):
        make_initiator().read_response(CIPHERTEXTS[1][:length])


@pytest.mark.parametrize("length", [0, 1, 32, 79, 80, 95, 96, 111])
def test_truncated_message_1_is_refused(length: int) -> None:
    with pytest.raises(RemoteError):
        make_responder(message=CIPHERTEXTS[0][:length]).read_payload(SHARED)


@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda p: p.hex()[:8])
def test_low_order_points_are_refused(point: bytes) -> None:
    with pytest.raises(RemoteError) as caught:
        dh(unhex("resp_static"), point)
    assert caught.value.refusal is Refusal.LOW_ORDER
    with pytest.raises(RemoteError) as caught:
        make_responder(message=point + CIPHERTEXTS[0][32:])
    assert caught.value.refusal is Refusal.LOW_ORDER
    with pytest.raises(RemoteError) as caught:
        make_initiator().read_response(point + CIPHERTEXTS[1][32:])
    assert caught.value.refusal is Refusal.LOW_ORDER


def test_another_prologue_is_refused() -> None:
    with pytest.raises(RemoteError):
        make_responder(prologue=b"another version")


def test_another_responder_cannot_read() -> None:
    other = bytes(range(32))
    with pytest.raises(RemoteError):
        make_responder(static_private=other, static_public=bindings.crypto_scalarmult_base(other))


def test_another_preshared_key_is_refused() -> None:
    responder = make_responder()
    responder.read_payload(SHARED)
    message, _ = respond(responder, psk=bytes(32))
    with pytest.raises(RemoteError) as caught:
        make_initiator().read_response(message)
    assert caught.value.refusal is Refusal.DECRYPTION


def test_claimed_static_key_without_its_secret_is_refused() -> None:
    """Whoever knows both public keys can seal "s", but not the payload behind "ss"."""
    forged = make_initiator(static_shared=bytes(32))
    responder = make_responder(message=forged.message)
    assert responder.remote_static == INIT_PUBLIC
    with pytest.raises(RemoteError):
        responder.read_payload(SHARED)


def test_sealing_without_a_key_is_our_own_mistake() -> None:
    with pytest.raises(LocalError):
        SymmetricState(b"", RESP_PUBLIC).encrypt_and_hash(b"clear")
