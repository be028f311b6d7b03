/* meta.c - metadata entries in an array, searched linearly: a message has about a dozen, and comparing
 * lengths first beats a hash at that size. An entry is one heap block: the key, a NUL, the JSON text, a
 * NUL. */
#include "mail/meta.h"

#include "base/alloc.h"

#include <jansson.h>
#include <stdlib.h>

struct meta_entry {
	char *p;
	uint32_t n_key, n_json;
};

static str_t meta_entry_key(const struct meta_entry *e)
{
	return str_mk(e->p, e->n_key);
}

static str_t meta_entry_json(const struct meta_entry *e)
{
	return str_mk(e->p + e->n_key + 1, e->n_json);
}

static struct meta_entry *meta_find(const struct meta *m, str_t key)
{
	for (uint32_t i = 0; i < m->n; i++) {
		if (str_eq(meta_entry_key(&m->entry[i]), key))
			return &m->entry[i];
	}
	return NULL;
}

static char *meta_entry_block(str_t key, str_t json)
{
	char *p = xmalloc(key.n + json.n + 2);
	if (key.n > 0)
		memcpy(p, key.p, key.n);
	p[key.n] = 0;
	if (json.n > 0)
		memcpy(p + key.n + 1, json.p, json.n);
	p[key.n + 1 + json.n] = 0;
	return p;
}

void meta_fini(struct meta *m)
{
	for (uint32_t i = 0; i < m->n; i++)
		free(m->entry[i].p);
	free(m->entry);
	*m = (struct meta){0};
}

void meta_add_json(struct meta *m, str_t key, str_t json)
{
	if (m->n == m->cap) {
		m->cap = m->cap == 0 ? 8 : m->cap * 2;
		m->entry = xreallocarray(m->entry, m->cap, sizeof *m->entry);
	}
	m->entry[m->n++] =
		(struct meta_entry){meta_entry_block(key, json), (uint32_t)key.n, (uint32_t)json.n};
}

void meta_set_json(struct meta *m, str_t key, str_t json)
{
	struct meta_entry *e = meta_find(m, key);
	if (e == NULL) {
		meta_add_json(m, key, json);
		return;
	}
	char *p = meta_entry_block(key, json); /* before the free: json may point into the old value */
	free(e->p);
	*e = (struct meta_entry){p, (uint32_t)key.n, (uint32_t)json.n};
}

void meta_set_str(struct meta *m, str_t key, str_t text)
{
	struct buf b = BUF_INIT;
	json_escape(&b, text);
	meta_set_json(m, key, buf_str(&b));
	buf_fini(&b);
}

bool meta_remove(struct meta *m, str_t key)
{
	struct meta_entry *e = meta_find(m, key);
	if (e == NULL)
		return false;
	free(e->p);
	size_t i = (size_t)(e - m->entry);
	memmove(e, e + 1, (m->n - i - 1) * sizeof *e);
	m->n--;
	return true;
}

bool meta_get_json(const struct meta *m, str_t key, str_t *json)
{
	const struct meta_entry *e = meta_find(m, key);
	if (e == NULL)
		return false;
	*json = meta_entry_json(e);
	return true;
}

bool meta_get_str(const struct meta *m, str_t key, struct buf *scratch, str_t *text)
{
	const struct meta_entry *e = meta_find(m, key);
	if (e == NULL)
		return false;
	str_t json = meta_entry_json(e);
	if (json.n < 2 || json.p[0] != '"')
		return false;
	if (memchr(json.p, '\\', json.n) == NULL) {
		*text = str_mk(json.p + 1, json.n - 2);
		return true;
	}
	json_t *v = json_loadb(json.p, json.n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
	bool is_ok = v != NULL && json_is_string(v);
	if (is_ok) {
		buf_clear(scratch);
		buf_add(scratch, json_string_value(v), json_string_length(v));
		*text = buf_str(scratch);
	}
	json_decref(v);
	return is_ok;
}

bool meta_at(const struct meta *m, uint32_t i, str_t *key, str_t *json)
{
	if (i >= m->n)
		return false;
	*key = meta_entry_key(&m->entry[i]);
	*json = meta_entry_json(&m->entry[i]);
	return true;
}

void meta_copy(struct meta *dst, const struct meta *src)
{
	for (uint32_t i = 0; i < src->n; i++)
		meta_set_json(dst, meta_entry_key(&src->entry[i]), meta_entry_json(&src->entry[i]));
}

void meta_write(const struct meta *m, struct json_out *j)
{
	json_obj_begin(j);
	for (uint32_t i = 0; i < m->n; i++) {
		json_key(j, meta_entry_key(&m->entry[i]));
		json_raw(j, meta_entry_json(&m->entry[i]));
	}
	json_obj_end(j);
}
