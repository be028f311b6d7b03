/* message.c - messages in memory and the names of their queues. Sender and recipients are separate heap
 * strings, so that a policy that changes one of them replaces one string. Only the reference count is atomic;
 * everything else belongs to whoever has the message in hand (message.h). */
#include "mail/message.h"

#include "base/alloc.h"
#include "base/err.h"
#include "mail/schedule.h"
#include "mime/idna.h"

#include <stdlib.h>

struct message *message_new(str_t sender, const str_t *rcpt, uint32_t n_rcpt, struct body *body)
{
	struct message *m = xnew(struct message);
	atomic_init(&m->refs, 1);
	m->id = uuid_new_v1();
	m->sender = str_dup(sender);
	message_set_recipients(m, rcpt, n_rcpt);
	m->is_changed = false;
	list_init(&m->link);
	if (body != NULL)
		message_set_body(m, body);
	return m;
}

struct message *message_ref(struct message *m)
{
	atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
	return m;
}

static void message_free_recipients(struct message *m)
{
	for (uint32_t i = 0; i < m->n_rcpt; i++)
		free(m->rcpt[i]);
	free(m->rcpt);
}

void message_unref(struct message *m)
{
	if (m == NULL || atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) != 1)
		return;
	message_free_recipients(m);
	free(m->sender);
	free(m->prefix);
	meta_fini(&m->meta);
	schedule_free(m->schedule);
	body_unref(m->body);
#ifdef CIRRUS_DEBUG
	memset(m, 0xdd, sizeof *m);
#endif
	free(m);
}

wall_t message_created(const struct message *m)
{
	return uuid_v1_time(&m->id);
}

void message_set_body(struct message *m, struct body *body)
{
	if (body == m->body)
		return;
	if (body != NULL) {
		body_ref(body);
		m->is_8bit_body = body_is_8bit(body) || !str_is_ascii(str_mk(m->prefix, m->n_prefix_bytes));
		m->size_bytes = (uint32_t)(m->n_prefix_bytes + body->n_bytes);
	}
	body_unref(m->body);
	m->body = body;
}

void message_replace_body(struct message *m, struct body *body)
{
	if (body == m->body)
		return;
	message_set_body(m, body);
	m->is_body_changed = true;
	m->is_changed = true; /* its size */
}

void message_shed_meta(struct message *m)
{
	meta_fini(&m->meta);
	m->meta = (struct meta){0};
	m->is_meta_shed = true;
}

void message_take_meta(struct message *m, struct message *stored)
{
	meta_fini(&m->meta);
	m->meta = stored->meta;
	stored->meta = (struct meta){0};
	m->is_meta_shed = false;
}

void message_set_sender(struct message *m, str_t sender)
{
	char *copy = str_dup(sender); /* first: it may be a part of the old one */
	free(m->sender);
	m->sender = copy;
	m->is_changed = true;
}

void message_set_recipients(struct message *m, const str_t *rcpt, uint32_t n)
{
	char **copy = n > 0 ? xcalloc(n, sizeof *copy) : NULL;
	for (uint32_t i = 0; i < n; i++)
		copy[i] = str_dup(rcpt[i]);
	message_free_recipients(m);
	m->rcpt = copy;
	m->n_rcpt = n;
	m->is_changed = true;
}

void message_set_schedule(struct message *m, struct schedule *s)
{
	schedule_free(m->schedule);
	m->schedule = s;
	m->is_changed = true;
}

void message_set_prefix(struct message *m, str_t headers)
{
	char *prefix = headers.n > 0 ? str_dup(headers) : NULL;
	m->size_bytes = m->size_bytes - m->n_prefix_bytes + (uint32_t)headers.n;
	free(m->prefix);
	m->prefix = prefix;
	m->n_prefix_bytes = (uint32_t)headers.n;
	m->is_8bit_body |= !str_is_ascii(headers);
	m->is_changed = true;
}

void message_add_prefix(struct message *m, str_t headers)
{
	struct buf b = BUF_INIT;
	buf_add_str(&b, headers);
	buf_add(&b, m->prefix != NULL ? m->prefix : "", m->n_prefix_bytes);
	message_set_prefix(m, buf_str(&b));
	buf_fini(&b);
}

void message_keep_recipients(struct message *m, const bool *keep)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < m->n_rcpt; i++) {
		if (keep[i])
			m->rcpt[n++] = m->rcpt[i];
		else
			free(m->rcpt[i]);
	}
	m->n_rcpt = n;
	m->is_changed = true;
}

/* ---- queue names ---- */

/* *text has p NULL when the key is not set. */
static int message_routing_key(const struct message *m, str_t key, struct buf *scratch, str_t *text)
{
	str_t json;
	if (!meta_get_json(&m->meta, key, &json) || str_eq(json, STR("null"))) {
		*text = STR_NULL;
		return 0;
	}
	if (meta_get_str(&m->meta, key, scratch, text))
		return 0;
	err_set(ERR_INVALID, "the metadata '" STR_FMT "' must be a string, but is " STR_FMT, STR_ARG(key),
		STR_ARG(str_head(json, 200)));
	return -1;
}

static void buf_add_lower(struct buf *out, str_t s)
{
	for (size_t i = 0; i < s.n; i++)
		buf_add_c(out, s.p[i] >= 'A' && s.p[i] <= 'Z' ? (char)(s.p[i] + 32) : s.p[i]);
}

/* In ASCII, so that both forms of an international name are one queue, and DNS knows it. What is no such name
 * stays as it is: its queue says what is wrong when it asks for the host. */
static void message_add_queue_domain(struct buf *out, str_t domain)
{
	size_t before = out->n;
	if (str_is_ascii(domain)) {
		buf_add_lower(out, domain);
	} else if (idna_to_ascii(domain, out) != 0) {
		err_clear();
		buf_truncate(out, before);
		buf_add_lower(out, domain);
	}
}

int message_queue_name(const struct message *m, struct buf *out)
{
	int rc = -1;
	struct buf scratch[4] = {BUF_INIT, BUF_INIT, BUF_INIT, BUF_INIT};
	str_t queue, campaign, tenant, routing;
	if (message_routing_key(m, STR("queue"), &scratch[0], &queue) != 0)
		goto out;
	if (queue.p != NULL) {
		buf_add_str(out, queue);
		rc = 0;
		goto out;
	}
	if (message_routing_key(m, STR("campaign"), &scratch[1], &campaign) != 0 ||
	    message_routing_key(m, STR("tenant"), &scratch[2], &tenant) != 0 ||
	    message_routing_key(m, STR("routing_domain"), &scratch[3], &routing) != 0)
		goto out;
	const char *at = m->n_rcpt > 0 ? strrchr(m->rcpt[0], '@') : NULL;
	if (at == NULL) {
		err_set(ERR_INVALID, "no queue for the message: its first recipient has no domain");
		goto out;
	}
	if (campaign.p != NULL) {
		buf_add_str(out, campaign);
		buf_add_c(out, ':');
	}
	buf_add_str(out, tenant);
	if (campaign.p != NULL || tenant.p != NULL)
		buf_add_c(out, '@');
	message_add_queue_domain(out, str_of(at + 1));
	if (routing.p != NULL) {
		buf_add_c(out, '!');
		buf_add_str(out, routing);
	}
	rc = 0;
out:
	for (size_t i = 0; i < ARRAY_SIZE(scratch); i++)
		buf_fini(&scratch[i]);
	return rc;
}

void queue_name_parse(str_t name, struct queue_name *out)
{
	*out = (struct queue_name){.domain = name};
	ptrdiff_t at = str_chr(name, '@', 0);
	if (at >= 0) {
		str_t left = str_head(name, (size_t)at);
		ptrdiff_t colon = str_chr(left, ':', 0);
		out->domain = str_skip(name, (size_t)at + 1);
		out->tenant = left;
		if (colon >= 0) {
			out->campaign = str_head(left, (size_t)colon);
			out->tenant = str_skip(left, (size_t)colon + 1);
		}
	}
	ptrdiff_t bang = str_chr(out->domain, '!', 0);
	if (bang >= 0) {
		out->routing_domain = str_skip(out->domain, (size_t)bang + 1);
		out->domain = str_head(out->domain, (size_t)bang);
	}
}
