/* cipher.h - what seals and opens the records of a session, chosen with its keys.
 *
 * Untrusted:  the text to open and its tag.
 * Threads:    any; functions keep no state, and the library's manager is read only.
 * Source:     AES-256-GCM: NIST SP 800-38D.  ChaCha20-Poly1305: RFC 8439.
 */
#ifndef MESH_CIPHER_H
#define MESH_CIPHER_H

#include <intel-ipsec-mb.h>

#include "mesh/core/mesh_abi.h"

enum { CIPHER_NONCE_BYTES = 12, CIPHER_AAD_BYTES = 23, CIPHER_TAG_BYTES = 16 };

/* A key as its cipher wants it; aligned to 64 bytes. */
union cipher_key {
    struct gcm_key_data gcm;
    uint8_t chacha[32];
};

struct cipher {
    void (*expand)(const IMB_MGR *library, const uint8_t *key, union cipher_key *out);
    /* The text's first bytes are in place, a multiple of 64 unless they are all; the others come
     * from cursor, read once.  The tag goes behind the text. */
    void (*seal)(const IMB_MGR *library, const union cipher_key *key, const uint8_t *nonce,
                 const uint8_t *aad, uint8_t *text, uint32_t text_bytes, uint32_t first_bytes,
                 struct pkt_cursor *cursor);
    /* In place; whether the tag behind the text matches. */
    bool (*open)(const IMB_MGR *library, const union cipher_key *key, const uint8_t *nonce,
                 const uint8_t *aad, uint8_t *text, uint32_t text_bytes);
};

/* number: enum mesh_cipher.  NULL: there is none, or the CPU lacks what it needs. */
const struct cipher *cipher_find(const IMB_MGR *library, uint32_t number);

#endif
