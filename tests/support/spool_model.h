/* spool_model.h - messages whose every byte follows from a number, and a model of what a spool must hold: for
 * the spool's own tests. The version of a message is its n_attempts; sender, recipients, prefix and body
 * follow from number and version. */
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

/* rm -r of a directory without directories in it. */
static inline void model_remove_dir(const char *path)
{
	char cmd[512];
	snprintf(cmd, sizeof cmd, "rm -rf '%s'", path);
	if (system(cmd) != 0)
		fprintf(stderr, "cannot remove %s\n", path);
}
