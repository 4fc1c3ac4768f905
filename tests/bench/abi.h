/* abi.h - what the load generator's C shares with Python: plain structs and prototypes.
 *
 * Read by the compiler (through ring.h, which has the guard) and by cffi.  Functions that block
 * return when they are done or when nothing has moved for PATIENCE_CYCLES.
 *
 * Threads: one thread drives all rings; the copy of copy_rate() has a thread of its own.
 */

/* Driver's side of one ring, with a buffer of its own for every frame it holds. */
struct ring {
    uint8_t *desc;             /* packed: descriptor ring */
    uint8_t *avail;            /* packed: driver event suppression */
    uint8_t *used;             /* packed: device event suppression */
    uint8_t *buffers;          /* frames buffers of stride bytes */
    uint64_t buffers_gpa;
    uint32_t stride_bytes;
    uint32_t frames;           /* buffers in all; descriptors: frames * pieces <= num */
    uint32_t pieces;           /* descriptors of each frame */
    uint32_t num;
    uint32_t packed;
    int32_t kick_fd;
    uint32_t kicks;            /* that the device asked for */
    uint16_t next;             /* split: avail->idx to be; packed: slot to write */
    uint16_t seen;             /* likewise of what came back */
    uint16_t wrap;
    uint16_t seen_wrap;
    uint16_t pending;          /* packed: slot whose flags make a batch visible */
    uint16_t pending_flags;
    uint32_t pending_any;
    uint32_t place;            /* buffer of the next frame */
    uint32_t in_flight;        /* buffers with the device */
};

/* What frames look like: Ethernet, IPv4, then UDP or, when gso_bytes is not 0, TCP. */
struct traffic {
    uint32_t frame_bytes;
    uint32_t gso_bytes;        /* payload of each packet that a large frame stands for */
    uint32_t fresh;            /* 1: every byte is written anew; 0: headers only */
    uint32_t macs;             /* how many addresses the varied one goes through */
    uint32_t vary;             /* 0: none; 1: destination; 2: source */
    uint32_t sequence;         /* number of the next frame */
    uint8_t destination[6];
    uint8_t source[6];
    uint8_t addresses[8];      /* IPv4: source, destination */
};

struct phase {
    uint64_t cycles;           /* TSC, from publishing to the last frame's arrival */
    uint32_t sent;
    uint32_t received;
    uint32_t wrong;            /* received twice, out of order, or with another length */
    uint32_t kicks;
};

/* Buffers to receive into, all of them offered. */
void ring_offer_all(struct ring *r);
/* Writes the headers that stay the same into all buffers of tx; once per kind of traffic. */
void prepare(struct ring *tx, const struct traffic *t);
/* Fills count frames of r, publishes them at once, and waits until rx has received them: the
 * device works without anybody touching its rings.  When frames of an earlier phase are still
 * with the device, it waits for those first, and sends nothing when they do not come back. */
void run_phase(struct ring *tx, struct ring *rx, struct traffic *t, uint32_t count,
               struct phase *out);

/* TSC cycles of copying count buffers of bytes each, stride_bytes apart, on a CPU, after the caller
 * wrote them anew; once per phase, into cycles[phases].  0 or -errno. */
int32_t copy_phases(uint8_t *from, uint8_t *to, uint32_t stride_bytes, uint32_t bytes,
                    uint32_t count, int32_t cpu, uint32_t phases, uint64_t *cycles);

/* ---- several rings at once: wide.c */

struct wide {
    struct ring **txs;
    struct traffic **traffics; /* of each of txs */
    struct ring **rxs;
    uint32_t txs_count;
    uint32_t rxs_count;
    uint32_t pause_ns;         /* the caller sleeps so long between looks; 0: it spins */
    uint32_t paired;           /* the i-th of rxs gets what the i-th of txs sends, in order */
};

/* count frames into each of txs.  out->received: over all of rxs. */
void run_wide_phase(const struct wide *w, uint32_t count, struct phase *out);

/* TSC cycles of so many lookups of random addresses among so many routes; 0: it went wrong. */
uint64_t route_lookups(uint32_t routes, uint32_t lookups);

/* ---- round trips: pings.c, taps.c */

struct ping_ends {
    struct ring *first_tx;
    struct ring *first_rx;
    struct ring *second_tx;
    struct ring *second_rx;
};

struct pings {
    uint64_t gap_cycles;       /* from an answer to the next probe, half of it to three halves */
    uint64_t load_gap_cycles;  /* between other frames; 0: there are none */
    uint64_t duration_cycles;
    uint64_t patience_cycles;  /* after which a probe counts as lost */
    uint64_t random;           /* where gaps begin */
    uint64_t *cycles;          /* out: of each round trip, up to room */
    uint32_t room;
    uint32_t answered;
    uint32_t lost;
    uint32_t padding;
    uint64_t load_sent;
    uint64_t load_refused;     /* the ring, or the kernel, had no room */
    uint64_t load_received;
    uint64_t elapsed_cycles;
};

/* t: what goes from the first guest to the second. */
void run_pings(const struct ping_ends *e, const struct traffic *t, struct pings *p);
/* The same over two taps with 12 bytes of virtio-net header.  0 or -errno. */
int32_t run_tap_pings(int32_t first_fd, int32_t second_fd, int32_t second_cpu,
                      const struct traffic *t, struct pings *p);
/* TSC cycles from writing to an eventfd to the return of epoll_wait() on a CPU; into cycles[count].
 * 0 or -errno. */
int32_t wake_times(int32_t cpu, uint64_t gap_cycles, uint32_t count, uint64_t *cycles);

uint64_t tsc_per_second(void);
uint64_t tsc_now(void);

/* ---- UDP between two hosts: datagrams.c */

struct datagrams {
    double rate;               /* per second that are to be sent */
    uint64_t duration_ns;
    uint32_t bytes;            /* of each payload */
    int32_t to_cpu;            /* whoever receives has this CPU; -1: any */
    uint64_t sent;             /* out: that the kernel took */
    uint64_t received;
    uint64_t elapsed_ns;       /* of sending */
    uint64_t received_ns;      /* from the beginning to the last arrival */
};

/* Between connected sockets; to_fd has a time-out for receiving.  0 or -errno. */
int32_t send_datagrams(int32_t from_fd, int32_t to_fd, struct datagrams *d);
/* The same from ring to ring; t says what, d->bytes nothing.  A full ring makes the sender wait. */
void send_frames(struct ring *tx, struct ring *rx, struct traffic *t, struct datagrams *d);
