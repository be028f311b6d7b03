/* spool_model.h - messages and keys whose every byte follows from a number, and a
 * model of what a spool must hold: for the spool's own tests. The version of a
 * message is its n_attempts; sender, recipients, prefix and body follow from number
 * and version. That of a key is in its print; the rest of it and the answer follow. */
#pragma once

#include "base/alloc.h"
#include "base/err.h"
#include "spool/spool.h"

#include <stdio.h>
#include <stdlib.h>

static inline uint64_t model_mix(uint64_t x)
{
	x ^= x >> 33, x *= UINT64_C(0xff51afd7ed558ccd);
	x ^= x >> 33, x *= UINT64_C(0xc4ceb9fe1a85ec53);
	return x ^ x >> 33;
}

static inline struct uuid model_id(uint32_t number)
{
	struct uuid id = {{0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x11, 0x77, 0x80}};
	memcpy(id.b + 12, &number, 4);
	return id;
}

static inline uint32_t model_number(const struct uuid *id)
{
	uint32_t n;
	memcpy(&n, id->b + 12, 4);
	return n;
}

/* Mostly 1 to 3 KB; one in 64 is over the journal's limits for copied and for unread payloads. */
static inline size_t model_body_bytes(uint32_t number)
{
	uint64_t r = model_mix(number);
	return r % 64 == 0 ? 70000 + r % 5000 : 1 + r % 3000;
}

static inline void model_fill(char *p, size_t n, uint64_t seed)
{
	for (size_t i = 0; i < n; i++) {
		if (i % 8 == 0)
			seed = model_mix(seed + 1);
		p[i] = (char)(seed >> (8 * (i % 8)));
	}
}

static inline struct body *model_body(uint32_t number)
{
	struct body *b = body_alloc(model_body_bytes(number));
	model_fill(b->p, b->n_bytes, number);
	return b;
}

static inline void model_dress(struct message *m, uint32_t number, uint16_t version)
{
	char text[64], prefix[100];
	free(m->sender);
	m->sender = xasprintf("s%u.%u@example.org", number, version);
	snprintf(text, sizeof text, "%u", version);
	meta_set_json(&m->meta, STR("version"), str_of(text));
	model_fill(prefix, sizeof prefix, (uint64_t)number << 16 | version);
	message_set_prefix(m, str_mk(prefix, 1 + (number + version) % 100));
	m->n_attempts = version;
	m->due.ns = (int64_t)number * 1000 + version;
}

/* body NULL: the number's own. */
static inline struct message *model_message(uint32_t number, uint16_t version, struct body *body)
{
	char rcpt[64];
	snprintf(rcpt, sizeof rcpt, "r%u@example.com", number);
	struct body *own = body != NULL ? body_ref(body) : model_body(number);
	str_t r = str_of(rcpt);
	struct message *m = message_new(STR(""), &r, 1, own);
	body_unref(own);
	m->id = model_id(number);
	model_dress(m, number, version);
	return m;
}

/* NULL when the message is what model_message made (its body too, when it is there), else what differs. */
static inline const char *model_differs(const struct message *m, uint32_t body_number)
{
	uint32_t number = model_number(&m->id);
	char prefix[100], text[64];
	snprintf(text, sizeof text, "s%u.%u@example.org", number, m->n_attempts);
	if (strcmp(m->sender, text) != 0)
		return "sender";
	snprintf(text, sizeof text, "r%u@example.com", number);
	if (m->n_rcpt != 1 || strcmp(m->rcpt[0], text) != 0)
		return "recipient";
	model_fill(prefix, sizeof prefix, (uint64_t)number << 16 | m->n_attempts);
	if (m->n_prefix_bytes != 1 + (number + m->n_attempts) % 100 ||
	    memcmp(m->prefix, prefix, m->n_prefix_bytes) != 0)
		return "prefix";
	if (m->due.ns != (int64_t)number * 1000 + m->n_attempts)
		return "due";
	if (m->body == NULL)
		return NULL;
	struct body *want = model_body(body_number);
	bool is_same = want->n_bytes == m->body->n_bytes && memcmp(want->p, m->body->p, want->n_bytes) == 0;
	body_unref(want);
	return is_same ? NULL : "body";
}

/* ---- keys ---- */

static inline struct uuid model_key_id(uint32_t number)
{
	struct uuid id = {{0x99, 0x88}};
	memcpy(id.b + 12, &number, 4);
	return id;
}

/* Mostly under 1 KB, sometimes nothing; one in 32 is over the journal's limits for copied and for unread
 * payloads. */
static inline size_t model_answer_bytes(uint32_t number, uint16_t version)
{
	uint64_t r = model_mix((uint64_t)number << 16 | version);
	return r % 32 == 0 ? 66000 + r % 9000 : r % 1000 < 50 ? 0 : r % 1000;
}

/* answer: takes the bytes, which the key points to. */
static inline struct spool_key model_key(uint32_t number, uint16_t version, wall_t expires,
					 struct buf *answer)
{
	struct spool_key k = {.id = model_key_id(number), .expires = expires};
	uint64_t seed = (uint64_t)number << 16 | version;
	size_t n = model_answer_bytes(number, version);
	model_fill((char *)k.print, sizeof k.print, seed);
	memcpy(k.print, &number, 4);
	memcpy(k.print + 4, &version, 2);
	buf_clear(answer);
	buf_reserve(answer, n + 1);
	model_fill(answer->p, n, seed + 1);
	answer->n = n;
	k.answer = buf_str(answer);
	return k;
}

static inline uint16_t model_key_version(const struct spool_key *k)
{
	uint16_t version;
	memcpy(&version, k->print + 4, 2);
	return version;
}

/* Whether the key is one that model_key made for this number. */
static inline bool model_key_is_right(const struct spool_key *k, uint32_t number)
{
	struct buf answer = BUF_INIT;
	struct spool_key want = model_key(number, model_key_version(k), k->expires, &answer);
	bool is_right = uuid_eq(&k->id, &want.id) && memcmp(k->print, want.print, sizeof k->print) == 0 &&
			str_eq(k->answer, want.answer);
	buf_fini(&answer);
	return is_right;
}

/* The version of the stored key, or -1 when there is none; -2 when it is not what model_key made. */
static inline int model_key_look(struct spool *sp, uint32_t number, mono_t deadline)
{
	struct uuid id = model_key_id(number);
	struct buf bytes = BUF_INIT;
	struct spool_key k;
	int rc = spool_load_key(sp, &id, &k, &bytes, deadline);
	int version = rc != 0 ? -1 : model_key_is_right(&k, number) ? model_key_version(&k) : -2;
	buf_fini(&bytes);
	if (rc == 0)
		return version;
	bool is_missing = err_is(ERR_NOT_FOUND);
	err_clear();
	return is_missing ? -1 : -2;
}

/* rm -r of a directory without directories in it. */
static inline void model_remove_dir(const char *path)
{
	char cmd[512];
	snprintf(cmd, sizeof cmd, "rm -rf '%s'", path);
	if (system(cmd) != 0)
		fprintf(stderr, "cannot remove %s\n", path);
}
