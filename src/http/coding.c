/* coding.c - content codings (RFC 9110 section 8.4): their names, what a request says about its body, and
 * which one a client wants for the answer (section 12.5.3). */
#include "http/coding.h"

#include "http/accept.h"

static const str_t http_coding_names[] = {
	[HTTP_CODING_IDENTITY] = {"identity", 8},
	[HTTP_CODING_GZIP] = {"gzip", 4},
	[HTTP_CODING_DEFLATE] = {"deflate", 7},
	[HTTP_CODING_ZSTD] = {"zstd", 4},
};

str_t http_coding_name(enum http_coding c)
{
	return c < HTTP_CODING_OTHER ? http_coding_names[c] : STR("an unknown coding");
}

static enum http_coding http_coding_find(str_t name)
{
	for (size_t i = 0; i < ARRAY_SIZE(http_coding_names); i++) {
		if (str_ieq(name, http_coding_names[i]))
			return (enum http_coding)i;
	}
	return str_ieq(name, STR("x-gzip")) ? HTTP_CODING_GZIP : HTTP_CODING_OTHER;
}

enum http_coding http_coding_add(enum http_coding before, str_t value)
{
	str_t rest = value, item;
	while (str_split(&rest, ',', &item)) {
		item = str_trim(item);
		enum http_coding c = http_coding_find(item);
		if (c == HTTP_CODING_IDENTITY || item.n == 0) /* nothing in a list is passed over */
			continue;
		if (before != HTTP_CODING_IDENTITY) /* one on top of another */
			return HTTP_CODING_OTHER;
		before = c;
	}
	return before;
}

void http_codings_add(struct http_codings *a, str_t value)
{
	str_t rest = value, item, param;
	while (str_split(&rest, ',', &item)) {
		str_t name = STR_NULL;
		int q = 1000;
		bool is_name = true;
		while (str_split(&item, ';', &param)) {
			param = str_trim(param);
			if (is_name)
				name = param;
			else if (str_istarts(param, STR("q=")))
				q = http_weight(str_skip(param, 2));
			is_name = false;
		}
		if (name.n == 0 || q < 0) /* malformed: as if it were not there */
			continue;
		a->is_given = true;
		if (str_eq(name, STR("*"))) {
			a->any = q + 1;
			continue;
		}
		enum http_coding c = http_coding_find(name);
		if (c != HTTP_CODING_OTHER)
			a->weight[c] = q + 1;
	}
}

static int http_codings_weight(const struct http_codings *a, enum http_coding c)
{
	if (a->weight[c] != 0)
		return a->weight[c] - 1;
	if (a->any != 0)
		return a->any - 1;
	return c == HTTP_CODING_IDENTITY ? 1 : 0; /* nobody has spoken against it */
}

enum http_coding http_codings_choose(const struct http_codings *a, bool *is_identity_refused)
{
	static const enum http_coding preference[] = {HTTP_CODING_ZSTD, HTTP_CODING_GZIP,
						      HTTP_CODING_DEFLATE};
	enum http_coding best = HTTP_CODING_IDENTITY;
	*is_identity_refused = false;
	if (!a->is_given)
		return best;
	int identity = http_codings_weight(a, HTTP_CODING_IDENTITY), best_q = 0;
	for (size_t i = 0; i < ARRAY_SIZE(preference); i++) {
		int q = http_codings_weight(a, preference[i]);
		if (q > best_q)
			best = preference[i], best_q = q;
	}
	if (best != HTTP_CODING_IDENTITY && a->weight[HTTP_CODING_IDENTITY] > 1 && identity > best_q)
		return HTTP_CODING_IDENTITY;
	*is_identity_refused = best != HTTP_CODING_IDENTITY && identity == 0;
	return best;
}
