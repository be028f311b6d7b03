/* message_import.c - header fields into metadata. One pass over the header sorts its fields into groups, one
 * for each key of each spec; then each group is one entry of the metadata. Who sent the message chose the
 * names and the number of its fields: groups are found by hash, and there are no more of them than
 * IMPORT_KEYS_MAX, since every entry stays with the message and is stored with it. */
#include "base/arena.h"
#include "base/err.h"
#include "base/json.h"
#include "base/map.h"
#include "mail/message_header.h"

#define IMPORT_KEYS_MAX 1024

struct import_hit {
	struct import_hit *next;
	str_t raw_value;
};
struct import_group {
	struct import_group *next; /* of the same spec */
	str_t key;
	struct import_hit *first, *last;
};
struct import_list { /* of a spec */
	struct import_group *first, *last;
};
struct import {
	struct arena arena;
	struct map by_key; /* number of the spec and key -> struct import_group */
	const struct header_import *spec;
	size_t n_specs;
	struct import_list *list; /* of each spec */
};

static const struct header_import *import_find_spec(const struct header_import *spec, size_t n, str_t name)
{
	for (size_t i = 0; i < n; i++)
		if (spec[i].is_prefix ? str_istarts(name, spec[i].name) : str_ieq(name, spec[i].name))
			return &spec[i];
	return NULL;
}

static char import_lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

static char import_upper(char c)
{
	return c >= 'a' && c <= 'z' ? (char)(c - 32) : c;
}

static void import_add_key(struct buf *out, str_t name, enum header_transform transform)
{
	bool is_joined = transform == HEADER_CAMEL_CASE || transform == HEADER_PASCAL_CASE;
	bool is_word_start = transform == HEADER_PASCAL_CASE;
	size_t from = out->n;
	for (size_t i = 0; i < name.n; i++) {
		char c = name.p[i];
		bool is_gap = c == '-' || c == '_';
		if (!is_joined) {
			buf_add_c(out, !is_gap				? import_lower(c)
				       : transform == HEADER_SNAKE_CASE ? '_'
									: '-');
		} else if (is_gap) {
			is_word_start = out->n > from || transform == HEADER_PASCAL_CASE;
		} else {
			buf_add_c(out, is_word_start ? import_upper(c) : import_lower(c));
			is_word_start = false;
		}
	}
}

static int import_add(struct import *im, const struct header_field *f)
{
	const struct header_import *spec = import_find_spec(im->spec, im->n_specs, f->name);
	if (spec == NULL)
		return 0;
	uint32_t number = (uint32_t)(spec - im->spec);
	struct buf key = BUF_INIT;
	buf_add(&key, &number, sizeof(number));
	if (spec->target.p != NULL)
		buf_add_str(&key, spec->target);
	else
		import_add_key(&key, f->name, spec->transform);
	struct import_group *g = map_find(&im->by_key, buf_str(&key));
	if (g == NULL && im->by_key.n < IMPORT_KEYS_MAX) {
		str_t kept = arena_str(&im->arena, buf_str(&key));
		g = arena_zalloc(&im->arena, sizeof(*g));
		g->key = str_skip(kept, sizeof(number));
		map_put(&im->by_key, kept, g);
		struct import_list *l = &im->list[number];
		if (l->last != NULL)
			l->last->next = g;
		else
			l->first = g;
		l->last = g;
	}
	buf_fini(&key);
	if (g == NULL) {
		err_set(ERR_LIMIT, "the message has more than %d different header fields to be imported",
			IMPORT_KEYS_MAX);
		return -1;
	}
	if (g->first != NULL && spec->match == HEADER_FIRST)
		return 0;
	if (g->first != NULL && spec->match == HEADER_LAST) {
		g->first->raw_value = f->raw_value;
		return 0;
	}
	struct import_hit *h = arena_zalloc(&im->arena, sizeof(*h));
	h->raw_value = f->raw_value;
	if (g->last != NULL)
		g->last->next = h;
	else
		g->first = h;
	g->last = h;
	return 0;
}

static void import_set_meta(struct message *m, const struct header_import *spec, const struct import_group *g)
{
	struct buf json = BUF_INIT, value = BUF_INIT;
	struct json_out j = json_out_to(&json);
	if (spec->match == HEADER_ALL)
		json_arr_begin(&j);
	for (const struct import_hit *h = g->first; h != NULL; h = h->next) {
		buf_clear(&value);
		header_decode_lenient(h->raw_value, &value);
		json_str(&j, buf_str(&value));
	}
	if (spec->match == HEADER_ALL)
		json_arr_end(&j);
	meta_set_json(&m->meta, g->key, buf_str(&json));
	message_touch(m);
	buf_fini(&json);
	buf_fini(&value);
}

static bool import_is_removed(str_t name, void *arg)
{
	const struct import *im = arg;
	const struct header_import *spec = import_find_spec(im->spec, im->n_specs, name);
	return spec != NULL && spec->is_removed;
}

int message_import_headers(struct message *m, const struct header_import *spec, size_t n)
{
	struct import im = {.arena = ARENA_INIT, .spec = spec, .n_specs = n};
	struct message_header_iter it;
	struct header_field f;
	int rc = -1;
	im.list = arena_zalloc(&im.arena, (n + 1) * sizeof(*im.list));
	message_header_iter_init(&it, m);
	while (message_header_next(&it, &f))
		if (import_add(&im, &f) != 0)
			goto out;
	for (size_t i = 0; i < n; i++)
		for (const struct import_group *g = im.list[i].first; g != NULL; g = g->next)
			import_set_meta(m, &spec[i], g);
	message_remove_headers(m, import_is_removed, &im);
	rc = 0;
out:
	map_fini(&im.by_key);
	arena_fini(&im.arena);
	return rc;
}
