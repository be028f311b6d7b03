/* message_record.c - the spool's record of a message. Binary, because the prefix may hold any byte and
 * because every message is decoded at start. Little endian:
 *   u8 version (2), u8 flags (1: 8-bit body, 2: has a schedule), u16 attempts, u32 size, i64 due (ns since
 * 1970) text sender; varint n, n times text recipient; varint n, n times text key, text json; text prefix
 *   with flag 2: u8 parts (1: first_attempt, 2: expires, 4: window); for each of the first two, i64 ns since
 *   1970, i32 offset in seconds; for a window, u8 days, u32 start, u32 end in seconds, text name of the zone
 * where text is a varint length and its bytes, and varint is LEB128. Version 1 had no schedules. A reader
 * refuses other versions and left-over bytes, so whoever adds a field counts the version up and keeps reading
 * the old ones. */
#include "mail/message.h"

#include "base/alloc.h"
#include "base/err.h"
#include "base/log.h"
#include "mail/schedule.h"

#include <endian.h>
#include <stdlib.h>

#define RECORD_VERSION 2
#define RECORD_8BIT 1
#define RECORD_SCHEDULE 2

enum { SCHEDULE_FIRST_ATTEMPT = 1, SCHEDULE_EXPIRES = 2, SCHEDULE_WINDOW = 4 };

struct record_head {
	uint8_t version, flags;
	uint16_t n_attempts;
	uint32_t size_bytes;
	uint64_t due_ns;
};

static void record_add_varint(struct buf *out, uint64_t v)
{
	char b[10];
	size_t n = 0;
	for (; v >= 0x80; v >>= 7)
		b[n++] = (char)(v | 0x80);
	b[n++] = (char)v;
	buf_add(out, b, n);
}

static void record_add_text(struct buf *out, str_t s)
{
	record_add_varint(out, s.n);
	buf_add_str(out, s);
}

static void record_add_i64(struct buf *out, int64_t v)
{
	uint64_t le = htole64((uint64_t)v);
	buf_add(out, &le, sizeof le);
}

static void record_add_u32(struct buf *out, uint32_t v)
{
	uint32_t le = htole32(v);
	buf_add(out, &le, sizeof le);
}

static void record_add_time(struct buf *out, const struct schedule_time *t)
{
	if (!t->is_set)
		return;
	record_add_i64(out, t->at.ns);
	record_add_u32(out, (uint32_t)t->offset_s);
}

static void record_add_schedule(struct buf *out, const struct schedule *s)
{
	buf_add_c(out,
		  (char)((s->first_attempt.is_set ? SCHEDULE_FIRST_ATTEMPT : 0) |
			 (s->expires.is_set ? SCHEDULE_EXPIRES : 0) | (s->tz != NULL ? SCHEDULE_WINDOW : 0)));
	record_add_time(out, &s->first_attempt);
	record_add_time(out, &s->expires);
	if (s->tz == NULL)
		return;
	buf_add_c(out, (char)s->dow);
	record_add_u32(out, (uint32_t)s->start.s);
	record_add_u32(out, (uint32_t)s->end.s);
	record_add_text(out, str_of(s->tz));
}

void message_encode(const struct message *m, struct buf *out)
{
	struct record_head h = {
		.version = RECORD_VERSION,
		.flags = (m->is_8bit_body ? RECORD_8BIT : 0) | (m->schedule != NULL ? RECORD_SCHEDULE : 0),
		.n_attempts = htole16(m->n_attempts),
		.size_bytes = htole32(m->size_bytes),
		.due_ns = htole64((uint64_t)m->due.ns),
	};
	buf_add(out, &h, sizeof h);
	record_add_text(out, str_of(m->sender));
	record_add_varint(out, m->n_rcpt);
	for (uint32_t i = 0; i < m->n_rcpt; i++)
		record_add_text(out, str_of(m->rcpt[i]));
	record_add_varint(out, m->meta.n);
	str_t key, json;
	for (uint32_t i = 0; meta_at(&m->meta, i, &key, &json); i++) {
		record_add_text(out, key);
		record_add_text(out, json);
	}
	record_add_text(out, str_mk(m->prefix, m->n_prefix_bytes));
	if (m->schedule != NULL)
		record_add_schedule(out, m->schedule);
}

static bool record_varint(str_t *rest, uint64_t *out)
{
	uint64_t v = 0;
	for (size_t i = 0; i < rest->n && i < 9; i++) {
		unsigned char c = (unsigned char)rest->p[i];
		v |= (uint64_t)(c & 0x7f) << (7 * i);
		if (c < 0x80) {
			*out = v;
			*rest = str_skip(*rest, i + 1);
			return true;
		}
	}
	return false;
}

static bool record_text(str_t *rest, str_t *out)
{
	uint64_t n;
	if (!record_varint(rest, &n) || n > rest->n)
		return false;
	*out = str_head(*rest, n);
	*rest = str_skip(*rest, n);
	return true;
}

/* A text that becomes a C string. */
static bool record_z(str_t *rest, str_t *out)
{
	return record_text(rest, out) && (out->n == 0 || memchr(out->p, 0, out->n) == NULL);
}

/* A count of things of at least n_min bytes each: what does not fit into the rest is refused before it is
 * allocated. */
static bool record_count(str_t *rest, size_t n_min, uint32_t *out)
{
	uint64_t n;
	if (!record_varint(rest, &n) || n > rest->n / n_min || n > UINT32_MAX)
		return false;
	*out = (uint32_t)n;
	return true;
}

static bool record_bytes(str_t *rest, void *out, size_t n)
{
	if (rest->n < n)
		return false;
	memcpy(out, rest->p, n);
	*rest = str_skip(*rest, n);
	return true;
}

static bool record_time(str_t *rest, struct schedule_time *out)
{
	uint64_t ns;
	uint32_t offset;
	if (!record_bytes(rest, &ns, sizeof ns) || !record_bytes(rest, &offset, sizeof offset))
		return false;
	*out = (struct schedule_time){{(int64_t)le64toh(ns)}, (int32_t)le32toh(offset), true};
	return out->offset_s > -86400 && out->offset_s < 86400;
}

static bool record_clock(str_t *rest, struct schedule_clock *out)
{
	uint32_t s;
	if (!record_bytes(rest, &s, sizeof s) || le32toh(s) >= 86400)
		return false;
	*out = (struct schedule_clock){(int32_t)le32toh(s), true};
	return true;
}

/* A zone that was there when the message came may have gone with an update of the system: the message goes
 * on. */
static void record_set_zone(struct schedule *s, str_t name)
{
	static atomic_flag has_warned = ATOMIC_FLAG_INIT;
	s->tz = str_dup(name);
	s->zone = zone_find(name);
	if (s->zone == NULL && !atomic_flag_test_and_set(&has_warned))
		log_warn("kumod",
			 "messages are scheduled by the time zone `%s`, "
			 "which this system does not know: UTC stands in for it",
			 s->tz);
}

static bool record_schedule(str_t *rest, struct schedule *s)
{
	uint8_t parts;
	str_t tz;
	if (!record_bytes(rest, &parts, 1) || parts > 7 ||
	    ((parts & SCHEDULE_FIRST_ATTEMPT) != 0 && !record_time(rest, &s->first_attempt)) ||
	    ((parts & SCHEDULE_EXPIRES) != 0 && !record_time(rest, &s->expires)))
		return false;
	if ((parts & SCHEDULE_WINDOW) == 0)
		return true;
	if (!record_bytes(rest, &s->dow, 1) || s->dow > 0x7f || !record_clock(rest, &s->start) ||
	    !record_clock(rest, &s->end) || !record_z(rest, &tz) || tz.n == 0)
		return false;
	record_set_zone(s, tz);
	return schedule_check(s) == 0;
}

static const char *record_read(struct message *m, str_t rest, bool has_schedule)
{
	str_t text, json;
	uint32_t n;
	if (!record_z(&rest, &text))
		return "the sender";
	m->sender = str_dup(text);
	if (!record_count(&rest, 1, &n))
		return "the number of recipients";
	m->rcpt = n > 0 ? xcalloc(n, sizeof *m->rcpt) : NULL;
	for (; m->n_rcpt < n; m->n_rcpt++) {
		if (!record_z(&rest, &text))
			return "a recipient";
		m->rcpt[m->n_rcpt] = str_dup(text);
	}
	if (!record_count(&rest, 2, &n))
		return "the number of metadata entries";
	for (uint32_t i = 0; i < n; i++) {
		if (!record_text(&rest, &text) || !record_text(&rest, &json) || json.n == 0 ||
		    !str_is_utf8(json))
			return "a metadata entry";
		meta_add_json(&m->meta, text, json);
	}
	if (!record_text(&rest, &text) || text.n > UINT32_MAX)
		return "the prefix";
	m->prefix = text.n > 0 ? str_dup(text) : NULL;
	m->n_prefix_bytes = (uint32_t)text.n;
	if (has_schedule) {
		m->schedule = xnew(struct schedule);
		if (!record_schedule(&rest, m->schedule))
			return "the schedule";
	}
	return rest.n > 0 ? "its end" : NULL;
}

struct message *message_decode(const struct uuid *id, str_t record)
{
	struct record_head h;
	char name[33];
	uuid_fmt_simple(id, name);
	if (record.n < sizeof h) {
		err_set(ERR_CORRUPT, "record of message %s: only %zu bytes", name, record.n);
		return NULL;
	}
	memcpy(&h, record.p, sizeof h);
	unsigned known = h.version == 1 ? RECORD_8BIT : RECORD_8BIT | RECORD_SCHEDULE;
	if (h.version < 1 || h.version > RECORD_VERSION || (h.flags & ~known) != 0) {
		err_set(ERR_CORRUPT, "record of message %s: unknown version %u or flags %u", name, h.version,
			h.flags);
		return NULL;
	}
	struct message *m = xnew(struct message);
	atomic_init(&m->refs, 1);
	list_init(&m->link);
	m->id = *id;
	m->n_attempts = le16toh(h.n_attempts);
	m->size_bytes = le32toh(h.size_bytes);
	m->due.ns = (int64_t)le64toh(h.due_ns);
	m->is_8bit_body = (h.flags & RECORD_8BIT) != 0;
	const char *bad = record_read(m, str_skip(record, sizeof h), (h.flags & RECORD_SCHEDULE) != 0);
	if (bad == NULL && m->n_prefix_bytes > m->size_bytes)
		bad = "the size";
	if (bad != NULL) {
		err_set(ERR_CORRUPT, "record of message %s: damaged at %s", name, bad);
		message_unref(m);
		return NULL;
	}
	return m;
}
