/* cipher.c - the record ciphers, each as intel-ipsec-mb's direct functions.
 *
 * Untrusted, Threads, Source: see cipher.h.
 */
#include "mesh/core/cipher.h"

/* Takes the same time wherever they differ, and less of it than sodium_memcmp(): for a record of
 * 1400 bytes that was a fifth of opening it. */
static bool same_tag(const uint8_t *a, const uint8_t *b)
{
    uint64_t left[2], right[2];
    memcpy(left, a, CIPHER_TAG_BYTES);
    memcpy(right, b, CIPHER_TAG_BYTES);
    return ((left[0] ^ right[0]) | (left[1] ^ right[1])) == 0;
}

_Static_assert((int)CIPHER_TAG_BYTES == 16, "same_tag() takes it as two words");

static void gcm_expand(const IMB_MGR *library, const uint8_t *key, union cipher_key *out)
{
    IMB_AES256_GCM_PRE(library, key, &out->gcm);
}

static void gcm_seal(const IMB_MGR *library, const union cipher_key *key, const uint8_t *nonce,
                     const uint8_t *aad, uint8_t *text, uint32_t text_bytes, uint32_t first_bytes,
                     struct pkt_cursor *cursor)
{
    struct gcm_context_data context;
    uint8_t *tag = text + text_bytes;
    if (first_bytes == text_bytes) {
        IMB_AES256_GCM_ENC(library, &key->gcm, &context, text, text, text_bytes, nonce, aad,
                           CIPHER_AAD_BYTES, tag, CIPHER_TAG_BYTES);
        return;
    }
    IMB_AES256_GCM_INIT(library, &key->gcm, &context, nonce, aad, CIPHER_AAD_BYTES);
    IMB_AES256_GCM_ENC_UPDATE(library, &key->gcm, &context, text, text, first_bytes);
    for (uint8_t *at = text + first_bytes; at < tag;) {
        const uint8_t *piece;
        uint32_t n = pkt_cursor_next(cursor, (uint32_t)(tag - at), &piece);
        ASSERT(n != 0);
        IMB_AES256_GCM_ENC_UPDATE(library, &key->gcm, &context, at, piece, n);
        at += n;
    }
    IMB_AES256_GCM_ENC_FINALIZE(library, &key->gcm, &context, tag, CIPHER_TAG_BYTES);
}

static bool gcm_open(const IMB_MGR *library, const union cipher_key *key, const uint8_t *nonce,
                     const uint8_t *aad, uint8_t *text, uint32_t text_bytes)
{
    struct gcm_context_data context;
    uint8_t tag[CIPHER_TAG_BYTES];
    IMB_AES256_GCM_DEC(library, &key->gcm, &context, text, text, text_bytes, nonce, aad,
                       CIPHER_AAD_BYTES, tag, sizeof(tag));
    return same_tag(tag, text + text_bytes);
}

static void chacha_expand(const IMB_MGR *library, const uint8_t *key, union cipher_key *out)
{
    (void)library;
    memcpy(out->chacha, key, sizeof(out->chacha));
}

static void chacha_seal(const IMB_MGR *library, const union cipher_key *key, const uint8_t *nonce,
                        const uint8_t *aad, uint8_t *text, uint32_t text_bytes,
                        uint32_t first_bytes, struct pkt_cursor *cursor)
{
    struct chacha20_poly1305_context_data context;
    uint8_t *tag = text + text_bytes;
    IMB_CHACHA20_POLY1305_INIT(library, key->chacha, &context, nonce, aad, CIPHER_AAD_BYTES);
    IMB_CHACHA20_POLY1305_ENC_UPDATE(library, key->chacha, &context, text, text, first_bytes);
    for (uint8_t *at = text + first_bytes; at < tag;) {
        const uint8_t *piece;
        uint32_t n = pkt_cursor_next(cursor, (uint32_t)(tag - at), &piece);
        ASSERT(n != 0);
        IMB_CHACHA20_POLY1305_ENC_UPDATE(library, key->chacha, &context, at, piece, n);
        at += n;
    }
    IMB_CHACHA20_POLY1305_ENC_FINALIZE(library, &context, tag, CIPHER_TAG_BYTES);
}

static bool chacha_open(const IMB_MGR *library, const union cipher_key *key, const uint8_t *nonce,
                        const uint8_t *aad, uint8_t *text, uint32_t text_bytes)
{
    struct chacha20_poly1305_context_data context;
    uint8_t tag[CIPHER_TAG_BYTES];
    IMB_CHACHA20_POLY1305_INIT(library, key->chacha, &context, nonce, aad, CIPHER_AAD_BYTES);
    IMB_CHACHA20_POLY1305_DEC_UPDATE(library, key->chacha, &context, text, text, text_bytes);
    IMB_CHACHA20_POLY1305_DEC_FINALIZE(library, &context, tag, sizeof(tag));
    return same_tag(tag, text + text_bytes);
}

const struct cipher *cipher_find(const IMB_MGR *library, uint32_t number)
{
    static const struct cipher gcm = {gcm_expand, gcm_seal, gcm_open};
    static const struct cipher chacha = {chacha_expand, chacha_seal, chacha_open};
    const uint64_t aes = IMB_FEATURE_AESNI | IMB_FEATURE_PCLMULQDQ;
    switch (number) {
    case CIPHER_AES256_GCM:
        return (library->features & aes) == aes ? &gcm : NULL;
    case CIPHER_CHACHA20_POLY1305:
        return &chacha;
    default:
        return NULL;
    }
}
