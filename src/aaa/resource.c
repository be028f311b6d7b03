/* resource.c - names of resources. All candidates are beginnings of two texts, so they are made by cutting.
 * The path is taken apart into components first: what two spellings of a path have in common ("//a/", "/a")
 * is the same resource. */
#include "aaa/resource.h"

#include "base/err.h"
#include "base/text.h"

#define RESOURCE_ROOT "http_listener"

/* Adds each ancestor of prefix/component... that has at least one component, longest first. */
static void resource_add_family(struct arena *arena, str_t prefix, const str_t *component, size_t n,
				struct resource *out)
{
	size_t n_bytes = prefix.n, end[RESOURCE_COMPONENTS];
	for (size_t i = 0; i < n; i++)
		n_bytes += 1 + component[i].n;
	char *p = arena_alloc(arena, n_bytes + 1), *at = p;
	memcpy(at, prefix.p, prefix.n);
	at += prefix.n;
	for (size_t i = 0; i < n; i++) {
		*at++ = '/';
		memcpy(at, component[i].p, component[i].n);
		at += component[i].n;
		end[i] = (size_t)(at - p);
	}
	*at = 0;
	for (size_t i = n; i-- > 0;)
		out->candidate[out->n++] = str_mk(p, end[i]);
}

/* The path within its limit; not in the middle of a character. */
static str_t resource_cut(str_t path)
{
	if (path.n <= RESOURCE_PATH_BYTES)
		return path;
	size_t n = RESOURCE_PATH_BYTES;
	while (n > 0 && ((unsigned char)path.p[n] & 0xc0) == 0x80)
		n--;
	return str_head(path, n);
}

void resource_of_path(struct arena *arena, str_t listener, str_t path, struct resource *out)
{
	str_t component[RESOURCE_COMPONENTS], rest = resource_cut(path), c;
	size_t n = 0;
	while (n < RESOURCE_COMPONENTS && str_split(&rest, '/', &c)) {
		if (c.n != 0)
			component[n++] = c;
	}
	str_t own = str_of(arena_printf(arena, RESOURCE_ROOT "/" STR_FMT, STR_ARG(listener)));
	out->n = 0;
	resource_add_family(arena, own, component, n, out);
	out->candidate[out->n++] = own;
	resource_add_family(arena, STR(RESOURCE_ROOT "/*"), component, n, out);
	out->candidate[out->n++] = STR(RESOURCE_ROOT);
}

/* --- URLs --- */

/* The path of a URL, undecoded. */
static int resource_url_path(str_t url, str_t *out)
{
	str_t rest;
	if (str_istarts(url, STR("http://")))
		rest = str_skip(url, 7);
	else if (str_istarts(url, STR("https://")))
		rest = str_skip(url, 8);
	else if (url.n != 0 && url.p[0] == '/')
		rest = url;
	else
		return -1;
	size_t i = 0;
	while (i < rest.n && rest.p[i] != '/' && rest.p[i] != '?' && rest.p[i] != '#')
		i++;
	if (i == 0 && rest.p != url.p) /* no host */
		return -1;
	rest = str_skip(rest, i);
	for (i = 0; i < rest.n && rest.p[i] != '?' && rest.p[i] != '#';)
		i++;
	*out = str_head(rest, i);
	return 0;
}

/* RFC 3986 section 5.2.4, on components: "." goes, ".." takes the one before with it. */
static str_t resource_resolve_dots(struct arena *arena, str_t path)
{
	struct buf b = BUF_INIT;
	str_t rest = path, c;
	while (str_split(&rest, '/', &c)) {
		if (c.n == 0 || str_eq(c, STR(".")))
			continue;
		if (!str_eq(c, STR(".."))) {
			buf_add_c(&b, '/');
			buf_add_str(&b, c);
			continue;
		}
		while (b.n != 0 && b.p[b.n - 1] != '/')
			b.n--;
		b.n -= b.n != 0;
	}
	str_t out = arena_str(arena, buf_str(&b));
	buf_fini(&b);
	return out;
}

int resource_of_url(struct arena *arena, str_t listener, str_t url, struct resource *out)
{
	struct buf path = BUF_INIT;
	str_t raw;
	int rc = -1;
	if (resource_url_path(url, &raw) != 0 || !percent_decode(&path, raw) ||
	    (path.n != 0 && memchr(path.p, 0, path.n) != NULL) || !str_is_utf8(buf_str(&path))) {
		err_set(ERR_INVALID, "\"" STR_FMT "\" is not the URL of an HTTP resource",
			STR_ARG(str_head(url, 200)));
		goto out;
	}
	resource_of_path(arena, listener, resource_resolve_dots(arena, buf_str(&path)), out);
	rc = 0;
out:
	buf_fini(&path);
	return rc;
}
