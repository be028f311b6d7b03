/* message_header.c - reading and changing the header of a message that is in two pieces. New fields that go
 * first need only a new prefix, so that the recipients of a batch go on sharing one body; those that go last,
 * or that are taken out of the middle, need a body of its own. */
#include "mail/message_header.h"

static str_t message_prefix(const struct message *m)
{
	return str_mk(m->prefix, m->n_prefix_bytes);
}

static str_t message_body(const struct message *m)
{
	if (m->body == NULL)
		panic("the header of a message whose body is not in memory");
	return str_mk(m->body->p, m->body->n_bytes);
}

void message_header_iter_init(struct message_header_iter *it, const struct message *m)
{
	header_iter_init(&it->it, message_prefix(m));
	it->body = message_body(m);
}

bool message_header_next(struct message_header_iter *it, struct header_field *out)
{
	while (!header_next(&it->it, out)) {
		if (it->body.p == NULL)
			return false;
		header_iter_init(&it->it, it->body);
		it->body = STR_NULL;
	}
	return true;
}

bool message_header_find(const struct message *m, str_t name, struct header_field *out)
{
	struct message_header_iter it;
	message_header_iter_init(&it, m);
	while (message_header_next(&it, out))
		if (str_ieq(out->name, name))
			return true;
	return false;
}

/* --- changing --- */

static void message_take_body(struct message *m, struct body *b)
{
	message_replace_body(m, b);
	body_unref(b);
}

void message_append_header(struct message *m, str_t fields)
{
	struct header_iter it;
	struct header_field f;
	str_t body = message_body(m);
	header_iter_init(&it, body);
	while (header_next(&it, &f))
		;
	str_t head = str_head(body, body.n - it.rest.n);
	str_t gap = head.n > 0 && head.p[head.n - 1] != '\n' ? STR("\r\n")
							     : STR(""); /* the last line had no end */
	const str_t part[] = {head, gap, fields, it.rest};
	struct body *b = body_alloc(body.n + gap.n + fields.n);
	size_t at = 0;
	for (size_t i = 0; i < ARRAY_SIZE(part); i++) {
		if (part[i].n > 0)
			memcpy(b->p + at, part[i].p, part[i].n);
		at += part[i].n;
	}
	message_take_body(m, b);
}

/* Appends what is left of `in`; returns how many fields are not. */
static size_t header_filter(str_t in, message_header_match_fn *match, void *arg, struct buf *out)
{
	struct header_iter it;
	struct header_field f;
	size_t n = 0;
	header_iter_init(&it, in);
	while (header_next(&it, &f)) {
		if (match(f.name, arg))
			n++;
		else
			buf_add_str(out, f.whole);
	}
	buf_add_str(out, it.rest);
	return n;
}

static bool header_has_match(str_t in, message_header_match_fn *match, void *arg)
{
	struct header_iter it;
	struct header_field f;
	header_iter_init(&it, in);
	while (header_next(&it, &f))
		if (match(f.name, arg))
			return true;
	return false;
}

size_t message_remove_headers(struct message *m, message_header_match_fn *match, void *arg)
{
	struct buf left = BUF_INIT;
	size_t n = 0;
	if (header_has_match(message_prefix(m), match, arg)) {
		n += header_filter(message_prefix(m), match, arg, &left);
		message_set_prefix(m, buf_str(&left));
	}
	if (header_has_match(message_body(m), match, arg)) {
		buf_clear(&left);
		buf_reserve(&left, m->body->n_bytes);
		n += header_filter(message_body(m), match, arg, &left);
		message_take_body(m, body_new(buf_str(&left)));
	}
	buf_fini(&left);
	return n;
}
