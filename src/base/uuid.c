/* uuid.c - RFC 4122 identifiers and random numbers.
 * Version 1 (section 4.2): 100 ns ticks since 1582-10-15, a clock sequence drawn at random at start, and a
 * node. A tick is handed out once: uuid_last_tick only grows, by compare-and-swap, so when ids are asked for
 * faster than one per tick the stamp runs ahead of the clock by as many ticks. When the wall clock steps back
 * the last tick is still the floor; only a change of clock_generation (unit tests setting the virtual clock)
 * starts over, with the next clock sequence as section 4.2.1 asks. random_below is a per-thread wyrand-like
 * generator seeded from the kernel; random_bytes is the kernel itself. */
#include "base/uuid.h"

#include "base/text.h"

#include <errno.h>
#include <ifaddrs.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/random.h>

/* 100 ns ticks from 1582-10-15T00:00:00Z to 1970-01-01T00:00:00Z */
#define UUID_EPOCH_TICKS INT64_C(0x01b21dd213814000)

static _Atomic uint64_t uuid_last_tick;
static atomic_uint uuid_generation;
static atomic_uint uuid_clock_seq; /* 14 bits used */
static uint8_t uuid_node_bytes[6];
static pthread_once_t uuid_once = PTHREAD_ONCE_INIT;
static pthread_mutex_t uuid_restart_lock = PTHREAD_MUTEX_INITIALIZER;

void random_bytes(void *p, size_t n_bytes)
{
	char *at = p;
	while (n_bytes != 0) {
		ssize_t n = getrandom(at, n_bytes, 0);
		if (n < 0) {
			if (errno == EINTR)
				continue;
			panic("getrandom: %s", strerror(errno));
		}
		at += n;
		n_bytes -= (size_t)n;
	}
}

static uint64_t random_next(void)
{
	static __thread uint64_t state;
	static __thread bool is_seeded;
	if (UNLIKELY(!is_seeded)) {
		random_bytes(&state, sizeof(state));
		is_seeded = true;
	}
	state += UINT64_C(0xa0761d6478bd642f);
	unsigned __int128 m = (unsigned __int128)state * (state ^ UINT64_C(0xe7037ed1a0b428db));
	return (uint64_t)(m >> 64) ^ (uint64_t)m;
}

/* Multiply and take the high half; the few low products that would favour some results are drawn again
 * (Lemire). */
uint64_t random_below(uint64_t bound)
{
	if (bound == 0)
		panic("random_below: nothing is below 0");
	unsigned __int128 m = (unsigned __int128)random_next() * bound;
	if ((uint64_t)m < bound) {
		uint64_t floor = (0 - bound) % bound;
		while ((uint64_t)m < floor)
			m = (unsigned __int128)random_next() * bound;
	}
	return (uint64_t)(m >> 64);
}

/* The address of the first interface, in the kernel's order, that has one and is not the loopback. */
static bool uuid_node_from_mac(uint8_t out[6])
{
	static const uint8_t zero[6];
	struct ifaddrs *all = NULL;
	bool is_found = false;
	if (getifaddrs(&all) != 0)
		return false;
	for (struct ifaddrs *ifa = all; ifa != NULL && !is_found; ifa = ifa->ifa_next) {
		struct sockaddr_ll ll;
		if (ifa->ifa_addr == NULL || ifa->ifa_addr->sa_family != AF_PACKET ||
		    (ifa->ifa_flags & IFF_LOOPBACK))
			continue;
		memcpy(&ll, ifa->ifa_addr, sizeof(ll));
		if (ll.sll_hatype != ARPHRD_ETHER || ll.sll_halen != 6 || memcmp(ll.sll_addr, zero, 6) == 0)
			continue;
		memcpy(out, ll.sll_addr, 6);
		is_found = true;
	}
	freeifaddrs(all);
	return is_found;
}

static void uuid_init(void)
{
	unsigned seq;
	if (!uuid_node_from_mac(uuid_node_bytes)) {
		random_bytes(uuid_node_bytes, sizeof(uuid_node_bytes));
		uuid_node_bytes[0] |= 1; /* multicast: cannot be any card's address (section 4.5) */
	}
	random_bytes(&seq, sizeof(seq));
	atomic_store(&uuid_clock_seq, seq);
	atomic_store(&uuid_generation, clock_generation());
}

static void uuid_restart(unsigned generation)
{
	pthread_mutex_lock(&uuid_restart_lock);
	if (atomic_load(&uuid_generation) != generation) {
		atomic_fetch_add(&uuid_clock_seq, 1);
		atomic_store(&uuid_last_tick, 0);
		atomic_store(&uuid_generation, generation);
	}
	pthread_mutex_unlock(&uuid_restart_lock);
}

struct uuid uuid_new_v1(void)
{
	pthread_once(&uuid_once, uuid_init);
	unsigned generation = clock_generation();
	if (UNLIKELY(atomic_load_explicit(&uuid_generation, memory_order_acquire) != generation))
		uuid_restart(generation);
	int64_t now_ns = wall_now().ns;
	uint64_t now = (uint64_t)((now_ns >= 0 ? now_ns / 100 : -((-now_ns + 99) / 100)) + UUID_EPOCH_TICKS);
	uint64_t last = atomic_load_explicit(&uuid_last_tick, memory_order_relaxed), tick;
	do
		tick = now > last ? now : last + 1;
	while (!atomic_compare_exchange_weak_explicit(&uuid_last_tick, &last, tick, memory_order_relaxed,
						      memory_order_relaxed));
	unsigned seq = atomic_load_explicit(&uuid_clock_seq, memory_order_relaxed);
	struct uuid u = {{
		(uint8_t)(tick >> 24),
		(uint8_t)(tick >> 16),
		(uint8_t)(tick >> 8),
		(uint8_t)tick,
		(uint8_t)(tick >> 40),
		(uint8_t)(tick >> 32),
		(uint8_t)(0x10 | (tick >> 56 & 0x0f)),
		(uint8_t)(tick >> 48),
		(uint8_t)(0x80 | (seq >> 8 & 0x3f)),
		(uint8_t)seq,
	}};
	memcpy(u.b + 10, uuid_node_bytes, 6);
	return u;
}

struct uuid uuid_new_v4(void)
{
	struct uuid u;
	random_bytes(u.b, sizeof(u.b));
	u.b[6] = (uint8_t)(0x40 | (u.b[6] & 0x0f));
	u.b[8] = (uint8_t)(0x80 | (u.b[8] & 0x3f));
	return u;
}

wall_t uuid_v1_time(const struct uuid *u)
{
	const uint8_t *b = u->b;
	uint64_t tick = (uint64_t)b[0] << 24 | (uint64_t)b[1] << 16 | (uint64_t)b[2] << 8 | b[3] |
			(uint64_t)b[4] << 40 | (uint64_t)b[5] << 32 | (uint64_t)(b[6] & 0x0f) << 56 |
			(uint64_t)b[7] << 48;
	int64_t since_1970 = (int64_t)tick - UUID_EPOCH_TICKS, ns;
	if (__builtin_mul_overflow(since_1970, 100, &ns)) /* 60 bits of ticks reach the year 5236 */
		ns = since_1970 > 0 ? INT64_MAX : INT64_MIN;
	return (wall_t){ns};
}

static char *uuid_put_hex(char *out, const uint8_t *b, size_t n)
{
	static const char digit[] = "0123456789abcdef";
	for (size_t i = 0; i < n; i++) {
		*out++ = digit[b[i] >> 4];
		*out++ = digit[b[i] & 15];
	}
	return out;
}

void uuid_fmt_simple(const struct uuid *u, char out[33])
{
	*uuid_put_hex(out, u->b, 16) = 0;
}

void uuid_fmt_dashed(const struct uuid *u, char out[37])
{
	static const uint8_t group[] = {4, 2, 2, 2, 6};
	const uint8_t *b = u->b;
	for (size_t i = 0; i < ARRAY_SIZE(group); b += group[i++]) {
		if (i != 0)
			*out++ = '-';
		out = uuid_put_hex(out, b, group[i]);
	}
	*out = 0;
}

bool uuid_parse(str_t s, struct uuid *out)
{
	struct uuid u;
	if (s.n != 32 && s.n != 36)
		return false;
	bool has_dashes = s.n == 36;
	size_t at = 0;
	for (size_t i = 0; i < 16; i++) {
		if (has_dashes && (i == 4 || i == 6 || i == 8 || i == 10) && s.p[at++] != '-')
			return false;
		int hi = hex_digit(s.p[at]), lo = hex_digit(s.p[at + 1]);
		if (hi < 0 || lo < 0)
			return false;
		u.b[i] = (uint8_t)(hi << 4 | lo);
		at += 2;
	}
	*out = u;
	return true;
}
