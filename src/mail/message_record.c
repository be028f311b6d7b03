/* message_record.c - the spool's record of a message. Binary, because the prefix may hold any byte and
 * because every message is decoded at start. Little endian:
 *   u8 version (1), u8 flags (1: 8-bit body), u16 attempts, u32 size, i64 due (ns since 1970)
 *   text sender; varint n, n times text recipient; varint n, n times text key, text json; text prefix
 * where text is a varint length and its bytes, and varint is LEB128. A reader refuses other versions and
 * left-over bytes, so whoever adds a field counts the version up and keeps reading the old one. */
#include "mail/message.h"

#include "base/alloc.h"
#include "base/err.h"

#include <endian.h>
#include <stdlib.h>

#define RECORD_VERSION 1
#define RECORD_8BIT 1

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

void message_encode(const struct message *m, struct buf *out)
{
	struct record_head h = {
		.version = RECORD_VERSION,
		.flags = m->is_8bit_body ? RECORD_8BIT : 0,
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

static const char *record_read(struct message *m, str_t rest)
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
	if (h.version != RECORD_VERSION || (h.flags & ~RECORD_8BIT) != 0) {
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
	const char *bad = record_read(m, str_skip(record, sizeof h));
	if (bad == NULL && m->n_prefix_bytes > m->size_bytes)
		bad = "the size";
	if (bad != NULL) {
		err_set(ERR_CORRUPT, "record of message %s: damaged at %s", name, bad);
		message_unref(m);
		return NULL;
	}
	return m;
}
